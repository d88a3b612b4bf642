// The scheduler without a model: random schedules, in which every token must be the one that its text gives.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <cstdlib>
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

// Runs plans on caches whose pages and states hold what was written to them, so that a leak between requests
// is seen. A step runs when it is finished, as late as it may, and up to `depth` are planned before.
class Simulation {
 public:
  Simulation(const SchedulerOptions& options, const cache::HybridCacheOptions& cache_options,
             size_t depth = 1)
      : page_size_(cache_options.page_size),
        has_states_(cache_options.num_slots > 0),
        depth_(depth),
        cache_(cache_options),
        scheduler_(options, cache_),
        pages_(static_cast<size_t>(cache_options.num_pages * cache_options.page_size), -1),
        states_(static_cast<size_t>(cache_options.num_slots)),
        host_states_(static_cast<size_t>(cache_options.num_host_slots)) {}

  Scheduler& scheduler() { return scheduler_; }
  const cache::HybridCache& cache() const { return cache_; }
  int64_t steps() const { return steps_; }
  int64_t preemptions() const { return preemptions_; }
  const std::map<RequestId, std::vector<int32_t>>& ended() const { return ended_; }
  const std::vector<RequestId>& first_admissions() const { return first_admissions_; }

  RequestId submit(SequenceRequest request) {
    std::vector<int32_t> prompt = request.prompt;
    const RequestId id = scheduler_.submit(std::move(request));
    texts_[id] = std::move(prompt);
    return id;
  }

  // RETURNS: false when there was nothing to plan and nothing to finish.
  bool step(RequestId cancelled = 0) {
    plan();
    if (cancelled != 0) scheduler_.cancel(cancelled);
    scheduler_.check_integrity();
    if (steps_under_way_.empty()) return false;
    if (steps_under_way_.size() >= depth_ || !is_planned_) finish();
    scheduler_.check_integrity();
    return true;
  }

 private:
  struct Step {
    StepPlan plan;
    std::vector<std::vector<int32_t>> pages;   // of each sequence, when it was planned
    std::vector<std::vector<int32_t>> tokens;  // known then
  };

  void plan() {
    Step step{scheduler_.plan_step(), {}, {}};
    is_planned_ = !step.plan.sequences.empty();
    preemptions_ += std::ssize(step.plan.preempted);
    for (const RequestId id : step.plan.admitted) {
      if (seen_.insert(id).second) first_admissions_.push_back(id);
    }
    if (!is_planned_) return;
    for (const ScheduledSequence& s : step.plan.sequences) {
      step.pages.push_back(scheduler_.cached(s.id).pages);
      const auto tokens = scheduler_.tokens(s.id);
      step.tokens.emplace_back(tokens.begin(), tokens.end());
    }
    steps_under_way_.push_back(std::move(step));
  }
  void finish() {
    const Step step = std::move(steps_under_way_.front());
    steps_under_way_.pop_front();
    ++steps_;
    for (const cache::StateCopy& copy : step.plan.copies) {
      auto& device = states_[static_cast<size_t>(copy.device_slot)];
      auto& host = host_states_[static_cast<size_t>(copy.host_slot)];
      if (copy.direction == cache::StateCopy::Direction::kToHost) {
        host = device;
      } else {
        device = host;
      }
    }
    std::vector<StepToken> tokens;
    for (size_t i = 0; i < step.plan.sequences.size(); ++i) {
      const ScheduledSequence& s = step.plan.sequences[i];
      run(s, step.pages[i], step.tokens[i]);
      if (!s.gives_token) continue;
      last_token_[s.id] = next_token(read(s, step.pages[i]));
      tokens.push_back({s.id, last_token_[s.id], false});
      if (scheduler_.has(s.id)) texts_[s.id].push_back(last_token_[s.id]);
    }
    for (const RequestId id : scheduler_.finish_step(tokens)) ended_[id] = texts_.at(id);
  }
  int32_t& at(const std::vector<int32_t>& pages, int64_t position) {
    return pages_[static_cast<size_t>(pages[static_cast<size_t>(position / page_size_)] * page_size_ +
                                      position % page_size_)];
  }
  void run(const ScheduledSequence& s, const std::vector<int32_t>& pages,
           const std::vector<int32_t>& tokens) {
    std::vector<int32_t> state;
    if (has_states_ && s.slots.read >= 0) state = states_[static_cast<size_t>(s.slots.read)];
    // Of a request that has ended another one may have taken the slot: nobody sees what its last steps give.
    if (has_states_ && scheduler_.has(s.id)) {
      EXPECT_EQ(state.size(), static_cast<size_t>(s.first));
    }
    for (int64_t p = s.first; p < s.first + s.count; ++p) {
      const int32_t token = p < std::ssize(tokens) ? tokens[static_cast<size_t>(p)] : last_token_.at(s.id);
      if (p >= s.write_from) at(pages, p) = token;
      state.push_back(token);
      for (int i = 0; i < s.slots.num_checkpoints; ++i) {
        const auto& checkpoint = s.slots.checkpoints[static_cast<size_t>(i)];
        if (checkpoint.length == p + 1) states_[static_cast<size_t>(checkpoint.slot)] = state;
      }
    }
    if (has_states_) states_[static_cast<size_t>(s.slots.write)] = state;
  }
  // The text that attention reads for the last token of the step; the state must say the same.
  std::vector<int32_t> read(const ScheduledSequence& s, const std::vector<int32_t>& pages) {
    std::vector<int32_t> context;
    for (int64_t p = 0; p < s.first + s.count; ++p) context.push_back(at(pages, p));
    if (has_states_ && scheduler_.has(s.id)) {
      EXPECT_EQ(states_[static_cast<size_t>(s.slots.write)], context);
    }
    return context;
  }

