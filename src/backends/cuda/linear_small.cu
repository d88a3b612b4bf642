// Dense products of few rows: see rows_product.cuh.
#include "backends/cuda/codes_ring.cuh"
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

// The fastest measured.
using TilesRing = RowsShape<1, 1, 8, 3, 4>;
using FewTilesRing = RowsShape<1, 1, 16, 3, 2>;
constexpr unsigned kFewTiles = 264;
// More take longer to be copied into every block than the ring gains.
constexpr int64_t kMostRingRows = 4;
constexpr int64_t kMostRingBytes = 216 * 1024;  // of a multiprocessor

__host__ __device__ int linear_scale_bytes(int64_t columns) {
  return static_cast<int>(ceil_div(columns / kChunk, 4) * 16);
}

// Output `row` of the tile for activation row t, if there are both.
template <typename Out>
__device__ __forceinline__ void store_output(const SmallLinearArgs& a, const Place& place, int row, int t,
                                             float y) {
  const int64_t n = place.first + row, column = place.column + n;
  if (t >= a.x.rows || n >= a.weights[place.weight].rows) return;
  if (a.applies_silu) y = silu(y);
  if (a.addend.data != nullptr)
    y += to_f32(static_cast<const Out*>(a.addend.data)[t * a.addend.stride + column]);
  static_cast<Out*>(a.out.data)[t * a.out.stride + column] = from_f32<Out>(y);
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
  reduce_rows<Shape>(sums, shared, [&](float y, int row, int t) { store_output<Out>(a, place, row, t, y); });
}

template <typename Shape, typename X, typename Out>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    linear_ring_kernel(const __grid_constant__ SmallLinearArgs a) {
  extern __shared__ __align__(16) uint8_t room[];
  __shared__ float shared[Shape::kWarps * Shape::kSums];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Place place = find_place<1>(a, blockIdx.x);
  const WeightView& w = a.weights[place.weight];
  const int columns = static_cast<int>(w.columns), rows = static_cast<int>(a.x.rows);
  const CodeRows own = tile_code_rows(w, place.first);
  CodesRing<Shape::kAhead, Shape::kWarps> ring(warp, columns);
  ring.fill(own);
  auto* scales = reinterpret_cast<float*>(room);
  const RowScales row_scales(w, place.first);
  for (int c = threadIdx.x; c < columns / kChunk; c += Shape::kThreads) scales[c] = row_scales.at(c);
  ptx::wait_for_previous_kernel();
  const SharedInputs inputs(room + linear_scale_bytes(columns), rows);
  inputs.fill<Shape::kThreads>(static_cast<const X*>(a.x.data), a.x.stride, columns);
  __syncthreads();
  const uint8_t* row = inputs.row(min(lane / 4, rows - 1));
  float sums[1][1][4] = {};
  ring.multiply(
      own, own, false, [&](int c, uint32_t(&b)[8]) { inputs.load(row, c, b); },
      [&](int c) {
        return float2{scales[c], scales[c]};
      },
      sums[0][0]);
  reduce_rows<Shape>(sums, shared, [&](float y, int n, int t) { store_output<Out>(a, place, n, t, y); });
}

}  // namespace

bool can_linear_small(const Matrix& x, const WeightView& w) {
  return can_read_rows(w) && x.stride % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
         x.rows <= kMostSmallRows;
}

void launch_linear_small(const SmallLinearArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const auto blocks = [&](int tiles) {
    int64_t sum = 0;
    for (int i = 0; i < a.count; ++i) sum += ceil_div(a.weights[i].rows, 16 * tiles);
    return static_cast<unsigned>(sum);
  };
  const auto start = [&]<RowFormat kFormat, typename Shape, typename X, typename Out>() {
    launch(linear_small_kernel<kFormat, Shape, X, Out>, blocks(Shape::kTiles), Shape::kThreads, 0, stream, a);
  };
  const auto can_start_ring = [&]<typename Shape>() {
    if (a.x.rows > kMostRingRows) return false;
    for (int i = 0; i < a.count; ++i)
      if (!can_ring(a.weights[i], Shape::kWarps * Shape::kAhead)) return false;
    const int64_t bytes = linear_scale_bytes(a.x.columns) + SharedInputs::bytes(a.x.rows, a.x.columns);
    return Shape::kBlocks * (bytes + Shape::kWarps * Shape::kSums * 4) <= kMostRingBytes;
  };
  const auto start_ring = [&]<typename Shape, typename X, typename Out>() {
    const int bytes = linear_scale_bytes(a.x.columns) + SharedInputs::bytes(a.x.rows, a.x.columns);
    const auto kernel = linear_ring_kernel<Shape, X, Out>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    launch(kernel, blocks(1), Shape::kThreads, static_cast<size_t>(bytes), stream, a);
  };
  with_activation(a.x.scalar, [&](auto in) {
    with_activation(a.out.scalar, [&](auto o) {
      using X = decltype(in);
      using Out = decltype(o);
      // Blocks of few tiles share the inputs among more warps.
      if (blocks(1) <= kFewTiles && can_start_ring.template operator()<FewTilesRing>())
        return start_ring.template operator()<FewTilesRing, X, Out>();
      if (can_start_ring.template operator()<TilesRing>())
        return start_ring.template operator()<TilesRing, X, Out>();
      with_row_format(a.weights[0], [&]<RowFormat kFormat>() {
        // With more rows the activations are read more often than they are worth, unless tiles share them.
        if (a.x.rows <= 8) {
          start.template operator()<kFormat, FewRows<kFormat>, X, Out>();
        } else if (a.x.rows <= 16) {
          start.template operator()<kFormat, RowsShape<2, 2, 8, 2, 2>, X, Out>();
        } else {
          constexpr int kBlocks = kFormat == RowFormat::kBF16 ? 2 : 1;
          start.template operator()<kFormat, RowsShape<2, 4, 8, 2, kBlocks>, X, Out>();
        }
      });
    });
  });
}

}  // namespace minimax::cuda
