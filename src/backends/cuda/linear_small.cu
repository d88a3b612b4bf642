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

template <RowFormat kFormat, int kTiles, int kGroups, typename X, typename Out>
__global__ void __launch_bounds__(kRowsThreads, 2)
    linear_small_kernel(const __grid_constant__ SmallLinearArgs a) {
  extern __shared__ __align__(128) uint8_t shared[];
  using Stream = RowStream<kFormat, kTiles, kGroups>;
  const int lane = threadIdx.x % 32;
  int64_t tiles = 0;
  for (int i = 0; i < a.count; ++i) tiles += ceil_div(a.weights[i].rows, 16 * kTiles);
  Place place;
  Stream{shared, a.weights[0].columns, tiles}.template run<X, true>(
      [&](int64_t tile, WeightRow<kFormat>(&rows)[2 * kTiles]) {
        const Place at = find_place<kTiles>(a, tile);
        const WeightView& w = a.weights[at.weight];
#pragma unroll
        for (int r = 0; r < 2 * kTiles; ++r) {
          // Rows beyond the last are read as the last one and not stored.
          rows[r] = WeightRow<kFormat>(w, min(at.first + 8 * r + lane / 4, w.rows - 1));
        }
      },
      [&](int64_t tile, int n) -> const X* {
        if (n == 0) place = find_place<kTiles>(a, tile);
        const int64_t t = n * 8 + lane / 4;
        return t < a.x.rows ? static_cast<const X*>(a.x.data) + t * a.x.stride : nullptr;
      },
      [&](int64_t, const float(&values)[kTiles], int row, int t) {
        if (t >= a.x.rows) return;
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
          const int64_t n = place.first + m * 16 + row;
          if (n >= a.weights[place.weight].rows) continue;
          const int64_t column = place.column + n;
          float y = a.applies_silu ? silu(values[m]) : values[m];
          if (a.addend.data != nullptr)
            y += to_f32(static_cast<const Out*>(a.addend.data)[t * a.addend.stride + column]);
          static_cast<Out*>(a.out.data)[t * a.out.stride + column] = from_f32<Out>(y);
        }
      },
      [](int64_t) {});
}

}  // namespace

bool can_linear_small(const Matrix& x, const WeightView& w) {
  return can_read_rows(w) && x.stride % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
         x.rows <= kMostSmallRows;
}

void launch_linear_small(const SmallLinearArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const auto start = [&]<RowFormat kFormat, int kTiles, int kGroups, typename X, typename Out>() {
    int64_t tiles = 0;
    for (int i = 0; i < a.count; ++i) tiles += ceil_div(a.weights[i].rows, 16 * kTiles);
    launch_rows<RowStream<kFormat, kTiles, kGroups>>(linear_small_kernel<kFormat, kTiles, kGroups, X, Out>,
                                                     tiles, stream, a);
  };
  with_row_format(a.weights[0], [&]<RowFormat kFormat>() {
    with_activation(a.x.scalar, [&](auto in) {
      with_activation(a.out.scalar, [&](auto o) {
        using X = decltype(in);
        using Out = decltype(o);
        // With more rows the activations are read more often than they are worth, unless tiles share them.
        if (a.x.rows <= 8) {
          start.template operator()<kFormat, 1, 1, X, Out>();
        } else if (a.x.rows <= 16) {
          start.template operator()<kFormat, 2, 2, X, Out>();
        } else {
          start.template operator()<kFormat, 2, 4, X, Out>();
        }
      });
    });
  });
}

}  // namespace minimax::cuda
