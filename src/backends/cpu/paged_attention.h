// Internal to paged attention and its indexer: what their kernels work on.
//
// Two ways. By rows: query rows meet rows of the cache as they lie in memory (attention_rows.cc, with
// products by attention_rows_bf16.cc where the processor has them, else by attention_rows_f32.cc); the way of
// decode, and of everything where BF16 dot products exist. By tiles: blocks of keys are unpacked to F32 for
// many query rows (paged_attention.cc).
#pragma once

#include "backends/cpu/cpu_backend.h"
#include "core/thread_pool.h"
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

// Keys or values one call of a row kernel takes.
constexpr int64_t kRowKeys = 64;

// Rows of a cache: row i at base + offsets[i], `head_dim` elements. While working on row i a kernel fetches
// the row at base + next[i], i < kRowKeys, into the second-level cache.
struct CachedRows {
  const std::byte* base;
  const int64_t* offsets;
  const int64_t* next;
  int64_t count;  // 1 .. kRowKeys
  int64_t head_dim;
};

// Products of few query rows with cached rows, for one dtype of the cache. Queries and sums are padded to
// padded(head_dim) elements; sums hold dimension chunk * i + order[j] at chunk * i + j.
struct RowKernel {
  int64_t chunk;
  int64_t query_element_bytes;
  const uint8_t* order;
  // One query row of F32, BF16 or F8_E4M3 in the form that `dot` takes.
  void (*prepare)(const void* q, DType dtype, int64_t head_dim, void* prepared);
  // scores[r * kRowKeys + i] = query r . row i; entries from count to the next multiple of 4 become garbage.
  void (*dot)(const CachedRows& rows, const void* queries, int64_t num_queries, float* scores);
  // sums[r, :] += sum over i of p[r * kRowKeys + i] * row i. p is zero from count to kRowKeys.
  void (*accumulate)(const CachedRows& rows, const float* p, int64_t num_queries, float* sums);

  int64_t padded(int64_t head_dim) const { return (head_dim + chunk - 1) / chunk * chunk; }
};

// The kernel with BF16 dot products for a cache of BF16 or F8_E4M3; null when the processor has none.
const RowKernel* bf16_row_kernel(DType cache);
// The same with tiles too, for a cache of BF16; null when the processor has none.
const RowKernel* tile_row_kernel(DType cache);
// The fastest kernel for the dtypes.
const RowKernel& row_kernel(DType q, DType cache, const CpuOptions& options);
// Whether a kernel has BF16 dot products: products of many rows, too, are faster with it than in F32.
bool multiplies_bf16(const RowKernel& kernel, DType cache);

// Whether rows rather than tiles are the way for `tokens` query rows of a sequence.
bool prefers_rows(const PagedView& view, int64_t tokens, const CpuOptions& options);
int64_t rows_workspace_bytes(const PagedView& view, const ThreadPool& pool, const CpuOptions& options);
// Attends for every sequence that prefers rows.
void attend_by_rows(const PagedView& view, ThreadPool& pool, const CpuOptions& options, std::byte* memory);

}  // namespace minimax::cpu
