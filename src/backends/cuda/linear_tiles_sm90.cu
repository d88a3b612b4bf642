// What linear_tiles.cu does with mma.sync, with Hopper's warpgroup products.
#include "backends/cuda/dense_tile.cuh"
#include "backends/cuda/tile_product_sm90.cuh"

namespace minimax::cuda {
namespace {

template <RowKind kKind, typename Out>
__global__ void __launch_bounds__(kWideThreads, 1)
    linear_wide_kernel(Matrix x, WeightView w, bool applies_silu, Matrix out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t shared[];
  const DenseTile tile = find_dense_tile(x, kWideRows, kWideColumns);
  const auto a_row = [&](int row) { return dense_row(x, tile.row + row); };
  const auto b_row = [&](int row) { return coded_row(w, tile.column + row); };
  float sums[128];
  multiply_wide_tile(shared, a_row, weight_rows<kKind>(w, b_row), w.columns, sums);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t row = tile.row + warp * 16 + lane / 4 + 8 * half;
#pragma unroll
    for (int j = 0; j < kWideColumns / 8; ++j) {
      store_dense<Out>(out, applies_silu, row, tile.column + j * 8 + lane % 4 * 2, sums[4 * j + 2 * half],
                       sums[4 * j + 2 * half + 1]);
    }
  }
#endif
}

}  // namespace

void launch_linear_tiles_sm90(const Matrix& x, const WeightView& w, bool applies_silu, const Matrix& out,
                              cudaStream_t stream) {
  with_codes(row_kind(w), [&]<RowKind kKind>() {
    with_activation(out.scalar, [&](auto o) {
      const auto kernel = linear_wide_kernel<kKind, decltype(o)>;
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kWideSharedBytes);
      kernel<<<static_cast<unsigned>(ceil_div(x.rows, kWideRows) * ceil_div(w.rows, kWideColumns)),
               kWideThreads, kWideSharedBytes, stream>>>(x, w, applies_silu, out);
    });
  });
}

}  // namespace minimax::cuda
