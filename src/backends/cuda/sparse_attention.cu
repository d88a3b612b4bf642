// Attention to the chosen blocks, row by row: groups of 16 heads of 128 dimensions, blocks of 128 keys.
//
// A block of threads has one row and KV head, and a part of its chosen keys. 64 keys are a step, 16 a warp.
// Keys and values come by asynchronous copies into a queue in shared memory that every lane fills and empties
// by itself: scores take a row of keys as it is (sparse.cuh), and of values a lane reads 16 bytes of each of
// the four keys whose products it adds up, and interleaves them. The warps' results meet in shared memory;
// those of several parts in the workspace.
#include "backends/cuda/sparse.cuh"

namespace minimax::cuda {
namespace {

constexpr int kGroup = 16;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kStepKeys = 16 * kWarps;
constexpr int kStepsPerBlock = kSparseBlock / kStepKeys;
constexpr int kMostSplits = 32;

template <typename Cache>
constexpr int kLoads = 4 * kRowLoads<Cache>;  // of 16 bytes a lane and step: half keys, half values
template <typename Cache>
constexpr int kStepBytes = kLoads<Cache>* kThreads * 16;
constexpr int kMeetWidth = kSparseDim + 4;
static_assert(kWarps * kGroup * kMeetWidth * 4 <= kNarrowQueue);

// A row's part: which of its steps.
struct Part {
  int64_t position = -1;
  int begin = 0;
  int end = 0;
};

// The 16 heads' queries as the left operand, in base-2 units.
template <typename Cache>
struct Queries {
  uint32_t pairs[kSparseSteps][4];
  float scale = 1;  // of the products

  __device__ void load(const Heads& q, int64_t t, int64_t first_head, float softmax_scale) {
    const int lane = threadIdx.x % 32;
    const bf16_t* from =
        static_cast<const bf16_t*>(q.data) + t * q.token_stride + (first_head + lane / 4) * q.head_stride;
    scale = softmax_scale * 1.4426950408889634F;
    float up = 1;
    if constexpr (sizeof(Cache) == 1) {
      float largest = 0;
#pragma unroll
      for (int s = 0; s < kSparseSteps; ++s) {
        const int at = order_of<Cache>(lane % 4, s);
        largest = fmaxf(largest, largest_of(load_four(from + at)));
        largest = fmaxf(largest, largest_of(load_four(from + 8 * q.head_stride + at)));
      }
      up = scale_for_half(warp_max(largest));
      scale /= up;
    }
#pragma unroll
    for (int s = 0; s < kSparseSteps; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float4 x = load_four(from + 8 * half * q.head_stride + order_of<Cache>(lane % 4, s));
        pairs[s][half] = pack_pair<Cache>(x.x * up, x.y * up);
        pairs[s][half + 2] = pack_pair<Cache>(x.z * up, x.w * up);
      }
    }
  }
};

// Of rows lane / 4 and lane / 4 + 8: running maximum and sum, and the weighted values so far. Number c of
// tile d belongs to dimension value_dim<Cache>(d, 2 (lane % 4) + c % 2).
struct State {
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};
  float out[kSparseDim / 8][4] = {};
};
template <typename Cache>
__device__ __forceinline__ int value_dim(int tile, int column) {
  constexpr int kTiles = 16 / static_cast<int>(sizeof(Cache));  // in 16 bytes
  return tile / kTiles * 64 + column * kTiles + tile % kTiles;
}

// The right operands of tiles 2 i and 2 i + 1 of one 4-byte word of each of four keys' values.
__device__ __forceinline__ void interleave(uint32_t x, uint32_t y, uint32_t& low, uint32_t& high) {
  low = __byte_perm(x, y, 0x5410);
  high = __byte_perm(x, y, 0x7632);
}

