// Range: the integers from `begin` up to, not including, `end`.
#pragma once

#include <cstdint>

namespace minimax {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const { return end - begin; }
  bool empty() const { return end == begin; }
  // The range of elements when each of these integers stands for `width` of them.
  Range scaled(int64_t width) const { return {begin * width, end * width}; }
  bool operator==(const Range&) const = default;
};

}  // namespace minimax
