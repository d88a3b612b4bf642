// What the kernels share: element conversion, reductions, tensor-core and asynchronous-copy instructions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "backends/cuda/kernels.h"
#include "backends/cuda/launch.cuh"
#include "backends/cuda/ptx.cuh"

namespace minimax::cuda {

using bf16_t = __nv_bfloat16;
using e4m3_t = __nv_fp8_e4m3;
struct e8m0_t {
  uint8_t bits;
};

__device__ inline float to_f32(float x) { return x; }
__device__ inline float to_f32(bf16_t x) { return __bfloat162float(x); }
__device__ inline float to_f32(__half x) { return __half2float(x); }
__device__ inline float to_f32(e4m3_t x) { return static_cast<float>(x); }
__device__ inline float to_f32(e8m0_t x) {
  return __uint_as_float(x.bits == 0 ? 0x00400000U : static_cast<uint32_t>(x.bits) << 23U);
}

template <typename T>
__device__ T from_f32(float x);
template <>
__device__ inline float from_f32<float>(float x) {
  return x;
}
template <>
__device__ inline bf16_t from_f32<bf16_t>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline e4m3_t from_f32<e4m3_t>(float x) {
  return e4m3_t(x);  // nearest even, saturating; NaN stays NaN
}

// Four neighbouring numbers. REQUIRES: they begin at a multiple of their size.
__device__ inline float4 load_four(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ inline float4 load_four(const bf16_t* p) {
  const uint2 raw = *reinterpret_cast<const uint2*>(p);
  return {ptx::low_float(raw.x), ptx::high_float(raw.x), ptx::low_float(raw.y), ptx::high_float(raw.y)};
}

// Calls f(T{}) with the type of `scalar`.
template <typename F>
void with_activation(Scalar scalar, F&& f) {
  if (scalar == Scalar::kBF16) {
    f(bf16_t{});
  } else {
    f(float{});
  }
}
template <typename F>
void with_cache(Scalar scalar, F&& f) {
  if (scalar == Scalar::kE4m3) {
    f(e4m3_t{});
  } else {
    with_activation(scalar, f);
  }
}
template <typename F>
void with_table(Scalar scalar, F&& f) {
  if (scalar == Scalar::kF16) {
    f(__half{});
  } else {
    with_activation(scalar, f);
  }
}
template <typename F>
void with_weight(Scalar scalar, F&& f) {
  if (scalar == Scalar::kE4m3) {
    f(e4m3_t{});
  } else {
    with_table(scalar, f);
  }
}

__device__ inline float load_scalar(const void* data, Scalar scalar, int64_t i) {
  switch (scalar) {
    case Scalar::kBF16:
      return to_f32(static_cast<const bf16_t*>(data)[i]);
    case Scalar::kF16:
      return to_f32(static_cast<const __half*>(data)[i]);
    case Scalar::kE4m3:
      return to_f32(static_cast<const e4m3_t*>(data)[i]);
    case Scalar::kE8m0:
      return to_f32(static_cast<const e8m0_t*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

// Element (n, k) of a weight as the number it stands for.
__device__ inline float weight_at(const WeightView& w, int64_t n, int64_t k) {
  const float value = load_scalar(w.values, w.scalar, n * w.stride + k);
  if (w.scales == nullptr) return value;
  const int64_t at =
      (n + w.row_offset) / w.block_rows * w.scale_stride + (k + w.column_offset) / w.block_columns;
  return value * load_scalar(w.scales, w.scale_scalar, at);
}

__device__ inline float warp_sum(float x) {
  for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(0xffffffffU, x, i);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int i = 16; i > 0; i >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, i));
  return x;
}
// Of all threads of the block, given to all. `scratch` holds 33 floats.
__device__ inline float block_sum(float x, float* scratch) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  x = warp_sum(x);
  __syncthreads();
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  if (warp == 0) {
    x = warp_sum(lane < (static_cast<int>(blockDim.x) + 31) / 32 ? scratch[lane] : 0.0F);
    if (lane == 0) scratch[32] = x;
  }
  __syncthreads();
  return scratch[32];
}

__device__ inline float silu(float z) { return z / (1.0F + __expf(-z)); }
__device__ inline float sigmoid(float z) { return 1.0F / (1.0F + __expf(-z)); }
__device__ inline float swiglu(const SwigluParams& p, float gate, float up) {
  const float g = fminf(gate, p.limit);
  const float u = fminf(fmaxf(up, -p.limit), p.limit);
  return (u + p.up_offset) * g / (1.0F + __expf(-p.alpha * g));
}

using ptx::pack_bf16;

__device__ inline void store_four(float* p, const float4& v) { *reinterpret_cast<float4*>(p) = v; }
__device__ inline void store_four(bf16_t* p, const float4& v) {
  *reinterpret_cast<uint2*>(p) = {pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)};
}

// Weights are read once: they must not push activations out of the caches.
__device__ inline uint4 load_stream_16(const void* p) {
  uint4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "l"(p));
  return r;
}

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Launches a kernel that begins with ptx::wait_for_previous_kernel(). Failures show in cudaGetLastError.
template <typename Kernel, typename... Args>
void launch(Kernel* kernel, dim3 blocks, unsigned threads, size_t shared_bytes, cudaStream_t stream,
            Args&&... args) {
  static_cast<void>(launch_early(kernel, blocks, threads, shared_bytes, stream, std::forward<Args>(args)...));
}

// The sequence that owns row t, or -1 for padding.
__device__ inline int64_t sequence_of(const Ragged& batch, int64_t t) {
  if (t >= batch.query_starts[batch.sequences]) return -1;
  int64_t low = 0, high = batch.sequences;  // the last sequence that starts at or before t
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (batch.query_starts[middle] <= t ? low : high) = middle;
  }
  return low;
}

}  // namespace minimax::cuda
