// A small random model of a fixture folder, and what another implementation says of it.
//
// A folder holds the checkpoint and expected.safetensors: `input_ids` [n], `logits` [rows, vocab] float32 of
// the tokens `rows` (all, where there is no such tensor), and `greedy`, the greedy continuation of the first
// `greedy_prompt` tokens.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "engine/generate.h"
#include "formats/checkpoint.h"
#include "models/model.h"
#include "ops/backend.h"
#include "tests/cuda_devices.h"
#include "tests/formats/temp_dir.h"

namespace minimax::testing {

inline std::vector<std::filesystem::path> parity_fixtures(const std::string& folder) {
  std::vector<std::filesystem::path> folders;
  const auto root = std::filesystem::path(MINIMAX_SOURCE_DIR) / "tests/models" / folder;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

class Parity {
 public:
  // The same model from another checkpoint than the fixture's own.
  Parity(const std::filesystem::path& folder, const std::filesystem::path& weights,
         const models::ComputeOptions& options)
      : name(folder.filename().string()),
        checkpoint(formats::Checkpoint::open(weights)),
        expected(open_expected(folder, expected_folder)) {
    load(folder, options);
  }
  Parity(const std::filesystem::path& folder, const models::ComputeOptions& options)
      : name(folder.filename().string()),
        checkpoint(formats::Checkpoint::open(folder)),
        expected(open_expected(folder, expected_folder)) {
    load(folder, options);
  }

  std::string name;
  formats::Checkpoint checkpoint;
  TempDir expected_folder;  // of this object alone: tests of one fixture may run side by side
  formats::Checkpoint expected;
  std::unique_ptr<models::Model> model;
  std::vector<int32_t> ids;
  Tensor logits;

  std::vector<int32_t> integers(const char* tensor_name) {
    const Tensor tensor = expected.tensor(tensor_name);
    return {tensor.data<int32_t>(), tensor.data<int32_t>() + tensor.numel()};
  }

  // ||logits - expected|| / ||expected|| over the first `count` tokens appended in chunks of `chunk`.
  double error(ops::Backend& backend, int64_t count, int64_t chunk, ops::Tracer* tracer = nullptr) {
    engine::Session session(*model, backend, {static_cast<int64_t>(ids.size()), chunk, chunk});
    session.set_tracer(tracer);
    double difference = 0;
    double norm = 0;
    session.append_visiting(std::span(ids).first(static_cast<size_t>(count)),
                            [&](int64_t first, const Tensor& rows) {
                              for (int64_t r = 0; r < rows.dim(0); ++r) {
                                const int64_t row = row_of_token_[static_cast<size_t>(first + r)];
                                if (row < 0) continue;
                                for (int64_t v = 0; v < rows.dim(1); ++v) {
                                  const double want = logits.row<float>(row)[v];
                                  const double got = rows.row<float>(r)[v];
                                  difference += (got - want) * (got - want);
                                  norm += want * want;
                                }
                              }
                            });
    return std::sqrt(difference / norm);
  }

  // The largest error over all lengths and chunkings, which it prints.
  double worst_error(ops::Backend& backend, std::span<const int64_t> lengths,
                     std::span<const int64_t> chunks) {
    double worst = 0;
    for (const int64_t length : lengths) {
      for (const int64_t chunk : chunks) worst = std::max(worst, error(backend, length, chunk));
    }
    std::printf("%-40s %s relative error %.1e\n", name.c_str(),
                minimax::name(model->activation_dtype()).data(), worst);
    return worst;
  }

  std::vector<int32_t> greedy(ops::Backend& backend, int64_t chunk) {
    engine::Session session(*model, backend, {static_cast<int64_t>(ids.size()), chunk, 1});
    engine::GenerationRequest request;
    request.prompt.assign(ids.begin(), ids.begin() + integers("greedy_prompt").front());
    request.sampling.temperature = 0;
    request.max_tokens = expected.tensor("greedy").numel();
    return engine::generate(session, *model, backend, request,
                            [](const engine::SampledToken&) { return true; })
        .token_ids;
  }

 private:
  void load(const std::filesystem::path& folder, const models::ComputeOptions& options) {
    formats::Progress silent;
    model = models::load_model(formats::read_config(folder), options, checkpoint, silent);
    ids = integers("input_ids");
    logits = expected.tensor("logits");
    row_of_token_.assign(ids.size(), -1);
    for (int64_t r = 0; r < logits.dim(0); ++r) row_of_token_[token_of_row(r)] = r;
  }

  // The expected tensors are read by the same reader, from a folder of their own.
  static formats::Checkpoint open_expected(const std::filesystem::path& folder, const TempDir& copy) {
    std::filesystem::copy_file(folder / "config.json", copy.path() / "config.json");
    std::filesystem::copy_file(folder / "expected.safetensors", copy.path() / "model.safetensors");
    return formats::Checkpoint::open(copy.path());
  }

  size_t token_of_row(int64_t row) {
    if (expected.find("rows") == nullptr) return static_cast<size_t>(row);
    return static_cast<size_t>(expected.tensor("rows").data<int32_t>()[row]);
  }

  std::vector<int64_t> row_of_token_;  // [ids], -1: no logits kept
};

// What every family's parity test asks of all fixtures in `folder`.

// The CPU's backend, and the GPU's with every kind of kernels that it runs.
inline std::vector<std::unique_ptr<ops::Backend>> fast_backends(ThreadPool& pool) {
  std::vector<std::unique_ptr<ops::Backend>> backends;
  backends.push_back(cpu::make_cpu_backend(pool));
  for (const int architecture : cuda_architectures()) backends.push_back(make_cuda_backend(architecture));
  return backends;
}

inline void expect_agreement(const std::string& folder, const models::ComputeOptions& options,
                             std::span<const int64_t> lengths, std::span<const int64_t> chunks,
                             double tolerance) {
  ThreadPool pool(2);
  for (const auto& backend : fast_backends(pool)) {
    models::ComputeOptions here = options;
    here.backend = backend.get();
    for (const auto& fixture : parity_fixtures(folder)) {
      EXPECT_LE(Parity(fixture, here).worst_error(*backend, lengths, chunks), tolerance)
          << backend->name() << ", " << fixture;
    }
  }
}

// Greedy tokens in float32, with the prompt in one chunk of `chunk` tokens and in many small ones.
inline void expect_equal_greedy_tokens(const std::string& folder, int64_t chunk) {
  ThreadPool pool(2);
  for (const auto& backend : fast_backends(pool)) {
    for (const auto& fixture : parity_fixtures(folder)) {
      models::ComputeOptions options = {DType::kF32};
      options.backend = backend.get();
      Parity parity(fixture, options);
      EXPECT_EQ(parity.greedy(*backend, chunk), parity.integers("greedy"))
          << backend->name() << ", " << fixture;
      EXPECT_EQ(parity.greedy(*backend, 37), parity.integers("greedy")) << backend->name() << ", " << fixture;
    }
  }
}

inline void expect_reference_agreement(const std::string& folder, int64_t count) {
  const auto backend = ops::make_reference_backend();
  for (const auto& fixture : parity_fixtures(folder)) {
    EXPECT_LE(Parity(fixture, {DType::kF32}).error(*backend, count, 100), 1e-4) << fixture;
  }
}

// Caches in e4m3 round every key and value by 2^-4 at most: the logits stay near, and no chunking changes
// them.
inline void expect_near_with_fp8_caches(const std::string& folder) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  const models::ComputeOptions options = {DType::kF32, DType::kF8E4M3, DType::kF8E4M3};
  for (const auto& fixture : parity_fixtures(folder)) {
    const double whole = Parity(fixture, options).error(*backend, 1100, 2048);
    std::printf("%-40s FP8 caches relative error %.1e\n", fixture.filename().c_str(), whole);
    EXPECT_LE(whole, 0.1) << fixture;
    EXPECT_NEAR(Parity(fixture, options).error(*backend, 1100, 101), whole, 0.02 * whole + 1e-4) << fixture;
  }
}

}  // namespace minimax::testing
