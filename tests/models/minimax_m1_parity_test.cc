// The M1 model against transformers' MiniMaxForCausalLM and the released modeling code, both run in float32
// on small random models (tests/models/make_m1_parity.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu_backend.h"
#include "engine/generate.h"
#include "formats/checkpoint.h"
#include "models/model.h"
#include "ops/backend.h"

namespace minimax {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> fixtures() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(fs::path(MINIMAX_SOURCE_DIR) / "tests/models/parity")) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

// A fixture's model on a backend, and what the other implementation says.
struct Parity {
  formats::Checkpoint checkpoint;
  formats::Checkpoint expected;
  std::unique_ptr<models::Model> model;
  std::vector<int32_t> ids;
  Tensor logits;

  Parity(const fs::path& folder, DType dtype)
      : checkpoint(formats::Checkpoint::open(folder)), expected(open_expected(folder)) {
    formats::Progress silent;
    model = models::load_model(formats::read_config(folder), {dtype}, checkpoint, silent);
    const Tensor input = expected.tensor("input_ids");
    ids.assign(input.data<int32_t>(), input.data<int32_t>() + input.numel());
    logits = expected.tensor("logits");
  }

  // The expected tensors are read by the same reader, from a folder of their own.
  static formats::Checkpoint open_expected(const fs::path& folder) {
    const fs::path copy = fs::temp_directory_path() / ("minimax_parity_" + folder.filename().string());
    fs::create_directories(copy);
    fs::copy_file(folder / "config.json", copy / "config.json", fs::copy_options::overwrite_existing);
    fs::copy_file(folder / "expected.safetensors", copy / "model.safetensors",
                  fs::copy_options::overwrite_existing);
    return formats::Checkpoint::open(copy);
  }

  // ||logits - expected|| / ||expected|| over the first `count` tokens appended in chunks of `chunk`.
  double error(ops::Backend& backend, int64_t count, int64_t chunk) {
    engine::Session session(*model, backend, {static_cast<int64_t>(ids.size()), chunk, chunk});
    double difference = 0;
    double norm = 0;
    session.append_visiting(std::span(ids).first(static_cast<size_t>(count)),
                            [&](int64_t first, const Tensor& rows) {
                              for (int64_t r = 0; r < rows.dim(0); ++r) {
                                for (int64_t v = 0; v < rows.dim(1); ++v) {
                                  const double want = logits.row<float>(first + r)[v];
                                  const double got = rows.row<float>(r)[v];
                                  difference += (got - want) * (got - want);
                                  norm += want * want;
                                }
                              }
                            });
    return std::sqrt(difference / norm);
  }

  std::vector<int32_t> greedy(ops::Backend& backend, int64_t chunk) {
    const int32_t prompt = expected.tensor("greedy_prompt").data<int32_t>()[0];
    engine::Session session(*model, backend, {static_cast<int64_t>(ids.size()), chunk, 1});
    engine::GenerationRequest request;
    request.prompt.assign(ids.begin(), ids.begin() + prompt);
    request.sampling.temperature = 0;
    request.max_tokens = expected.tensor("greedy").numel();
    return engine::generate(session, *model, backend, request,
                            [](const engine::SampledToken&) { return true; })
        .token_ids;
  }

  std::vector<int32_t> expected_greedy() {
    const Tensor greedy = expected.tensor("greedy");
    return {greedy.data<int32_t>(), greedy.data<int32_t>() + greedy.numel()};
  }
};

constexpr int64_t kLengths[] = {1, 255, 256, 257, 700};
constexpr int64_t kChunks[] = {1024, 256, 101};

// The largest error of every fixture over all lengths and chunkings.
void expect_agreement(DType dtype, double tolerance) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const fs::path& folder : fixtures()) {
    Parity parity(folder, dtype);
    double worst = 0;
    for (const int64_t length : kLengths) {
      for (const int64_t chunk : kChunks) worst = std::max(worst, parity.error(*backend, length, chunk));
    }
    std::printf("%-40s %s relative error %.1e\n", folder.filename().c_str(), name(dtype).data(), worst);
    EXPECT_LE(worst, tolerance) << folder;
  }
}

TEST(MiniMaxM1Parity, Float32LogitsAgreeTo1e4AtEveryLengthAndChunking) {
  expect_agreement(DType::kF32, 1e-4);
}

TEST(MiniMaxM1Parity, BFloat16LogitsAgreeTo2e2) { expect_agreement(DType::kBF16, 2e-2); }

TEST(MiniMaxM1Parity, GreedyTokensAreEqualInFloat32) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const fs::path& folder : fixtures()) {
    Parity parity(folder, DType::kF32);
    EXPECT_EQ(parity.greedy(*backend, 1024), parity.expected_greedy()) << folder;
    EXPECT_EQ(parity.greedy(*backend, 37), parity.expected_greedy()) << folder;
  }
}

TEST(MiniMaxM1Parity, TheReferenceBackendAgreesToo) {
  const auto backend = ops::make_reference_backend();
  for (const fs::path& folder : fixtures()) {
    EXPECT_LE(Parity(folder, DType::kF32).error(*backend, 257, 100), 1e-4) << folder;
  }
}

}  // namespace
}  // namespace minimax
