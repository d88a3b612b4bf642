// Dense MLPs of few rows: see rows_product.cuh.
#include "backends/cuda/rows_product.cuh"

namespace minimax::cuda {
namespace {

// Sixteen rows of w1 and of w3 with all tokens.
template <RowFormat kFormat, int kGroups, typename X>
__global__ void __launch_bounds__(kRowsThreads, 2) mlp_small_up_kernel(const __grid_constant__ MlpSmallArgs a) {
  extern __shared__ __align__(128) uint8_t shared[];
  const int lane = threadIdx.x % 32;
  RowStream<kFormat, 2, kGroups>{shared, a.w1.columns, ceil_div(a.w1.rows, 16)}.template run<X, true>(
      [&](int64_t tile, WeightRow<kFormat>(&rows)[4]) {
        const int64_t low = min(tile * 16 + lane / 4, a.w1.rows - 1);
        const int64_t high = min(tile * 16 + lane / 4 + 8, a.w1.rows - 1);
        rows[0] = WeightRow<kFormat>(a.w1, low);
        rows[1] = WeightRow<kFormat>(a.w1, high);
        rows[2] = WeightRow<kFormat>(a.w3, low);
        rows[3] = WeightRow<kFormat>(a.w3, high);
      },
      [&](int64_t, int n) -> const X* {
        const int64_t t = n * 8 + lane / 4;
        return t < a.x.rows ? static_cast<const X*>(a.x.data) + t * a.x.stride : nullptr;
      },
      [&](int64_t tile, const float(&values)[2], int row, int t) {
        const int64_t n = tile * 16 + row;
        if (t >= a.x.rows || n >= a.w1.rows) return;
        static_cast<bf16_t*>(a.hidden.data)[t * a.hidden.stride + n] =
            from_f32<bf16_t>(swiglu(a.swiglu, values[0], values[1]));
      },
      [](int64_t) {});
}

}  // namespace

bool can_mlp_small(const MlpSmallArgs& a) {
  const bool is_one_format = a.w1.scalar == a.w2.scalar && a.w1.scale_scalar == a.w2.scale_scalar;
  return is_one_format && can_linear_small(a.x, a.w1) && can_linear_small(a.x, a.w3) &&
         can_linear_small(a.hidden, a.w2);
}

void launch_mlp_small(const MlpSmallArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const int64_t tiles = ceil_div(a.w1.rows, 16);
  with_row_format(a.w1, [&]<RowFormat kFormat>() {
    with_activation(a.x.scalar, [&](auto in) {
      using X = decltype(in);
      const auto start = [&]<int kGroups>() {
        launch_rows<RowStream<kFormat, 2, kGroups>>(mlp_small_up_kernel<kFormat, kGroups, X>, tiles, stream, a);
      };
      if (a.x.rows <= 8) {
        start.template operator()<1>();
      } else if (a.x.rows <= 16) {
        start.template operator()<2>();
      } else {
        start.template operator()<4>();
      }
    });
  });
  launch_linear_small({a.hidden, {a.w2}, 1, false, a.addend, a.out}, stream);
}

}  // namespace minimax::cuda
