// Hopper's warpgroup products of e4m3 codes, and what goes with them: boxes of matrices in shared memory and
// tensor maps that are made on the device.
#pragma once

#include "backends/cuda/ptx.cuh"

namespace minimax::cuda::ptx {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define MINIMAX_ACC4(i) "+f"(c[i]), "+f"(c[(i) + 1]), "+f"(c[(i) + 2]), "+f"(c[(i) + 3])
#define MINIMAX_ACC16(i) MINIMAX_ACC4(i), MINIMAX_ACC4((i) + 4), MINIMAX_ACC4((i) + 8), MINIMAX_ACC4((i) + 12)
#define MINIMAX_ACC32(i) MINIMAX_ACC16(i), MINIMAX_ACC16((i) + 16)
#define MINIMAX_REGS_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define MINIMAX_REGS_16 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define MINIMAX_REGS_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define MINIMAX_REGS_48 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// c [64, N] (+)= a [64, 32] b [N, 32]^T of e4m3 codes, both from shared memory along k; c is overwritten when
// not `adds`. Element 4 j + 2 h + i of c is row 16 (warp % 4) + lane / 4 + 8 h, column 8 j + 2 (lane % 4) +
// i.
#define MINIMAX_WGMMA_E4M3(columns, count, registers, a_place, b_place, adds_place, ...)            \
  __device__ __forceinline__ void wgmma_e4m3(float(&c)[count], uint64_t a, uint64_t b, bool adds) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " adds_place                                     \
                 ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns "k32.f32.e4m3.e4m3 {" registers  \
                 "}, " a_place ", " b_place ", p, 1, 1;\n}"                                         \
                 : __VA_ARGS__                                                                      \
                 : "l"(a), "l"(b), "r"(static_cast<int>(adds)));                                    \
  }
MINIMAX_WGMMA_E4M3("8", 4, "%0, %1, %2, %3", "%4", "%5", "%6", MINIMAX_ACC4(0))
MINIMAX_WGMMA_E4M3("16", 8, "%0, %1, %2, %3, %4, %5, %6, %7", "%8", "%9", "%10", MINIMAX_ACC4(0),
                   MINIMAX_ACC4(4))
MINIMAX_WGMMA_E4M3("32", 16, MINIMAX_REGS_0, "%16", "%17", "%18", MINIMAX_ACC16(0))
MINIMAX_WGMMA_E4M3("64", 32, MINIMAX_REGS_0 ", " MINIMAX_REGS_16, "%32", "%33", "%34", MINIMAX_ACC32(0))
MINIMAX_WGMMA_E4M3("72", 36, MINIMAX_REGS_0 ", " MINIMAX_REGS_16 ", %32, %33, %34, %35", "%36", "%37", "%38",
                   MINIMAX_ACC32(0), MINIMAX_ACC4(32))
MINIMAX_WGMMA_E4M3("80", 40, MINIMAX_REGS_0 ", " MINIMAX_REGS_16 ", %32, %33, %34, %35, %36, %37, %38, %39",
                   "%40", "%41", "%42", MINIMAX_ACC32(0), MINIMAX_ACC4(32), MINIMAX_ACC4(36))
MINIMAX_WGMMA_E4M3("96", 48, MINIMAX_REGS_0 ", " MINIMAX_REGS_16 ", " MINIMAX_REGS_32, "%48", "%49", "%50",
                   MINIMAX_ACC32(0), MINIMAX_ACC16(32))
MINIMAX_WGMMA_E4M3("112", 56,
                   MINIMAX_REGS_0 ", " MINIMAX_REGS_16 ", " MINIMAX_REGS_32
                                  ", %48, %49, %50, %51, %52, %53, %54, %55",
                   "%56", "%57", "%58", MINIMAX_ACC32(0), MINIMAX_ACC16(32), MINIMAX_ACC4(48),
                   MINIMAX_ACC4(52))
MINIMAX_WGMMA_E4M3("128", 64, MINIMAX_REGS_0 ", " MINIMAX_REGS_16 ", " MINIMAX_REGS_32 ", " MINIMAX_REGS_48,
                   "%64", "%65", "%66", MINIMAX_ACC32(0), MINIMAX_ACC32(32))
MINIMAX_WGMMA_E4M3("136", 68,
                   MINIMAX_REGS_0 ", " MINIMAX_REGS_16 ", " MINIMAX_REGS_32 ", " MINIMAX_REGS_48
                                  ", %64, %65, %66, %67",
                   "%68", "%69", "%70", MINIMAX_ACC32(0), MINIMAX_ACC32(32), MINIMAX_ACC4(64))

#undef MINIMAX_WGMMA_E4M3

// The same of BF16 numbers: c [64, 8 or 16] (+)= a [64, 16] b [N, 16]^T.
__device__ __forceinline__ void wgmma_bf16(float (&c)[4], uint64_t a, uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %6, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 0;\n}"
      : MINIMAX_ACC4(0)
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
}
__device__ __forceinline__ void wgmma_bf16(float (&c)[8], uint64_t a, uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7}, %8, %9, p, "
      "1, 1, 0, 0;\n}"
      : MINIMAX_ACC4(0), MINIMAX_ACC4(4)
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
}

#undef MINIMAX_REGS_48
#undef MINIMAX_REGS_32
#undef MINIMAX_REGS_16
#undef MINIMAX_REGS_0
#undef MINIMAX_ACC32
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
// The same to the same place in every block of the cluster whose bit is set in `blocks`, for its barrier
// there.
__device__ __forceinline__ void copy_box_to_all(uint32_t to, const CUtensorMap* map, uint32_t barrier, int x0,
                                                int x1, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4}], [%2], %5;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x0), "r"(x1), "h"(blocks)
      : "memory");
}

// Memory that is read once makes way for what is read again.
__device__ __forceinline__ uint64_t policy_evict_first() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap* map, uint32_t barrier, int x0,
                                         int x1, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, "
      "{%3, %4}], [%2], %5;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(x0), "r"(x1), "l"(policy)
      : "memory");
}
// kBytes, 4 or 8, from global to shared memory in the background.
template <int kBytes>
__device__ __forceinline__ void copy_async(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(kBytes) : "memory");
}
// Arrives at the barrier when this thread's copies by copy_async() have ended.
__device__ __forceinline__ void barrier_arrive_after_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// Every thread of every block of the cluster.
__device__ __forceinline__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The two halves of it, which order nothing but barriers' initial state.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// A number to this place of the cluster's first block, for its barrier, which counts its bytes.
__device__ __forceinline__ void store_to_first(uint32_t address, uint32_t barrier, float value) {
  asm volatile(
      "{\n.reg .b32 to, there;\nmapa.shared::cluster.u32 to, %0, 0;\nmapa.shared::cluster.u32 there, %1, 0;\n"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [to], %2, [there];\n}" ::"r"(address),
      "r"(barrier), "r"(__float_as_uint(value))
      : "memory");
}
// Arrives at the barrier in this place of block `rank` of the cluster. Says that this thread has read, orders
// no writes: spelled with .release.cluster it waits for all memory of the device.
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
      "r"(rank)
      : "memory");
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

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace minimax::cuda::ptx
