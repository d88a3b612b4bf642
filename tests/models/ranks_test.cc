// Several ranks against one, for every family, spelling and weight format: tensor parallel, expert parallel
// and both, at widths that divide heads, vocabulary and blocks of scales and at widths that do not.
#include "tests/models/ranks.h"

namespace minimax {
namespace {

using testing::RankGrid;
using testing::RankResult;
using testing::Schedule;

constexpr RankGrid kGrids[] = {{2, 1}, {3, 1}, {4, 1}, {8, 1}, {1, 2}, {1, 3},
                               {1, 4}, {1, 8}, {2, 2}, {3, 2}, {2, 4}, {4, 2}};
// Blocks of 128 keys are chosen among from 257 tokens on.
constexpr Schedule kSchedule = {300, 101, 5};

std::vector<int32_t> input_ids(const std::filesystem::path& folder) {
  return testing::Parity(folder, {DType::kF32}).ids;
}

void expect_one_ranks_logits(const std::string& folder) {
  for (const auto& fixture : testing::parity_fixtures(folder)) {
    const std::vector<int32_t> ids = input_ids(fixture);
    const auto one = testing::run_on_ranks(fixture, {}, {DType::kF32}, ids, kSchedule);
    double worst = 0;
    for (const RankGrid& grid : kGrids) {
      const std::vector<RankResult> all = testing::run_on_ranks(fixture, grid, {DType::kF32}, ids, kSchedule);
      const double error = testing::relative_error(all.front().logits, one.front().logits);
      EXPECT_LE(error, 1e-4) << fixture << " on " << grid.tensor_size << " x " << grid.expert_size;
      for (const RankResult& rank : all) EXPECT_EQ(rank.logits, all.front().logits) << fixture;
      worst = std::max(worst, error);
    }
    std::printf("%-40s %zu grids, relative error %.1e\n", fixture.filename().c_str(), std::size(kGrids),
                worst);
  }
}

TEST(Ranks, GiveOneRanksLogitsForM1) { expect_one_ranks_logits("parity"); }
TEST(Ranks, GiveOneRanksLogitsForM2) { expect_one_ranks_logits("parity_m2"); }
TEST(Ranks, GiveOneRanksLogitsForM3) { expect_one_ranks_logits("parity_m3"); }

}  // namespace
}  // namespace minimax
