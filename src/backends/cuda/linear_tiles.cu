// Products of 8-bit weights, unpacked to BF16 on their way to shared memory, with rows in BF16. What it takes
// beside memory for the weights is nothing.
#include "backends/cuda/dense_tile.cuh"
#include "backends/cuda/tile_product.cuh"

namespace minimax::cuda {
namespace {

template <RowKind kKind, typename Out>
__global__ void __launch_bounds__(kTileThreads)
    linear_tiles_kernel(Matrix x, WeightView w, bool applies_silu, Matrix out) {
  extern __shared__ __align__(128) uint8_t shared[];
  const DenseTile tile = find_dense_tile(x, kTileRows, kTileColumns);
  const auto a_row = [&](int row) { return dense_row(x, tile.row + row); };
  const auto b_row = [&](int row) { return coded_row(w, tile.column + row); };
  TileSums sums = {};
  multiply_tile<false>(shared, a_row, weight_rows<kKind>(w, b_row), w.columns, sums);
  for_tile_values(sums, [&](int row, int column, float first, float second) {
    store_dense<Out>(out, applies_silu, tile.row + row, tile.column + column, first, second);
  });
}

}  // namespace

bool can_linear_tiles(const WeightView& w) {
  return w.scalar == Scalar::kE4m3 && w.columns > 0 && w.columns % 16 == 0 && w.stride % 16 == 0 &&
         reinterpret_cast<uintptr_t>(w.values) % 16 == 0;
}

void launch_linear_tiles(const Matrix& x, const WeightView& w, bool applies_silu, const Matrix& out,
                         int architecture, cudaStream_t stream) {
  if (x.rows == 0 || w.rows == 0) return;
  if (architecture >= 90) return launch_linear_tiles_sm90(x, w, applies_silu, out, stream);
  with_codes(row_kind(w), [&]<RowKind kKind>() {
    with_activation(out.scalar, [&](auto o) {
      const auto kernel = linear_tiles_kernel<kKind, decltype(o)>;
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kTileSharedBytes);
      kernel<<<static_cast<unsigned>(ceil_div(x.rows, kTileRows) * ceil_div(w.rows, kTileColumns)),
               kTileThreads, kTileSharedBytes, stream>>>(x, w, applies_silu, out);
    });
  });
}

}  // namespace minimax::cuda
