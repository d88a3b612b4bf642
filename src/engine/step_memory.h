// The memory behind a model's caches and the inputs of its steps.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "core/arena.h"
#include "core/host_memory.h"
#include "models/model.h"

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
  explicit Placer(std::byte* base) : base_(base) {}
  Tensor operator()(std::string_view name, DType dtype, std::initializer_list<int64_t> shape);
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
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

models::StepBatch place_inputs(const StepShape& shape, Placer& place);

// The front of the buffers, for a smaller step with the same width of block table.
models::StepBatch front(const models::StepBatch& inputs, int64_t tokens, int64_t sequences,
                        int64_t logits_rows, bool is_decode);

}  // namespace minimax::engine
