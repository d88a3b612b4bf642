// The memory behind a model's caches and the inputs of its steps.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "core/arena.h"
#include "core/memory.h"
#include "models/model.h"
#include "ops/backend.h"

namespace minimax::engine {

// Bytes that running a model takes besides its weights.
struct MemoryPlan {
  int64_t kv_cache_bytes = 0;
  int64_t index_cache_bytes = 0;
  int64_t linear_state_bytes = 0;
  int64_t host_state_bytes = 0;  // snapshots of linear states in host memory
  int64_t activation_bytes = 0;  // at most, in any step
  int64_t buffer_bytes = 0;      // step inputs and logits

  int64_t total_bytes() const {
    return kv_cache_bytes + index_cache_bytes + linear_state_bytes + host_state_bytes + activation_bytes +
           buffer_bytes;
  }
};

// Places tensors one behind the other; without memory it only measures.
class Placer {
 public:
  explicit Placer(std::byte* base, Device device = {}) : base_(base), device_(device) {}
  explicit Placer(const Memory& memory) : Placer(memory.data(), memory.device()) {}
  Tensor operator()(std::string_view name, DType dtype, std::initializer_list<int64_t> shape);
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  Device device_;
  int64_t used_ = 0;
};

// Caches of `num_pages` pages and `num_slots` state slots.
models::ModelCache place_cache(const models::CacheLayout& layout, int64_t num_pages, int64_t num_slots,
                               Placer& place);

// The largest step that buffers are made for.
struct StepShape {
  int64_t tokens = 0;
  int64_t sequences = 0;
  int64_t pages = 0;  // of a sequence
  int64_t logits_rows = 0;
};

// The block table comes last, behind all that is small.
models::StepBatch place_inputs(const StepShape& shape, Placer& place);

// The front of the buffers, for a smaller step with the same width of block table and no checkpoints.
models::StepBatch front(const models::StepBatch& inputs, int64_t tokens, int64_t sequences,
                        int64_t logits_rows, bool is_decode);

// The inputs of steps: written on the host, read by ops. They are the same memory where the backend computes
// there; otherwise the host's side is for staging.
class StepInputs {
 public:
  StepInputs() = default;
  // `starts`: more room for query starts behind the batch's own, for several batches of a step.
  StepInputs(const StepShape& shape, int64_t starts, ops::Backend& backend);
  // Bytes of one side.
  static int64_t bytes(const StepShape& shape, int64_t starts);

  const models::StepBatch& host() const { return host_; }
  const Tensor& host_starts() const { return host_starts_; }

 private:
  friend class DeviceInputs;

  Memory memory_;
  models::StepBatch host_;
  Tensor host_starts_;
};

// What ops read: the memory of `StepInputs` itself, or a copy on the device that all of them share.
class DeviceInputs {
 public:
  DeviceInputs(const StepShape& shape, int64_t starts, ops::Backend& backend);

  // Where ops find the inputs of `host` after upload().
  const models::StepBatch& batch(const StepInputs& host) const { return is_host_ ? host.host_ : device_; }
  const Tensor& starts(const StepInputs& host) const { return is_host_ ? host.host_starts_ : device_starts_; }
  // Copies everything but the block table, and of that the first `pages` of the first `sequences` rows.
  void upload(const StepInputs& host, int64_t sequences, int64_t pages);

 private:
  ops::Backend& backend_;
  bool is_host_;
  Memory memory_;
  models::StepBatch device_;
  Tensor device_starts_;
};

}  // namespace minimax::engine
