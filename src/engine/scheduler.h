// The scheduler: which tokens of which requests run in the next step. Pure and deterministic: it knows no
// model, no clock and no thread, and the same calls give the same plans.
//
// A step takes every running request's next token first, then chunks of prompts, within a budget of tokens
// and of sequences. Requests are ordered by priority, which waiting raises, then by arrival. When memory runs
// short the last in that order gives its pages back and runs again later from its tokens (recompute); the
// first in order is never preempted, so every admitted request ends.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "cache/hybrid_cache.h"

namespace minimax::engine {

using RequestId = int64_t;

struct SchedulerOptions {
  int64_t max_batched_tokens = 2048;  // of one step
  int64_t max_sequences = 256;        // running at a time
  int64_t aging_steps = 512;          // steps of waiting that raise a request by one priority
};

struct SequenceRequest {
  std::vector<int32_t> prompt;
  int64_t max_tokens = 0;  // most tokens to generate
  int64_t priority = 0;    // higher first
};

// What one sequence does in a step.
struct ScheduledSequence {
  RequestId id = 0;
  int64_t first = 0;         // position of its first token in the step
  int64_t count = 0;         // tokens
  int64_t write_from = 0;    // positions before it have their keys and values in shared pages
  bool gives_token = false;  // the last token's logits choose the next one
  cache::StepSlots slots;
};

struct StepPlan {
  std::vector<ScheduledSequence> sequences;
  std::vector<RequestId> preempted;
  int64_t num_tokens = 0;
};

// A token that a step gave to a sequence, in the plan's order of those with gives_token.
struct StepToken {
  RequestId id = 0;
  int32_t token = 0;
  bool is_last = false;  // a stop token or a stop string: the request ends with it
};

class Scheduler {
 public:
  // REQUIRES: `cache` outlives the scheduler and is used by it alone.
  Scheduler(const SchedulerOptions& options, cache::HybridCache& cache, int64_t num_pages, int64_t page_size);

  // THROWS: Error when the request could never run: no prompt, or more tokens than all pages hold.
  RequestId submit(SequenceRequest request);
  // Ends a request at any moment between two calls; unknown ids are ignored, since it may just have ended.
  void cancel(RequestId id);

  // The next step; empty when nothing can run. Must be followed by `finish_step`, cancellations between
  // allowed.
  StepPlan plan_step();
  // Concludes the planned step. RETURNS: requests that ended with it.
  std::vector<RequestId> finish_step(std::span<const StepToken> tokens);

  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  bool has_work() const { return !requests_.empty(); }
  // The prompt and what was generated. REQUIRES: the request has not ended.
  std::span<const int32_t> tokens(RequestId id) const { return requests_.at(id).tokens; }
  std::span<const int32_t> pages(RequestId id) const { return requests_.at(id).cached.pages; }

  // THROWS: InternalError when a page or slot is lost or owned twice.
  void check_integrity() const;

 private:
  struct Request {
    std::vector<int32_t> tokens;  // prompt, then what was generated
    int64_t prompt_length = 0;
    int64_t max_tokens = 0;
    int64_t priority = 0;
    int64_t arrival = 0;
    int64_t waiting_since = 0;  // step
    int64_t prefill_end = 0;    // tokens known when it was last admitted
    int64_t planned = 0;        // tokens of the step under way
    bool is_cancelled = false;
    cache::CachedSequence cached;
  };

  // Smaller is earlier.
  std::pair<int64_t, int64_t> rank(const Request& request) const;
  void sort_by_rank(std::vector<RequestId>& ids) const;
  bool admit_next(StepPlan& plan);
  // Plans up to `budget` tokens. RETURNS: false when memory is short.
  bool plan_sequence(RequestId id, int64_t budget, StepPlan& plan);
  bool preempt_after(RequestId id, StepPlan& plan);
  void remove(RequestId id);

  SchedulerOptions options_;
  cache::HybridCache& cache_;
  int64_t page_size_;
  int64_t max_tokens_;  // that all pages hold
  std::map<RequestId, Request> requests_;
  std::vector<RequestId> waiting_;
  std::vector<RequestId> running_;
  std::vector<RequestId> planned_;
  RequestId next_id_ = 1;
  int64_t step_ = 0;
  bool is_step_open_ = false;
};

}  // namespace minimax::engine
