// Products of one block of keys on Hopper's warpgroups: 64 rows of queries by 128 keys by 128 dimensions.
// Both lie in shared memory in boxes of 64 dimensions, rows of 128 bytes in the 128-byte swizzle: queries in
// two boxes of 64 rows, keys and values in two of 128.
#pragma once

#include "backends/cuda/sparse.cuh"

namespace minimax::cuda {

constexpr int kGroupThreads = 128;
constexpr uint32_t kQueryBox = 64 * 128;
constexpr uint32_t kKeyBox = kSparseBlock * 128;
constexpr uint32_t kQueryTileBytes = 2 * kQueryBox;
constexpr uint32_t kKeyTileBytes = 2 * kKeyBox;

// Where 16 bytes of BF16, dimensions 8 chunk to 8 chunk + 7, of a row of a tile lie.
__device__ __forceinline__ uint32_t tile_place(uint32_t box_bytes, uint32_t row, uint32_t chunk) {
  return chunk / 8 * box_bytes + ptx::swizzled(row, chunk % 8);
}

// Sixteen codes as the BF16 numbers of two chunks.
__device__ __forceinline__ void store_codes(uint32_t tile, uint32_t box_bytes, uint32_t row, uint32_t chunk,
                                            const uint4& codes) {
  const auto store = [&](uint32_t at, uint32_t x, uint32_t y) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(bf16_pair(x & 0xffffU)),
                 "r"(bf16_pair(x >> 16U)), "r"(bf16_pair(y & 0xffffU)), "r"(bf16_pair(y >> 16U))
                 : "memory");
  };
  store(tile + tile_place(box_bytes, row, chunk), codes.x, codes.y);
  store(tile + tile_place(box_bytes, row, chunk + 1), codes.z, codes.w);
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define MINIMAX_SUMS4(i) "+f"(c[i]), "+f"(c[(i) + 1]), "+f"(c[(i) + 2]), "+f"(c[(i) + 3])
#define MINIMAX_SUMS16(i) \
  MINIMAX_SUMS4(i), MINIMAX_SUMS4((i) + 4), MINIMAX_SUMS4((i) + 8), MINIMAX_SUMS4((i) + 12)
// c [64, 128] (+)= a [64, 16] b [128, 16]^T, both from shared memory along k.
__device__ __forceinline__ void wgmma_64x128(float (&c)[64], uint64_t a, uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
      "%44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
      ", %64, %65, p, 1, 1, 0, 0;\n}"
      : MINIMAX_SUMS16(0), MINIMAX_SUMS16(16), MINIMAX_SUMS16(32), MINIMAX_SUMS16(48)
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
}
#undef MINIMAX_SUMS16
#undef MINIMAX_SUMS4

// The compiler may not move uses of these across this point: wgmma wrote them behind its back.
template <int N>
__device__ __forceinline__ void keep(float (&c)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// Begins c [64 queries, 128 keys] = Q K^T and closes the group. Number 4 j + 2 h + e of c belongs to row
// 16 (warp % 4) + lane / 4 + 8 h and key 8 j + 2 (lane % 4) + e.
__device__ __forceinline__ void start_scores(float (&c)[64], uint32_t queries, uint32_t keys) {
  ptx::wgmma_fence();
#pragma unroll
  for (uint32_t step = 0; step < kSparseSteps; ++step) {
    wgmma_64x128(c, ptx::operand_along_k(queries + step / 4 * kQueryBox + step % 4 * 32),
                 ptx::operand_along_k(keys + step / 4 * kKeyBox + step % 4 * 32), step > 0);
  }
  ptx::wgmma_commit();
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace minimax::cuda
