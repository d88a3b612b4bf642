// Dense BF16 products of few rows: see rows_product.cuh.
#include "backends/cuda/rows_product.cuh"

namespace minimax::cuda {
namespace {

template <int kTiles, int kGroups, typename X, typename Out>
__global__ void __launch_bounds__(kRowsWarps * 32)
    linear_small_kernel(Matrix x, WeightView w, bool applies_silu, Matrix out) {
  __shared__ float shared[kRowsWarps * kTiles * 16 * 8 * kGroups];
  const int lane = threadIdx.x % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 16 * kTiles;
  const bf16_t *low[kTiles], *high[kTiles];
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
    // Rows beyond the last are read as the last one and not stored.
    const int64_t row = first + m * 16 + lane / 4;
    const int64_t last = w.rows - 1;
    low[m] = static_cast<const bf16_t*>(w.values) + (row < last ? row : last) * w.stride;
    high[m] = static_cast<const bf16_t*>(w.values) + (row + 8 < last ? row + 8 : last) * w.stride;
  }
  const X* inputs[kGroups];
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const int64_t t = n * 8 + lane / 4;
    inputs[n] = t < x.rows ? static_cast<const X*>(x.data) + t * x.stride : nullptr;
  }
  float sums[kTiles][kGroups][4] = {};
  // The first weights are on their way before the kernel that made the inputs is done.
  multiply_rows<kTiles, kGroups, X, true>(low, high, inputs, w.columns, sums);
  reduce_rows<kTiles, kGroups>(sums, shared, [&](const float(&values)[kTiles], int row, int column) {
    if (column >= x.rows) return;
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const int64_t n = first + m * 16 + row;
      if (n >= w.rows) continue;
      static_cast<Out*>(out.data)[column * out.stride + n] =
          from_f32<Out>(applies_silu ? silu(values[m]) : values[m]);
    }
  });
}

}  // namespace

bool can_linear_small(const Matrix& x, const WeightView& w) {
  const auto alignment = reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(w.values);
  return w.scalar == Scalar::kBF16 && w.columns > 0 && w.columns % 32 == 0 && w.stride % 8 == 0 &&
         x.stride % 8 == 0 && alignment % 16 == 0 && x.rows <= kMostSmallRows;
}

void launch_linear_small(const Matrix& x, const WeightView& w, bool applies_silu, const Matrix& out,
                         cudaStream_t stream) {
  if (x.rows == 0 || w.rows == 0) return;
  with_activation(x.scalar, [&](auto in) {
    with_activation(out.scalar, [&](auto o) {
      using X = decltype(in);
      using Out = decltype(o);
      const auto start = [&]<int kTiles, int kGroups>() {
        launch(linear_small_kernel<kTiles, kGroups, X, Out>,
               static_cast<unsigned>(ceil_div(w.rows, 16 * kTiles)), kRowsWarps * 32, 0, stream, x, w,
               applies_silu, out);
      };
      // With more rows the activations are read more often than they are worth, unless tiles share them.
      if (x.rows <= 4) {
        start.template operator()<1, 1>();
      } else if (x.rows <= 8) {
        start.template operator()<2, 1>();
      } else if (x.rows <= 16) {
        start.template operator()<2, 2>();
      } else {
        start.template operator()<1, 4>();
      }
    });
  });
}

}  // namespace minimax::cuda
