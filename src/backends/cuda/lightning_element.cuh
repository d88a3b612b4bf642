// Elements of rows and states, as F32 and back.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "backends/cuda/lightning.h"
#include "backends/cuda/ptx.cuh"

namespace minimax::cuda {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T from_float(float x) {
  return static_cast<T>(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// The N elements in 16 bytes.
template <typename T>
constexpr int kPerVector = 16 / sizeof(T);

__device__ __forceinline__ void unpack(float (&x)[4], const uint4& vector) {
  x[0] = __uint_as_float(vector.x);
  x[1] = __uint_as_float(vector.y);
  x[2] = __uint_as_float(vector.z);
  x[3] = __uint_as_float(vector.w);
}
__device__ __forceinline__ void unpack(float (&x)[8], const uint4& vector) {
  const uint32_t words[] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = ptx::low_float(words[i]);
    x[2 * i + 1] = ptx::high_float(words[i]);
  }
}
__device__ __forceinline__ uint4 pack(const float (&x)[4]) {
  return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                    __float_as_uint(x[3]));
}
__device__ __forceinline__ uint4 pack(const float (&x)[8]) {
  return make_uint4(ptx::pack_bf16(x[0], x[1]), ptx::pack_bf16(x[2], x[3]), ptx::pack_bf16(x[4], x[5]),
                    ptx::pack_bf16(x[6], x[7]));
}

// Rows that 16-byte accesses can reach.
inline bool is_aligned(const Rows& rows, Element element) {
  const int64_t per_vector = element == Element::kF32 ? 4 : 8;
  return reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && rows.token_stride % per_vector == 0 &&
         rows.head_stride % per_vector == 0;
}

}  // namespace minimax::cuda
