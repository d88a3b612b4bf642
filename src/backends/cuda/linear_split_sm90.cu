// Products of many rows in F32 on Hopper's tensor cores: a number is the sum of two F16 terms once a power of
// two has brought its neighbours into range, 22 bits in all, and three products of terms are one of numbers;
// the fourth is below what F32 keeps. Weights are split once a call, into the very tiles of shared memory;
// inputs in registers, with a power of two for every 64 of a row, so that sums of 64 go to F32 sums beside
// the tensor cores, which would lose bits of longer ones.
//
// Two warpgroups of 64 rows take the tensor cores in turn: one splits and adds while the other multiplies.
#include "backends/cuda/device.cuh"

namespace minimax::cuda {
namespace {

constexpr int kRows = 128;  // of a tile, 64 a warpgroup
constexpr int kThreads = 256;
constexpr int kDepth = 64;  // inputs of a step
constexpr int kStages = 4;
constexpr int kLargest = 13;  // exponent that the largest of numbers that share a power of two gets

template <int kColumns>
constexpr int kTermBytes = kColumns* kDepth * 2;
template <int kColumns>
constexpr int kStageBytes = 2 * kTermBytes<kColumns>;
template <int kColumns>
constexpr int kSharedBytes = kStages* kStageBytes<kColumns> + 1024;

// The exponent field of the power of two for numbers up to `largest`; and of its inverse.
__device__ uint32_t scale_field(float largest) {
  const uint32_t field = __float_as_uint(largest) >> 23U;  // no sign: an absolute value
  return min(254U + kLargest - field, 253U);
}
__device__ float scale_of(uint32_t field) { return __uint_as_float(field << 23U); }
__device__ float inverse_of(uint32_t field) { return __uint_as_float((254U - field) << 23U); }

// Two numbers as pairs of terms, the first in the lower half.
__device__ void split(float x, float y, uint32_t& high, uint32_t& low) {
  const __half2 terms = __floats2half2_rn(x, y);
  const float2 back = __half22float2(terms);
  const __half2 rest = __floats2half2_rn(x - back.x, y - back.y);
  high = *reinterpret_cast<const uint32_t*>(&terms);
  low = *reinterpret_cast<const uint32_t*>(&rest);
}
__device__ float largest_of(const float4& v) {
  return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

// One block a row of the weight, or of zeros behind the last. Of 16 inputs a lane's operands are four
// neighbours, 4 c to 4 c + 3: inputs stand in the order in which the tensor cores take them.
template <int kColumns>
__global__ void split_weight_kernel(WeightView w, uint8_t* tiles, float* inverses) {
  ptx::wait_for_previous_kernel();
  __shared__ float scratch[32];
  const int64_t n = blockIdx.x;
  const auto quads = static_cast<int>(w.columns / 4);
  const float4* row = reinterpret_cast<const float4*>(static_cast<const float*>(w.values) + n * w.stride);
  float largest = 0;
  for (int i = threadIdx.x; i < quads && n < w.rows; i += kThreads)
    largest = fmaxf(largest, largest_of(row[i]));
  largest = warp_max(largest);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = largest;
  __syncthreads();
  largest = warp_max(scratch[threadIdx.x % (kThreads / 32)]);
  const uint32_t field = scale_field(largest);
  const float scale = scale_of(field);
  if (threadIdx.x == 0) inverses[n] = inverse_of(field);
  const auto tile_row = static_cast<uint32_t>(n % kColumns);
  uint8_t* tile = tiles + n / kColumns * (w.columns / kDepth) * kStageBytes<kColumns>;
  for (int i = threadIdx.x; i < quads; i += kThreads) {
    const float4 v = n < w.rows ? row[i] : float4{0, 0, 0, 0};
    const uint32_t j = i % 16 / 4, c = i % 4;
    uint8_t* to = tile + static_cast<int64_t>(i / 16) * kStageBytes<kColumns>;
    const uint32_t at[2] = {ptx::swizzled(tile_row, 2 * j) + 4 * c,
                            ptx::swizzled(tile_row, 2 * j + 1) + 4 * c};
    uint32_t high[2], low[2];
    split(v.x * scale, v.y * scale, high[0], low[0]);
    split(v.z * scale, v.w * scale, high[1], low[1]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      *reinterpret_cast<uint32_t*>(to + at[half]) = high[half];
      *reinterpret_cast<uint32_t*>(to + kTermBytes<kColumns> + at[half]) = low[half];
    }
  }
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ __forceinline__ void give_turn(int id) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(kThreads) : "memory");
}
#endif

template <int kColumns, typename Out>
__global__ void __launch_bounds__(kThreads, 1)
    linear_split_kernel(Matrix x, const uint8_t* tiles, const float* inverses, bool applies_silu,
                        Matrix out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t shared[];
  __shared__ __align__(8) uint64_t full[kStages], empty[kStages];
  const uint32_t base = (ptx::shared_address(shared) + 1023U) & ~1023U;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warpgroup = warp / 4;
  const auto steps = static_cast<int>(x.columns / kDepth);
  const uint8_t* tile = tiles + static_cast<int64_t>(blockIdx.x) * steps * kStageBytes<kColumns>;
  const auto full_at = [&](int step) { return ptx::shared_address(&full[step % kStages]); };
  const auto empty_at = [&](int step) { return ptx::shared_address(&empty[step % kStages]); };
  const auto stage_at = [&](int step) {
    return base + static_cast<uint32_t>(step % kStages) * kStageBytes<kColumns>;
  };
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      ptx::barrier_init(full_at(s), 1);
      ptx::barrier_init(empty_at(s), kThreads / 32);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  ptx::wait_for_previous_kernel();
  const auto fetch_weights = [&](int step) {
    ptx::barrier_arrive_expect(full_at(step), kStageBytes<kColumns>);
    copy_bulk(stage_at(step), tile + static_cast<int64_t>(step) * kStageBytes<kColumns>,
              kStageBytes<kColumns>, full_at(step));
  };
  if (threadIdx.x == 0) {
    for (int s = 0; s < min(kStages, steps); ++s) fetch_weights(s);
  }

  // Rows lane / 4 and 8 below of a warp's sixteen; those behind the last are read as the last one.
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows + warp * 16 + lane / 4;
  const float4* rows[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    rows[half] = reinterpret_cast<const float4*>(static_cast<const float*>(x.data) +
                                                 min(first_row + 8 * half, x.rows - 1) * x.stride) +
                 lane % 4;
  }
  float4 next[2][4];
  const auto fetch_inputs = [&](int step) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < 4; ++j) next[half][j] = rows[half][step * (kDepth / 4) + j * 4];
    }
  };
  fetch_inputs(0);
  float sums[kColumns / 2] = {}, products[kColumns / 2];
  uint32_t high[4][4], low[4][4];
  if (warpgroup == 1) give_turn(1);
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) largest = fmaxf(largest, largest_of(next[half][j]));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
      const uint32_t field = scale_field(largest);
      const float scale = scale_of(field);
      inverse[half] = inverse_of(field);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float4& v = next[half][j];
        split(v.x * scale, v.y * scale, high[j][half], low[j][half]);
        split(v.z * scale, v.w * scale, high[j][half + 2], low[j][half + 2]);
      }
    }
    if (step + 1 < steps) fetch_inputs(step + 1);
    ptx::barrier_wait(full_at(step), step / kStages % 2);
    ptx::named_barrier(1 + warpgroup, kThreads);
    const uint32_t weights = stage_at(step);
    ptx::wgmma_fence();
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint64_t high_weights = ptx::operand_along_k(weights + j * 32);
      const uint64_t low_weights = ptx::operand_along_k(weights + kTermBytes<kColumns> + j * 32);
      ptx::wgmma_f16(products, low[j], high_weights, j > 0);
      ptx::wgmma_f16(products, high[j], low_weights, true);
      ptx::wgmma_f16(products, high[j], high_weights, true);
    }
    ptx::wgmma_commit();
    give_turn(2 - warpgroup);
    // The stage of the step before last is free when both warpgroups have taken it.
    if (threadIdx.x == 0 && step >= 2 && step - 2 + kStages < steps) {
      ptx::barrier_wait(empty_at(step - 2), (step - 2) / kStages % 2);
      fetch_weights(step - 2 + kStages);
    }
    ptx::wgmma_wait<0>();
    if (lane == 0) ptx::barrier_arrive(empty_at(step));
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) sums[i] += products[i] * inverse[i / 2 % 2];
  }
  if (warpgroup == 0) ptx::named_barrier(1, kThreads);

  const int64_t first_column = static_cast<int64_t>(blockIdx.x) * kColumns + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) {
    const int64_t n = first_column + j * 8;
    const float2 factors = *reinterpret_cast<const float2*>(inverses + n);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t t = first_row + 8 * half;
      if (t >= out.rows) continue;
      Out* to = static_cast<Out*>(out.data) + t * out.stride + n;
      const float y[2] = {sums[4 * j + 2 * half] * factors.x, sums[4 * j + 2 * half + 1] * factors.y};
#pragma unroll
      for (int c = 0; c < 2; ++c)
        if (n + c < out.columns) to[c] = from_f32<Out>(applies_silu ? silu(y[c]) : y[c]);
    }
  }
