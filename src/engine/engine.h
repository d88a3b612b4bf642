// Engine: requests in, tokens out, many at a time on one model.
//
//   engine::Engine engine(model, backend, options);
//   engine.submit(request, {on_token, on_finish});
//   engine.drain();
//
// Three threads: one plans steps (and prepares step n + 1 while step n runs), one runs them on the model, one
// calls the callbacks. submit, cancel, drain and stats may be called from any thread, also from callbacks
// (drain excepted). Requests never see each other: what a request reads is its own or an equal prefix.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/hybrid_cache.h"
#include "engine/constraint.h"
#include "engine/finish_reason.h"
#include "engine/sampling.h"
#include "engine/step_memory.h"
#include "models/model.h"
#include "observe/log.h"
#include "observe/metrics.h"
#include "observe/trace.h"

namespace minimax::engine {

struct EngineOptions {
  int64_t max_model_len = 0;          // tokens of a sequence; 0: the model's own limit
  bool fits_memory = false;           // max_model_len is lowered to what one sequence has memory for
  int64_t max_batched_tokens = 2048;  // of a step
  int64_t max_sequences = 64;         // running at a time
  int64_t cache_tokens = 0;           // tokens that the KV pages hold; 0: max_model_len * max_sequences, or
                                      // what half of the memory left holds, but one sequence at least
  int64_t state_snapshots = 64;       // linear states kept for prefixes, besides two a sequence
  int64_t host_snapshots = 0;         // more of them in host memory
  int64_t snapshot_interval = 8192;   // tokens between snapshots inside a long prompt
  bool share_prefixes = true;
  int64_t aging_steps = 512;  // steps of waiting that are worth one point of priority
  int64_t vocab_limit = 0;    // ids at or beyond are never drawn; 0: the whole head
  // A request's tokens do not depend on what else runs, on how its prompt is cut, or on cache hits.
  // docs/architecture.md says how and what it costs.
  bool is_deterministic = false;
  int64_t prompt_grid = 256;  // cut of prompts when deterministic, in tokens
  bool overlaps_planning = true;
  // Each may be null and must outlive the engine.
  observe::Metrics* metrics = nullptr;
  observe::Trace* trace = nullptr;
  observe::Log* log = nullptr;
};

// The pages, slots and memory that options come to on a model.
struct EnginePlan {
  int64_t max_model_len = 0;
  int64_t page_size = 0;
  int64_t num_pages = 0;
  int64_t num_slots = 0;
  MemoryPlan memory;
};

struct Request {
  std::vector<int32_t> prompt;
  SamplingParams sampling;  // sample i of n draws with seed + i
  int64_t max_tokens = 16;
  int64_t min_tokens = 0;               // no stop token is drawn before
  std::vector<int32_t> stop_token_ids;  // not reported as tokens of the answer
  int32_t n = 1;                        // samples of one prompt
  // Logprobs of the prompt's tokens with so many alternatives each; the prompt is then computed in full.
  std::optional<int32_t> prompt_logprobs;
  int64_t priority = 0;  // higher first
  std::optional<double> timeout_seconds;
  std::vector<int64_t> boundaries;  // positions where prefixes may end that later prompts share
  ConstraintMaker constraint;       // what each sample must form; empty: anything
};

// Durations in seconds.
struct Timings {
  double queue = 0;        // from submit to the first step
  double prefill = 0;      // from there to the first token
  double first_token = 0;  // from submit
  double total = 0;        // from submit to the end
};

struct TokenOutput {
  int32_t sample = 0;
  SampledToken token;
};

struct FinishedSample {
  int32_t sample = 0;
  FinishReason reason = FinishReason::kLength;
  std::string error;  // of kError
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, not computed
  int64_t num_tokens = 0;     // reported
  int64_t num_preemptions = 0;
  Timings timings;
};

struct Callbacks {
  // False stops the sample, which then finishes with kStop.
  std::function<bool(const TokenOutput&)> on_token;
  // Once for each sample, after its last token.
  std::function<void(const FinishedSample&)> on_finish;
  // Before the first token: entry i is the logprob of prompt token i + 1.
  std::function<void(const std::vector<SampledToken>&)> on_prompt;
};

struct EngineStats {
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  int64_t num_steps = 0;
  int64_t num_preemptions = 0;
  int64_t prompt_tokens = 0;    // of requests admitted
  int64_t computed_tokens = 0;  // rows run through the model
  int64_t generated_tokens = 0;
  int64_t pages_in_use = 0;
  int64_t pages_cached = 0;
  int64_t num_pages = 0;
  int64_t free_pages = 0;  // neither held nor cached
  int64_t num_slots = 0;
  int64_t free_slots = 0;
  int64_t num_snapshots = 0;
  double planning_seconds = 0;   // planning, preparing and finishing steps
  double executing_seconds = 0;  // running them
  cache::HybridCacheStats cache;
};

using EngineRequestId = int64_t;

class Engine {
 public:
  // REQUIRES: `model` and `backend` outlive the engine, and nothing else uses them meanwhile.
  // THROWS: Error when options do not fit the model or the memory cannot be had.
  Engine(const models::Model& model, ops::Backend& backend, const EngineOptions& options);
  // Cancels what is left.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  static EnginePlan plan(const models::Model& model, ops::Backend& backend, const EngineOptions& options);
  const EnginePlan& plan() const;

  // THROWS: Error naming what is wrong with the request.
  void check(const Request& request) const;
  // THROWS: as check, or when the engine has failed; nothing is submitted then.
  EngineRequestId submit(Request request, Callbacks callbacks);
  // Ends all samples of a request; those that are not finished finish with kCancelled.
  void cancel(EngineRequestId id);
  // Forgets prefixes that no request uses, soon.
  void reset_prefix_cache();
  // Waits until everything submitted has finished and its callbacks have returned.
  void drain();
  EngineStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// A finished sample as a whole, for callers that do not stream.
struct Completion {
  std::vector<SampledToken> tokens;
  FinishedSample finish;

  std::vector<int32_t> token_ids() const;
};

// Submits, waits, and RETURNS: the samples in order. THROWS: Error as submit, or as the engine failed.
std::vector<Completion> complete(Engine& engine, Request request);

}  // namespace minimax::engine
