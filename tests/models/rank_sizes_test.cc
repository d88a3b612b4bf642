// The bytes that ranks read and hold.
#include "tests/models/ranks.h"
#include "tests/models/released_configs.h"

namespace minimax {
namespace {

using nlohmann::json;
using testing::RankGrid;
using testing::RankResult;
using testing::released_m2;
using testing::released_m3;

constexpr RankGrid kGrids[] = {{2, 1}, {3, 1}, {8, 1}, {1, 3}, {1, 8}, {2, 2}, {4, 2}};

std::vector<int32_t> input_ids(const std::filesystem::path& folder) {
  return testing::Parity(folder, {DType::kF32}).ids;
}

// How often ranks together hold a tensor of a checkpoint without scales.
double copies(const std::string& name, const json& text_config, int64_t ranks) {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string::npos; };
  const auto config_value = [&](const char* field) { return text_config.at(field).get<int64_t>(); };
  const bool is_flat_norm =
      name.ends_with("self_attn.norm.weight") ||
      (has("q_norm") && !has("index") && !text_config.contains("sparse_attention_config"));
  if (is_flat_norm) return 1;
  const bool is_repeated = has("layernorm") || has("norm.weight") || has(".gate.weight") || has("e_score") ||
                           has("coefficient") || has("index_k_proj");
  const bool is_flat_k_norm = has("k_norm") && !text_config.contains("sparse_attention_config");
  if (is_repeated && !is_flat_k_norm) return static_cast<double>(ranks);
  if (!is_flat_k_norm && !has(".k_proj") && !has(".v_proj") && !has("index_q_proj")) return 1;
  const int64_t kv_heads = config_value("num_key_value_heads");
  int64_t held = 0;
  for (int64_t r = 0; r < ranks; ++r)
    held += parallel::split_heads(config_value("num_attention_heads"), kv_heads, ranks, r).kv.size();
  return static_cast<double>(held) / static_cast<double>(kv_heads);
}

// Tensors of these fixtures that no text model has: vision, and MTP, some of it a layer beyond the model's.
bool is_left_out(const std::string& name, const json& text_config) {
  for (const char* part : {"vision", "multi_modal", "patch_merge", "mtp"}) {
    if (name.find(part) != std::string::npos) return true;
  }
  return name.find(fmt::format(".layers.{}.", text_config.at("num_hidden_layers").get<int64_t>())) !=
         std::string::npos;
}

// The bytes that ranks read add up to the checkpoint's and the copies that the sharding rules name.
TEST(RankSizes, ReadTheCheckpointOnceAndTheNamedReplicas) {
  for (const auto& [folder, name] : {std::pair{"parity", "released_heads12"},
                                     {"parity", "released_heads12_shared_tied"},
                                     {"parity_m2", "released_heads8"},
                                     {"parity_m3", "released_top3"}}) {
    const auto fixture = std::filesystem::path(MINIMAX_SOURCE_DIR) / "tests/models" / folder / name;
    const json config = formats::read_config(fixture);
    const json& text = config.contains("text_config") ? config.at("text_config") : config;
    const formats::Checkpoint checkpoint = formats::Checkpoint::open(fixture);
    for (const RankGrid& grid : kGrids) {
      double expected = 0;
      for (const auto& info : checkpoint.tensors()) {
        if (!is_left_out(info.name, text))
          expected += copies(info.name, text, grid.size()) * static_cast<double>(info.size_bytes());
      }
      int64_t read = 0;
      for (const RankResult& rank :
           testing::run_on_ranks(fixture, grid, {DType::kF32}, input_ids(fixture), {2, 2, 0}))
        read += rank.loaded_bytes;
      EXPECT_EQ(read, std::llround(expected))
          << fixture << " on " << grid.tensor_size << " x " << grid.expert_size;
    }
  }
}

// Of every format: what a rank reads is what rank_sizes says, and only what the rules repeat is there twice.
TEST(RankSizes, AreWhatRanksRead) {
  for (const char* folder : {"parity", "parity_m2", "parity_m3"}) {
    for (const auto& fixture : testing::parity_fixtures(folder)) {
      const json config = formats::read_config(fixture);
      const formats::Checkpoint checkpoint = formats::Checkpoint::open(fixture);
      for (const RankGrid& grid : kGrids) {
        models::ComputeOptions options{DType::kF32};
        options.parallel.grid = {0, grid.tensor_size, grid.expert_size};
        const models::RankSizes sizes = models::rank_sizes(config, &checkpoint, options);
        const auto ranks = testing::run_on_ranks(fixture, grid, options, input_ids(fixture), {2, 2, 0});
        int64_t total = 0;
        for (size_t r = 0; r < ranks.size(); ++r) {
          EXPECT_EQ(ranks[r].loaded_bytes, sizes.ranks[r].weight_bytes) << fixture << " rank " << r;
          total += ranks[r].loaded_bytes;
        }
        for (const auto& [name, bytes] : sizes.repeated) {
          EXPECT_GT(bytes, 0) << name;
          const bool is_named =
              name.find("norm") != std::string::npos || name.ends_with(".gate.weight") ||
              name.ends_with("correction_bias") || name.ends_with("coefficient.weight") ||
              name.find(".k_proj") != std::string::npos || name.find(".v_proj") != std::string::npos ||
              name.find("index") != std::string::npos || name.find("_scale") != std::string::npos;
          EXPECT_TRUE(is_named) << fixture << ": " << name << " is held more than once";
          total -= bytes;
        }
        EXPECT_EQ(total, sizes.stored_bytes) << fixture;
      }
    }
  }
}

// Released widths, of a few layers, on 1 to 8 ranks: no rank holds far more than its share.
TEST(RankSizes, ReleasedModelsCanBeCutAtAnyWidth) {
  const auto m1 = std::filesystem::path(MINIMAX_SOURCE_DIR) / "tests/fixtures/minimax-m1";
  for (const json& config :
       {models::with_first_layers(formats::read_config(m1), 8), models::with_first_layers(released_m2(), 2),
        models::with_first_layers(released_m3(), 6)}) {
    for (int64_t size = 1; size <= 8; ++size) {
      for (const int64_t expert_size : {int64_t{1}, size}) {
        models::ComputeOptions options;
        options.parallel.grid = {0, size / expert_size, expert_size};
        const models::RankSizes sizes = models::rank_sizes(config, nullptr, options);
        for (const models::RankSizes::Rank& rank : sizes.ranks) {
          EXPECT_LT(static_cast<double>(rank.weight_bytes),
                    1.25 * static_cast<double>(sizes.stored_bytes) / static_cast<double>(size));
        }
      }
    }
  }
}

}  // namespace
}  // namespace minimax
