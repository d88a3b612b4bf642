// Softmax attention over a paged cache: rotary embedding, cache write, attention.
//
// Cache: pages [num_pages, page_size, num_kv_heads, head_dim], K and V apart. Token i of a sequence lives in
// page block_table[i / page_size] at i % page_size; its flat slot is page * page_size + i % page_size.
#pragma once

#include "ops/op.h"

namespace minimax::ops {

// Partial rotary embedding, in place, NeoX pairing: with r = rotary_dim / 2, for c < r and
// angle = positions[t] * inv_freq[c] (F32): (x[c], x[c+r]) turns by the angle; dims >= rotary_dim pass.
// x [T, heads, D] F32 or BF16, last dimension dense; positions [T] I32; inv_freq [r] F32, 2 r <= D.
struct Rope {
  static constexpr std::string_view kName = "rope";
  Tensor x;
  Tensor positions;
  Tensor inv_freq;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("x", x);
    v("positions", positions);
    v("inv_freq", inv_freq);
  }
};

// k_cache[slot_mapping[t]] = k[t], v alike; slot -1 writes nothing (padded tokens).
// k, v [T, kv_heads, D], last dimension dense; slot_mapping [T] I64, each slot at most once;
// k_cache, v_cache [pages, page_size, kv_heads, D] of k's dtype, contiguous.
struct PagedKvWrite {
  static constexpr std::string_view kName = "paged_kv_write";
  Tensor k;
  Tensor v;
  Tensor slot_mapping;
  Tensor k_cache;
  Tensor v_cache;

  void check() const;
  Cost cost() const;
  void visit(auto&& visitor) const {
    visitor("k", k);
    visitor("v", v);
    visitor("slot_mapping", slot_mapping);
    visitor("k_cache", k_cache);
    visitor("v_cache", v_cache);
  }
};

// Causal GQA over a ragged batch. Sequence b owns the query rows query_starts[b] .. query_starts[b+1]-1,
// which are the last of its seq_lens[b] tokens; all its keys are in the cache already. Row t at position p
// attends to keys 0..p: out[t,h] = softmax(scale * q[t,h] . K) V, softmax in F32; head h reads kv head h /
// (heads / kv_heads). Rows at or beyond query_starts[B] are padding and become zero. One contract for prefill
// and decode: a decode batch has one row a sequence. q, out [T, heads, D] of one dtype, last dimension dense;
// k_cache, v_cache as in PagedKvWrite, of q's dtype; block_table [B, max_pages] I32; query_starts [B + 1]
// I32; seq_lens [B] I32. No aliasing.
struct PagedAttention {
  static constexpr std::string_view kName = "paged_attention";
  Tensor q;
  Tensor k_cache;
  Tensor v_cache;
  Tensor block_table;
  Tensor query_starts;
  Tensor seq_lens;
  float scale = 0;
  Tensor out;

  int64_t max_context() const { return block_table.dim(1) * k_cache.dim(1); }

  void check() const;
  Cost cost() const;  // every sequence at the block table's full width
  void visit(auto&& v) const {
    v("q", q);
    v("k_cache", k_cache);
    v("v_cache", v_cache);
    v("block_table", block_table);
    v("query_starts", query_starts);
    v("seq_lens", seq_lens);
    v("scale", scale);
    v("out", out);
  }
};

void rope(OpContext& context, const Rope& args);
void paged_kv_write(OpContext& context, const PagedKvWrite& args);
void paged_attention(OpContext& context, const PagedAttention& args);

}  // namespace minimax::ops
