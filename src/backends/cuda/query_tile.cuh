// What kernels of attention share: which rows of a ragged batch a block computes, rows of the cache on their
// way to shared memory, rows that nobody owns.
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

// The tile's sequence and first token in it, from the block's place among the tiles of all sequences.
struct QueryTile {
  int64_t sequence = -1;
  int64_t first = 0;  // row of the batch
  int64_t end = 0;    // of the sequence's rows
};
// Beyond the last tile `first` counts on from 0.
__device__ inline QueryTile find_query_tile(const Ragged& batch, int64_t tile, int64_t tokens_per_tile) {
  for (int64_t b = 0; b < batch.sequences; ++b) {
    const int64_t begin = batch.query_starts[b], end = batch.query_starts[b + 1];
    const int64_t tiles = ceil_div(end - begin, tokens_per_tile);
    if (tile < tiles) return {b, begin + tile * tokens_per_tile, end};
    tile -= tiles;
  }
  return {-1, tile, 0};
}

// Sixteen bytes of a cache row as eight BF16 numbers in shared memory.
__device__ inline void load_chunk(uint32_t to, const bf16_t* from, bool valid) {
  ptx::copy_async_16(to, from, valid);
}
__device__ inline void load_chunk(uint32_t to, const e4m3_t* from, bool valid) {
  uint4 out = {0, 0, 0, 0};
  if (valid) {
    const uint2 codes = *reinterpret_cast<const uint2*>(from);
    const auto pair = [](uint32_t two) {
      const __half2_raw h = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(two), __NV_E4M3);
      const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&h));
      return pack_bf16(f.x, f.y);
    };
    out = {pair(codes.x & 0xffffU), pair(codes.x >> 16U), pair(codes.y & 0xffffU), pair(codes.y >> 16U)};
  }
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(out.x), "r"(out.y), "r"(out.z),
               "r"(out.w));
}

// Zeros for row t of the batch, which no sequence owns. All threads of a block.
__device__ inline void clear_row(const AttentionArgs& a, int64_t t) {
  for (int64_t i = threadIdx.x; i < a.out.heads * a.out.dim; i += blockDim.x) {
    static_cast<bf16_t*>(
        a.out.data)[t * a.out.token_stride + i / a.out.dim * a.out.head_stride + i % a.out.dim] =
        from_f32<bf16_t>(0.0F);
  }
}

}  // namespace minimax::cuda
