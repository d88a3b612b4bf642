#include "engine/scheduler.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::engine {

Scheduler::Scheduler(const SchedulerOptions& options, cache::HybridCache& cache)
    : options_(options), cache_(cache) {
  MM_CHECK(options.max_batched_tokens > 0 && options.max_sequences > 0 && options.aging_steps > 0,
           "scheduler: {} tokens, {} sequences, {} aging steps", options.max_batched_tokens,
           options.max_sequences, options.aging_steps);
  MM_CHECK(options.max_logits_rows >= options.max_sequences, "{} rows of logits for {} sequences",
           options.max_logits_rows, options.max_sequences);
  const int64_t grid = cache.options().prompt_grid;
  MM_CHECK(
      !options.is_deterministic || (grid > 0 && options.max_batched_tokens >= options.max_sequences + grid &&
                                    options.max_logits_rows >= options.max_sequences + grid),
      "scheduler: a prompt grid of {} does not fit steps of {} tokens and {} rows of logits", grid,
      options.max_batched_tokens, options.max_logits_rows);
}

RequestId Scheduler::submit(SequenceRequest request) {
  const auto length = static_cast<int64_t>(request.prompt.size());
  const int64_t room = cache_.options().num_pages * cache_.options().page_size;
  if (length == 0) fail("the prompt is empty; give at least one token");
  if (request.max_tokens < 1) fail("max_tokens is {}; expected at least 1", request.max_tokens);
  if (length + request.max_tokens > room) {
    fail(
        "the prompt of {} tokens and max_tokens {} exceed the {} tokens that the cache holds; shorten either",
        length, request.max_tokens, room);
  }
  const RequestId id = next_id_++;
  Request& entry = requests_[id];
  entry.tokens = std::move(request.prompt);
  entry.prompt_length = length;
  entry.max_tokens = request.max_tokens;
  entry.key = {num_plans_ - request.priority * options_.aging_steps, id};
  entry.after = request.after;
  entry.boundaries = std::move(request.boundaries);
  entry.wants_prompt_logits = request.wants_prompt_logits;
  waiting_.insert(entry.key);
  return id;
}

void Scheduler::cancel(RequestId id) {
  // Its pages may be given away at once: steps that still read them run before those that would write them.
  if (has(id)) remove(id);
}

bool Scheduler::preempt_after(const Request& request, StepPlan& plan) {
  // From the back: the last in order that is not yet part of this step.
  for (auto victim = running_.rbegin(); victim != running_.rend() && *victim > request.key; ++victim) {
    const Key key = *victim;
    Request& last = requests_.at(key.second);
    if (last.planned_in == num_plans_) continue;
    cache_.close(last.cached);
    ++last.admission;
    plan.preempted.push_back(key.second);
    waiting_.insert(key);
    running_.erase(key);
    return true;
  }
  return false;
}

int64_t Scheduler::step_end(const Request& request, int64_t budget) const {
  const int64_t first = request.cached.length;
  const int64_t known = request.num_known();
  if (options_.is_deterministic) {
    const int64_t grid = cache_.options().prompt_grid;
    const int64_t end = first >= request.prompt_length
                            ? first + 1
                            : std::min((first / grid + 1) * grid, request.prompt_length);
    return end - first <= budget ? end : first;
  }
  return cache_.chunk_end(request.cached, std::min(first + budget, known));
}

Scheduler::Planned Scheduler::plan_sequence(Request& request, StepPlan& plan) {
  const int64_t first = request.cached.length;
  const bool wants_all = request.wants_prompt_logits && first < request.prompt_length;
  const int64_t rows_left = options_.max_logits_rows - plan.num_logits_rows;
  int64_t budget = options_.max_batched_tokens - plan.num_tokens;
  if (wants_all) budget = std::min(budget, rows_left);
  const int64_t end = budget > 0 && rows_left > 0 ? step_end(request, budget) : first;
  if (end == first) return Planned::kNoBudget;

  ScheduledSequence scheduled;
  if (!cache_.grow(request.cached, end) || !cache_.begin_step(request.cached, end, scheduled.slots)) {
    return Planned::kNoMemory;
  }
  scheduled.id = request.key.second;
  scheduled.first = first;
  scheduled.count = end - first;
  scheduled.write_from = request.cached.num_shared * cache_.options().page_size;
  scheduled.num_generated = request.num_known() - request.prompt_length;
  scheduled.gives_token = end == request.num_known();
  scheduled.wants_all_logits = wants_all;
  scheduled.continues_step = first >= static_cast<int64_t>(request.tokens.size());
  plan.sequences.push_back(scheduled);
  plan.num_tokens += scheduled.count;
  plan.num_logits_rows += wants_all ? scheduled.count : (scheduled.gives_token ? 1 : 0);
  planning_.push_back({scheduled.id, request.admission, end, scheduled.gives_token});
  request.planned_in = num_plans_;
  request.num_promised += scheduled.gives_token ? 1 : 0;
  return Planned::kYes;
}