  int64_t page_size_;
  bool has_states_;
  size_t depth_;
  cache::HybridCache cache_;
  Scheduler scheduler_;
  std::deque<Step> steps_under_way_;
  bool is_planned_ = false;
  std::vector<int32_t> pages_;                // [pages, page_size] the token whose keys are there
  std::vector<std::vector<int32_t>> states_;  // [slots] the text that a state has seen
  std::vector<std::vector<int32_t>> host_states_;
  std::map<RequestId, int32_t> last_token_;
  std::map<RequestId, std::vector<int32_t>> texts_;
  std::map<RequestId, std::vector<int32_t>> ended_;
  std::set<RequestId> seen_;
  std::vector<RequestId> first_admissions_;
  int64_t steps_ = 0;
  int64_t preemptions_ = 0;
};

SchedulerOptions scheduling(int64_t max_batched_tokens, int64_t max_sequences, int64_t aging_steps) {
  SchedulerOptions result;
  result.max_batched_tokens = max_batched_tokens;
  result.max_sequences = max_sequences;
  result.max_logits_rows = max_sequences + 8;
  result.aging_steps = aging_steps;
  return result;
}

cache::HybridCacheOptions caching(int64_t page_size, int64_t num_pages, int64_t num_slots = 0) {
  cache::HybridCacheOptions result;
  result.page_size = page_size;
  result.num_pages = num_pages;
  result.num_slots = num_slots;
  result.snapshot_interval = 4 * page_size;
  return result;
}

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

// A random schedule: shared prompts, priorities, samples of one prompt, cancellations, too little memory.
class RandomSchedule {
 public:
  explicit RandomSchedule(uint64_t seed)
      : rng_(seed),
        is_deterministic_(pick(0, 2) == 0),
        page_size_(pick(1, 8)),
        simulation_(make_scheduling(), make_caching(), static_cast<size_t>(pick(1, 3))) {}

  void run(int64_t num_requests) {
    for (int64_t round = 0; round < 100'000; ++round) {
      if (submitted_ < num_requests && pick(0, 2) == 0) submit();
      const RequestId cancelled = pick(0, 40) == 0 ? any_request() : 0;
      if (cancelled != 0 && !simulation_.ended().contains(cancelled)) expected_.erase(cancelled);
      if (!simulation_.step(cancelled) && submitted_ == num_requests) break;
    }
    EXPECT_FALSE(simulation_.scheduler().has_work()) << "stuck";
    EXPECT_EQ(simulation_.cache().num_pages_in_use(), 0);
    for (const auto& [id, tokens] : expected_) {
      ASSERT_TRUE(simulation_.ended().contains(id)) << "request " << id << " did not end";
      ASSERT_EQ(simulation_.ended().at(id), tokens) << "request " << id;
    }
  }
  int64_t preemptions() const { return simulation_.preemptions(); }

