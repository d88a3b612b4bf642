// Decode steps of many sequences at once, for `minimax bench`: each sequence has pages and a state slot of
// its own, filled with random numbers, and every step is counted in bytes that it cannot avoid.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/memory.h"
#include "engine/step_memory.h"
#include "models/model.h"
#include "ops/backend.h"

namespace minimax::apps {

// Bytes of caches that steps read or wrote, the experts that their routing chose, and the operations of
// attention. Counted from the operands of the ops as they run: a device is waited for at every op.
class StepTraffic : public ops::Tracer {
 public:
  explicit StepTraffic(ops::Backend& backend) : backend_(backend) {}
  void on_op(const ops::OpRecord& record) override;

  double cache_bytes() const { return cache_bytes_; }
  int64_t distinct_experts() const { return distinct_experts_; }  // summed over expert layers
  int64_t expert_layers() const { return expert_layers_; }
  // Of scores and weighted values that causality leaves, of chosen blocks the newest whole.
  double attention_flops() const { return attention_flops_; }

 private:
  // What an I32 operand holds.
  std::vector<int32_t> values_of(const Tensor& tensor) const;

  ops::Backend& backend_;
  double cache_bytes_ = 0;
  int64_t distinct_experts_ = 0;
  int64_t expert_layers_ = 0;
  double attention_flops_ = 0;
};

class BatchedDecode {
 public:
  // REQUIRES: `model` and `backend` outlive the object. THROWS: Error when the memory cannot be had.
  BatchedDecode(const models::Model& model, ops::Backend& backend, int64_t batch, int64_t context,
                int64_t max_steps);

  int64_t batch() const { return inputs_.host().token_ids.dim(0); }
  // Back to the context that was given; states keep what they hold.
  void reset() { length_ = context_; }
  // One token a sequence. REQUIRES: at most max_steps since the start or a reset.
  void step(std::span<const int32_t> tokens, ops::Tracer* tracer);

 private:
  const models::Model& model_;
  ops::Backend& backend_;
  int64_t context_;
  int64_t length_;
  int64_t max_pages_;  // of a sequence
  Memory memory_;
  models::ModelCache cache_;
  engine::StepInputs inputs_;
  engine::DeviceInputs device_inputs_;
  Tensor logits_;
  Arena arena_;
  int64_t steps_ = 0;
  std::unique_ptr<ops::StepGraph> recorded_;
};

}  // namespace minimax::apps
