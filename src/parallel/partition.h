// Partition: which part of heads, rows, columns and experts a rank holds.
//
// Pure functions of sizes: every rank computes the parts of all others and they agree without a message.
#pragma once

#include <cstdint>
#include <vector>

#include "core/range.h"

namespace minimax::parallel {

// Ranks in a grid. Everything but the experts is cut over all of them. Experts come in `expert_size` ranges,
// one a row of the grid, and the width of each is cut over the `tensor_size` ranks of its row.
struct Grid {
  int64_t rank = 0;
  int64_t tensor_size = 1;
  int64_t expert_size = 1;

  int64_t size() const { return tensor_size * expert_size; }
  int64_t tensor_rank() const { return rank % tensor_size; }
  int64_t expert_rank() const { return rank / tensor_size; }
};

// Part `rank` of [0, n) in `size` parts that differ by one at most, the larger ones first.
Range split(int64_t n, int64_t size, int64_t rank);

// The same in whole units, as long as every rank gets one; then in halves of units, and so on. A width cut at
// multiples of a power of two leaves kernels their vectors, and scales of 8-bit weights their blocks.
// REQUIRES: `unit` is a power of two.
Range split_units(int64_t n, int64_t size, int64_t rank, int64_t unit);

// Where the parts of split begin, and `n`: [size + 1].
std::vector<int64_t> split_bounds(int64_t n, int64_t size);

// The query heads of a rank and the KV heads they read: whole groups, or a part of one.
struct HeadPart {
  Range q;
  Range kv;
  // False where another rank holds the same KV head and counts it, as sums over all heads must know.
  bool counts_kv = false;
};

// With no more ranks than KV heads every rank has whole KV heads with their queries. With more, ranks are
// dealt to KV heads as split does, a KV head is repeated on its ranks and its queries are split over them. No
// rank ever holds a KV head that it reads for no query, or one twice. A rank may be left without heads.
// REQUIRES: `heads` is a multiple of `kv_heads`.
HeadPart split_heads(int64_t heads, int64_t kv_heads, int64_t size, int64_t rank);

}  // namespace minimax::parallel