 private:
  int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng_); }
  cache::HybridCacheOptions make_caching() {
    cache::HybridCacheOptions result =
        caching(page_size_, 80 / page_size_ + pick(0, 20), pick(0, 1) * pick(2, 9));
    result.num_host_slots = pick(0, 4);
    result.snapshot_interval = 4 * page_size_ * pick(1, 4);
    result.share_prefixes = pick(0, 3) > 0;
    if (is_deterministic_) result.prompt_grid = page_size_ * (pick(0, 1) * 3 + 1);
    return result;
  }
  SchedulerOptions make_scheduling() {
    SchedulerOptions result = scheduling(pick(1, 40), pick(1, 8), pick(1, 20));
    result.is_deterministic = is_deterministic_;
    if (is_deterministic_) {
      result.max_batched_tokens = result.max_sequences + 32 + pick(0, 8);
      result.max_logits_rows = result.max_sequences + 32;
    }
    return result;
  }
  void submit() {
    SequenceRequest request;
    request.prompt = random_prompt(rng_, 40);
    request.max_tokens = pick(1, 30);
    request.priority = pick(0, 2);
    request.wants_prompt_logits = pick(0, 9) == 0;
    if (pick(0, 2) == 0) request.boundaries = {pick(0, 40), pick(0, 40)};
    const int64_t samples = pick(0, 5) == 0 ? 3 : 1;
    for (int64_t i = 0; i < samples; ++i) {
      auto tokens = alone(request.prompt, request.max_tokens);
      const RequestId id = simulation_.submit(request);
      expected_[id] = std::move(tokens);
      if (i == 0) request.after = id;
    }
    ++submitted_;
  }
  RequestId any_request() {
    if (expected_.empty()) return 0;
    return std::next(expected_.begin(), pick(0, std::ssize(expected_) - 1))->first;
  }

  std::mt19937_64 rng_;
  bool is_deterministic_;
  int64_t page_size_;
  Simulation simulation_;
  std::map<RequestId, std::vector<int32_t>> expected_;
  int64_t submitted_ = 0;
};

// MINIMAX_SCHEDULES sets how many random schedules are run.
int64_t num_schedules() {
  const char* text = std::getenv("MINIMAX_SCHEDULES");
  return text == nullptr ? 400 : std::atoll(text);
}

TEST(Scheduler, EveryRequestGetsTheTokensItGetsAloneInAnySchedule) {
  int64_t preemptions = 0;
  for (int64_t seed = 0; seed < num_schedules() && !HasFatalFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomSchedule schedule(static_cast<uint64_t>(seed));
    schedule.run(30);
    preemptions += schedule.preemptions();
  }
  EXPECT_GT(preemptions, num_schedules()) << "memory was never short";
}

TEST(Scheduler, WaitingRaisesALowPriority) {
  Simulation simulation(scheduling(8, 1, 10), caching(4, 40));
  const RequestId low = simulation.submit({{1, 2, 3}, 4, 0});
  // More urgent requests arrive faster than they are served.
  for (int64_t round = 0; round < 400 && !simulation.ended().contains(low); ++round) {
    simulation.submit({{4, 5, 6}, 4, 3});
    simulation.step();
  }
  EXPECT_TRUE(simulation.ended().contains(low));
  // Only what arrives before it has aged by three priorities goes first: 30 requests of 4 steps.
  EXPECT_LE(simulation.steps(), 30 * 4 + 4);
}

