// ModelRunner: runs planned steps on a model, with memory planned and taken once.
//
// A step is prepared from its plan (lengths, pages, slots, sampling parameters) while an earlier one still
// runs, then executed: the tokens that only the earlier step could give are filled in, the model runs, and
// one token is drawn for each row of logits. Masks of constrained samples are found by a thread of their own
// while the model runs. prepare and execute may run on different threads, on different
// StepBuffers. Neither takes memory from the heap once the largest step has been seen.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/memory.h"
#include "engine/mask_worker.h"
#include "engine/sampling.h"
#include "engine/scheduler.h"
#include "engine/step_memory.h"

namespace minimax::engine {

struct RunnerOptions {
  int64_t max_model_len = 0;  // tokens of a sequence
  int64_t max_batched_tokens = 2048;
  int64_t max_sequences = 256;
  int64_t max_logits_rows = 256;
  int64_t num_pages = 0;
  int64_t num_slots = 0;
  int64_t num_host_slots = 0;
  int64_t vocab_limit = 0;  // ids at or beyond are never drawn
  // A sequence's numbers do not depend on what else is in the step: parts of prompts run by themselves, and
  // generated tokens in groups in which the backend computes each as if it were alone.
  bool is_deterministic = false;
};

// What a step needs to know of a sequence besides its plan.
struct SequenceView {
  std::span<const int32_t> tokens;  // prompt, and what is known to be generated
  const cache::CachedSequence* cached = nullptr;
  const SamplingParams* sampling = nullptr;
  int64_t prompt_length = 0;
  int64_t prompt_top_logprobs = 0;    // likeliest tokens to report for each token of the prompt
  std::span<const int32_t> banned{};  // tokens that must not be drawn in this step
  std::shared_ptr<ConstrainedSample> constrained{};  // null: any token may be drawn
  bool bans_stop = false;                            // of a constrained sample: min_tokens is not reached
};

// A row of logits: what was drawn for it.
struct StepRow {
  RequestId id = 0;
  int64_t position = 0;  // of the token that the row gives or, of a prompt, whose logprob it gives
  bool is_prompt = false;
};

// One of the two sets of inputs that a runner has. `rows` and `sampling` are the results; the rest is the
// runner's.
struct StepBuffers {
  struct Group {  // sequences that run in one forward
    int64_t first_sequence = 0, num_sequences = 0;
    int64_t first_token = 0, num_tokens = 0;
    int64_t first_row = 0, num_rows = 0;
    bool is_decode = false;
    bool has_checkpoints = false;
  };
  struct Patch {  // a token that the step before gives
    int64_t token = 0;
    int64_t row = -1;  // of this step's sampling, -1 for none
    int64_t previous_row = 0;
    int64_t mask_job = -1;  // that needs the token, -1 for none
  };
  struct HeldPages {
    int64_t stamp = -1;
    int64_t count = 0;
  };
  struct Recording {
    int64_t generation = 0;  // of `sampling`
    std::unique_ptr<ops::StepGraph> graph;
  };

  StepBuffers(const StepShape& shape, ops::Backend& backend, int64_t vocab_size, int64_t vocab_limit);

  std::vector<StepRow> rows;
  SamplingBatch sampling;

  // At full size. Its starts, [2 sequences] I32, are the query_starts of one group behind the other.
  StepInputs inputs;
  std::vector<Group> groups;
  std::vector<Patch> patches;
  std::vector<MaskJob> mask_jobs;
  std::vector<HeldPages> held_pages;  // what each row of the block table holds
  std::vector<cache::StateCopy> copies;
  std::map<int64_t, Recording> recordings;  // decode steps of a device, by rows
};

class ModelRunner {
 public:
  // REQUIRES: `model` and `backend` outlive the runner. THROWS: Error when the memory cannot be had.
  ModelRunner(const models::Model& model, ops::Backend& backend, const RunnerOptions& options);

  // What a runner would take, without taking it.
  static MemoryPlan plan(const models::Model& model, ops::Backend& backend, const RunnerOptions& options);
  const MemoryPlan& memory() const { return memory_plan_; }

  std::unique_ptr<StepBuffers> make_buffers() const;

  // `views` in the order of the plan's sequences; `previous`: the step planned before, if it is not finished.
  void prepare(const StepPlan& plan, std::span<const SequenceView> views, const StepBuffers* previous,
               StepBuffers& step) const;
  // Runs the step; results are in `step.sampling`, by `step.rows`. Steps run in the order of their plans.
  void execute(StepBuffers& step);

  // Records decode steps of every size on a device, with buffers not in use yet; nothing on the host's
  // backends.
  void record_decodes(StepBuffers& step);

  void set_tracer(ops::Tracer* tracer) { tracer_ = tracer; }

 private:
  StepBuffers::Group& group_for(const ScheduledSequence& s, StepBuffers& step) const;
  void prepare_sequence(const ScheduledSequence& s, const SequenceView& view, const StepBuffers* previous,
                        StepBuffers& step) const;
  static void prepare_states(int64_t row, const ScheduledSequence& s, StepBuffers::Group& group,
                             StepBuffers& step);
  void prepare_pages(int64_t row, const cache::CachedSequence& cached, StepBuffers& step) const;
  void prepare_rows(const ScheduledSequence& s, const SequenceView& view, StepBuffers::Group& group,
                    StepBuffers& step) const;
  void begin_masks(StepBuffers& step);
  void copy_states(const std::vector<cache::StateCopy>& copies);
  models::StepBatch batch_of(const StepBuffers& step, size_t group) const;
  void forward(StepBuffers& step);
  void upload_inputs(const StepBuffers& step);
  // Runs a step of decodes alone, sampling included, as one recorded step of at least as many rows. RETURNS:
  // false when it cannot.
  bool launch_recorded(StepBuffers& step);
  bool can_record(int64_t rows) const;
  void launch_decode(StepBuffers& step, int64_t rows);
  // Rows beyond `sequences` become padding.
  static void pad(StepBuffers& step, int64_t sequences, int64_t rows);

  const models::Model& model_;
  ops::Backend& backend_;
  RunnerOptions options_;
  models::CacheLayout layout_;
  MemoryPlan memory_plan_;
  Arena arena_;
  Memory cache_memory_;
  models::ModelCache cache_;
  DeviceInputs device_inputs_;
  Memory host_states_;  // [host slots, layers, bytes of a state]
  Memory logits_memory_;
  Tensor logits_;                            // [max_logits_rows, vocab]
  std::vector<int32_t> last_tokens_;         // that the newest step gave, by row
  std::unique_ptr<MaskWorker> mask_worker_;  // from the first constrained step on
  ops::Tracer* tracer_ = nullptr;
};

}  // namespace minimax::engine
