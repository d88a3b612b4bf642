// Runs a small model of a fixture folder on several in-process ranks.
#pragma once

#include <cmath>
#include <functional>
#include <vector>

#include "parallel/in_process.h"
#include "tests/models/parity.h"

namespace minimax::testing {

// Tensor-parallel width and number of expert ranges.
struct RankGrid {
  int64_t tensor_size = 1;
  int64_t expert_size = 1;

  int64_t size() const { return tensor_size * expert_size; }
};

// Tokens to run: a prompt in chunks, then decode steps.
struct Schedule {
  int64_t prompt = 0;
  int64_t chunk = 0;
  int64_t decoded = 0;
};

// What one rank made of a model.
struct RankResult {
  std::vector<float> logits;  // of every token
  int64_t loaded_bytes = 0;
};

inline std::vector<float> logits_of(const models::Model& model, ops::Backend& backend,
                                    std::span<const int32_t> ids, const Schedule& schedule,
                                    ops::Tracer* tracer = nullptr) {
  engine::Session session(model, backend,
                          {schedule.prompt + schedule.decoded, schedule.chunk, schedule.chunk});
  session.set_tracer(tracer);
  std::vector<float> all;
  const auto prompt = static_cast<size_t>(schedule.prompt);
  session.append_visiting(ids.first(prompt), [&](int64_t, const Tensor& rows) {
    all.insert(all.end(), rows.data<float>(), rows.data<float>() + rows.numel());
  });
  for (const int32_t id : ids.subspan(prompt, static_cast<size_t>(schedule.decoded))) {
    const std::span<const float> row = session.append({&id, 1});
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

// Where a rank gets its weights.
using OpenWeights = std::function<std::unique_ptr<formats::WeightSource>()>;

// Every rank opens the weights itself, as processes would. `tracer` sees the steps of rank 0.
inline std::vector<RankResult> run_on_ranks(const nlohmann::json& config, const OpenWeights& open,
                                            const RankGrid& grid, const models::ComputeOptions& options,
                                            std::span<const int32_t> ids, const Schedule& schedule,
                                            ops::Tracer* tracer = nullptr) {
  std::vector<RankResult> results(static_cast<size_t>(grid.size()));
  parallel::run_ranks(grid.size(), [&](parallel::Comm& comm) {
    models::ComputeOptions mine = options;
    mine.parallel = {{comm.rank(), grid.tensor_size, grid.expert_size}, &comm};
    const auto weights = open();
    formats::Progress silent;
    const auto model = models::load_model(config, mine, *weights, silent);
    ThreadPool pool(1);
    const auto backend = cpu::make_cpu_backend(pool);
    results[static_cast<size_t>(comm.rank())] = {
        logits_of(*model, *backend, ids, schedule, comm.rank() == 0 ? tracer : nullptr),
        weights->loaded_bytes()};
  });
  return results;
}

inline std::vector<RankResult> run_on_ranks(const std::filesystem::path& folder, const RankGrid& grid,
                                            const models::ComputeOptions& options,
                                            std::span<const int32_t> ids, const Schedule& schedule,
                                            ops::Tracer* tracer = nullptr) {
  const auto open = [&] { return std::make_unique<formats::Checkpoint>(formats::Checkpoint::open(folder)); };
  return run_on_ranks(formats::read_config(folder), open, grid, options, ids, schedule, tracer);
}

// ||a - b|| / ||b||
inline double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace minimax::testing
