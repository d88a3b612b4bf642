// The scheduler: which tokens of which requests run in the next step. Pure and deterministic: it knows no
// model, no clock and no thread, and the same calls give the same plans.
//
// A step takes the next token of every request that generates, then chunks of prompts, within budgets of
// tokens, sequences and rows of logits. Requests are served in the order of submission, moved ahead by
// `aging_steps` steps for every point of priority: the order is fixed once a request is in, so only those
// submitted within the next (difference in priority) * aging_steps steps can overtake it. None is admitted
// before the one ahead of it. When memory runs short the last in order gives its pages back and runs again
// later from its tokens (recompute, less what the prefix cache still has); the first is never preempted, so
// every admitted request ends.
//
// Steps may be planned while earlier ones still run (finish_step concludes them in order): the tokens that
// those will give are counted, not known. A request that turns out to have ended with an earlier step is in
// later plans in vain.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "cache/hybrid_cache.h"

namespace minimax::engine {

using RequestId = int64_t;

struct SchedulerOptions {
  int64_t max_batched_tokens = 2048;  // of one step
  int64_t max_sequences = 256;        // running at a time
  int64_t max_logits_rows = 256;      // of one step, at least max_sequences
  int64_t aging_steps = 512;
  // Every sequence is cut into steps in the same way wherever it runs: prompts at multiples of the cache's
  // prompt grid, generated tokens one by one, also when they are computed again.
  bool is_deterministic = false;
};

struct SequenceRequest {
  std::vector<int32_t> prompt;
  int64_t max_tokens = 0;  // most tokens to generate
  int64_t priority = 0;    // higher first
  // Waits until this request has its first token, to share its prompt; 0 for none.
  RequestId after = 0;
  std::vector<int64_t> boundaries{};  // positions where shared prefixes may end
  bool wants_prompt_logits = false;   // logits of every prompt token; nothing is taken from the prefix cache
};

// What one sequence does in a step.
struct ScheduledSequence {
  RequestId id = 0;
  int64_t first = 0;              // position of its first token in the step
  int64_t count = 0;              // tokens
  int64_t write_from = 0;         // positions before it have their keys and values in shared pages
  int64_t num_generated = 0;      // tokens generated before this step's
  bool gives_token = false;       // the last token's logits choose the next one
  bool wants_all_logits = false;  // logits of every row
  // The first token is what an earlier step, not finished yet, gives to this sequence.
  bool continues_step = false;
  cache::StepSlots slots;
};

struct StepPlan {
  std::vector<ScheduledSequence> sequences;
  std::vector<RequestId> admitted;
  std::vector<RequestId> preempted;
  std::vector<cache::StateCopy> copies;  // to make before the step
  int64_t num_tokens = 0;
  int64_t num_logits_rows = 0;
};

// A token that a step gave to a sequence.
struct StepToken {
  RequestId id = 0;
  int32_t token = 0;
  bool is_last = false;  // a stop token: the request ends with it
};

class Scheduler {
 public:
  // REQUIRES: `cache` outlives the scheduler and is used by it alone.
  Scheduler(const SchedulerOptions& options, cache::HybridCache& cache);

  // THROWS: Error when the request could never run: no prompt, or more tokens than all pages hold.
  RequestId submit(SequenceRequest request);
  // Ends a request at any moment; unknown ids are ignored, since it may just have ended.
  void cancel(RequestId id);

  // The next step; empty when nothing can be planned before an earlier step is finished. A plan with
  // sequences must be followed by its finish_step.
  StepPlan plan_step();
  // Concludes the oldest unfinished step with the tokens it gave. RETURNS: requests that ended with it.
  std::vector<RequestId> finish_step(std::span<const StepToken> tokens);

  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_unfinished_steps() const { return static_cast<int64_t>(steps_.size()); }
  bool has_work() const { return !requests_.empty(); }
  bool has(RequestId id) const { return requests_.contains(id); }
  // The prompt and the tokens known to be generated. REQUIRES: the request has not ended.
  std::span<const int32_t> tokens(RequestId id) const { return requests_.at(id).tokens; }
  const cache::CachedSequence& cached(RequestId id) const { return requests_.at(id).cached; }

  // THROWS: InternalError when a page or slot is lost or owned twice.
  void check_integrity() const;

 private:
  using Key = std::pair<int64_t, RequestId>;  // smaller is earlier

  struct Request {
    std::vector<int32_t> tokens;  // prompt, then what was generated
    int64_t prompt_length = 0;
    int64_t max_tokens = 0;
    Key key;
    RequestId after = 0;
    std::vector<int64_t> boundaries;
    bool wants_prompt_logits = false;
    int64_t num_promised = 0;  // tokens that unfinished steps will give
    int64_t admission = 0;     // counts up: steps planned before a preemption are not published after it
    int64_t planned_in = -1;   // number of the newest plan with it
    cache::CachedSequence cached;

    int64_t num_known() const { return static_cast<int64_t>(tokens.size()) + num_promised; }
  };
  struct PlannedSequence {
    RequestId id = 0;
    int64_t admission = 0;
    int64_t end = 0;
    bool gives_token = false;
  };
  enum class Planned : uint8_t { kYes, kNoMemory, kNoBudget };

  bool is_generating(const Request& request) const {
    return request.num_known() - request.cached.length == 1;
  }
  bool may_start(const Request& request) const;
  int64_t step_end(const Request& request, int64_t budget) const;
  void plan_running(bool generating, StepPlan& plan);
  bool admit_next(StepPlan& plan);
  Planned plan_sequence(Request& request, StepPlan& plan);
  bool preempt_after(const Request& request, StepPlan& plan);
  void remove(RequestId id);

  SchedulerOptions options_;
  cache::HybridCache& cache_;
  std::map<RequestId, Request> requests_;
  std::set<Key> waiting_;
  std::set<Key> running_;
  std::deque<std::vector<PlannedSequence>> steps_;  // unfinished, oldest first
  std::vector<PlannedSequence> planning_;
  RequestId next_id_ = 1;
  int64_t num_plans_ = 0;
};

}  // namespace minimax::engine
