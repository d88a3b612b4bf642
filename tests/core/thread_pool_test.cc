#include "core/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace minimax {
namespace {

TEST(ThreadPoolTest, TheCallerCountsAsAThread) {
  EXPECT_EQ(ThreadPool(1).num_threads(), 1);
  EXPECT_EQ(ThreadPool(5).num_threads(), 5);
  EXPECT_EQ(ThreadPool().num_threads(), available_processors());
  EXPECT_GE(available_processors(), 1);
}

TEST(ThreadPoolTest, EveryIndexComesOnce) {
  for (const int num_threads : {1, 2, 4, 9}) {
    ThreadPool pool(num_threads);
    for (const int64_t count : {0, 1, 2, 3, 8, 9, 1000}) {
      std::vector<int> seen(static_cast<size_t>(count));
      pool.parallel_for(count, [&](int64_t i, int) { ++seen[static_cast<size_t>(i)]; });
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), count) << num_threads << " threads, " << count;
    }
  }
}

TEST(ThreadPoolTest, ANegativeCountIsNoLoop) {
  ThreadPool pool(2);
  pool.parallel_for(-1, [](int64_t, int) { FAIL(); });
}

TEST(ThreadPoolTest, ThreadNumbersIndexScratchOfTheirOwn) {
  ThreadPool pool(4);
  std::vector<int64_t> sums(4);
  pool.parallel_for(5000, [&](int64_t i, int thread) { sums[static_cast<size_t>(thread)] += i; });
  EXPECT_EQ(sums[0] + sums[1] + sums[2] + sums[3], int64_t{5000} * 4999 / 2);
}

TEST(ThreadPoolTest, WritesOfALoopAreSeenByTheNext) {
  ThreadPool pool(4);
  constexpr int64_t kCount = 64;
  std::vector<int64_t> values(kCount, 1);
  std::vector<int64_t> sums(kCount);
  for (int round = 0; round < 200; ++round) {
    pool.parallel_for(kCount, [&](int64_t i, int) {
      sums[static_cast<size_t>(i)] =
          values[static_cast<size_t>(i)] + values[static_cast<size_t>(kCount - 1 - i)];
    });
    pool.parallel_for(
        kCount, [&](int64_t i, int) { values[static_cast<size_t>(i)] = sums[static_cast<size_t>(i)] / 2; });
  }
  EXPECT_EQ(std::count(values.begin(), values.end(), 1), kCount);
}

// More workers than cores: most come late to a loop, or find it over.
TEST(ThreadPoolTest, WorkersMayMissLoops) {
  ThreadPool pool(9);
  std::vector<int64_t> counts(3);
  constexpr int64_t kRounds = 3000;
  for (int64_t round = 0; round < kRounds; ++round) {
    pool.parallel_for(3, [&](int64_t i, int) { ++counts[static_cast<size_t>(i)]; });
  }
  EXPECT_EQ(counts, std::vector<int64_t>(3, kRounds));
}

// Short loops back to back keep the workers spinning; pauses between them let the workers go to sleep.
TEST(ThreadPoolTest, ManyShortLoopsWithAndWithoutPauses) {
  ThreadPool pool(3);
  int64_t total = 0;
  for (int loop = 0; loop < 3000; ++loop) {
    std::atomic<int64_t> sum = 0;
    pool.parallel_for(1 + loop % 7, [&](int64_t i, int) { sum.fetch_add(i + 1, std::memory_order_relaxed); });
    total += sum.load();
    if (loop % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  int64_t expected = 0;
  for (int loop = 0; loop < 3000; ++loop) {
    const int64_t count = 1 + loop % 7;
    expected += count * (count + 1) / 2;
  }
  EXPECT_EQ(total, expected);
}

TEST(ThreadPoolTest, PoolsComeAndGoWhileTheirWorkersSpinOrSleep) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(1 + i % 4);
    if (i % 3 == 0) continue;
    std::atomic<int> calls = 0;
    pool.parallel_for(8, [&](int64_t, int) { calls.fetch_add(1); });
    EXPECT_EQ(calls.load(), 8);
    if (i % 10 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
}

TEST(ThreadPoolTest, PoolsOfDifferentThreadsDoNotDisturbEachOther) {
  std::atomic<int64_t> sum = 0;
  std::vector<std::thread> owners;
  for (int owner = 0; owner < 3; ++owner) {
    owners.emplace_back([&sum] {
      ThreadPool pool(2);
      for (int loop = 0; loop < 200; ++loop) {
        pool.parallel_for(16, [&](int64_t i, int) { sum.fetch_add(i, std::memory_order_relaxed); });
      }
    });
  }
  for (std::thread& owner : owners) owner.join();
  EXPECT_EQ(sum.load(), int64_t{3} * 200 * 120);
}

}  // namespace
}  // namespace minimax
