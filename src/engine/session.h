// Session: one sequence running on one model, with its own caches.
//
// All memory is planned when the session is made: the activations by a dry run of the largest prefill and of
// a decode step, the caches by the context length. A decode step allocates nothing. One thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/memory.h"
#include "engine/step_memory.h"
#include "models/model.h"
#include "ops/backend.h"

namespace minimax::engine {

struct SessionOptions {
  int64_t max_context = 0;       // tokens, prompt and answer
  int64_t prefill_chunk = 2048;  // most tokens of a prefill step
  int64_t max_logits_rows = 1;   // rows of logits one step may return
};

class Session {
 public:
  // REQUIRES: `model` and `backend` outlive the session. THROWS: Error when the memory cannot be had.
  Session(const models::Model& model, ops::Backend& backend, const SessionOptions& options);

  // What a session would take, without taking it.
  static MemoryPlan plan(const models::Model& model, ops::Backend& backend, const SessionOptions& options);

  const MemoryPlan& memory_plan() const { return plan_; }
  int64_t length() const { return length_; }
  int64_t max_context() const { return options_.max_context; }

  // Forgets the sequence. The next tokens start at position 0 from a zero state.
  void reset() { length_ = 0; }

  // Appends tokens, in chunks. RETURNS: logits [vocab] after the last one, valid until the next call.
  // REQUIRES: at least one token, ids in [0, vocab). THROWS: Error when the context is full.
  std::span<const float> append(std::span<const int32_t> tokens);

  // Appends tokens and hands out the logits of every one: visit(first row, logits [rows, vocab]).
  void append_visiting(std::span<const int32_t> tokens,
                       const std::function<void(int64_t first, const Tensor& logits)>& visit);

  // Records the ops of the following steps; null to stop.
  void set_tracer(ops::Tracer* tracer) { tracer_ = tracer; }

 private:
  void check_room(std::span<const int32_t> tokens) const;
  // One forward over at most prefill_chunk tokens, with the logits of the last `logits_rows` of them.
  Tensor step(std::span<const int32_t> tokens, int64_t logits_rows);
  // Writes the inputs. RETURNS: where ops find them.
  models::StepBatch fill_batch(std::span<const int32_t> tokens, int64_t logits_rows);
  void forward(const models::StepBatch& batch, const Tensor& logits);

  const models::Model& model_;
  ops::Backend& backend_;
  SessionOptions options_;
  MemoryPlan plan_;
  Arena arena_;
  Memory cache_memory_;
  models::ModelCache cache_;
  StepInputs inputs_;  // at full size; steps use the front
  DeviceInputs device_inputs_;
  Memory logits_memory_;
  Tensor logits_;                           // [max_logits_rows, vocab], where ops write them
  Memory host_logits_memory_;               // of a device
  Tensor host_logits_;                      // logits_, or its copy
  int64_t decode_steps_ = 0;                // begun one by one
  std::unique_ptr<ops::StepGraph> decode_;  // a decode step, recorded
  int64_t length_ = 0;
  ops::Tracer* tracer_ = nullptr;
};

}  // namespace minimax::engine
