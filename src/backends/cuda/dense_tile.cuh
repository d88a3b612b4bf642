// Which part of a dense product a block computes, and what it does with its sums.
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

struct DenseTile {
  int64_t row = 0;
  int64_t column = 0;
};
// Tiles with the same columns of the weight follow one another.
__device__ inline DenseTile find_dense_tile(const Matrix& x, int rows, int columns) {
  const int64_t row_tiles = ceil_div(x.rows, rows);
  return {blockIdx.x % row_tiles * rows, blockIdx.x / row_tiles * columns};
}

// Row t of inputs in BF16, or null behind the last.
__device__ inline const bf16_t* dense_row(const Matrix& x, int64_t t) {
  return t < x.rows ? static_cast<const bf16_t*>(x.data) + t * x.stride : nullptr;
}

// Outputs n and n + 1 of row t, as far as there are such.
template <typename Out>
__device__ void store_dense(const Matrix& out, bool applies_silu, int64_t t, int64_t n, float first,
                            float second) {
  if (t >= out.rows || n >= out.columns) return;
  Out* to = static_cast<Out*>(out.data) + t * out.stride + n;
  to[0] = from_f32<Out>(applies_silu ? silu(first) : first);
  if (n + 1 < out.columns) to[1] = from_f32<Out>(applies_silu ? silu(second) : second);
}

}  // namespace minimax::cuda
