// The weighted sum of experts' outputs, token by token. Sums over a token's choices run in the order of j, so
// no atomics.
#include "backends/cuda/expert_sum.h"

#include "backends/cuda/experts.cuh"

namespace minimax::cuda {
namespace {

// Where the row of a pair stands in `partial`: with the order of pairs or without; -1 for none.
template <bool kIsOrdered>
__device__ int64_t partial_row(const MoeArgs& a, int64_t pair) {
  if (kIsOrdered) return a.order.places[pair];
  return expert_of(a, pair) >= 0 ? pair : -1;
}

template <bool kIsOrdered, typename Out>
__global__ void combine_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  const int64_t t = blockIdx.y;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.out.columns) return;
  float sum = 0;
  for (int64_t j = 0; j < a.top_k; ++j) {
    const int64_t pair = t * a.top_k + j, row = partial_row<kIsOrdered>(a, pair);
    if (row >= 0) sum += a.weights[pair] * a.partial[row * a.out.columns + i];
  }
  static_cast<Out*>(a.out.data)[t * a.out.stride + i] = from_f32<Out>(sum);
}

// Four columns a thread.
template <bool kIsOrdered, typename Out>
__global__ void combine_four_kernel(MoeArgs a) {
  if (a.lets_next_start) ptx::start_next_kernel();
  ptx::wait_for_previous_kernel();
  const int64_t t = blockIdx.x;
  const int64_t i = 4 * (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x);
  if (i >= a.out.columns) return;
  float4 sum = {0, 0, 0, 0};
  for (int64_t j = 0; j < a.top_k; ++j) {
    const int64_t pair = t * a.top_k + j, row = partial_row<kIsOrdered>(a, pair);
    if (row < 0) continue;
    const float weight = a.weights[pair];
    const float4 y = load_four(a.partial + row * a.out.columns + i);
    sum = {sum.x + weight * y.x, sum.y + weight * y.y, sum.z + weight * y.z, sum.w + weight * y.w};
  }
  store_four(static_cast<Out*>(a.out.data) + t * a.out.stride + i, sum);
}

template <bool kIsOrdered>
void launch_combine(const MoeArgs& a, cudaStream_t stream) {
  // Few rows take as many blocks as they can.
  const int threads = a.out.rows <= kMostSmallMoeTokens ? 128 : 256;
  constexpr int64_t kMostRows = 65535;
  const bool has_fours =
      a.out.columns % 4 == 0 && a.out.stride % 4 == 0 && reinterpret_cast<uintptr_t>(a.out.data) % 16 == 0;
  with_activation(a.out.scalar, [&](auto o) {
    using Out = decltype(o);
    if (has_fours) {
      const dim3 grid(static_cast<unsigned>(a.out.rows),
                      static_cast<unsigned>(ceil_div(a.out.columns, 4 * threads)));
      return launch(combine_four_kernel<kIsOrdered, Out>, grid, threads, 0, stream, a);
    }
    for (int64_t first = 0; first < a.out.rows; first += kMostRows) {
      MoeArgs part = a;
      const int64_t rows = a.out.rows - first < kMostRows ? a.out.rows - first : kMostRows;
      part.out.data = static_cast<Out*>(a.out.data) + first * a.out.stride;
      part.weights += first * a.top_k;
      part.order.places += first * a.top_k;
      const dim3 grid(static_cast<unsigned>(ceil_div(a.out.columns, threads)), static_cast<unsigned>(rows));
      launch(combine_kernel<kIsOrdered, Out>, grid, threads, 0, stream, part);
    }
  });
}

// out[t] = the weighted sum of the rows of t's pairs, eight columns a thread.
template <typename Out>
__global__ void combine_rows_kernel(MoeArgs a, const bf16_t* rows, bool stores_fours) {
  ptx::wait_for_previous_kernel();
  constexpr int kAtOnce = 8;
  const int64_t t = blockIdx.x;
  const int64_t i = 8 * (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x);
  if (i >= a.out.columns) return;
  float sums[8] = {};
  for (int64_t base = 0; base < a.top_k; base += kAtOnce) {
    uint4 raw[kAtOnce];
    float weights[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int64_t pair = t * a.top_k + base + j;
      const int32_t place = base + j < a.top_k ? a.order.places[pair] : -1;
      weights[j] = place >= 0 ? a.weights[pair] : 0.0F;
      raw[j] = place >= 0 ? *reinterpret_cast<const uint4*>(rows + place * a.out.columns + i) : uint4{};
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const uint32_t parts[4] = {raw[j].x, raw[j].y, raw[j].z, raw[j].w};
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        sums[2 * c] += weights[j] * ptx::low_float(parts[c]);
        sums[2 * c + 1] += weights[j] * ptx::high_float(parts[c]);
      }
    }
  }
  Out* to = static_cast<Out*>(a.out.data) + t * a.out.stride + i;
  if (stores_fours) {
    store_four(to, {sums[0], sums[1], sums[2], sums[3]});
    store_four(to + 4, {sums[4], sums[5], sums[6], sums[7]});
    return;
  }
#pragma unroll
  for (int c = 0; c < 8; ++c) to[c] = from_f32<Out>(sums[c]);
}

}  // namespace

void launch_combine_places(const MoeArgs& a, cudaStream_t stream) { launch_combine<true>(a, stream); }
void launch_combine_pairs(const MoeArgs& a, cudaStream_t stream) { launch_combine<false>(a, stream); }

void launch_combine_rows(const MoeArgs& a, const void* rows, cudaStream_t stream) {
  constexpr int kCombineThreads = 128;
  const dim3 grid(static_cast<unsigned>(a.out.rows),
                  static_cast<unsigned>(ceil_div(a.out.columns, 8 * kCombineThreads)));
  const bool stores_fours = a.out.stride % 4 == 0 && reinterpret_cast<uintptr_t>(a.out.data) % 16 == 0;
  with_activation(a.out.scalar, [&](auto o) {
    launch(combine_rows_kernel<decltype(o)>, grid, kCombineThreads, 0, stream, a,
           static_cast<const bf16_t*>(rows), stores_fours);
  });
}

}  // namespace minimax::cuda
