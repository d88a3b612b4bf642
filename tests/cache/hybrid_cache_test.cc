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

// Runs a sequence as the engine does: chunks, then tokens one by one, each step published one step later.
class Runner {
 public:
  Runner(HybridCache& cache, std::vector<int32_t> prompt, int64_t chunk, std::vector<int64_t> boundaries = {})
      : cache_(cache), tokens_(std::move(prompt)), prompt_length_(std::ssize(tokens_)), chunk_(chunk) {
    sequence_ = cache_.open({tokens_, prompt_length_, boundaries});
    start_ = sequence_.length;
    shared_ = sequence_.num_shared;
    published_ = start_;
  }

  int64_t start() const { return start_; }
  int64_t shared_pages() const { return shared_; }
  const CachedSequence& sequence() const { return sequence_; }
  bool is_prefilled() const { return sequence_.length >= prompt_length_; }
  int num_checkpoints() const { return num_checkpoints_; }

  // RETURNS: false when memory is short; nothing has changed then.
  bool step(int32_t next_token) {
    const bool generates = is_prefilled();
    int64_t end = sequence_.length + 1;
    if (!generates) end = cache_.chunk_end(sequence_, std::min(sequence_.length + chunk_, prompt_length_));
    const int32_t slot = sequence_.slot;
    StepSlots slots;
    if (!cache_.grow(sequence_, end) || !cache_.begin_step(sequence_, end, slots)) return false;
    if (generates) tokens_.push_back(next_token);
    if (cache_.has_states()) {
      EXPECT_EQ(slots.read, slot);
      EXPECT_GE(slots.write, 0);
    }
    num_checkpoints_ += slots.num_checkpoints;
    publish(published_);
    published_ = end;
    return true;
  }
  void finish() {
    publish(published_);
    cache_.close(sequence_);
  }

 private:
  void publish(int64_t length) {
    if (length > start_) cache_.publish(sequence_, std::span(tokens_).first(static_cast<size_t>(length)));
  }

  HybridCache& cache_;
  std::vector<int32_t> tokens_;
  int64_t prompt_length_;
  int64_t chunk_;
  CachedSequence sequence_;
  int64_t start_ = 0;
  int64_t shared_ = 0;
  int64_t published_ = 0;
  int num_checkpoints_ = 0;
};

HybridCacheOptions options(int64_t page_size, int64_t num_pages, int64_t num_slots, int64_t interval,
                           bool share_prefixes = true) {
  HybridCacheOptions result;
  result.page_size = page_size;
  result.num_pages = num_pages;
  result.num_slots = num_slots;
  result.snapshot_interval = interval;
  result.share_prefixes = share_prefixes;
  return result;
}

void run_through(HybridCache& cache, std::vector<int32_t> prompt, int64_t answer, int64_t chunk = 64) {
  Runner runner(cache, std::move(prompt), chunk);
  while (!runner.is_prefilled()) ASSERT_TRUE(runner.step(0));
  for (int64_t i = 0; i < answer; ++i) ASSERT_TRUE(runner.step(static_cast<int32_t>(9000 + i)));
  runner.finish();
}

TEST(HybridCache, WithoutStatesEveryFullPageIsShared) {
  HybridCache cache(options(16, 100, 0, 128));
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
  HybridCache cache(options(16, 100, 0, 128));
  run_through(cache, text(97), 0);
  EXPECT_EQ(Runner(cache, text(97), 64).start(), 96);
  // A prompt that ends with a page leaves that page to be computed: its last token is needed.
  EXPECT_EQ(Runner(cache, text(96), 64).start(), 80);
}

TEST(HybridCache, AStateStartsAtTheEndOfThePromptBefore) {
  HybridCache cache(options(16, 100, 8, 1024));
  run_through(cache, text(100), 0);
  const Runner again(cache, text(100), 64);
  EXPECT_EQ(again.start(), 96);
  EXPECT_EQ(again.sequence().reason, MissReason::kNone);
  EXPECT_GE(again.sequence().slot, 0);
}

TEST(HybridCache, AStateStartsAtTheEndOfTheTurnBefore) {
  HybridCache cache(options(16, 100, 8, 1024));
  run_through(cache, text(100), 50);
  std::vector<int32_t> next = text(100);
  for (int32_t i = 0; i < 50; ++i) next.push_back(9000 + i);
  for (const int32_t id : text(30, 5000)) next.push_back(id);
  EXPECT_EQ(Runner(cache, next, 64).start(), 144);
}

TEST(HybridCache, PagesBeyondTheSnapshotAreKept) {
  HybridCache cache(options(16, 100, 8, 64));
  run_through(cache, text(200), 0, 1000);  // snapshots at 64, 128, 192
  std::vector<int32_t> branch = text(200);
  branch[120] = 7777;
  const Runner other(cache, branch, 1000);
  EXPECT_EQ(other.start(), 64);
  EXPECT_EQ(other.shared_pages(), 7);
  EXPECT_EQ(other.sequence().reason, MissReason::kNoSnapshot);
}

