// Several ranks against one, for every family, spelling and weight format: tensor parallel, expert parallel
// and both, at widths that divide heads, vocabulary and blocks of scales and at widths that do not.
#include "tests/models/ranks.h"

#include <map>

#include "tests/formats/temp_dir.h"
#include "tests/models/released_configs.h"
#include "tests/models/twin.h"

namespace minimax {
namespace {

using nlohmann::json;
using testing::RankGrid;
using testing::RankResult;
using testing::released_m2;
using testing::released_m3;
using testing::Schedule;

constexpr RankGrid kGrids[] = {{2, 1}, {3, 1}, {4, 1}, {8, 1}, {1, 2}, {1, 3},
                               {1, 4}, {1, 8}, {2, 2}, {3, 2}, {2, 4}, {4, 2}};
// Blocks of 128 keys are chosen among from 257 tokens on.
constexpr Schedule kSchedule = {300, 101, 5};

std::vector<int32_t> input_ids(const std::filesystem::path& folder) {
  return testing::Parity(folder, {DType::kF32}).ids;
}

// RETURNS: the worst error over all grids.
double worst_error(const json& config, const testing::OpenWeights& open, std::span<const int32_t> ids,
                   const Schedule& schedule, std::span<const RankGrid> grids,
                   const models::ComputeOptions& options = {DType::kF32}) {
  const auto one = testing::run_on_ranks(config, open, {}, options, ids, schedule);
  double worst = 0;
  for (const RankGrid& grid : grids) {
    const auto all = testing::run_on_ranks(config, open, grid, options, ids, schedule);
    worst = std::max(worst, testing::relative_error(all.front().logits, one.front().logits));
    for (const RankResult& rank : all) EXPECT_EQ(rank.logits, all.front().logits);
  }
  return worst;
}

double worst_error(const std::filesystem::path& config, const std::filesystem::path& weights) {
  const auto open = [&] { return std::make_unique<formats::Checkpoint>(formats::Checkpoint::open(weights)); };
  return worst_error(formats::read_config(config), open, input_ids(config), kSchedule, kGrids);
}

void expect_one_ranks_logits(const std::string& folder) {
  for (const auto& fixture : testing::parity_fixtures(folder)) {
    const double error = worst_error(fixture, fixture);
    EXPECT_LE(error, 1e-4) << fixture;
    std::printf("%-40s %zu grids, relative error %.1e\n", fixture.filename().c_str(), std::size(kGrids),
                error);
  }
}

TEST(Ranks, GiveOneRanksLogitsForM1) { expect_one_ranks_logits("parity"); }
TEST(Ranks, GiveOneRanksLogitsForM2) { expect_one_ranks_logits("parity_m2"); }
TEST(Ranks, GiveOneRanksLogitsForM3) { expect_one_ranks_logits("parity_m3"); }

TEST(Ranks, GiveOneRanksLogitsForF16AndF32Weights) {
  for (const char* folder : {"parity", "parity_m2", "parity_m3"}) {
    const auto fixture = testing::parity_fixtures(folder).back();
    const testing::TempDir f16_twin;
    testing::write_twin<f16>(fixture, f16_twin.path(), DType::kF16);
    EXPECT_LE(worst_error(fixture, f16_twin.path()), 1e-4) << fixture;
    const testing::TempDir f32_twin;
    testing::write_twin<float>(fixture, f32_twin.path(), DType::kF32);
    EXPECT_LE(worst_error(fixture, f32_twin.path()), 1e-4) << fixture;
  }
}

// Widths of released models in little: heads of 128, experts 384 wide in blocks of 128 or groups of 32, so
// that two and more ranks cut blocks at multiples of 64 and the products for whole vectors run.
json wide_config(const json& quantization) {
  json config = released_m2();
  config.update({{"num_hidden_layers", 2},
                 {"attn_type_list", {1, 1}},
                 {"hidden_size", 256},
                 {"num_attention_heads", 6},
                 {"num_key_value_heads", 2},
                 {"intermediate_size", 384},
                 {"num_local_experts", 8},
                 {"num_experts_per_tok", 3},
                 {"vocab_size", 500},
                 {"quantization_config", quantization}});
  return config;
}

TEST(Ranks, CutBlocksOfReleasedSize) {
  constexpr RankGrid kWide[] = {{2, 1}, {3, 1}, {5, 1}, {4, 2}};
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 60; ++i) ids.push_back(i * 7 % 500);
  for (const json& quantization : {json{{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}},
                                   json{{"quant_method", "fp8"}}, json{{"quant_method", "mxfp8"}}}) {
    const json config = wide_config(quantization);
    const auto open = [&] { return models::make_dummy_weights(config, 3); };
    EXPECT_LE(worst_error(config, open, ids, {50, 50, 6}, kWide), 1e-4) << quantization;
    // In BF16 the partial sums are rounded apart; the result stays as near as one rank's.
    EXPECT_LE(worst_error(config, open, ids, {50, 50, 6}, kWide, {DType::kBF16}), 2e-2) << quantization;
  }
}

class OpCounter : public ops::Tracer {
 public:
  void on_op(const ops::OpRecord& record) override { ++counts[std::string(record.op)]; }
  std::map<std::string, int64_t> counts;
};

std::map<std::string, int64_t> counts_of_one_step(const char* folder, const char* fixture,
                                                  const RankGrid& grid) {
  const auto path = std::filesystem::path(MINIMAX_SOURCE_DIR) / "tests/models" / folder / fixture;
  OpCounter counter;
  testing::run_on_ranks(path, grid, {DType::kF32}, input_ids(path), {8, 8, 0}, &counter);
  return counter.counts;
}

// One sum an attention output, one a feed-forward output, one a norm over a width that ranks share, and that
// of the embedding.
TEST(Ranks, AddUpNoMoreOftenThanNeeded) {
  const auto m1 = counts_of_one_step("parity", "released_heads8", {2, 1});
  EXPECT_EQ(m1.at("all_reduce_sum"), 1 + 2 * 4 + m1.at("lightning_prefill"));
  const auto m2 = counts_of_one_step("parity_m2", "released_heads8", {2, 2});
  EXPECT_EQ(m2.at("all_reduce_sum"), 1 + 3 * 3);
  const auto m3 = counts_of_one_step("parity_m3", "released_top3", {1, 3});
  EXPECT_EQ(m3.at("all_reduce_sum"), 1 + 2 * 4);
  for (const auto& counts : {m1, m2, m3}) EXPECT_EQ(counts.at("all_gather_columns"), 1);
  const auto one = counts_of_one_step("parity_m2", "released_heads8", {1, 1});
  EXPECT_FALSE(one.contains("all_reduce_sum") || one.contains("all_gather_columns"));
  EXPECT_FALSE(one.contains("sum_of_squares"));
}

TEST(Ranks, RefuseWhatCannotBeCut) {
  const auto plan = [](const RankGrid& grid, json config) {
    models::ComputeOptions options;
    options.parallel.grid = {0, grid.tensor_size, grid.expert_size};
    models::plan_model(config, options);
  };
  json narrow = released_m2();
  narrow["intermediate_size"] = 6;
  EXPECT_NO_THROW(plan({6, 1}, narrow));
  EXPECT_NO_THROW(plan({1, 300}, released_m2())) << "more ranks than experts: some hold none";
  try {
    plan({8, 1}, narrow);
    FAIL() << "8 ranks of 6 columns";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("6 columns of an expert cannot be cut over 8 ranks"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace minimax
