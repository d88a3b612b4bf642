// The scheduler without a model: random schedules, in which every token must be the one that its text gives.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <random>

#include "core/error.h"

namespace minimax::engine {
namespace {

// A "model": the next token is a function of all tokens before it, so that a wrong context gives wrong
// tokens.
int32_t next_token(std::span<const int32_t> tokens) {
  uint32_t hash = 2166136261U;
  for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 16777619U;
  return static_cast<int32_t>(hash % 50);
}

std::vector<int32_t> alone(std::vector<int32_t> tokens, int64_t max_tokens) {
  for (int64_t i = 0; i < max_tokens; ++i) tokens.push_back(next_token(tokens));
  return tokens;
}

// Caches whose pages and states hold what was written to them, so that a leak between requests is seen.
class Simulation {
 public:
  Simulation(const SchedulerOptions& options, const cache::HybridCacheOptions& cache_options)
      : page_size_(cache_options.page_size),
        has_states_(cache_options.num_slots > 0),
        cache_(cache_options),
        scheduler_(options, cache_, cache_options.num_pages, cache_options.page_size),
        pages_(static_cast<size_t>(cache_options.num_pages * cache_options.page_size), -1),
        states_(static_cast<size_t>(cache_options.num_slots)) {}

  Scheduler& scheduler() { return scheduler_; }
  int64_t steps() const { return steps_; }

  // RETURNS: requests that ended, with their tokens; false when nothing could run.
  bool step(std::map<RequestId, std::vector<int32_t>>& ended, RequestId cancelled = 0) {
    const StepPlan plan = scheduler_.plan_step();
    if (plan.sequences.empty()) return false;
    ++steps_;
    std::vector<StepToken> tokens;
    for (const ScheduledSequence& s : plan.sequences) {
      run(s);
      if (s.gives_token) tokens.push_back({s.id, next_token(read(s)), false});
    }
    std::map<RequestId, std::vector<int32_t>> before;
    for (const StepToken& t : tokens) {
      const auto all = scheduler_.tokens(t.id);
      before[t.id] = {all.begin(), all.end()};
      before[t.id].push_back(t.token);
    }
    if (cancelled != 0) scheduler_.cancel(cancelled);
    for (const RequestId id : scheduler_.finish_step(tokens)) ended[id] = before.at(id);
    scheduler_.check_integrity();
    return true;
  }

 private:
  int32_t& at(std::span<const int32_t> pages, int64_t position) {
    return pages_[static_cast<size_t>(pages[static_cast<size_t>(position / page_size_)] * page_size_ +
                                      position % page_size_)];
  }
  void run(const ScheduledSequence& s) {
    const auto tokens = scheduler_.tokens(s.id);
    const auto pages = scheduler_.pages(s.id);
    std::vector<int32_t> state;
    if (has_states_ && s.slots.read >= 0) state = states_[static_cast<size_t>(s.slots.read)];
    if (has_states_) {
      EXPECT_EQ(state.size(), static_cast<size_t>(s.first));
    }
    for (int64_t p = s.first; p < s.first + s.count; ++p) {
      if (p >= s.write_from) at(pages, p) = tokens[static_cast<size_t>(p)];
      state.push_back(tokens[static_cast<size_t>(p)]);
    }
    if (has_states_) states_[static_cast<size_t>(s.slots.write)] = state;
  }
  // The text that attention reads for the last token of the step; the state must say the same.
  std::vector<int32_t> read(const ScheduledSequence& s) {
    const auto pages = scheduler_.pages(s.id);
    std::vector<int32_t> context;
    for (int64_t p = 0; p < s.first + s.count; ++p) context.push_back(at(pages, p));
    if (has_states_) {
      EXPECT_EQ(states_[static_cast<size_t>(s.slots.write)], context);
    }
    return context;
  }

