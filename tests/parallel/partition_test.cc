// Every element belongs to one rank, and heads keep their groups, at any width.
#include "parallel/partition.h"

#include <gtest/gtest.h>

#include <utility>

namespace minimax::parallel {
namespace {

TEST(Split, CoversEverythingInOrderAndEvenly) {
  for (const int64_t n : {0, 1, 7, 8, 64, 200064}) {
    for (const int64_t size : {1, 2, 3, 5, 8}) {
      int64_t next = 0;
      for (int64_t rank = 0; rank < size; ++rank) {
        const Range part = split(n, size, rank);
        EXPECT_EQ(part.begin, next);
        EXPECT_LE(part.size(), (n + size - 1) / size);
        EXPECT_GE(part.size(), n / size);
        next = part.end;
        EXPECT_EQ(split_bounds(n, size)[static_cast<size_t>(rank)], part.begin);
      }
      EXPECT_EQ(next, n);
      EXPECT_EQ(split_bounds(n, size).back(), n);
    }
  }
}

TEST(SplitUnits, KeepsUnitsWhileThereAreEnough) {
  EXPECT_EQ(split_units(1536, 8, 1, 64), (Range{192, 384}));  // inside a block of 128
  EXPECT_EQ(split_units(1536, 5, 4, 64), (Range{1280, 1536}));
  EXPECT_EQ(split_units(128, 4, 1, 64), (Range{32, 64}));  // two units for four ranks: halves
  EXPECT_EQ(split_units(100, 3, 0, 64), (Range{0, 36}));   // a multiple of 4 alone
  EXPECT_EQ(split_units(7, 3, 0, 64), (Range{0, 3}));
}

// Heads of released models and of small ones, on up to 9 ranks.
TEST(SplitHeads, GivesEveryRankWholeGroupsOrAPartOfOne) {
  const std::pair<int64_t, int64_t> models[] = {{48, 8}, {64, 8}, {64, 4}, {6, 2}, {8, 2},
                                                {8, 4},  {12, 4}, {12, 3}, {5, 1}, {4, 2}};
  for (const auto& [heads, kv_heads] : models) {
    const int64_t group = heads / kv_heads;
    for (int64_t size = 1; size <= 9; ++size) {
      int64_t next = 0;
      int64_t counted = 0;
      for (int64_t rank = 0; rank < size; ++rank) {
        const HeadPart part = split_heads(heads, kv_heads, size, rank);
        const auto what = testing::Message()
                          << heads << "/" << kv_heads << ", rank " << rank << " of " << size;
        EXPECT_EQ(part.q.begin, next) << what;
        next = part.q.end;
        if (part.counts_kv) counted += part.kv.size();
        EXPECT_EQ(part.q.empty(), part.kv.empty()) << what;
        if (part.q.empty()) continue;
        EXPECT_EQ(part.q.size() % part.kv.size(), 0) << what;
        for (int64_t h = part.q.begin; h < part.q.end; ++h) {
          const int64_t local = (h - part.q.begin) / (part.q.size() / part.kv.size());
          EXPECT_EQ(h / group, part.kv.begin + local) << what;
        }
      }
      EXPECT_EQ(next, heads) << heads << "/" << kv_heads << " on " << size;
      EXPECT_EQ(counted, kv_heads) << heads << "/" << kv_heads << " on " << size;
    }
  }
}

TEST(SplitHeads, RepeatsKvHeadsOnceRanksOutnumberThem) {
  EXPECT_EQ(split_heads(64, 4, 8, 3).q, (Range{24, 32}));
  EXPECT_EQ(split_heads(64, 4, 8, 3).kv, (Range{1, 2}));
  EXPECT_FALSE(split_heads(64, 4, 8, 3).counts_kv);
  EXPECT_TRUE(split_heads(64, 4, 8, 2).counts_kv);
  EXPECT_EQ(split_heads(48, 8, 3, 2).kv, (Range{6, 8}));
  EXPECT_TRUE(split_heads(5, 1, 8, 7).q.empty());
}

TEST(Grid, PutsExpertRangesInRows) {
  const Grid grid{5, 2, 4};
  EXPECT_EQ(grid.size(), 8);
  EXPECT_EQ(grid.tensor_rank(), 1);
  EXPECT_EQ(grid.expert_rank(), 2);
}

}  // namespace
}  // namespace minimax::parallel
