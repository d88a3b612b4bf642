// A BF16 product of one tile, 128 rows by 256 columns, on Hopper's warpgroup products: asynchronous copies
// four stages deep into swizzled shared memory, which wgmma reads as it is. Two warpgroups, 64 by 256 each.
#pragma once

#include "backends/cuda/coded_rows.cuh"
#include "backends/cuda/device.cuh"
#include "backends/cuda/ptx.cuh"

namespace minimax::cuda {

constexpr int kWideRows = 128;
constexpr int kWideColumns = 256;
constexpr int kWideDepth = 64;
constexpr int kWideStages = 4;
constexpr int kWideThreads = 256;
constexpr int kWideStageBytes = (kWideRows + kWideColumns) * kWideDepth * 2;
// Swizzled tiles begin at multiples of 1024 bytes.
constexpr int kWideSharedBytes = kWideStages * kWideStageBytes + 1024;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define MINIMAX_SUMS4(i) "+f"(c[i]), "+f"(c[(i) + 1]), "+f"(c[(i) + 2]), "+f"(c[(i) + 3])
#define MINIMAX_SUMS16(i) \
  MINIMAX_SUMS4(i), MINIMAX_SUMS4((i) + 4), MINIMAX_SUMS4((i) + 8), MINIMAX_SUMS4((i) + 12)
// c [64, 256] += a [64, 16] b [256, 16]^T, both from shared memory along k.
__device__ __forceinline__ void wgmma_64x256(float (&c)[128], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "
      "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "
      "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, "
      "%66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "
      "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "
      "%98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "
      "%126, %127"
      "}, %128, %129, 1, 1, 1, 0, 0;"
      : MINIMAX_SUMS16(0), MINIMAX_SUMS16(16), MINIMAX_SUMS16(32), MINIMAX_SUMS16(48), MINIMAX_SUMS16(64),
        MINIMAX_SUMS16(80), MINIMAX_SUMS16(96), MINIMAX_SUMS16(112)
      : "l"(a), "l"(b));
}
#undef MINIMAX_SUMS16
#undef MINIMAX_SUMS4

// sums = A B^T over `depth` inputs, a multiple of 8. a_row(i) gives row i of the tile, 16-byte aligned, or
// null for a row of zeros; so does b, or it is the CodedSource of 8-bit rows, with a depth that is a multiple
// of 16. Of sums, element 4 j + 2 h + c is row 64 warpgroup + 16 (warp % 4) + lane / 4 + 8 h, column 8 j + 2
// (lane % 4)
// + c.
template <typename ARow, typename B>
__device__ __forceinline__ void multiply_wide_tile(uint8_t* shared, ARow&& a_row, const B& b, int64_t depth,
                                                   float (&sums)[128]) {
  const uint32_t base = (ptx::shared_address(shared) + 1023U) & ~1023U;
  CopiedChunks<kWideRows, kWideThreads> a_chunks(a_row);
  typename ChunksOf<kWideColumns, kWideThreads, B>::Type b_chunks(b);
  const int64_t steps = ceil_div(depth, kWideDepth);
  // Steps are loaded in order; what is fetched of B is one step ahead.
  b_chunks.fetch(0, depth);
  const auto load = [&](int64_t step) {
    const uint32_t stage = base + static_cast<uint32_t>(step % kWideStages) * kWideStageBytes;
    a_chunks.fetch(step * kWideDepth, depth);
    a_chunks.store(stage);
    b_chunks.store(stage + kWideRows * 128);
    b_chunks.fetch((step + 1) * kWideDepth, depth);
  };
  // Zeros that the compiler may not put off to the first product, which would make products wait for each
  // other.
#pragma unroll
  for (float& sum : sums) {
    sum = 0;
    asm volatile("" : "+f"(sum));
  }
  // A stage is free once the products before the last ones are done, in both warpgroups: two steps ahead.
#pragma unroll
  for (int s = 0; s < kWideStages - 2; ++s) {
    if (s < steps) load(s);
    ptx::copy_async_commit();
  }
  const uint32_t warpgroup = threadIdx.x / 128;
  for (int64_t step = 0; step < steps; ++step) {
    ptx::copy_async_wait<kWideStages - 3>();
    ptx::fence_shared_async();
    __syncthreads();
    const uint32_t stage = base + static_cast<uint32_t>(step % kWideStages) * kWideStageBytes;
    ptx::wgmma_fence();
#pragma unroll
    for (uint32_t k = 0; k < kWideDepth / 16; ++k) {
      wgmma_64x256(sums, ptx::operand_along_k(stage + warpgroup * 64 * 128 + k * 32),
                   ptx::operand_along_k(stage + kWideRows * 128 + k * 32));
    }
    ptx::wgmma_commit();
    if (step + kWideStages - 2 < steps) load(step + kWideStages - 2);
    ptx::copy_async_commit();
    ptx::wgmma_wait<1>();
  }
  ptx::wgmma_wait<0>();
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace minimax::cuda
