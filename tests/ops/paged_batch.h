// Ragged batches over a paged cache, for the tests of attention.
#pragma once

#include <numeric>

#include "tests/ops/op_test.h"

namespace minimax::ops {

struct PagedCase {
  int64_t heads, kv_heads, head_dim, page_size;
  std::vector<int32_t> query_lens;
  std::vector<int32_t> seq_lens;
};

// Queries and caches of one case, with two rows of padding. Pages come in random order and unused entries of
// the block table are invalid: reading one would crash or differ.
struct PagedBatch {
  PagedBatch(TensorMaker& make, const PagedCase& p, DType dtype, DType cache) {
    const auto num_seqs = static_cast<int64_t>(p.seq_lens.size());
    int64_t max_pages = 1;
    std::vector<int32_t> starts = {0};
    for (int64_t b = 0; b < num_seqs; ++b) {
      const int64_t needed = (p.seq_lens[b] + p.page_size - 1) / p.page_size;
      max_pages = std::max(max_pages, needed);
      pages += needed;
      starts.push_back(starts.back() + p.query_lens[b]);
    }
    std::vector<int32_t> order(static_cast<size_t>(pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), make.rng());
    std::vector<int32_t> table(static_cast<size_t>(num_seqs * max_pages), -1'000'000);
    size_t next = 0;
    for (int64_t b = 0; b < num_seqs; ++b) {
      for (int64_t i = 0; i * p.page_size < p.seq_lens[b]; ++i) table[b * max_pages + i] = order[next++];
    }
    rows = starts.back() + 2;
    q = make.uniform(dtype, {rows, p.heads, p.head_dim}, -2, 2);
    k_cache = make.uniform(cache, {pages, p.page_size, p.kv_heads, p.head_dim}, -2, 2);
    v_cache = make.uniform(cache, {pages, p.page_size, p.kv_heads, p.head_dim});
    block_table = make.ids(table).reshape({num_seqs, max_pages});
    query_starts = make.ids(starts);
    seq_lens = make.ids(p.seq_lens);
    scale = 1.0F / std::sqrt(static_cast<float>(p.head_dim));
  }

  Tensor poisoned_out(TensorMaker& make) const {
    return make.poisoned(q.dtype(), {rows, q.dim(1), q.dim(2)});
  }

  int64_t pages = 0;
  int64_t rows = 0;
  Tensor q, k_cache, v_cache, block_table, query_starts, seq_lens;
  float scale = 0;
};

}  // namespace minimax::ops
