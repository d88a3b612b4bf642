// Internal to paged attention: what its kernels work on.
#pragma once

#include "ops/sparse_attention.h"

namespace minimax::cpu {

// The operands of PagedAttention, or of SparsePagedAttention, where `selection` is defined.
struct PagedView {
  Tensor q;
  Tensor k_cache;
  Tensor v_cache;
  Tensor block_table;
  Tensor query_starts;
  Tensor seq_lens;
  Tensor selection;
  float scale;
  Tensor out;

  int64_t group() const { return q.dim(1) / k_cache.dim(2); }  // query heads of a kv head
  int64_t max_keys() const {
    const int64_t blocks =
        selection.defined() ? std::min(selection.dim(2), block_table.dim(1)) : block_table.dim(1);
    return blocks * k_cache.dim(1);
  }
};

// Tokens [first_token, first_token + tokens) of sequence b, the query heads of kv head `kv_head`.
struct AttentionTile {
  int64_t b;
  int64_t kv_head;
  int64_t first_token;  // row of q
  int64_t tokens;
  int64_t first_position;  // of first_token in its sequence
};

}  // namespace minimax::cpu