// The bound of fairness: whoever is overtaken is so only by what came within (difference in priority) *
// aging_steps steps after it, in any schedule and however short memory is.
TEST(Scheduler, NobodyIsOvertakenBeyondTheBound) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    std::mt19937_64 rng(seed);
    const auto pick = [&rng](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(rng);
    };
    const int64_t aging = pick(1, 20);
    Simulation simulation(scheduling(pick(4, 20), pick(1, 4), aging), caching(4, pick(18, 30)));
    std::map<RequestId, int64_t> order;  // submission step less what its priority is worth
    for (int64_t step = 1; order.size() < 60; ++step) {
      const int64_t priority = pick(0, 3);
      const RequestId id = simulation.submit({random_prompt(rng, 40), pick(1, 20), priority});
      order[id] = step - priority * aging;
      simulation.step();
    }
    while (simulation.step()) {
    }
    const auto& admitted = simulation.first_admissions();
    ASSERT_EQ(admitted.size(), 60U);
    for (size_t a = 0; a < admitted.size(); ++a) {
      for (size_t b = a + 1; b < admitted.size(); ++b) {
        // b was there when a was admitted only if it was submitted before: ids ascend.
        if (admitted[b] < admitted[a]) {
          EXPECT_LE(order.at(admitted[a]), order.at(admitted[b])) << seed;
        }
      }
    }
  }
}

TEST(Scheduler, SamplesOfOnePromptShareIt) {
  Simulation simulation(scheduling(64, 8, 10), caching(4, 100));
  std::vector<int32_t> prompt(41, 7);
  SequenceRequest request{prompt, 5, 0};
  request.after = simulation.submit(request);
  for (int i = 0; i < 3; ++i) simulation.submit(request);
  while (simulation.step()) {
  }
  EXPECT_EQ(simulation.ended().size(), 4U);
  EXPECT_EQ(simulation.cache().stats().hit_tokens, 3 * 40);
}

TEST(Scheduler, APromptTakesNoStepMoreForItsStates) {
  cache::HybridCache cache(caching(16, 100, 8));
  Scheduler scheduler(scheduling(2048, 4, 16), cache);
  SequenceRequest request;
  request.prompt = std::vector<int32_t>(100, 7);
  request.max_tokens = 1;
  scheduler.submit(request);
  const StepPlan plan = scheduler.plan_step();
  ASSERT_EQ(plan.sequences.size(), 1U);
  const ScheduledSequence& s = plan.sequences.front();
  EXPECT_EQ(s.count, 100);
  EXPECT_TRUE(s.gives_token);
  ASSERT_EQ(s.slots.num_checkpoints, 2);
  EXPECT_EQ(s.slots.checkpoints[0].length, 64);  // the interval
  EXPECT_EQ(s.slots.checkpoints[1].length, 96);  // the last full page
}

TEST(Scheduler, PromptLogitsAreAskedForEveryTokenOnce) {
  cache::HybridCache cache(caching(4, 100));
  Scheduler scheduler(scheduling(64, 4, 10), cache);
  SequenceRequest request{std::vector<int32_t>(41, 7), 2, 0};
  request.wants_prompt_logits = true;
  const RequestId id = scheduler.submit(request);
  int64_t rows = 0;
  while (scheduler.has_work()) {
    const StepPlan plan = scheduler.plan_step();
    for (const ScheduledSequence& s : plan.sequences) rows += s.wants_all_logits ? s.count : 0;
    EXPECT_LE(plan.num_logits_rows, 12);
    std::vector<StepToken> tokens;
    if (plan.sequences.front().gives_token) tokens.push_back({id, 1, false});
    scheduler.finish_step(tokens);
  }
  EXPECT_EQ(rows, 41);
}

TEST(Scheduler, RefusesWhatCouldNeverRun) {
  Simulation simulation(scheduling(8, 1, 10), caching(4, 4));
  EXPECT_THROW(simulation.submit({{}, 4, 0}), Error);
  EXPECT_THROW(simulation.submit({{1}, 0, 0}), Error);
  EXPECT_THROW(simulation.submit({{1, 2, 3}, 14, 0}), Error);
  EXPECT_NO_THROW(simulation.submit({{1, 2, 3}, 13, 0}));
}

}  // namespace
}  // namespace minimax::engine
