// The choice of blocks by bisection: of a row's scores as unsigned numbers in their order, the threshold that
// the wanted number reaches is sought; what is above it and the lowest of those equal to it are written in
// ascending order as they stand. One warp a row of up to 512 blocks, more warps that count together for
// longer ones. The search begins between the largest score and the wanted one of the lanes' largest, which
// are few enough to be counted by a vote.
#include "backends/cuda/sparse.cuh"

namespace minimax::cuda {
namespace {

constexpr int kPerLane = 16;
constexpr int kPerWarp = 32 * kPerLane;
constexpr int kRowsPerBlock = 4;  // where a warp has a row
constexpr int64_t kMostForced = int64_t{1} << 22;

// Keys in the order in which blocks are chosen. 0: no block. Scores lie between -inf's and +inf's key; the
// newest blocks above them, the first ones above those.
constexpr uint32_t kNewest = 0xffc00000U;
constexpr uint32_t kLargestScore = 0xff800000U;
__device__ __forceinline__ uint32_t key_of_score(float score) {
  if (score != score) score = -INFINITY;
  const uint32_t bits = __float_as_uint(score + 0.0F);  // -0 equals 0
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000U);
}

// Sums over the warps of a row, in every thread. `sums` alternates, so that one barrier is enough.
template <int kWarps>
struct RowSum {
  uint32_t (*sums)[kWarps];
  int turn = 0;
  __device__ uint32_t operator()(uint32_t x) {
    x = __reduce_add_sync(0xffffffffU, x);
    if constexpr (kWarps > 1) {
      const int warp = threadIdx.x / 32;
      if (threadIdx.x % 32 == 0) sums[turn][warp] = x;
      __syncthreads();
      x = __reduce_add_sync(0xffffffffU, threadIdx.x % 32 < kWarps ? sums[turn][threadIdx.x % 32] : 0);
      turn ^= 1;
    }
    return x;
  }
};

// A threshold that at least `wanted` of a warp's keys reach, and the largest of its scores.
__device__ __forceinline__ void bounds(const uint32_t (&keys)[kPerLane], uint32_t wanted, uint32_t& low,
                                       uint32_t& high) {
  uint32_t largest = 0, largest_score = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    largest = max(largest, keys[i]);
    if (keys[i] <= kLargestScore) largest_score = max(largest_score, keys[i]);
  }
  high = __reduce_max_sync(0xffffffffU, largest_score);
  uint32_t bound = 0;
#pragma unroll
  for (int bit = 31; bit >= 16; --bit) {
    const uint32_t candidate = bound | (1U << bit);
    if (static_cast<uint32_t>(__popc(__ballot_sync(0xffffffffU, largest >= candidate))) >= wanted)
      bound = candidate;
  }
  low = min(max(bound, 1U), max(high, 1U));
}

