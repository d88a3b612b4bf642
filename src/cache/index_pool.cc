#include "cache/index_pool.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace minimax::cache {

IndexPool::IndexPool(int64_t size) : holders_(static_cast<size_t>(size)) {
  free_.reserve(holders_.size());
  for (int64_t i = size - 1; i >= 0; --i) free_.push_back(static_cast<int32_t>(i));
}

std::optional<int32_t> IndexPool::take() {
  if (free_.empty()) return std::nullopt;
  const int32_t index = free_.back();
  free_.pop_back();
  holders_[static_cast<size_t>(index)] = 1;
  ++num_holds_;
  return index;
}

void IndexPool::retain(int32_t index) {
  MM_CHECK(holders(index) > 0, "index {} is free", index);
  if (++holders_[static_cast<size_t>(index)] == 2) ++num_shared_;
  ++num_holds_;
}

void IndexPool::release(int32_t index) {
  MM_CHECK(holders(index) > 0, "index {} is free", index);
  --num_holds_;
  const int32_t left = --holders_[static_cast<size_t>(index)];
  if (left == 1) --num_shared_;
  if (left == 0) free_.push_back(index);
}

void IndexPool::check_integrity() const {
  const auto unheld = std::count(holders_.begin(), holders_.end(), 0);
  MM_CHECK(unheld == num_free(), "{} indices are unheld, {} are in the free list", unheld, num_free());
  const int64_t holds = std::accumulate(holders_.begin(), holders_.end(), int64_t{0});
  MM_CHECK(holds == num_holds_, "{} holds, {} counted", holds, num_holds_);
  const auto shared = std::count_if(holders_.begin(), holders_.end(), [](int32_t n) { return n > 1; });
  MM_CHECK(shared == num_shared_, "{} indices are shared, {} counted", shared, num_shared_);
  std::vector<int32_t> sorted = free_;
  std::sort(sorted.begin(), sorted.end());
  MM_CHECK(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end(), "an index is free twice");
  for (const int32_t index : free_) MM_CHECK(holders(index) == 0, "free index {} is held", index);
}

}  // namespace minimax::cache
