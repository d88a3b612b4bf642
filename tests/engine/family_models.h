// A small model of each family, with random weights, for tests of the engine.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "formats/checkpoint.h"
#include "models/model.h"

namespace minimax::testing {

struct LoadedModel {
  LoadedModel(const std::filesystem::path& folder, const models::ComputeOptions& options, int threads = 2)
      : checkpoint(formats::Checkpoint::open(folder)), pool(threads) {
    formats::Progress silent;
    model = models::load_model(formats::read_config(folder), options, checkpoint, silent);
    backend = cpu::make_cpu_backend(pool);
  }

  formats::Checkpoint checkpoint;
  std::unique_ptr<models::Model> model;
  ThreadPool pool;
  std::unique_ptr<ops::Backend> backend;
};

// Made-up ids, others for each seed.
inline std::vector<int32_t> prompt_of(int64_t length, int32_t seed, int64_t vocab) {
  std::vector<int32_t> ids;
  uint32_t x = static_cast<uint32_t>(seed) * 2654435761U + 1;
  for (int64_t i = 0; i < length; ++i) {
    x = x * 1664525U + 1013904223U;
    ids.push_back(static_cast<int32_t>((x >> 8U) % static_cast<uint32_t>(vocab)));
  }
  return ids;
}

struct Family {
  std::string name;
  std::string folder;  // below the repository
};

// Linear attention with states; block-wise FP8 weights; block-sparse attention with MXFP8 weights.
inline std::vector<Family> small_families() {
  return {{"m1", "tests/models/parity/released_heads8"},
          {"m2", "tests/models/parity_m2/fp8_block"},
          {"m3", "tests/models/parity_m3/mxfp8_top2"}};
}

inline std::filesystem::path path_of(const Family& family) {
  return std::filesystem::path(MINIMAX_SOURCE_DIR) / family.folder;
}

}  // namespace minimax::testing
