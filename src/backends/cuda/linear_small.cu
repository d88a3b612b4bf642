// Dense products of few rows: see rows_product.cuh.
#include "backends/cuda/rows_product.cuh"

namespace minimax::cuda {
namespace {

// Which weight a tile belongs to, where its rows begin there and where that weight's outputs do.
struct Place {
  int weight = 0;
  int64_t first = 0;
  int64_t column = 0;
};
template <int kTiles>
__device__ Place find_place(const SmallLinearArgs& a, int64_t tile) {
  Place place;
  for (; place.weight + 1 < a.count; ++place.weight) {
    const int64_t tiles = ceil_div(a.weights[place.weight].rows, 16 * kTiles);
    if (tile < tiles) break;
    tile -= tiles;
    place.column += a.weights[place.weight].rows;
  }
  place.first = tile * 16 * kTiles;
  return place;
}

template <RowFormat kFormat, typename Shape, typename X, typename Out>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    linear_small_kernel(const __grid_constant__ SmallLinearArgs a) {
  constexpr int kTiles = Shape::kTiles, kGroups = Shape::kGroups;
  __shared__ float shared[Shape::kWarps * Shape::kSums];
  const int lane = threadIdx.x % 32;
  const Place place = find_place<kTiles>(a, blockIdx.x);
  const WeightView& w = a.weights[place.weight];
  const X* inputs[kGroups];
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    // Columns beyond the last row repeat it and are not stored, nor are rows beyond the last.
    const int64_t t = min(static_cast<int64_t>(n * 8 + lane / 4), a.x.rows - 1);
    inputs[n] = static_cast<const X*>(a.x.data) + t * a.x.stride;
  }
  float sums[kTiles][kGroups][4] = {};
  // The first weights are on their way before the kernel that made the inputs is done.
  multiply_rows<kFormat, Shape, true>(tile_rows<kFormat, Shape>(w, place.first), inputs, w.columns, sums);
  reduce_rows<Shape>(sums, shared, [&](float y, int row, int t) {
    const int64_t n = place.first + row, column = place.column + n;
    if (t >= a.x.rows || n >= w.rows) return;
    if (a.applies_silu) y = silu(y);
    if (a.addend.data != nullptr)
      y += to_f32(static_cast<const Out*>(a.addend.data)[t * a.addend.stride + column]);
    static_cast<Out*>(a.out.data)[t * a.out.stride + column] = from_f32<Out>(y);
  });
}

}  // namespace

bool can_linear_small(const Matrix& x, const WeightView& w) {
  return can_read_rows(w) && x.stride % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
         x.rows <= kMostSmallRows;
}

void launch_linear_small(const SmallLinearArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const auto start = [&]<RowFormat kFormat, typename Shape, typename X, typename Out>() {
    int64_t blocks = 0;
    for (int i = 0; i < a.count; ++i) blocks += ceil_div(a.weights[i].rows, 16 * Shape::kTiles);
    launch(linear_small_kernel<kFormat, Shape, X, Out>, static_cast<unsigned>(blocks), Shape::kThreads, 0,
           stream, a);
  };
  with_row_format(a.weights[0], [&]<RowFormat kFormat>() {
    with_activation(a.x.scalar, [&](auto in) {
      with_activation(a.out.scalar, [&](auto o) {
        using X = decltype(in);
        using Out = decltype(o);
        // With more rows the activations are read more often than they are worth, unless tiles share them.
        if (a.x.rows <= 8) {
          start.template operator()<kFormat, FewRows<kFormat>, X, Out>();
        } else if (a.x.rows <= 16) {
          start.template operator()<kFormat, RowsShape<2, 2, 8, 2, 2>, X, Out>();
        } else {
          start.template operator()<kFormat, RowsShape<2, 4, 8, 2, 1>, X, Out>();
        }
      });
    });
  });
}

}  // namespace minimax::cuda
