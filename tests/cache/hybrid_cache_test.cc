// The hybrid cache: what is shared, what is kept, and that nothing is ever lost or owned twice.
#include "cache/hybrid_cache.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <random>

#include "core/error.h"

namespace minimax::cache {
namespace {

std::vector<int32_t> text(int64_t count, int32_t first = 0) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// Runs a sequence as the engine does: chunks, then tokens one by one. What a page or slot holds is modelled
// by the text it was computed from, so that a wrong share is seen.
class Runner {
 public:
  Runner(HybridCache& cache, std::vector<int32_t> prompt, int64_t chunk)
      : cache_(cache), tokens_(std::move(prompt)), prompt_length_(std::ssize(tokens_)), chunk_(chunk) {
    sequence_ = cache_.open(tokens_);
    start_ = sequence_.length;
    shared_ = sequence_.num_shared;
  }

  int64_t start() const { return start_; }
  int64_t shared_pages() const { return shared_; }
  const CachedSequence& sequence() const { return sequence_; }
  bool is_prefilled() const { return sequence_.length >= prompt_length_; }

  // RETURNS: false when memory is short; nothing has changed then.
  bool step(int32_t next_token) {
    int64_t end = sequence_.length + 1;
    if (!is_prefilled()) {
      end = cache_.chunk_end(sequence_, prompt_length_, std::min(sequence_.length + chunk_, prompt_length_));
    } else {
      tokens_.push_back(next_token);
    }
    StepSlots slots;
    if (!cache_.grow(sequence_, end) || !cache_.prepare_slots(sequence_, slots)) {
      if (is_prefilled()) tokens_.pop_back();
      return false;
    }
    if (cache_.has_states()) {
      EXPECT_EQ(slots.read, sequence_.slot);
      EXPECT_GE(slots.write, 0);
    }
    cache_.advance(sequence_, std::span(tokens_).first(static_cast<size_t>(end)), prompt_length_);
    return true;
  }
  void finish() { cache_.close(sequence_); }