  int64_t page_size_;
  bool has_states_;
  cache::HybridCache cache_;
  Scheduler scheduler_;
  std::vector<int32_t> pages_;                // [pages, page_size] the token whose keys are there
  std::vector<std::vector<int32_t>> states_;  // [slots] the text that a state has seen
  int64_t steps_ = 0;
};

std::vector<int32_t> random_prompt(std::mt19937_64& rng, int64_t longest) {
  const auto pick = [&rng](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng);
  };
  std::vector<int32_t> prompt;
  const int64_t shared = pick(0, 1) * pick(0, longest - 1);
  for (int64_t i = 0; i < shared; ++i) prompt.push_back(static_cast<int32_t>(i % 50));
  for (int64_t i = pick(1, longest - shared); i > 0; --i) prompt.push_back(static_cast<int32_t>(pick(0, 49)));
  return prompt;
}

TEST(Scheduler, EveryRequestGetsTheTokensItGetsAloneInAnySchedule) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    std::mt19937_64 rng(seed);
    const auto pick = [&rng](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(rng);
    };
    const int64_t page_size = pick(1, 8);
    Simulation simulation(
        {pick(1, 40), pick(1, 8), pick(1, 20)},
        {page_size, 80 / page_size + pick(0, 20), pick(0, 1) * pick(2, 9), 8 * pick(1, 3), pick(0, 3) > 0});
    std::map<RequestId, std::vector<int32_t>> expected;
    std::map<RequestId, std::vector<int32_t>> ended;
    int64_t submitted = 0;
    for (int64_t round = 0; round < 3000; ++round) {
      if (submitted < 30 && pick(0, 2) == 0) {
        SequenceRequest request{random_prompt(rng, 40), pick(1, 30), pick(0, 2)};
        auto tokens = alone(request.prompt, request.max_tokens);
        expected[simulation.scheduler().submit(std::move(request))] = std::move(tokens);
        ++submitted;
      }
      RequestId cancelled = 0;
      if (pick(0, 40) == 0 && !expected.empty()) {
        cancelled = std::next(expected.begin(), pick(0, std::ssize(expected) - 1))->first;
        if (!ended.contains(cancelled)) expected.erase(cancelled);
      }
      if (!simulation.step(ended, cancelled)) {
        if (cancelled != 0) simulation.scheduler().cancel(cancelled);
        ASSERT_FALSE(simulation.scheduler().has_work()) << "stuck, seed " << seed;
        if (submitted == 30) break;
      }
    }
    for (const auto& [id, tokens] : expected) {
      ASSERT_TRUE(ended.contains(id)) << "seed " << seed << ": request " << id << " did not end";
      ASSERT_EQ(ended.at(id), tokens) << "seed " << seed << ": request " << id;
    }
    ASSERT_FALSE(simulation.scheduler().has_work());
  }
}

TEST(Scheduler, WaitingRaisesALowPriority) {
  Simulation simulation({8, 1, 10}, {4, 40, 0, 8, true});
  const RequestId low = simulation.scheduler().submit({{1, 2, 3}, 4, 0});
  std::map<RequestId, std::vector<int32_t>> ended;
  // More urgent requests arrive faster than they are served.
  for (int64_t round = 0; round < 400 && !ended.contains(low); ++round) {
    simulation.scheduler().submit({{4, 5, 6}, 4, 3});
    simulation.step(ended);
  }
  EXPECT_TRUE(ended.contains(low));
  // Only what arrives before it has aged by three priorities goes first: 30 requests of 4 steps.
  EXPECT_LE(simulation.steps(), 30 * 4 + 4);
}

TEST(Scheduler, RefusesWhatCouldNeverRun) {
  Simulation simulation({8, 1, 10}, {4, 4, 0, 8, true});
  EXPECT_THROW(simulation.scheduler().submit({{}, 4, 0}), Error);
  EXPECT_THROW(simulation.scheduler().submit({{1}, 0, 0}), Error);
  EXPECT_THROW(simulation.scheduler().submit({{1, 2, 3}, 14, 0}), Error);
  EXPECT_NO_THROW(simulation.scheduler().submit({{1, 2, 3}, 13, 0}));
}

}  // namespace
}  // namespace minimax::engine