void Scheduler::plan_running(bool generating, StepPlan& plan) {
  // The set shrinks from its back when this preempts.
  for (const Key& key : running_) {
    Request& request = requests_.at(key.second);
    const bool has_all = request.num_known() - request.prompt_length >= request.max_tokens;
    if (request.planned_in == num_plans_ || has_all || is_generating(request) != generating) continue;
    Planned planned = plan_sequence(request, plan);
    while (planned == Planned::kNoMemory && preempt_after(request, plan)) {
      planned = plan_sequence(request, plan);
    }
    MM_CHECK(planned != Planned::kNoMemory || running_.size() > 1, "request {} alone does not fit the cache",
             key.second);
  }
}

bool Scheduler::may_start(const Request& request) const {
  if (request.num_promised > 0) return false;  // preempted with a step under way
  const auto leader = requests_.find(request.after);
  return leader == requests_.end() ||
         leader->second.num_known() - leader->second.num_promised > leader->second.prompt_length;
}

bool Scheduler::admit_next(StepPlan& plan) {
  if (num_running() >= options_.max_sequences || plan.num_tokens >= options_.max_batched_tokens) return false;
  const auto next = std::find_if(waiting_.begin(), waiting_.end(),
                                 [this](const Key& key) { return may_start(requests_.at(key.second)); });
  if (next == waiting_.end()) return false;
  Request& request = requests_.at(next->second);
  const auto length = static_cast<int64_t>(request.tokens.size());
  request.cached =
      cache_.open({request.tokens, request.prompt_length, request.boundaries, !request.wants_prompt_logits});
  // All pages of what is known at once, and one more for every request that runs: a prompt that would be
  // preempted half-way helps nobody.
  const bool fits =
      cache_.grow(request.cached, length) &&
      (running_.empty() || cache_.num_pages_in_use() + num_running() < cache_.options().num_pages);
  if (!fits || plan_sequence(request, plan) != Planned::kYes) {
    cache_.close(request.cached);
    return false;
  }
  cache_.count_query(request.cached, length);
  plan.admitted.push_back(request.key.second);
  waiting_.erase(request.key);
  running_.insert(request.key);
  return true;
}

StepPlan Scheduler::plan_step() {
  StepPlan plan;
  planning_.clear();
  ++num_plans_;
  // Requests that generate take one token each; those in their prompts share what is left.
  plan_running(true, plan);
  plan_running(false, plan);
  if (plan.preempted.empty()) {
    while (admit_next(plan)) {
    }
  }
  if (plan.sequences.empty()) return plan;
  plan.copies = cache_.take_copies();
  steps_.push_back(planning_);
  return plan;
}

void Scheduler::remove(RequestId id) {
  Request& request = requests_.at(id);
  cache_.close(request.cached);
  waiting_.erase(request.key);
  running_.erase(request.key);
  requests_.erase(id);
}

std::vector<RequestId> Scheduler::finish_step(std::span<const StepToken> tokens) {
  MM_CHECK(!steps_.empty(), "no step was planned");
  const std::vector<PlannedSequence> step = std::move(steps_.front());
  steps_.pop_front();
  auto token = tokens.begin();
  std::vector<RequestId> ended;
  for (const PlannedSequence& planned : step) {
    const StepToken* given = planned.gives_token && token != tokens.end() ? &*token++ : nullptr;
    MM_CHECK(!planned.gives_token || (given != nullptr && given->id == planned.id),
             "the step gave no token to request {}", planned.id);
    const auto found = requests_.find(planned.id);
    if (found == requests_.end()) continue;
    Request& request = found->second;
    if (request.admission == planned.admission) {
      cache_.publish(request.cached, std::span(request.tokens).first(static_cast<size_t>(planned.end)));
    }
    if (given == nullptr) continue;
    request.tokens.push_back(given->token);
    --request.num_promised;
    const int64_t generated = static_cast<int64_t>(request.tokens.size()) - request.prompt_length;
    if (given->is_last || generated >= request.max_tokens) {
      ended.push_back(planned.id);
      remove(planned.id);
    }
  }
  return ended;
}

void Scheduler::check_integrity() const {
  std::vector<const cache::CachedSequence*> open;
  for (const auto& [id, request] : requests_) {
    if (request.cached.node != nullptr) open.push_back(&request.cached);
  }
  cache_.check_integrity(open);
  MM_CHECK(requests_.size() == waiting_.size() + running_.size(), "{} requests, {} waiting, {} running",
           requests_.size(), waiting_.size(), running_.size());
}

}  // namespace minimax::engine