 private:
  HybridCache& cache_;
  std::vector<int32_t> tokens_;
  int64_t prompt_length_;
  int64_t chunk_;
  CachedSequence sequence_;
  int64_t start_ = 0;
  int64_t shared_ = 0;
};

void run_through(HybridCache& cache, std::vector<int32_t> prompt, int64_t answer, int64_t chunk = 64) {
  Runner runner(cache, std::move(prompt), chunk);
  while (!runner.is_prefilled()) ASSERT_TRUE(runner.step(0));
  for (int64_t i = 0; i < answer; ++i) ASSERT_TRUE(runner.step(static_cast<int32_t>(9000 + i)));
  runner.finish();
}

TEST(HybridCache, WithoutStatesEveryFullPageIsShared) {
  HybridCache cache({16, 100, 0, 128, true});
  run_through(cache, text(100), 0);
  const Runner again(cache, text(100), 64);
  EXPECT_EQ(again.start(), 96);
  std::vector<int32_t> branch = text(100);
  branch[50] = 7777;
  const Runner other(cache, branch, 64);
  EXPECT_EQ(other.start(), 48);
  EXPECT_EQ(other.sequence().reason, MissReason::kNew);
}

TEST(HybridCache, AnExactlyRepeatedPromptComputesItsLastTokenOnly) {
  HybridCache cache({16, 100, 0, 128, true});
  run_through(cache, text(97), 0);
  EXPECT_EQ(Runner(cache, text(97), 64).start(), 96);
  // A prompt that ends with a page leaves that page to be computed: its last token is needed.
  EXPECT_EQ(Runner(cache, text(96), 64).start(), 80);
}

TEST(HybridCache, AStateStartsAtTheEndOfThePromptBefore) {
  HybridCache cache({16, 100, 8, 1024, true});
  run_through(cache, text(100), 0);
  const Runner again(cache, text(100), 64);
  EXPECT_EQ(again.start(), 96);
  EXPECT_EQ(again.sequence().reason, MissReason::kNone);
  EXPECT_GE(again.sequence().slot, 0);
}

TEST(HybridCache, AStateStartsAtTheEndOfTheTurnBefore) {
  HybridCache cache({16, 100, 8, 1024, true});
  run_through(cache, text(100), 50);
  std::vector<int32_t> next = text(100);
  for (int32_t i = 0; i < 50; ++i) next.push_back(9000 + i);
  for (const int32_t id : text(30, 5000)) next.push_back(id);
  EXPECT_EQ(Runner(cache, next, 64).start(), 144);
}

TEST(HybridCache, PagesBeyondTheSnapshotAreKept) {
  HybridCache cache({16, 100, 8, 64, true});
  run_through(cache, text(200), 0, 1000);  // snapshots at 64, 128, 192
  std::vector<int32_t> branch = text(200);
  branch[120] = 7777;
  const Runner other(cache, branch, 1000);
  EXPECT_EQ(other.start(), 64);
  EXPECT_EQ(other.shared_pages(), 7);
  EXPECT_EQ(other.sequence().reason, MissReason::kNoSnapshot);
}

TEST(HybridCache, AStaticPrefixWithAChangingTailKeepsHitting) {
  HybridCache cache({16, 20'000, 16, 8192, true});
  const std::vector<int32_t> prefix = text(258'000);
  for (int32_t round = 0; round < 20; ++round) {
    std::vector<int32_t> prompt = prefix;
    for (const int32_t id : text(300, 1'000'000 + 1000 * round)) prompt.push_back(id);
    Runner runner(cache, prompt, 4096);
    if (round > 0) {
      EXPECT_GE(runner.start(), 258'000 - 8192 - 16) << round;
    }
    while (!runner.is_prefilled()) ASSERT_TRUE(runner.step(0));
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(runner.step(i));
    runner.finish();
  }
}

TEST(HybridCache, ASlotThatTheTreeKeepsIsNeverWritten) {
  HybridCache cache({4, 100, 8, 16, true});
  run_through(cache, text(21), 9);
  Runner a(cache, text(21), 8);
  Runner b(cache, text(21), 8);
  EXPECT_EQ(a.sequence().slot, b.sequence().slot);
  const int32_t shared = a.sequence().slot;
  ASSERT_TRUE(a.step(0));
  ASSERT_TRUE(b.step(0));
  EXPECT_NE(a.sequence().slot, shared);
  EXPECT_NE(b.sequence().slot, shared);
  EXPECT_NE(a.sequence().slot, b.sequence().slot);
  a.finish();
  b.finish();
}

TEST(HybridCache, OneSlotASequenceSuffices) {
  HybridCache cache({4, 1000, 2, 8, true});
  Runner a(cache, text(100), 10);
  Runner b(cache, text(100, 500), 10);
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(a.step(i)) << i;
    ASSERT_TRUE(b.step(i + 1000)) << i;
  }
  a.finish();
  b.finish();
}

// Random sequences over few pages and slots, opened, run, cut off and preempted at random.
TEST(HybridCache, NothingIsLostOrOwnedTwiceInAnySchedule) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 rng(seed);
    const auto pick = [&rng](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(rng);
    };
    HybridCache cache({pick(1, 8), pick(20, 60), pick(0, 1) * pick(2, 6), 8 * pick(1, 4), pick(0, 3) > 0});
    std::vector<std::unique_ptr<Runner>> running;
    for (int step = 0; step < 300; ++step) {
      if (running.size() < 4 && pick(0, 4) == 0) {
        // Few different prompts, so that many share.
        running.push_back(std::make_unique<Runner>(
            cache, text(pick(1, 60), static_cast<int32_t>(1000 * pick(0, 1))), pick(1, 30)));
      }
      for (size_t i = 0; i < running.size(); ++i) {
        const bool done = pick(0, 40) == 0;
        if (done || !running[i]->step(static_cast<int32_t>(pick(0, 2)))) {
          running[i]->finish();
          running.erase(running.begin() + static_cast<int64_t>(i));
          break;
        }
      }
      std::vector<const CachedSequence*> open;
      for (const auto& runner : running) open.push_back(&runner->sequence());
      ASSERT_NO_THROW(cache.check_integrity(open)) << "seed " << seed << " step " << step;
    }
    for (const auto& runner : running) runner->finish();
    cache.clear();
    ASSERT_NO_THROW(cache.check_integrity({}));
  }
}

}  // namespace
}  // namespace minimax::cache
