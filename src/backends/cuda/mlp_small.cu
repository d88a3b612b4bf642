// Dense MLPs of few rows: see rows_product.cuh.
#include "backends/cuda/rows_product.cuh"

namespace minimax::cuda {
namespace {

// Sixteen rows of w1 and of w3 with all tokens.
template <RowFormat kFormat, int kGroups, typename X>
__global__ void __launch_bounds__(kRowsWarps * 32, kGroups > 1 ? 1 : 2) mlp_small_up_kernel(MlpSmallArgs a) {
  __shared__ float shared[kRowsWarps * 2 * 16 * 8 * kGroups];
  const int lane = threadIdx.x % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 16, last = a.w1.rows - 1;
  const int64_t low = min(first + lane / 4, last), high = min(first + lane / 4 + 8, last);
  const WeightRow<kFormat> low_rows[2] = {{a.w1, low}, {a.w3, low}};
  const WeightRow<kFormat> high_rows[2] = {{a.w1, high}, {a.w3, high}};
  const X* inputs[kGroups];
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const int64_t t = n * 8 + lane / 4;
    inputs[n] = t < a.x.rows ? static_cast<const X*>(a.x.data) + t * a.x.stride : nullptr;
  }
  float sums[2][kGroups][4] = {};
  multiply_rows<kFormat, 2, kGroups, X, true>(low_rows, high_rows, inputs, a.w1.columns, sums);
  reduce_rows<2, kGroups>(sums, shared, [&](const float(&values)[2], int row, int t) {
    if (t >= a.x.rows || first + row > last) return;
    static_cast<bf16_t*>(a.hidden.data)[t * a.hidden.stride + first + row] =
        from_f32<bf16_t>(swiglu(a.swiglu, values[0], values[1]));
  });
}

}  // namespace

bool can_mlp_small(const MlpSmallArgs& a) {
  const bool is_one_format = a.w1.scalar == a.w2.scalar && a.w1.scale_scalar == a.w2.scale_scalar;
  return is_one_format && can_linear_small(a.x, a.w1) && can_linear_small(a.x, a.w3) &&
         can_linear_small(a.hidden, a.w2);
}

void launch_mlp_small(const MlpSmallArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div(a.w1.rows, 16));
  with_row_format(a.w1, [&]<RowFormat kFormat>() {
    with_activation(a.x.scalar, [&](auto in) {
      using X = decltype(in);
      if (a.x.rows <= 8) {
        launch(mlp_small_up_kernel<kFormat, 1, X>, blocks, kRowsWarps * 32, 0, stream, a);
      } else if (a.x.rows <= 16) {
        launch(mlp_small_up_kernel<kFormat, 2, X>, blocks, kRowsWarps * 32, 0, stream, a);
      } else {
        launch(mlp_small_up_kernel<kFormat, 4, X>, blocks, kRowsWarps * 32, 0, stream, a);
      }
    });
  });
  launch_linear_small({a.hidden, {a.w2}, 1, false, a.addend, a.out}, stream);
}

}  // namespace minimax::cuda
