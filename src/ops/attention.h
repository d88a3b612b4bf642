// Softmax attention over a paged cache: rotary embedding, cache write, attention.
//
// Cache: pages [num_pages, page_size, num_kv_heads, head_dim], K and V apart, contiguous, both of one dtype:
// F32, BF16 or F8_E4M3, whatever the dtype of queries. Token i of a sequence lives in page
// block_table[i / page_size] at i % page_size; its flat slot is page * page_size + i % page_size. F8_E4M3 has
// no scale: values are rounded to nearest even and saturate at +-448.
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
// k_cache, v_cache [pages, page_size, kv_heads, D] of any cache dtype.
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

// From the fused projection to queries and caches in one pass: RMSNorm of q and k, rotary embedding, store;
// v is only converted. An indexer's queries and keys, when there are any, go the same way.
//
// qkv [T, (heads + 2 kv_heads) D (+ (index_heads + 1) Di)] F32 or BF16 with dense rows: q | k | v (| index q
// | index k). A norm weight of length D is shared by the heads, which are normed one by one; one of length
// heads * D (k: kv_heads * D) belongs to a norm over the flattened width. With `squares` [T, 2] F32,
// contiguous, that width is q_norm_width (k: k_norm_width), of which the heads here are a part, and the sums
// of squares of q and k over it are given (norm.h); both weights are then flattened ones.
// index_q_norm, index_k_norm [Di] are per
// head. Weights are F32 or BF16 and count as weight_offset + w: 0 for the plain RMSNorm, 1 for Gemma's.
// Rotary as in Rope, with inv_freq [r] for q, k and the indexer alike: 2 r <= D, 2 r <= Di.
// Norm, weight and rotary in F32, rounded once, at the store (published implementations also round between
// norm and rotary; one rounding is closer to the exact value).
//
// positions [T] I32; slot_mapping [T] I64, each slot at most once: k, v and the index key go to its slot, -1
// writes none of them. q_out [T, heads, D] F32 or BF16, index_q_out [T, index_heads, Di] F32, BF16 or
// F8_E4M3, both with a dense last dimension; index_cache [pages, page_size, Di], F32, BF16 or F8_E4M3,
// contiguous, with the pages of k_cache. Without an indexer its four tensors are undefined. No aliasing.
// Bound against the exact value: 1e-5 in F32, one rounding in BF16 and F8_E4M3.
struct QkNormRopeKvWrite {
  static constexpr std::string_view kName = "qk_norm_rope_kv_write";
  Tensor qkv;
  Tensor q_norm;
  Tensor k_norm;
  Tensor index_q_norm;
  Tensor index_k_norm;
  float weight_offset = 0;
  float eps = 0;
  Tensor positions;
  Tensor inv_freq;
  Tensor slot_mapping;
  Tensor q_out;
  Tensor index_q_out;
  Tensor k_cache;
  Tensor v_cache;
  Tensor index_cache;
  Tensor squares{};  // undefined: of the heads here
  int64_t q_norm_width = 0;
  int64_t k_norm_width = 0;

  int64_t heads() const { return q_out.dim(1); }
  int64_t kv_heads() const { return k_cache.dim(2); }
  int64_t head_dim() const { return q_out.dim(2); }
  int64_t index_heads() const { return index_q_out.defined() ? index_q_out.dim(1) : 0; }
  int64_t index_dim() const { return index_q_out.defined() ? index_q_out.dim(2) : 0; }

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("qkv", qkv);
    v("q_norm", q_norm);
    v("k_norm", k_norm);
    v("index_q_norm", index_q_norm);
    v("index_k_norm", index_k_norm);
    v("weight_offset", weight_offset);
    v("eps", eps);
    v("positions", positions);
    v("inv_freq", inv_freq);
    v("slot_mapping", slot_mapping);
    v("q_out", q_out);
    v("index_q_out", index_q_out);
    v("k_cache", k_cache);
    v("v_cache", v_cache);
    v("index_cache", index_cache);
    v("squares", squares);
    v("q_norm_width", static_cast<double>(q_norm_width));
    v("k_norm_width", static_cast<double>(k_norm_width));
  }

 private:
  void check_indexer() const;
  void check_squares() const;
};

// Causal GQA over a ragged batch. Sequence b owns the query rows query_starts[b] .. query_starts[b+1]-1,
// which are the last of its seq_lens[b] tokens; all its keys are in the cache already. Row t at position p
// attends to keys 0..p: out[t,h] = softmax(scale * q[t,h] . K) V, softmax in F32, its weights rounded to
// BF16 at most where q is BF16; head h reads kv head h / (heads / kv_heads). Rows at or beyond
// query_starts[B] are padding and become zero. One contract for prefill and decode: a decode batch has one
// row a sequence. q, out [T, heads, D] of one dtype, last dimension dense; k_cache, v_cache as in
// PagedKvWrite; block_table [B, max_pages] I32; query_starts [B + 1] I32; seq_lens [B] I32. No aliasing.
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
void qk_norm_rope_kv_write(OpContext& context, const QkNormRopeKvWrite& args);
void paged_attention(OpContext& context, const PagedAttention& args);

}  // namespace minimax::ops