template <typename Cache>
__device__ __forceinline__ void add_values(State& state, const uint32_t (&p)[4], uint32_t from) {
#pragma unroll
  for (int j = 0; j < kRowLoads<Cache> / 2; ++j) {
    uint4 v[4];
#pragma unroll
    for (int key = 0; key < 4; ++key)
      v[key] = load_private(from + (key * (kRowLoads<Cache> / 2) + j) * kThreads * 16);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const auto word = [&](int key) {
        return w == 0 ? v[key].x : w == 1 ? v[key].y : w == 2 ? v[key].z : v[key].w;
      };
      if constexpr (sizeof(Cache) == 2) {
        uint32_t b[2][2];
        interleave(word(0), word(1), b[0][0], b[1][0]);
        interleave(word(2), word(3), b[0][1], b[1][1]);
#pragma unroll
        for (int i = 0; i < 2; ++i)
          sparse_mma<Cache>(state.out[8 * j + 2 * w + i], p[0], p[1], p[2], p[3], b[i][0], b[i][1]);
      } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const uint32_t order = i == 0 ? 0x5140 : 0x7362;
          const uint32_t x = __byte_perm(word(0), word(1), order);
          const uint32_t y = __byte_perm(word(2), word(3), order);
          sparse_mma<Cache>(state.out[4 * w + 2 * i], p[0], p[1], p[2], p[3], half_pair(x & 0xffffU),
                            half_pair(y & 0xffffU));
          sparse_mma<Cache>(state.out[4 * w + 2 * i + 1], p[0], p[1], p[2], p[3], half_pair(x >> 16U),
                            half_pair(y >> 16U));
        }
      }
    }
  }
}

// One step: this warp's 16 keys, of which those up to `limit` count.
template <typename Cache>
__device__ __forceinline__ void attend(State& state, const Queries<Cache>& q, uint32_t from, int64_t limit) {
  const int lane = threadIdx.x % 32;
  float scores[2][4] = {};
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    uint4 row[kRowLoads<Cache>];
#pragma unroll
    for (int j = 0; j < kRowLoads<Cache>; ++j)
      row[j] = load_private(from + (tile * kRowLoads<Cache> + j) * kThreads * 16);
#pragma unroll
    for (int s = 0; s < kSparseSteps; ++s) {
      uint32_t b0, b1;
      step_pairs<Cache>(row, s, b0, b1);
      sparse_mma<Cache>(scores[tile], q.pairs[s][0], q.pairs[s][1], q.pairs[s][2], q.pairs[s][3], b0, b1);
    }
  }
  float shrink[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = state.largest[half];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = i / 2 * 8 + lane % 4 * 2 + i % 2;
      float& s = scores[i / 2][2 * half + i % 2];
      s = key <= limit ? s * q.scale : -INFINITY;
      largest = fmaxf(largest, s);
    }
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
    const float reference = largest == -INFINITY ? 0.0F : largest;
    shrink[half] = exp2f(state.largest[half] - reference);
    state.largest[half] = largest;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& s = scores[i / 2][2 * half + i % 2];
      s = exp2f(s - reference);
      sum += s;
    }
    state.sum[half] = state.sum[half] * shrink[half] + sum;
  }
#pragma unroll
  for (int d = 0; d < kSparseDim / 8; ++d) {
    state.out[d][0] *= shrink[0];
    state.out[d][1] *= shrink[0];
    state.out[d][2] *= shrink[1];
    state.out[d][3] *= shrink[1];
  }
  const uint32_t p[4] = {
      pack_pair<Cache>(scores[0][0], scores[0][1]), pack_pair<Cache>(scores[0][2], scores[0][3]),
      pack_pair<Cache>(scores[1][0], scores[1][1]), pack_pair<Cache>(scores[1][2], scores[1][3])};
  add_values<Cache>(state, p, from + kLoads<Cache> / 2 * kThreads * 16);
}

