// Expert MLPs of many tokens on Hopper; what moe.cu does with mma.sync, with warpgroup products.
#include "backends/cuda/expert_tile.cuh"
#include "backends/cuda/tile_product_sm90.cuh"

namespace minimax::cuda {
namespace {

// hidden [place, I] BF16. A tile's columns are 128 of w1 and the same 128 of w3, so that a thread holds the
// gate and the up value of an element.
template <RowKind kKind>
__global__ void __launch_bounds__(kWideThreads, 1) moe_wide_up_kernel(MoeArgs a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t shared[];
  constexpr int kHalf = kWideColumns / 2;
  const ExpertTile tile = find_tile(a, ceil_div(a.intermediate, kHalf));
  if (tile.expert < 0) return;
  const int64_t n0 = tile.column * kHalf;
  const WeightView &w1 = a.table[tile.expert].w1, &w3 = a.table[tile.expert].w3;
  const auto a_row = [&](int row) -> const bf16_t* {
    if (tile.first + row >= tile.end) return nullptr;
    return static_cast<const bf16_t*>(a.x.data) + a.order.pairs[tile.first + row] / a.top_k * a.x.stride;
  };
  const auto b_row = [&](int row) { return weight_row<kKind>(row < kHalf ? w1 : w3, n0 + row % kHalf); };
  float sums[128];
  multiply_wide_tile(shared, a_row, weight_rows<kKind>(w1, b_row), w1.columns, sums);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t place = tile.first + warp * 16 + lane / 4 + 8 * half;
    if (place >= tile.end) continue;
    bf16_t* to = static_cast<bf16_t*>(a.hidden) + place * a.intermediate + n0;
#pragma unroll
    for (int j = 0; j < kHalf / 8; ++j) {
      const int column = j * 8 + lane % 4 * 2;
      if (n0 + column >= a.intermediate) continue;
      const float* gate = sums + 4 * j + 2 * half;
      const float* up = sums + 4 * (j + kHalf / 8) + 2 * half;
      *reinterpret_cast<uint32_t*>(to + column) =
          pack_bf16(swiglu(a.swiglu, gate[0], up[0]), swiglu(a.swiglu, gate[1], up[1]));
    }
  }
#endif
}

template <RowKind kKind>
__global__ void __launch_bounds__(kWideThreads, 1) moe_wide_down_kernel(MoeArgs a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t shared[];
  const ExpertTile tile = find_tile(a, ceil_div(a.out.columns, kWideColumns));
  if (tile.expert < 0) return;
  const int64_t n0 = tile.column * kWideColumns;
  const WeightView& w = a.table[tile.expert].w2;
  const auto a_row = [&](int row) -> const bf16_t* {
    if (tile.first + row >= tile.end) return nullptr;
    return static_cast<const bf16_t*>(a.hidden) + (tile.first + row) * a.intermediate;
  };
  const auto b_row = [&](int row) { return weight_row<kKind>(w, n0 + row); };
  float sums[128];
  multiply_wide_tile(shared, a_row, weight_rows<kKind>(w, b_row), w.columns, sums);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t place = tile.first + warp * 16 + lane / 4 + 8 * half;
    if (place >= tile.end) continue;
    float* to = a.partial + place * a.out.columns + n0;
#pragma unroll
    for (int j = 0; j < kWideColumns / 8; ++j) {
      const int column = j * 8 + lane % 4 * 2;
      if (n0 + column >= a.out.columns) continue;
      *reinterpret_cast<float2*>(to + column) = {sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]};
    }
  }
#endif
}

}  // namespace

void launch_moe_tiles_sm90(const MoeArgs& a, cudaStream_t stream) {
  static_assert(kWideRows == kExpertTileRows);
  const int64_t tiles = most_expert_tiles(a);
  with_rows(a.first.w1, a.first.w2, [&]<RowKind kKind>() {
    const auto up = moe_wide_up_kernel<kKind>;
    const auto down = moe_wide_down_kernel<kKind>;
    cudaFuncSetAttribute(up, cudaFuncAttributeMaxDynamicSharedMemorySize, kWideSharedBytes);
    cudaFuncSetAttribute(down, cudaFuncAttributeMaxDynamicSharedMemorySize, kWideSharedBytes);
    up<<<static_cast<unsigned>(tiles * ceil_div(a.intermediate, kWideColumns / 2)), kWideThreads,
         kWideSharedBytes, stream>>>(a);
    down<<<static_cast<unsigned>(tiles * ceil_div(a.out.columns, kWideColumns)), kWideThreads,
           kWideSharedBytes, stream>>>(a);
  });
}

}  // namespace minimax::cuda
