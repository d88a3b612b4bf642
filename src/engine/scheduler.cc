#include "engine/scheduler.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::engine {

Scheduler::Scheduler(const SchedulerOptions& options, cache::HybridCache& cache, int64_t num_pages,
                     int64_t page_size)
    : options_(options), cache_(cache), page_size_(page_size), max_tokens_(num_pages * page_size) {
  MM_CHECK(options.max_batched_tokens > 0 && options.max_sequences > 0 && options.aging_steps > 0,
           "scheduler: {} tokens, {} sequences, {} aging steps", options.max_batched_tokens,
           options.max_sequences, options.aging_steps);
}

RequestId Scheduler::submit(SequenceRequest request) {
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length == 0) fail("the prompt is empty; give at least one token");
  if (request.max_tokens < 1) fail("max_tokens is {}; expected at least 1", request.max_tokens);
  if (length + request.max_tokens > max_tokens_) {
    fail(
        "the prompt of {} tokens and max_tokens {} exceed the {} tokens that the cache holds; shorten either",
        length, request.max_tokens, max_tokens_);
  }
  const RequestId id = next_id_++;
  Request& entry = requests_[id];
  entry.tokens = std::move(request.prompt);
  entry.prompt_length = length;
  entry.max_tokens = request.max_tokens;
  entry.priority = request.priority;
  entry.arrival = id;
  entry.waiting_since = step_;
  waiting_.push_back(id);
  return id;
}

void Scheduler::cancel(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  // A step under way still reads its pages.
  if (is_step_open_ && found->second.planned > 0) {
    found->second.is_cancelled = true;
  } else {
    remove(id);
  }
}

std::pair<int64_t, int64_t> Scheduler::rank(const Request& request) const {
  const int64_t aged = request.priority + (step_ - request.waiting_since) / options_.aging_steps;
  return {-aged, request.arrival};
}

void Scheduler::sort_by_rank(std::vector<RequestId>& ids) const {
  std::sort(ids.begin(), ids.end(),
            [this](RequestId a, RequestId b) { return rank(requests_.at(a)) < rank(requests_.at(b)); });
}

bool Scheduler::preempt_after(RequestId id, StepPlan& plan) {
  // From the back: the last in order that is not yet part of this step.
  for (auto victim = running_.rbegin(); victim != running_.rend() && *victim != id; ++victim) {
    Request& request = requests_.at(*victim);
    if (request.planned > 0) continue;
    cache_.close(request.cached);
    plan.preempted.push_back(*victim);
    waiting_.push_back(*victim);
    running_.erase(std::next(victim).base());
    return true;
  }
  return false;
}

bool Scheduler::plan_sequence(RequestId id, int64_t budget, StepPlan& plan) {
  Request& request = requests_.at(id);
  const int64_t first = request.cached.length;
  const auto known = static_cast<int64_t>(request.tokens.size());
  int64_t end = std::min(first + budget, known);
  if (end < known || end - first > 1) end = cache_.chunk_end(request.cached, request.prompt_length, end);
  ScheduledSequence scheduled;
  if (!cache_.grow(request.cached, end) || !cache_.prepare_slots(request.cached, scheduled.slots))
    return false;
  request.planned = end - first;
  scheduled.id = id;
  scheduled.first = first;
  scheduled.count = end - first;
  scheduled.write_from = request.cached.num_shared * page_size_;
  scheduled.gives_token = end == known;
  plan.sequences.push_back(scheduled);
  plan.num_tokens += scheduled.count;
  planned_.push_back(id);
  return true;
}

bool Scheduler::admit_next(StepPlan& plan) {
  if (waiting_.empty() || num_running() >= options_.max_sequences) return false;
  const int64_t budget = options_.max_batched_tokens - plan.num_tokens;
  if (budget <= 0) return false;
  const RequestId id = waiting_.front();
  Request& request = requests_.at(id);
  request.cached = cache_.open(request.tokens);
  // All pages of what is known at once: a prompt that would be preempted half-way helps nobody.
  const bool fits = cache_.grow(request.cached, static_cast<int64_t>(request.tokens.size()));
  if (!fits || !plan_sequence(id, budget, plan)) {
    cache_.close(request.cached);
    return false;
  }
  waiting_.erase(waiting_.begin());
  running_.push_back(id);
  return true;
}

StepPlan Scheduler::plan_step() {
  MM_CHECK(!is_step_open_, "the step before is not finished");
  StepPlan plan;
  planned_.clear();
  sort_by_rank(running_);
  // Requests that generate take one token each; those in their prompts share what is left.
  for (const bool generating : {true, false}) {
    const std::vector<RequestId> order = running_;
    for (const RequestId id : order) {
      if (std::find(running_.begin(), running_.end(), id) == running_.end()) continue;  // preempted
      const Request& request = requests_.at(id);
      const auto known = static_cast<int64_t>(request.tokens.size());
      if ((known - request.cached.length == 1) != generating) continue;
      const int64_t budget = options_.max_batched_tokens - plan.num_tokens;
      if (budget <= 0) break;
      bool is_planned = plan_sequence(id, budget, plan);
      while (!is_planned && preempt_after(id, plan)) is_planned = plan_sequence(id, budget, plan);
      if (!is_planned && plan.sequences.empty() && running_.size() == 1) {
        fail("one request alone does not fit the cache");
      }
    }
  }
  // Preempted requests go back with their arrival, so they are ahead of newer ones.
  sort_by_rank(waiting_);
  if (plan.preempted.empty()) {
    while (admit_next(plan)) {
    }
  }
  is_step_open_ = !plan.sequences.empty();
  return plan;
}

void Scheduler::remove(RequestId id) {
  cache_.close(requests_.at(id).cached);
  requests_.erase(id);
  std::erase(waiting_, id);
  std::erase(running_, id);
}

std::vector<RequestId> Scheduler::finish_step(std::span<const StepToken> tokens) {
  MM_CHECK(is_step_open_, "no step was planned");
  is_step_open_ = false;
  ++step_;
  for (const RequestId id : planned_) {
    Request& request = requests_.at(id);
    const auto done = static_cast<size_t>(request.cached.length + request.planned);
    cache_.advance(request.cached, std::span(request.tokens).first(done), request.prompt_length);
    request.planned = 0;
    request.waiting_since = step_;
  }
  std::vector<RequestId> ended;
  for (const StepToken& token : tokens) {
    Request& request = requests_.at(token.id);
    request.tokens.push_back(token.token);
    const int64_t generated = static_cast<int64_t>(request.tokens.size()) - request.prompt_length;
    if (token.is_last || generated >= request.max_tokens) ended.push_back(token.id);
  }
  for (const RequestId id : planned_) {
    const bool is_ended = std::find(ended.begin(), ended.end(), id) != ended.end();
    if (is_ended || requests_.at(id).is_cancelled) remove(id);
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
