// Inputs as e4m3 codes, one scale for each group of 128.
#include "backends/cuda/device.cuh"

namespace minimax::cuda {
namespace {

constexpr int kGroup = 128;
constexpr int kLaneInputs = 16;
constexpr int kGroupLanes = kGroup / kLaneInputs;
constexpr int kWarpInputs = 32 * kLaneInputs;
constexpr int kWarps = 8;

template <typename X>
__device__ void load_eight(const X* from, bool is_aligned, int64_t count, float (&values)[8]) {
  if (is_aligned && count >= 8) {
    const float4 low = load_four(from), high = load_four(from + 4);
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = i < count ? to_f32(from[i]) : 0.0F;
}

// x / scale, rounded to nearest as a division is, for ordinary numbers of both.
__device__ __forceinline__ float divide(float x, float scale, float inverse) {
  const float quotient = x * inverse;
  return fmaf(fmaf(-quotient, scale, x), inverse, quotient);
}

// Row t goes to row t, or with top_k > 0 to the places of its pairs. Columns are a multiple of 16.
template <typename X>
__global__ void __launch_bounds__(kWarps * 32)
    encode_kernel(Matrix x, bool is_aligned, const int32_t* places, int64_t top_k, CodedRows to) {
  ptx::wait_for_previous_kernel();
  const int64_t pieces = ceil_div(x.columns, kWarpInputs);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= x.rows * pieces) return;
  const int lane = threadIdx.x % 32;
  const int64_t t = index / pieces, k = index % pieces * kWarpInputs + lane * kLaneInputs;
  float values[2][8];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    load_eight(static_cast<const X*>(x.data) + t * x.stride + k + 8 * half, is_aligned,
               x.columns - k - 8 * half, values[half]);
  }
  float largest = 0;
#pragma unroll
  for (const auto& eight : values) {
#pragma unroll
    for (float value : eight) largest = fmaxf(largest, fabsf(value));
  }
#pragma unroll
  for (int i = kGroupLanes / 2; i > 0; i >>= 1)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, i));
  const float scale = fmaxf(largest / 448.0F, 1e-10F), inverse = 1.0F / scale;
  uint32_t codes[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* v = values[i / 2] + i % 2 * 4;
    const auto encode_two = [&](float a, float b) -> uint32_t {
      return __nv_cvt_float2_to_fp8x2({divide(a, scale, inverse), divide(b, scale, inverse)}, __NV_SATFINITE,
                                      __NV_E4M3);
    };
    codes[i] = encode_two(v[0], v[1]) | encode_two(v[2], v[3]) << 16;
  }
  if (k >= x.columns) return;
  const uint4 packed = {codes[0], codes[1], codes[2], codes[3]};
  const auto store = [&](int64_t row) {
    *reinterpret_cast<uint4*>(static_cast<uint8_t*>(to.codes) + row * to.columns + k) = packed;
    if (lane % kGroupLanes == 0) to.scales[k / kGroup * to.scale_stride + row] = scale;
  };
  if (top_k == 0) store(t);
  for (int64_t j = 0; j < top_k; ++j) {
    const int32_t place = places[t * top_k + j];
    if (place >= 0) store(place);
  }
}

void launch_encode(const Matrix& x, const int32_t* places, int64_t top_k, const CodedRows& to,
                   cudaStream_t stream) {
  const int64_t warps = x.rows * ceil_div(x.columns, kWarpInputs);
  if (warps == 0) return;
  const bool is_aligned = x.stride % 4 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  with_activation(x.scalar, [&](auto in) {
    launch(encode_kernel<decltype(in)>, static_cast<unsigned>(ceil_div(warps, kWarps)), kWarps * 32, 0,
           stream, x, is_aligned, places, top_k, to);
  });
}

}  // namespace

void launch_encode_rows(const Matrix& x, const CodedRows& to, cudaStream_t stream) {
  launch_encode(x, nullptr, 0, to, stream);
}

void launch_encode_pairs(const MoeArgs& a, const CodedRows& to, cudaStream_t stream) {
  launch_encode(a.x, a.order.places, a.top_k, to, stream);
}

}  // namespace minimax::cuda
