// Dense products of few rows: see rows_product.cuh.
#include "backends/cuda/rows_product.cuh"

namespace minimax::cuda {
namespace {

template <RowFormat kFormat, int kTiles, int kGroups, typename X, typename Out>
__global__ void __launch_bounds__(kRowsWarps * 32, kTiles * kGroups > 2 ? 1 : 2) linear_small_kernel(SmallLinearArgs a) {
  __shared__ float shared[kRowsWarps * kTiles * 16 * 8 * kGroups];
  const int lane = threadIdx.x % 32;
  int64_t block = blockIdx.x, column = 0;
  int i = 0;
  for (; i + 1 < a.count; ++i) {
    const int64_t blocks = ceil_div(a.weights[i].rows, 16 * kTiles);
    if (block < blocks) break;
    block -= blocks;
    column += a.weights[i].rows;
  }
  const WeightView& w = a.weights[i];
  const int64_t first = block * 16 * kTiles, last = w.rows - 1;
  WeightRow<kFormat> low[kTiles], high[kTiles];
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
    // Rows beyond the last are read as the last one and not stored.
    const int64_t row = first + m * 16 + lane / 4;
    low[m] = WeightRow<kFormat>(w, min(row, last));
    high[m] = WeightRow<kFormat>(w, min(row + 8, last));
  }
  const X* inputs[kGroups];
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const int64_t t = n * 8 + lane / 4;
    inputs[n] = t < a.x.rows ? static_cast<const X*>(a.x.data) + t * a.x.stride : nullptr;
  }
  float sums[kTiles][kGroups][4] = {};
  // The first weights are on their way before the kernel that made the inputs is done.
  multiply_rows<kFormat, kTiles, kGroups, X, true>(low, high, inputs, w.columns, sums);
  reduce_rows<kTiles, kGroups>(sums, shared, [&](const float(&values)[kTiles], int row, int t) {
    if (t >= a.x.rows) return;
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const int64_t n = first + m * 16 + row;
      if (n > last) continue;
      float y = a.applies_silu ? silu(values[m]) : values[m];
      if (a.addend.data != nullptr)
        y += to_f32(static_cast<const Out*>(a.addend.data)[t * a.addend.stride + column + n]);
      static_cast<Out*>(a.out.data)[t * a.out.stride + column + n] = from_f32<Out>(y);
    }
  });
}

}  // namespace

bool can_linear_small(const Matrix& x, const WeightView& w) {
  return can_read_rows(w) && x.stride % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
         x.rows <= kMostSmallRows;
}

void launch_linear_small(const SmallLinearArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const auto start = [&]<RowFormat kFormat, int kTiles, int kGroups, typename X, typename Out>() {
    int64_t blocks = 0;
    for (int i = 0; i < a.count; ++i) blocks += ceil_div(a.weights[i].rows, 16 * kTiles);
    launch(linear_small_kernel<kFormat, kTiles, kGroups, X, Out>, static_cast<unsigned>(blocks),
           kRowsWarps * 32, 0, stream, a);
  };
  with_row_format(a.weights[0], [&]<RowFormat kFormat>() {
    with_activation(a.x.scalar, [&](auto in) {
      with_activation(a.out.scalar, [&](auto o) {
        using X = decltype(in);
        using Out = decltype(o);
        // With more rows the activations are read more often than they are worth, unless tiles share them.
        if (a.x.rows <= 4) {
          start.template operator()<kFormat, 1, 1, X, Out>();
        } else if (a.x.rows <= 8) {
          start.template operator()<kFormat, 2, 1, X, Out>();
        } else if (a.x.rows <= 16) {
          start.template operator()<kFormat, 2, 2, X, Out>();
        } else {
          start.template operator()<kFormat, 1, 4, X, Out>();
        }
      });
    });
  });
}

}  // namespace minimax::cuda
