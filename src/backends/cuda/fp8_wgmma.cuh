// Hopper's warpgroup products of e4m3 codes, and what goes with them: boxes of matrices in shared memory and
// tensor maps that are made on the device.
#pragma once

#include "backends/cuda/ptx.cuh"

namespace minimax::cuda::ptx {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define MINIMAX_ACC4(i) "+f"(c[i]), "+f"(c[(i) + 1]), "+f"(c[(i) + 2]), "+f"(c[(i) + 3])
#define MINIMAX_ACC16(i) MINIMAX_ACC4(i), MINIMAX_ACC4((i) + 4), MINIMAX_ACC4((i) + 8), MINIMAX_ACC4((i) + 12)
#define MINIMAX_REGS_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define MINIMAX_REGS_16 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define MINIMAX_REGS_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define MINIMAX_REGS_48 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// c [64, N] (+)= a [64, 32] b [N, 32]^T of e4m3 codes, both from shared memory along k; c is overwritten when
// not `adds`. Element 4 j + 2 h + i of c is row 16 (warp % 4) + lane / 4 + 8 h, column 8 j + 2 (lane % 4) + i.
__device__ __forceinline__ void wgmma_e4m3(float (&c)[16], uint64_t a, uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 {" MINIMAX_REGS_0 "}, %16, %17, p, 1, 1;\n}"
      : MINIMAX_ACC16(0)
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
}
__device__ __forceinline__ void wgmma_e4m3(float (&c)[32], uint64_t a, uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" MINIMAX_REGS_0 ", " MINIMAX_REGS_16
      "}, %32, %33, p, 1, 1;\n}"
      : MINIMAX_ACC16(0), MINIMAX_ACC16(16)
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
}
__device__ __forceinline__ void wgmma_e4m3(float (&c)[48], uint64_t a, uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %50, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k32.f32.e4m3.e4m3 {" MINIMAX_REGS_0 ", " MINIMAX_REGS_16
      ", " MINIMAX_REGS_32 "}, %48, %49, p, 1, 1;\n}"
      : MINIMAX_ACC16(0), MINIMAX_ACC16(16), MINIMAX_ACC16(32)
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
}
__device__ __forceinline__ void wgmma_e4m3(float (&c)[64], uint64_t a, uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" MINIMAX_REGS_0 ", " MINIMAX_REGS_16
      ", " MINIMAX_REGS_32 ", " MINIMAX_REGS_48 "}, %64, %65, p, 1, 1;\n}"
      : MINIMAX_ACC16(0), MINIMAX_ACC16(16), MINIMAX_ACC16(32), MINIMAX_ACC16(48)
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
}

#undef MINIMAX_REGS_48
#undef MINIMAX_REGS_32
#undef MINIMAX_REGS_16
#undef MINIMAX_REGS_0
#undef MINIMAX_ACC16
#undef MINIMAX_ACC4

// A box of a matrix [x1, x0] to shared memory; `barrier` counts its bytes.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap* map, uint32_t barrier, int x0,
                                         int x1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
      "[%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x0), "r"(x1)
      : "memory");
}
// Four bytes in the background; zeros when not `is_valid`.
__device__ __forceinline__ void copy_async_4(uint32_t to, const void* from, bool is_valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(is_valid ? 4 : 0)
               : "memory");
}
// An arrival, counted among the expected ones, when this thread's copies so far are done.
__device__ __forceinline__ void barrier_arrive_after_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// A map in global memory, written on the device, becomes readable by the copy engine.
__device__ __forceinline__ void acquire_map(const CUtensorMap* map) {
  asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
}
__device__ __forceinline__ void release_maps() {
  asm volatile("fence.proxy.tensormap::generic.release.gpu;" ::: "memory");
}
// Lets a matrix's map describe another matrix of the same shape.
__device__ __forceinline__ void redirect_map(CUtensorMap* map, const void* data, uint64_t stride_bytes) {
  asm volatile("tensormap.replace.tile.global_address.global.b1024.b64 [%0], %1;" ::"l"(map), "l"(data)
               : "memory");
  asm volatile("tensormap.replace.tile.global_stride.global.b1024.b64 [%0], 0, %1;" ::"l"(map),
               "l"(stride_bytes)
               : "memory");
}

// The four 8 x 8 matrices transposed: a lane's address takes eight elements of one column.
__device__ __forceinline__ void store_matrix_x4_trans(uint32_t address, uint32_t a, uint32_t b, uint32_t c,
                                                      uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace minimax::cuda::ptx