// Partial results of a row, head and part: 128 numerators; behind all of them maximum and sum of each.
struct Partial {
  float* numerators;
  float2* weights;
  int64_t splits;
  __device__ Partial(const AttentionArgs& a, int64_t t, int64_t head) : splits(a.splits) {
    const int64_t first = (t * a.q.heads + head) * splits;
    numerators = a.partial + first * kSparseDim;
    weights = reinterpret_cast<float2*>(a.partial + a.q.tokens * a.q.heads * splits * kSparseDim) + first;
  }
};

// Adds up the warps' results and writes out, or partial results. Threads 8 h .. 8 h + 7 have head h.
template <typename Cache>
__device__ void finish(const AttentionArgs& a, State& state, float* meet, int64_t t, int64_t first_head) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    state.sum[half] += __shfl_xor_sync(0xffffffffU, state.sum[half], 1);
    state.sum[half] += __shfl_xor_sync(0xffffffffU, state.sum[half], 2);
    float* row = meet + (warp * kGroup + lane / 4 + 8 * half) * kMeetWidth;
#pragma unroll
    for (int d = 0; d < kSparseDim / 8; ++d) {
      row[value_dim<Cache>(d, lane % 4 * 2)] = state.out[d][2 * half];
      row[value_dim<Cache>(d, lane % 4 * 2 + 1)] = state.out[d][2 * half + 1];
    }
    if (lane % 4 == 0) {
      row[kSparseDim] = state.largest[half];
      row[kSparseDim + 1] = state.sum[half];
    }
  }
  __syncthreads();
  const int head = threadIdx.x / 8;
  const float* first = meet + head * kMeetWidth;
  float largest = -INFINITY, sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) largest = fmaxf(largest, first[w * kGroup * kMeetWidth + kSparseDim]);
  const float reference = largest == -INFINITY ? 0.0F : largest;
  float factors[kWarps];
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float* row = first + w * kGroup * kMeetWidth;
    factors[w] = exp2f(row[kSparseDim] - reference);
    sum += factors[w] * row[kSparseDim + 1];
  }
  const float factor = a.splits == 1 ? 1.0F / sum : 1.0F;
  const Partial partial(a, t, first_head + head);
  bf16_t* out =
      static_cast<bf16_t*>(a.out.data) + t * a.out.token_stride + (first_head + head) * a.out.head_stride;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int at = threadIdx.x % 8 * 4 + 32 * i;
    float4 y = {0, 0, 0, 0};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float4 x = load_four(first + w * kGroup * kMeetWidth + at);
      y.x += factors[w] * x.x;
      y.y += factors[w] * x.y;
      y.z += factors[w] * x.z;
      y.w += factors[w] * x.w;
    }
    y = {y.x * factor, y.y * factor, y.z * factor, y.w * factor};
    if (a.splits == 1) {
      store_four(out + at, y);
    } else {
      store_four(partial.numerators + blockIdx.z * kSparseDim + at, y);
    }
  }
  if (a.splits > 1 && threadIdx.x % 8 == 0) partial.weights[blockIdx.z] = {largest, sum};
}