template <int kWarps>
__global__ void __launch_bounds__(kWarps == 1 ? 32 * kRowsPerBlock : 32 * kWarps)
    choose_blocks_kernel(IndexerArgs a) {
  __shared__ uint32_t sums[2][kWarps];
  __shared__ uint32_t before[2][kWarps];  // a warp's blocks above and at the threshold
  const int lane = threadIdx.x % 32;
  const int warp = kWarps == 1 ? 0 : threadIdx.x / 32;
  const int64_t rows = a.scores.tokens * a.scores.heads;
  int64_t row = blockIdx.x;
  if (kWarps == 1) row = row * kRowsPerBlock + threadIdx.x / 32;
  const bool is_row = row < rows;
  if (kWarps == 1 && !is_row) return;
  const int64_t t = row / a.scores.heads, g = row % a.scores.heads;
  int64_t b = 0;
  const int64_t position = position_of(a.batch, t, b);
  const auto valid = static_cast<uint32_t>(position < 0 ? 0 : position / a.block_size + 1);
  ptx::wait_for_previous_kernel();

  const float* scores =
      static_cast<const float*>(a.scores.data) + t * a.scores.token_stride + g * a.scores.head_stride;
  const auto init = static_cast<uint32_t>(a.init_blocks), local = static_cast<uint32_t>(a.local_blocks);
  const uint32_t first = warp * kPerWarp + lane;
  // All at once: what is behind the last is read as the last one.
  float own[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) own[i] = scores[min(first + 32 * i, max(valid, 1U) - 1)];
  uint32_t keys[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) keys[i] = first + 32 * i < valid ? key_of_score(own[i]) : 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const uint32_t block = first + 32 * i;
    if (block >= valid) continue;
    if (block + local >= valid) keys[i] = kNewest - (valid - 1 - block);
    if (block < init) keys[i] = 0xffffffffU - block;
  }
  const auto wanted = static_cast<uint32_t>(a.top_k < valid ? a.top_k : valid);
  RowSum<kWarps> sum{sums};

  // The largest threshold that at least `wanted` keys reach; all blocks' keys reach 1.
  uint32_t threshold = 1;
  if (wanted < valid) {
    const uint32_t first_forced = min(init, valid);
    const bool is_score = wanted > first_forced + min(local, valid - first_forced);
    uint32_t low = 1, high = 0xffffffffU;
    bounds(keys, wanted, low, high);
    if constexpr (kWarps > 1) {
      if (lane == 0) {
        before[0][warp] = low;
        before[1][warp] = high;
      }
      __syncthreads();
      const bool is_warp = lane < kWarps;
      low = __reduce_max_sync(0xffffffffU, is_warp ? before[0][lane] : 0);
      high = __reduce_max_sync(0xffffffffU, is_warp ? before[1][lane] : 0);
      __syncthreads();
    }
    if (!is_score) {
      low = high + 1;
      high = 0xffffffffU;
    }
    while (low < high) {
      const uint32_t candidate = high - (high - low) / 2;
      uint32_t count = 0;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) count += keys[i] >= candidate ? 1 : 0;
      count = sum(count);
      if (count >= wanted) low = candidate;
      if (count == wanted) break;
      if (count < wanted) high = candidate - 1;
    }
    threshold = low;
  }

  // Those above the threshold, and of those at it the lowest.
  uint32_t above = 0, equal = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    above += keys[i] > threshold ? 1 : 0;
    equal += keys[i] == threshold ? 1 : 0;
  }
  above = __reduce_add_sync(0xffffffffU, above);
  equal = __reduce_add_sync(0xffffffffU, equal);
  uint32_t above_before = 0, equal_before = 0, all_above = above;
  if constexpr (kWarps > 1) {
    if (lane == 0) {
      before[0][warp] = above;
      before[1][warp] = equal;
    }
    __syncthreads();
    all_above = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      all_above += before[0][w];
      if (w < warp) {
        above_before += before[0][w];
        equal_before += before[1][w];
      }
    }
  }
  const uint32_t equal_wanted = wanted - all_above;
  int32_t* selection = a.selection + row * a.top_k;
  const uint32_t lower_lanes = (1U << lane) - 1;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const bool is_above = keys[i] > threshold;
    const uint32_t equals = __ballot_sync(0xffffffffU, keys[i] == threshold);
    const uint32_t equal_rank = equal_before + __popc(equals & lower_lanes);
    const bool is_chosen = is_above || (keys[i] == threshold && equal_rank < equal_wanted);
    const uint32_t chosen = __ballot_sync(0xffffffffU, is_chosen);
    // Places in front: the chosen of the warps and numbers before.
    const uint32_t taken = above_before + min(equal_before, equal_wanted);
    if (is_chosen) selection[taken + __popc(chosen & lower_lanes)] = static_cast<int32_t>(first + 32 * i);
    const uint32_t taken_equal =
        min(equal_before + __popc(equals), equal_wanted) - min(equal_before, equal_wanted);
    above_before += __popc(chosen) - taken_equal;
    equal_before += __popc(equals);
  }
  for (uint32_t j = wanted + threadIdx.x % (32 * kWarps); j < a.top_k; j += 32 * kWarps) selection[j] = -1;
}

}  // namespace

bool can_choose_blocks(const IndexerArgs& a) {
  return a.scores.dim <= 32 * kPerWarp && a.init_blocks < kMostForced && a.local_blocks < kMostForced &&
         a.top_k < kMostForced;
}

void launch_choose_blocks(const IndexerArgs& a, cudaStream_t stream) {
  const int64_t rows = a.scores.tokens * a.scores.heads;
  if (rows == 0) return;
  const auto blocks = [](int64_t count) { return dim3(static_cast<unsigned>(count)); };
  if (a.scores.dim <= kPerWarp) {
    launch(choose_blocks_kernel<1>, blocks(ceil_div(rows, kRowsPerBlock)), 32 * kRowsPerBlock, 0, stream, a);
  } else if (a.scores.dim <= 8 * kPerWarp) {
    launch(choose_blocks_kernel<8>, blocks(rows), 8 * 32, 0, stream, a);
  } else {
    launch(choose_blocks_kernel<32>, blocks(rows), 32 * 32, 0, stream, a);
  }
}

}  // namespace minimax::cuda
