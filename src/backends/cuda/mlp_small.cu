// Dense MLPs of few rows: see rows_product.cuh.
#include "backends/cuda/rows_product.cuh"

namespace minimax::cuda {
namespace {

// Tiles of eight rows of w1 and the same of w3, with all tokens.
template <RowFormat kFormat, typename Shape, typename X>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    mlp_small_up_kernel(const __grid_constant__ MlpSmallArgs a) {
  constexpr int kTiles = Shape::kTiles, kGroups = Shape::kGroups;
  __shared__ float shared[Shape::kWarps * Shape::kSums];
  const int lane = threadIdx.x % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 8 * kTiles;
  const X* inputs[kGroups];
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const int64_t t = min(static_cast<int64_t>(n * 8 + lane / 4), a.x.rows - 1);
    inputs[n] = static_cast<const X*>(a.x.data) + t * a.x.stride;
  }
  float sums[kTiles][kGroups][4] = {};
  multiply_rows<kFormat, Shape, true>(gate_up_rows<kFormat, Shape>(a.w1, a.w3, first), inputs, a.w1.columns,
                                      sums);
  reduce_gate_up<Shape>(sums, shared, [&](float g, float u, int n, int t) {
    if (t >= a.x.rows || first + n >= a.w1.rows) return;
    static_cast<bf16_t*>(a.hidden.data)[t * a.hidden.stride + first + n] =
        from_f32<bf16_t>(swiglu(a.swiglu, g, u));
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
  with_row_format(a.w1, [&]<RowFormat kFormat>() {
    with_activation(a.x.scalar, [&](auto in) {
      const auto start = [&]<typename Shape>() {
        launch(mlp_small_up_kernel<kFormat, Shape, decltype(in)>,
               static_cast<unsigned>(ceil_div(a.w1.rows, 8 * Shape::kTiles)), Shape::kThreads, 0, stream, a);
      };
      if (a.x.rows <= 8) {
        start.template operator()<GateUpRows<kFormat>>();
      } else if (a.x.rows <= 16) {
        start.template operator()<RowsShape<1, 2, 8, 3, 2>>();
      } else {
        start.template operator()<RowsShape<1, 4, 8, 2, 2>>();
      }
    });
  });
  launch_linear_small({a.hidden, {a.w2}, 1, false, a.addend, a.out}, stream);
}

}  // namespace minimax::cuda