template <typename Cache, int kQueueBytes>
__global__ void __launch_bounds__(kThreads) sparse_attention_kernel(AttentionArgs a) {
  constexpr int kStages = kQueueBytes / kStepBytes<Cache>;
  extern __shared__ __align__(16) uint8_t queue[];  // [stage][load][thread] of 16 bytes
  const int64_t t = blockIdx.x, kv_head = blockIdx.y;
  int64_t b = 0;
  const int64_t position = position_of(a.batch, t, b);
  ptx::wait_for_previous_kernel();
  if (position < 0) {
    if (a.splits > 1) return;
    bf16_t* out = static_cast<bf16_t*>(a.out.data) + t * a.out.token_stride +
                  (kv_head * kGroup + threadIdx.x / 8) * a.out.head_stride;
    for (int i = 0; i < 4; ++i) store_four(out + threadIdx.x % 8 * 4 + 32 * i, {0, 0, 0, 0});
    return;
  }
  // The list ends at its first -1.
  const int32_t* selection = a.selection + (t * a.cache.kv_heads + kv_head) * a.selected;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t chosen = 0;
  for (int64_t i = 0; i < a.selected; i += 32) {
    const bool is_end = i + lane >= a.selected || selection[i + lane] < 0;
    const uint32_t ends = __ballot_sync(0xffffffffU, is_end);
    chosen += ends == 0 ? 32 : __ffs(static_cast<int>(ends)) - 1;
    if (ends != 0) break;
  }
  const int64_t steps = chosen * kStepsPerBlock;
  const int64_t begin = steps * blockIdx.z / a.splits, end = steps * (blockIdx.z + 1) / a.splits;

  const int32_t* table = a.batch.block_table + b * a.batch.table_stride;
  const uint32_t base = ptx::shared_address(queue) + threadIdx.x * 16;
  constexpr int kRow = static_cast<int>(sizeof(Cache)) * kSparseDim;
  const int64_t row_bytes = a.cache.kv_heads * kRow;
  const auto first_key_of = [&](int64_t step) {
    return int64_t{selection[step / kStepsPerBlock]} * kSparseBlock + step % kStepsPerBlock * kStepKeys +
           warp * 16;
  };
  const auto copy = [&](int64_t step) {
    if (step < end) {
      const int64_t first_key = first_key_of(step);
      const int64_t slot = int64_t{table[first_key / kSparseBlock]} * kSparseBlock + first_key % kSparseBlock;
      const int64_t first = (slot * a.cache.kv_heads + kv_head) * kRow;
      const uint8_t* k =
          static_cast<const uint8_t*>(a.cache.k) + first + lane / 4 * row_bytes + lane % 4 * 16;
      const uint8_t* v =
          static_cast<const uint8_t*>(a.cache.v) + first + lane % 4 * 2 * row_bytes + lane / 4 * 16;
      uint32_t to = base + static_cast<uint32_t>(step % kStages * kStepBytes<Cache>);
#pragma unroll
      for (int i = 0; i < kLoads<Cache> / 2; ++i, to += kThreads * 16)
        ptx::copy_async_16(to, k + i / kRowLoads<Cache> * 8 * row_bytes + i % kRowLoads<Cache> * 64, true);
#pragma unroll
      for (int i = 0; i < kLoads<Cache> / 2; ++i, to += kThreads * 16) {
        const int key = i / (kRowLoads<Cache> / 2);  // of 2 c, 2 c + 1, 2 c + 8, 2 c + 9
        const int row = key / 2 * 8 + key % 2;
        // Zeros for keys that do not count: 0 times whatever lies there is not 0.
        ptx::copy_async_16(to, v + row * row_bytes + i % (kRowLoads<Cache> / 2) * 128,
                           first_key + row + lane % 4 * 2 <= position);
      }
    }
    ptx::copy_async_commit();
  };
#pragma unroll 1
  for (int i = 0; i < kStages - 1; ++i) copy(begin + i);
  Queries<Cache> queries;
  queries.load(a.q, t, kv_head * kGroup, a.scale);
  State state;
#pragma unroll 1
  for (int64_t step = begin; step < end; ++step) {
    copy(step + kStages - 1);
    ptx::copy_async_wait<kStages - 1>();
    const int64_t first_key = first_key_of(step);
    if (first_key <= position) {
      attend<Cache>(state, queries, base + static_cast<uint32_t>(step % kStages * kStepBytes<Cache>),
                    position - first_key);
    }
  }
  ptx::copy_async_wait<0>();
  finish<Cache>(a, state, reinterpret_cast<float*>(queue), t, kv_head * kGroup);
}

constexpr int kCombined = 8;  // parts in flight

