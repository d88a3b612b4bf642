// What the kernels of block-sparse attention share: rows of caches as fragments of the tensor cores without
// shared memory in between.
//
// A sum does not care for the order of its terms. Lane l of a warp reads 16 bytes of a row, neighbouring
// numbers, and takes them for what m16n8k16 wants of its two pairs, as long as the other operand is read in
// the same order: number n of step s, n < 4, is dimension order_of<Cache>(lane % 4, s) + n.
//
// BF16 caches multiply in BF16. E4m3 is exact in F16 too, one conversion for two numbers; its queries are
// then scaled by a power of two so that F16 holds them (what it cuts off is below 2^-30 of the largest).
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

constexpr int kSparseDim = 128;
constexpr int kSparseBlock = 128;  // keys of a block, which is a page
constexpr int kSparseSteps = kSparseDim / 16;

// Bytes of shared memory that the queues of copies fill: two blocks of threads a multiprocessor, where
// Hopper's 227 KB or A100's 163 hold them; one on devices with less.
constexpr int kWideQueue = 96 * 1024;
constexpr int kNarrowQueue = 64 * 1024;
inline bool has_wide_queue() {
  int device = 0, bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes > 2 * kWideQueue;
}

template <typename Cache>
constexpr int kRowLoads = kSparseDim* static_cast<int>(sizeof(Cache)) / 64;  // of 16 bytes a lane

template <typename Cache>
__device__ __forceinline__ int order_of(int quarter, int step) {
  constexpr int kPerLoad = 8 / kRowLoads<Cache>;  // steps
  return step / kPerLoad * (64 / static_cast<int>(sizeof(Cache))) +
         quarter * (16 / static_cast<int>(sizeof(Cache))) + step % kPerLoad * 4;
}

// c [16, 8] += a [16, 16] b [16, 8]; F16 for e4m3 caches.
template <typename Cache>
__device__ __forceinline__ void sparse_mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                           uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void sparse_mma<bf16_t>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                   uint32_t a3, uint32_t b0, uint32_t b1) {
  const uint32_t a[4] = {a0, a1, a2, a3};
  ptx::mma_16x8x16(c, a, b0, b1);
}
template <>
__device__ __forceinline__ void sparse_mma<e4m3_t>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                   uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Two e4m3 codes, the low byte first, as F16.
__device__ __forceinline__ uint32_t half_pair(uint32_t codes) {
  const __half2_raw h = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3);
  return static_cast<uint32_t>(h.x) | (static_cast<uint32_t>(h.y) << 16U);
}
__device__ __forceinline__ uint32_t bf16_pair(uint32_t codes) {
  const uint32_t h = half_pair(codes);
  const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&h));
  return pack_bf16(f.x, f.y);
}

// Two floats as the operand type of a cache.
template <typename Cache>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  if constexpr (sizeof(Cache) == 2) {
    return pack_bf16(low, high);
  } else {
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
  }
}

// The pairs of step `step` within a lane's loads of a row: numbers 0, 1 and 2, 3 of the order above.
template <typename Cache>
__device__ __forceinline__ void step_pairs(const uint4 (&loads)[kRowLoads<Cache>], int step, uint32_t& first,
                                           uint32_t& second) {
  if constexpr (sizeof(Cache) == 2) {
    const uint4& x = loads[step / 2];
    first = step % 2 == 0 ? x.x : x.z;
    second = step % 2 == 0 ? x.y : x.w;
  } else {
    const uint4& x = loads[step / 4];
    const uint32_t codes = step % 4 == 0 ? x.x : step % 4 == 1 ? x.y : step % 4 == 2 ? x.z : x.w;
    first = half_pair(codes & 0xffffU);
    second = half_pair(codes >> 16U);
  }
}

__device__ __forceinline__ float4 load_numbers(const bf16_t* p) { return load_four(p); }
__device__ __forceinline__ float4 load_numbers(const e4m3_t* p) {
  const uint32_t codes = *reinterpret_cast<const uint32_t*>(p);
  const uint32_t low = half_pair(codes & 0xffffU), high = half_pair(codes >> 16U);
  const float2 a = __half22float2(*reinterpret_cast<const __half2*>(&low));
  const float2 b = __half22float2(*reinterpret_cast<const __half2*>(&high));
  return {a.x, a.y, b.x, b.y};
}

__device__ __forceinline__ float largest_of(const float4& x) {
  return fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
}

// The power of two that takes numbers up to `largest` to at most 256; 1 for 0, infinity and what has no
// such float.
__device__ __forceinline__ float scale_for_half(float largest) {
  const uint32_t exponent = __float_as_uint(largest) >> 23U;
  if (exponent < 16 || exponent > 250) return 1.0F;
  return __uint_as_float((127U + 134U - exponent) << 23U);
}

__device__ __forceinline__ uint4 load_private(uint32_t address) { return ptx::load_shared16(address); }

// Position of row t, and its sequence in `b`; -1 for padding. Most decode batches have row t of sequence t.
__device__ __forceinline__ int64_t position_of(const Ragged& batch, int64_t t, int64_t& b) {
  if (t < batch.sequences && batch.query_starts[t] == t && batch.query_starts[t + 1] == t + 1) {
    b = t;
  } else {
    b = sequence_of(batch, t);
    if (b < 0) return -1;
  }
  return int64_t{batch.seq_lens[b]} - batch.query_starts[b + 1] + t;
}

}  // namespace minimax::cuda
