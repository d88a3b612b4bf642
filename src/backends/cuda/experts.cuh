// Which expert a pair chose.
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

// Of those that are here; -1 for others and for no choice.
__device__ inline int64_t expert_of(const MoeArgs& a, int64_t pair) {
  const int64_t expert = static_cast<int64_t>(a.ids[pair]) - a.first_expert;
  return expert >= 0 && expert < a.experts ? expert : -1;
}

}  // namespace minimax::cuda