#endif
}

// Narrow tiles where wide ones would leave multiprocessors without work.
int64_t tile_columns(int64_t rows, int64_t columns) {
  constexpr int64_t kEnough = 100;
  return ceil_div(rows, kRows) * ceil_div(columns, 128) >= kEnough ? 128 : 64;
}
int64_t padded(int64_t columns) { return ceil_div(columns, 128) * 128; }

}  // namespace

bool can_linear_split(const Matrix& x, const WeightView& w) {
  const auto address = reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(w.values);
  return x.scalar == Scalar::kF32 && w.scalar == Scalar::kF32 && w.scales == nullptr && address % 16 == 0 &&
         w.columns % kDepth == 0 && w.columns > 0 && x.stride % 4 == 0 && w.stride % 4 == 0;
}

int64_t linear_split_bytes(const WeightView& w) {
  return padded(w.rows) * (w.columns * 4 + static_cast<int64_t>(sizeof(float)));
}

void launch_linear_split(const Matrix& x, const WeightView& w, bool applies_silu, const Matrix& out,
                         void* workspace, cudaStream_t stream) {
  if (x.rows == 0 || w.rows == 0) return;
  auto* tiles = static_cast<uint8_t*>(workspace);
  auto* inverses = reinterpret_cast<float*>(tiles + padded(w.rows) * w.columns * 4);
  const auto start = [&]<int kColumns>() {
    const int64_t column_tiles = ceil_div(w.rows, kColumns);
    launch(split_weight_kernel<kColumns>, static_cast<unsigned>(column_tiles * kColumns), kThreads, 0, stream,
           w, tiles, inverses);
    with_activation(out.scalar, [&](auto o) {
      const auto kernel = linear_split_kernel<kColumns, decltype(o)>;
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<kColumns>);
      launch(kernel,
             dim3(static_cast<unsigned>(column_tiles), static_cast<unsigned>(ceil_div(x.rows, kRows))),
             kThreads, kSharedBytes<kColumns>, stream, x, tiles, inverses, applies_silu, out);
    });
  };
  tile_columns(x.rows, w.rows) == 128 ? start.template operator()<128>() : start.template operator()<64>();
}

}  // namespace minimax::cuda