TEST(HybridCache, AStaticPrefixWithAChangingTailKeepsHitting) {
  HybridCache cache(options(16, 20'000, 16, 8192));
  const std::vector<int32_t> prefix = text(258'000);
  for (int32_t round = 0; round < 20; ++round) {
    std::vector<int32_t> prompt = prefix;
    for (const int32_t id : text(300, 1'000'000 + 1000 * round)) prompt.push_back(id);
    Runner runner(cache, prompt, 4096);
    // The second one still starts at a coarse snapshot and leaves one where it parts from the first.
    if (round > 0) {
      EXPECT_GE(runner.start(), 258'000 - (round == 1 ? 8192 : 16)) << round;
    }
    while (!runner.is_prefilled()) ASSERT_TRUE(runner.step(0));
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(runner.step(i));
    runner.finish();
  }
}

TEST(HybridCache, WhereTextsPartedTheNextOneStarts) {
  HybridCache cache(options(16, 200, 16, 8192));
  const auto prompt = [](int32_t tail) {
    std::vector<int32_t> ids = text(1000);
    for (const int32_t id : text(50, 5000 * tail)) ids.push_back(id);
    return ids;
  };
  run_through(cache, prompt(1), 0);
  run_through(cache, prompt(2), 0);  // computes everything and leaves a state where it parts from the first
  EXPECT_EQ(Runner(cache, prompt(3), 64).start(), 992);
}

TEST(HybridCache, ATemplateBoundaryIsStartedFromAtOnce) {
  HybridCache cache(options(16, 200, 16, 8192));
  std::vector<int32_t> prompt = text(1000);
  Runner first(cache, prompt, 4096, {500});
  while (!first.is_prefilled()) ASSERT_TRUE(first.step(0));
  first.finish();
  for (size_t i = 510; i < prompt.size(); ++i) prompt[i] += 5000;
  EXPECT_EQ(Runner(cache, prompt, 64).start(), 496);
}

TEST(HybridCache, ASnapshotThatMustMakeRoomGoesToHostMemoryAndComesBack) {
  HybridCacheOptions chosen = options(16, 200, 2, 8192);
  chosen.num_host_slots = 4;
  HybridCache cache(chosen);
  run_through(cache, text(100), 0);
  const auto before = cache.take_copies();
  for (int32_t other = 1; other < 4; ++other) run_through(cache, text(100, 1000 * other), 0);
  EXPECT_GT(cache.stats().spilled_snapshots, 0);
  cache.take_copies();
  Runner again(cache, text(100), 64);
  EXPECT_EQ(again.start(), 96);
  const auto copies = cache.take_copies();
  ASSERT_FALSE(copies.empty());
  EXPECT_EQ(copies.back().direction, StateCopy::Direction::kToDevice);
  EXPECT_EQ(copies.back().device_slot, again.sequence().slot);
  again.finish();
}

TEST(HybridCache, OnAPromptGridOnlyWholeCellsOfPromptsAreShared) {
  HybridCacheOptions chosen = options(16, 200, 8, 8192);
  chosen.prompt_grid = 64;
  HybridCache cache(chosen);
  run_through(cache, text(200), 100);
  EXPECT_EQ(Runner(cache, text(200), 64).start(), 192);
  std::vector<int32_t> next = text(200);
  for (int32_t i = 0; i < 100; ++i) next.push_back(9000 + i);
  EXPECT_EQ(Runner(cache, next, 64).start(), 192);
  std::vector<int32_t> branch = text(200);
  branch[120] = 7777;
  EXPECT_EQ(Runner(cache, branch, 64).shared_pages(), 4);
}

TEST(HybridCache, ASlotThatTheTreeKeepsIsNeverWritten) {
  HybridCache cache(options(4, 100, 8, 16));
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

TEST(HybridCache, SnapshotsWithinAStepTakeNoStepOfTheirOwn) {
  HybridCache cache(options(16, 100, 8, 64));
  Runner first(cache, text(250), 1000);
  ASSERT_TRUE(first.step(0));  // leaves 64, 128, 192 and 240
  EXPECT_TRUE(first.is_prefilled());
  EXPECT_EQ(first.num_checkpoints(), 4);
  first.finish();
  EXPECT_EQ(cache.num_snapshots(), 4);
  for (const int64_t differs : {70, 150, 230, 245}) {
    std::vector<int32_t> branch = text(250);
    branch[static_cast<size_t>(differs)] = 7777;
    Runner other(cache, branch, 1000);
    EXPECT_EQ(other.start(), differs < 240 ? differs / 64 * 64 : 240);
    other.finish();
  }
}

TEST(HybridCache, AStepEndsWhereItCannotLeaveMore) {
  HybridCache cache(options(16, 100, 12, 16));
  Runner runner(cache, text(200), 1000);
  ASSERT_TRUE(runner.step(0));
  EXPECT_EQ(runner.sequence().length, 80);  // four inside, one at its end
  ASSERT_TRUE(runner.step(0));
  EXPECT_EQ(runner.sequence().length, 160);
  runner.finish();
  EXPECT_EQ(cache.num_snapshots(), 10);
}

TEST(HybridCache, ACheckpointNeverTakesTheLastSlot) {
  HybridCache cache(options(16, 100, 2, 64));
  Runner first(cache, text(200), 1000);
  ASSERT_TRUE(first.step(0));
  EXPECT_EQ(first.num_checkpoints(), 0);
  Runner second(cache, text(200, 500), 1000);
  EXPECT_TRUE(second.step(0));
  first.finish();
  second.finish();
}

TEST(HybridCache, OneSlotASequenceSuffices) {
  HybridCache cache(options(4, 1000, 2, 8));
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
    const int64_t page_size = pick(1, 8);
    HybridCacheOptions chosen =
        options(page_size, pick(20, 60), pick(0, 1) * pick(2, 6), page_size * pick(1, 8), pick(0, 3) > 0);
    chosen.num_host_slots = pick(0, 3);
    HybridCache cache(chosen);
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
    ASSERT_EQ(cache.num_pages_in_use(), 0);
    cache.clear();
    ASSERT_NO_THROW(cache.check_integrity({}));
  }
}

}  // namespace
}  // namespace minimax::cache
