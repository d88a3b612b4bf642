// Block-sparse attention with an indexer (MiniMax-M3): score the blocks of a sequence, choose the best,
// attend to those alone.
//
// Block b of a sequence is its tokens b * block_size .. (b + 1) * block_size - 1, counted from the sequence's
// first token; a block is a page of the caches. Batches are ragged as in PagedAttention: row t of sequence b
// has position seq_lens[b] - query_starts[b + 1] + t, and all keys are in the cache already. Rows at or
// beyond query_starts[B] are padding. Index head g serves kv head g.
#pragma once

#include <algorithm>

#include "ops/op.h"

namespace minimax::ops {

// scores[t,g,b] = max over keys i <= position(t) of block b of index_q[t,g] . index_k[i], summed in F32; no
// scale, since a positive one cannot change the choice. -inf for blocks beyond the position's and in padding
// rows. A key whose product is NaN either makes its block's score NaN or is passed over.
// index_q [T, G, Di], last dimension dense; index_cache [pages, block_size, Di] contiguous, token i in page
// block_table[i / block_size]; both F32, BF16 or F8_E4M3, each its own; scores [T, G, max_blocks] F32 with a
// dense last dimension and max_blocks == block_table.dim(1); block_table, query_starts, seq_lens I32. No
// aliasing. The op directly before may write keys of these rows, no older ones: a device may read those
// before it has ended. Bound: 1e-5 of the largest product of norms.
struct IndexBlockScores {
  static constexpr std::string_view kName = "index_block_scores";
  Tensor index_q;
  Tensor index_cache;
  Tensor block_table;
  Tensor query_starts;
  Tensor seq_lens;
  Tensor scores;

  int64_t block_size() const { return index_cache.dim(1); }

  void check() const;
  Cost cost() const;  // every sequence at the block table's full width
  void visit(auto&& v) const {
    v("index_q", index_q);
    v("index_cache", index_cache);
    v("block_table", block_table);
    v("query_starts", query_starts);
    v("seq_lens", seq_lens);
    v("scores", scores);
  }
};

// selection[t,g] = the min(k, n_valid) chosen blocks in ascending order, then -1; n_valid = position(t) /
// block_size + 1. Chosen first, within k, are the blocks 0 .. init_blocks - 1, then the newest local_blocks
// from the newest on; then the best scores, of equal ones the lowest block; NaN counts as -inf. Padding rows
// are all -1. scores [T, G, max_blocks] F32 with a dense last dimension; selection [T, G, k] I32 contiguous,
// k >= 1: its memory belongs to the caller and may outlive the step.
struct SelectBlocks {
  static constexpr std::string_view kName = "select_blocks";
  Tensor scores;
  int64_t block_size = 0;
  Tensor query_starts;
  Tensor seq_lens;
  int64_t init_blocks = 0;
  int64_t local_blocks = 0;
  Tensor selection;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("scores", scores);
    v("block_size", static_cast<double>(block_size));
    v("query_starts", query_starts);
    v("seq_lens", seq_lens);
    v("init_blocks", static_cast<double>(init_blocks));
    v("local_blocks", static_cast<double>(local_blocks));
    v("selection", selection);
  }
};

// PagedAttention with row t's kv head g restricted to the tokens i <= position(t) of the blocks
// selection[t,g]: ascending, the first -1 ends the list, at least one block with such a token. With all valid
// blocks chosen it equals PagedAttention. selection [T, kv_heads, k] I32 contiguous; the page size is the
// block size; everything else as in PagedAttention.
struct SparsePagedAttention {
  static constexpr std::string_view kName = "sparse_paged_attention";
  Tensor q;
  Tensor k_cache;
  Tensor v_cache;
  Tensor block_table;
  Tensor query_starts;
  Tensor seq_lens;
  Tensor selection;
  float scale = 0;
  Tensor out;

  // Most keys a row attends to.
  int64_t max_keys() const { return std::min(selection.dim(2), block_table.dim(1)) * k_cache.dim(1); }

  void check() const;
  Cost cost() const;  // max_keys for every row, no key of a sequence twice
  void visit(auto&& v) const {
    v("q", q);
    v("k_cache", k_cache);
    v("v_cache", v_cache);
    v("block_table", block_table);
    v("query_starts", query_starts);
    v("seq_lens", seq_lens);
    v("selection", selection);
    v("scale", scale);
    v("out", out);
  }
};

// What decides how a backend runs the three ops, besides the number of rows.
struct SparseShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;  // and index heads
  int64_t head_dim = 0;
  int64_t index_dim = 0;
  int64_t block_size = 0;
  DType q_dtype = DType::kBF16;
  DType kv_dtype = DType::kBF16;
  DType index_q_dtype = DType::kBF16;
  DType index_dtype = DType::kBF16;
};

void index_block_scores(OpContext& context, const IndexBlockScores& args);
void select_blocks(OpContext& context, const SelectBlocks& args);
void sparse_paged_attention(OpContext& context, const SparsePagedAttention& args);

}  // namespace minimax::ops