// A warp adds up the parts of a row and head.
__global__ void __launch_bounds__(kThreads) sparse_combine_kernel(AttentionArgs a) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const int64_t t = row / a.q.heads, head = row % a.q.heads;
  const int lane = threadIdx.x % 32;
  ptx::wait_for_previous_kernel();
  if (t >= a.q.tokens) return;
  bf16_t* out = static_cast<bf16_t*>(a.out.data) + t * a.out.token_stride + head * a.out.head_stride;
  float4 y = {0, 0, 0, 0};
  if (t < a.batch.query_starts[a.batch.sequences]) {
    const Partial partial(a, t, head);
    const float2 own = lane < a.splits ? partial.weights[lane] : float2{-INFINITY, 0};
    const float factor = exp2f(own.x - warp_max(own.x));
    const float share = factor / warp_sum(factor * own.y);
    for (int base = 0; base < a.splits; base += kCombined) {
      float4 x[kCombined];
#pragma unroll
      for (int i = 0; i < kCombined; ++i)
        x[i] = load_four(partial.numerators + min(base + i, static_cast<int>(a.splits) - 1) * kSparseDim +
                         lane * 4);
#pragma unroll
      for (int i = 0; i < kCombined; ++i) {
        const float weight = __shfl_sync(0xffffffffU, share, base + i);  // 0 from the last part on
        y.x += weight * x[i].x;
        y.y += weight * x[i].y;
        y.z += weight * x[i].z;
        y.w += weight * x[i].w;
      }
    }
  }
  store_four(out + lane * 4, y);
}

}  // namespace

bool can_sparse_attention(const AttentionArgs& a) {
  const auto is_even = [](const Heads& x) {
    return x.scalar == Scalar::kBF16 && x.token_stride % 8 == 0 && x.head_stride % 8 == 0 &&
           reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  };
  return a.q.dim == kSparseDim && a.cache.page_size == kSparseBlock &&
         a.q.heads == kGroup * a.cache.kv_heads && a.cache.scalar != Scalar::kF32 && is_even(a.q) &&
         is_even(a.out);
}

int64_t sparse_attention_splits(int64_t rows, int64_t kv_heads, int64_t selected, int multiprocessors) {
  const int64_t blocks = rows * kv_heads;
  if (blocks == 0) return 1;
  // Blocks that run at once: every one takes its time to begin and to end. A part has 64 keys at least.
  int64_t splits = 2 * int64_t{multiprocessors} / blocks;
  if (splits < 1) splits = 1;
  if (splits > selected * kStepsPerBlock) splits = selected * kStepsPerBlock;
  return splits < kMostSplits ? splits : kMostSplits;
}

int64_t sparse_partial_bytes(int64_t rows, int64_t heads, int64_t splits) {
  return splits == 1 ? 0 : rows * heads * splits * (kSparseDim + 2) * 4;
}

void launch_sparse_attention(const AttentionArgs& a, cudaStream_t stream) {
  if (a.q.tokens == 0 || a.q.heads == 0) return;
  const auto with_cache_type = [&]<typename Cache>(Cache) {
    const dim3 grid(static_cast<unsigned>(a.q.tokens), static_cast<unsigned>(a.cache.kv_heads),
                    static_cast<unsigned>(a.splits));
    const auto with_queue = [&](auto* kernel, int bytes) {
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      launch(kernel, grid, kThreads, static_cast<size_t>(bytes), stream, a);
    };
    has_wide_queue() ? with_queue(sparse_attention_kernel<Cache, kWideQueue>, kWideQueue)
                     : with_queue(sparse_attention_kernel<Cache, kNarrowQueue>, kNarrowQueue);
  };
  a.cache.scalar == Scalar::kE4m3 ? with_cache_type(e4m3_t{}) : with_cache_type(bf16_t{});
  if (a.splits > 1) {
    const int64_t rows = a.q.tokens * a.q.heads;
    launch(sparse_combine_kernel, dim3(static_cast<unsigned>(ceil_div(rows, kWarps))), kThreads, 0, stream,
           a);
  }
}

}  // namespace minimax::cuda
