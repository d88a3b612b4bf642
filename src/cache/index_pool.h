// A fixed number of indices (cache pages, state slots), each free or held by a count of holders.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace minimax::cache {

class IndexPool {
 public:
  explicit IndexPool(int64_t size);

  int64_t size() const { return static_cast<int64_t>(holders_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_holds() const { return num_holds_; }
  int64_t num_shared() const { return num_shared_; }  // indices held more than once
  int32_t holders(int32_t index) const { return holders_[static_cast<size_t>(index)]; }

  // A free index, then held once; nothing when all are held. The one freed last comes first: it is warm.
  std::optional<int32_t> take();
  // REQUIRES: held.
  void retain(int32_t index);
  void release(int32_t index);

  // THROWS: InternalError when counts and the free list disagree.
  void check_integrity() const;

 private:
  std::vector<int32_t> holders_;
  std::vector<int32_t> free_;
  int64_t num_holds_ = 0;  // of all indices together
  int64_t num_shared_ = 0;
};

}  // namespace minimax::cache
