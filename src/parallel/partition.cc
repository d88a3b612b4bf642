#include "parallel/partition.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::parallel {

Range split(int64_t n, int64_t size, int64_t rank) {
  MM_CHECK(n >= 0 && rank >= 0 && rank < size, "split: part {} of {} of {} elements", rank, size, n);
  const auto begin = [&](int64_t r) { return r * (n / size) + std::min(r, n % size); };
  return {begin(rank), begin(rank + 1)};
}

Range split_units(int64_t n, int64_t size, int64_t rank, int64_t unit) {
  while (unit > 1 && (n % unit != 0 || n / unit < size)) unit /= 2;
  const Range units = split(n / unit, size, rank);
  return {units.begin * unit, units.end * unit};
}

std::vector<int64_t> split_bounds(int64_t n, int64_t size) {
  std::vector<int64_t> bounds = {0};
  for (int64_t rank = 0; rank < size; ++rank) bounds.push_back(split(n, size, rank).end);
  return bounds;
}

HeadPart split_heads(int64_t heads, int64_t kv_heads, int64_t size, int64_t rank) {
  MM_CHECK(kv_heads > 0 && heads % kv_heads == 0, "split_heads: {} query heads over {} KV heads", heads,
           kv_heads);
  const int64_t group = heads / kv_heads;
  if (size <= kv_heads) {
    const Range kv = split(kv_heads, size, rank);
    return {{kv.begin * group, kv.end * group}, kv, true};
  }
  int64_t head = 0;
  while (split(size, kv_heads, head).end <= rank) ++head;
  const Range ranks = split(size, kv_heads, head);
  const Range in_group = split(group, ranks.size(), rank - ranks.begin);
  const Range q = {head * group + in_group.begin, head * group + in_group.end};
  if (q.empty()) return {q, {head, head}, false};
  return {q, {head, head + 1}, rank == ranks.begin};
}

}  // namespace minimax::parallel
