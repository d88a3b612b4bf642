// What the caches of a model hold: the one description that memory planning, the engine and `inspect` share.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace minimax::models {

struct CacheLayout {
  int64_t page_size = 16;  // tokens of a page, of keys and values and of index keys alike

  int64_t num_kv_layers = 0;  // each K and V [pages, page_size, num_kv_heads, head_dim]
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  DType kv_dtype = DType::kBF16;

  int64_t num_index_layers = 0;  // each [pages, page_size, index_dim]
  int64_t index_dim = 0;
  DType index_dtype = DType::kBF16;

  int64_t num_state_layers = 0;  // each [slots, num_state_heads, head_dim, head_dim] F32
  int64_t num_state_heads = 0;

  // K and V of one page of one layer.
  int64_t page_bytes() const { return 2 * page_size * num_kv_heads * head_dim * size_of(kv_dtype); }
  int64_t index_page_bytes() const { return page_size * index_dim * size_of(index_dtype); }
  int64_t kv_bytes(int64_t num_pages) const { return num_kv_layers * num_pages * page_bytes(); }
  int64_t index_bytes(int64_t num_pages) const { return num_index_layers * num_pages * index_page_bytes(); }
  int64_t kv_bytes_per_token() const { return kv_bytes(1) / page_size; }
  int64_t index_bytes_per_token() const { return index_bytes(1) / page_size; }
  int64_t state_bytes(int64_t num_slots) const {
    return num_state_layers * num_slots * num_state_heads * head_dim * head_dim * size_of(DType::kF32);
  }
};

}  // namespace minimax::models
