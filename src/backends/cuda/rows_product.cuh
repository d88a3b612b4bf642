// The inner loop of BF16 products of few rows, which are bound by the memory of the weights: a block takes
// sixteen or thirty-two weight rows, its warps share the inputs, and weights go from memory to the tensor
// cores' registers without a stop in shared memory.
//
// A lane loads 16 bytes, eight neighbouring inputs, of a weight row. An mma wants pairs of inputs spread over
// lanes, but a sum does not care for the order of its terms: lane quarter q holds inputs 8 q .. 8 q + 7 of
// 32, for weights and activations alike, and two mma instructions take four of them each.
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

constexpr int kRowsWarps = 8;

// Eight inputs at `k` of an activation row as four BF16 pairs; zeros where `row` is null.
__device__ inline void load_inputs(const float* row, int64_t k, uint32_t (&b)[4]) {
  if (row == nullptr) {
    b[0] = b[1] = b[2] = b[3] = 0;
    return;
  }
  const float4 low = *reinterpret_cast<const float4*>(row + k);
  const float4 high = *reinterpret_cast<const float4*>(row + k + 4);
  b[0] = pack_bf16(low.x, low.y);
  b[1] = pack_bf16(low.z, low.w);
  b[2] = pack_bf16(high.x, high.y);
  b[3] = pack_bf16(high.z, high.w);
}
__device__ inline void load_inputs(const bf16_t* row, int64_t k, uint32_t (&b)[4]) {
  const uint4 v = row == nullptr ? uint4{0, 0, 0, 0} : *reinterpret_cast<const uint4*>(row + k);
  b[0] = v.x;
  b[1] = v.y;
  b[2] = v.z;
  b[3] = v.w;
}

// sums[m][n] += the products of the warp's share of K inputs: sixteen rows of kTiles weights each with
// 8 kGroups activation rows. `weights[m]` is row 0 of tile m at this lane's row (lane / 4), `last_rows` says
// whether rows 0..7 and 8..15 exist. `inputs[n]` is the lane's activation row or null. With kWaits the
// previous kernel is waited for, behind the first loads of weights.
template <int kTiles, int kGroups, typename X, bool kWaits = false>
__device__ void multiply_rows(const bf16_t* const (&low_rows)[kTiles],
                              const bf16_t* const (&high_rows)[kTiles], const X* const (&inputs)[kGroups],
                              int64_t columns, float (&sums)[kTiles][kGroups][4]) {
  constexpr int kAhead = kTiles * kGroups > 4 ? 2 : 4;
  const int warp = threadIdx.x / 32, quarter = threadIdx.x % 4;
  // Warps take 32 inputs in turn, so that a block reads long runs.
  constexpr int64_t kStep = 32 * kRowsWarps;
  int64_t k = warp * 32 + quarter * 8;
  bool is_first = true;
  const auto step = [&](const uint4(&low)[kTiles], const uint4(&high)[kTiles], int64_t at) {
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      uint32_t b[4];
      load_inputs(inputs[n], at, b);
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        const uint32_t first[4] = {low[m].x, high[m].x, low[m].y, high[m].y};
        const uint32_t second[4] = {low[m].z, high[m].z, low[m].w, high[m].w};
        ptx::mma_16x8x16(sums[m][n], first, b[0], b[1]);
        ptx::mma_16x8x16(sums[m][n], second, b[2], b[3]);
      }
    }
  };
  for (; k + (kAhead - 1) * kStep < columns; k += kAhead * kStep) {
    uint4 low[kAhead][kTiles], high[kAhead][kTiles];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        low[a][m] = load_stream_16(low_rows[m] + k + a * kStep);
        high[a][m] = load_stream_16(high_rows[m] + k + a * kStep);
      }
    }
    if (kWaits && is_first) ptx::wait_for_previous_kernel();
    is_first = false;
#pragma unroll
    for (int a = 0; a < kAhead; ++a) step(low[a], high[a], k + a * kStep);
  }
  if (kWaits && is_first) ptx::wait_for_previous_kernel();
  for (; k < columns; k += kStep) {
    uint4 low[kTiles], high[kTiles];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      low[m] = load_stream_16(low_rows[m] + k);
      high[m] = load_stream_16(high_rows[m] + k);
    }
    step(low, high, k);
  }
}

// Adds up the warps' shares: total(m, row, column) is called once for each element, by some thread, with
// row < 16 and column < 8 kGroups. REQUIRES: `shared` holds kRowsWarps * kTiles * 16 * 8 kGroups floats.
template <int kTiles, int kGroups, typename Total>
__device__ void reduce_rows(const float (&sums)[kTiles][kGroups][4], float* shared, Total&& total) {
  constexpr int kWidth = 8 * kGroups;
  constexpr int kCount = kTiles * 16 * kWidth;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  __syncthreads();
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      float* at = shared + warp * kCount + (m * 16 + lane / 4) * kWidth + n * 8 + lane % 4 * 2;
      at[0] = sums[m][n][0];
      at[1] = sums[m][n][1];
      at[8 * kWidth] = sums[m][n][2];
      at[8 * kWidth + 1] = sums[m][n][3];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 16 * kWidth; i += kRowsWarps * 32) {
    float values[kTiles];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kRowsWarps; ++w) sum += shared[w * kCount + m * 16 * kWidth + i];
      values[m] = sum;
    }
    total(values, i / kWidth, i % kWidth);
  }
}

}  // namespace minimax::cuda
