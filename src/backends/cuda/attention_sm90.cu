// Causal attention of prompts on Hopper's warpgroups: 128 rows, which are tokens and heads of one KV head,
// pass over the keys in steps of 128. One warpgroup brings queries, keys and values. Two warpgroups of 64
// rows each multiply: each asks for the scores of the next keys before it takes the softmax of these, and the
// two take turns, so that one multiplies while the other takes its softmax. Blocks stay and take tile after
// tile, long ones first.
#include "backends/cuda/query_tile.cuh"
#include "backends/cuda/sparse_sm90.cuh"
#include "backends/cuda/tensor_map.h"

namespace minimax::cuda {
namespace {

constexpr int kDim = 128;
constexpr int kStepKeys = 128;
static_assert(kStepKeys == kSparseBlock, "tiles of keys are those of sparse attention");
constexpr int kConsumers = 2;
constexpr int kMathThreads = kConsumers * kGroupThreads;
constexpr int kThreads = kMathThreads + kGroupThreads;
constexpr int kRows = 64 * kConsumers;
constexpr uint32_t kStages = 2;
constexpr uint32_t kStageBytes = 2 * kKeyTileBytes;
// Boxes of keys have at least the rows of one atom of the swizzle.
constexpr int kLeastBox = 8;
constexpr uint32_t kBarriers = 4 * kStages + 4;
// Tiles begin at multiples of 1024 bytes.
constexpr uint32_t kStagedBytes = kKeyTileBytes / 2;  // of keys or values as codes
template <typename Cache>
constexpr uint32_t kStagingBytes = sizeof(Cache) == 1 ? 2 * kStagedBytes : 0;
[[maybe_unused]] constexpr int kStagingBarrier =
    1 + kConsumers;  // after those by which the consumers take turns
template <typename Cache>
constexpr int kBytes = static_cast<int>(kStages* kStageBytes + kConsumers * kQueryTileBytes +
                                        kStagingBytes<Cache> + kBarriers * 8) +
                       1024;

struct Params {
  AttentionArgs a;
  int heads_per_tile = 0, head_parts = 0, tokens_per_tile = 0;
  int blocks = 0;  // tiles of rows, at most, times parts of heads
  int page_shift = 0;
  int box_shift = 0;  // log2 of the rows of a box
  bool has_boxes = false;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct Shared {
  uint32_t stages, queries, staging, barriers;

  __device__ uint32_t keys(uint32_t step) const { return stages + step % kStages * kStageBytes; }
  __device__ uint32_t values(uint32_t step) const { return keys(step) + kKeyTileBytes; }
  __device__ uint32_t keys_full(uint32_t step) const { return barriers + step % kStages * 8; }
  __device__ uint32_t keys_empty(uint32_t step) const { return keys_full(step) + kStages * 8; }
  __device__ uint32_t values_full(uint32_t step) const { return keys_full(step) + kStages * 16; }
  __device__ uint32_t values_empty(uint32_t step) const { return keys_full(step) + kStages * 24; }
  __device__ uint32_t queries_full() const { return barriers + kStages * 32; }
  __device__ uint32_t queries_empty() const { return queries_full() + 8; }
  __device__ uint32_t staged(int item) const {
    return staging + static_cast<uint32_t>(item % 2) * kStagedBytes;
  }
  __device__ uint32_t staged_full(int item) const {
    return queries_full() + 16 + static_cast<uint32_t>(item % 2) * 8;
  }
};
__device__ __forceinline__ uint32_t parity_of(uint32_t step) { return step / kStages & 1; }

struct Tile {
  bool is_there = false;
  int sequence = 0;
  int first = 0, tokens = 0;  // rows of the batch
  int shift = 0;              // from rows to positions
  int keys = 0;               // of the sequence
  int kv_head = 0, first_head = 0;

  // Of the keys that the last row needs.
  __device__ int steps() const { return (first + tokens + shift + kStepKeys - 1) / kStepKeys; }
};

// The block's tile number `turn`. Tiles are dealt out forth and back, so that every block gets the same work.
__device__ inline Tile find_tile(const Params& p, int turn) {
  Tile tile;
  const int kv_heads = static_cast<int>(p.a.cache.kv_heads);
  const int blocks = static_cast<int>(gridDim.x), own = static_cast<int>(blockIdx.x);
  const int place = turn * blocks + (turn % 2 == 0 ? own : blocks - 1 - own);
  if (place >= p.blocks * kv_heads) return tile;
  const int block = p.blocks - 1 - place / kv_heads;
  const QueryTile rows = find_query_tile(p.a.batch, block / p.head_parts, p.tokens_per_tile);
  if (rows.sequence < 0) return tile;
  tile.is_there = true;
  tile.sequence = static_cast<int>(rows.sequence);
  tile.first = static_cast<int>(rows.first);
  tile.tokens = min(p.tokens_per_tile, static_cast<int>(rows.end - rows.first));
  tile.keys = p.a.batch.seq_lens[rows.sequence];
  tile.shift = tile.keys - static_cast<int>(rows.end);
  tile.kv_head = place % kv_heads;
  tile.first_head = block % p.head_parts * p.heads_per_tile;
  return tile;
}
__device__ inline bool has_turn(const Params& p, int turn) {
  return turn * static_cast<int>(gridDim.x) < p.blocks * static_cast<int>(p.a.cache.kv_heads);
}

// --- the warpgroup that copies

// What the calling thread has stored is there for products; the barrier counts four warps.
__device__ __forceinline__ void announce(uint32_t full) {
  ptx::fence_shared_async();
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::barrier_arrive(full);
}

// Queries; rows beyond the last are zeros.
__device__ __forceinline__ void bring_queries(const Params& p, const Shared& shared, const Tile& tile) {
  const int group = static_cast<int>(p.a.q.heads / p.a.cache.kv_heads);
  const int chunk = threadIdx.x % 16;
#pragma unroll 4
  for (int row = static_cast<int>(threadIdx.x) % kGroupThreads / 16; row < kRows; row += kGroupThreads / 16) {
    const int token = row / p.heads_per_tile, head = tile.first_head + row % p.heads_per_tile;
    const bool is_there = token < tile.tokens && head < group;
    const bf16_t* from = static_cast<const bf16_t*>(p.a.q.data) +
                         (tile.first + (is_there ? token : 0)) * p.a.q.token_stride +
                         (tile.kv_head * group + (is_there ? head : 0)) * p.a.q.head_stride + chunk * 8;
    ptx::copy_async_16(shared.queries + static_cast<uint32_t>(row / 64) * kQueryTileBytes +
                           tile_place(kQueryBox, row % 64, chunk),
                       from, is_there);
  }
  ptx::copy_async_commit();
  ptx::copy_async_wait<0>();
  announce(shared.queries_full());
}

// 128 keys, or values, from `first` on, thread by thread; zeros behind the last.
template <typename Cache>
__device__ __forceinline__ void bring_rows(const Params& p, const void* cache, const int32_t* table,
                                           const Tile& tile, int first, uint32_t to) {
  constexpr int kOfRow = kDim * static_cast<int>(sizeof(Cache)) / 16;  // pieces of 16 bytes
  const int mask = (1 << p.page_shift) - 1;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x) % kGroupThreads; i < kStepKeys * kOfRow; i += kGroupThreads) {
    const int row = i / kOfRow, piece = i % kOfRow, key = first + row;
    const bool is_there = key < tile.keys;
    const int64_t slot =
        is_there ? (int64_t{table[key >> p.page_shift]} << p.page_shift) + (key & mask) : int64_t{0};
    const uint8_t* from = static_cast<const uint8_t*>(cache) +
                          ((slot * p.a.cache.kv_heads + tile.kv_head) * kOfRow + piece) * 16;
    if constexpr (sizeof(Cache) == 2) {
      ptx::copy_async_16(to + tile_place(kKeyBox, row, piece), from, is_there);
    } else {
      const uint4 codes = is_there ? *reinterpret_cast<const uint4*>(from) : uint4{};
      store_codes(to, kKeyBox, row, piece * 2, codes);
    }
  }
  ptx::copy_async_commit();
  ptx::copy_async_wait<0>();
}

// 128 keys, or values, all of them there, by the copy engine: to their tile, codes to the staging buffer
// `to`. One warp; `full` counts the bytes.
template <typename Cache>
__device__ __forceinline__ void bring_boxes(const Params& p, const CUtensorMap* map, const int32_t* table,
                                            const Tile& tile, int first, uint32_t to, uint32_t full) {
  const int lane = threadIdx.x % 32;
  if (lane == 0)
    ptx::barrier_arrive_expect(full,
                               static_cast<uint32_t>(kStepKeys * kDim * static_cast<int>(sizeof(Cache))));
  __syncwarp();
  const int row = lane << p.box_shift;
  if (row >= kStepKeys) return;
  const int key = first + row;
  const int slot = (table[key >> p.page_shift] << p.page_shift) + (key & ((1 << p.page_shift) - 1));
  const uint32_t place = to + static_cast<uint32_t>(row * 128);
  if (sizeof(Cache) == 1) {
    ptx::copy_box(place, map, full, 0, slot, tile.kv_head);
  } else if (p.box_shift == 7) {
    ptx::copy_box(place, map, full, 0, slot, 0, tile.kv_head);
  } else {
    // A narrower box's halves do not lie where the tile's do.
    ptx::copy_box(place, map, full, 0, slot, 0, tile.kv_head);
    ptx::copy_box(place + kKeyBox, map, full, 0, slot, 1, tile.kv_head);
  }
}

// Keys and values in turns. Codes pass through one of two staging buffers, one turn ahead.
template <typename Cache>
__device__ void bring_tiles(const Params& p, const Shared& shared, const CUtensorMap* k_map,
                            const CUtensorMap* v_map) {
  constexpr bool kHasCodes = sizeof(Cache) == 1;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  uint32_t count = 0, tiles = 0;
  uint32_t staged_parity[2] = {0, 0};
  for (int turn = 0; has_turn(p, turn); ++turn) {
    const Tile tile = find_tile(p, turn);
    if (!tile.is_there) continue;
    const int32_t* table = p.a.batch.block_table + tile.sequence * p.a.batch.table_stride;
    const int items = 2 * tile.steps();
    const auto has_boxes = [&](int item) {
      return p.has_boxes && item / 2 * kStepKeys + kStepKeys <= tile.keys;
    };
    const auto bring = [&](int item, uint32_t to, uint32_t full) {
      bring_boxes<Cache>(p, item % 2 == 0 ? k_map : v_map, table, tile, item / 2 * kStepKeys, to, full);
    };
    const auto stage = [&](int item) {
      if (thread < 32 && item < items && has_boxes(item))
        bring(item, shared.staged(item), shared.staged_full(item));
    };
    if (kHasCodes) stage(0);
    for (int item = 0; item < items; ++item) {
      const uint32_t n = count + static_cast<uint32_t>(item / 2);
      const bool is_value = item % 2 != 0;
      const uint32_t to = is_value ? shared.values(n) : shared.keys(n);
      const uint32_t full = is_value ? shared.values_full(n) : shared.keys_full(n);
      if (item == 1) {
        ptx::barrier_wait(shared.queries_empty(), tiles & 1 ^ 1);
        bring_queries(p, shared, tile);
      }
      if (kHasCodes) {
        ptx::named_barrier(kStagingBarrier, kGroupThreads);  // the other buffer has been read
        stage(item + 1);
      }
      ptx::barrier_wait(is_value ? shared.values_empty(n) : shared.keys_empty(n), parity_of(n) ^ 1);
      if (!has_boxes(item)) {
        bring_rows<Cache>(p, is_value ? p.a.cache.v : p.a.cache.k, table, tile, item / 2 * kStepKeys, to);
        announce(full);
      } else if constexpr (kHasCodes) {
        ptx::barrier_wait(shared.staged_full(item), staged_parity[item % 2]);
        staged_parity[item % 2] ^= 1;
#pragma unroll 4
        for (int i = 0; i < kStepKeys / 16; ++i) {
          const uint32_t row = static_cast<uint32_t>(16 * i + thread / 8), piece = thread % 8;
          store_codes(to, kKeyBox, row, piece * 2,
                      ptx::load_shared16(shared.staged(item) + ptx::swizzled(row, piece)));
        }
        announce(full);
      } else if (thread < 32) {
        bring(item, to, full);
      } else if (thread % 32 == 0) {
        ptx::barrier_arrive(full);
      }
    }
    count += static_cast<uint32_t>(items / 2);
    ++tiles;
  }
}

// --- the warpgroups that multiply

__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Of a thread's two rows, number 2 h + e of every four of `c` belonging to row h.
struct Softmax {
  float scale;  // that makes scores exponents of two
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  // Turns scores into weights; what has been added up before is to be multiplied with `shrink`.
  __device__ __forceinline__ void take(float (&c)[64], float (&shrink)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float best = -INFINITY;
#pragma unroll
      for (int j = 0; j < 16; ++j) best = fmaxf(best, fmaxf(c[4 * j + 2 * half], c[4 * j + 2 * half + 1]));
      best = fmaxf(best, __shfl_xor_sync(0xffffffffU, best, 1));
      best = fmaxf(best, __shfl_xor_sync(0xffffffffU, best, 2));
      best = fmaxf(largest[half], best * scale);
      const float reference = best == -INFINITY ? 0.0F : best;
      shrink[half] = fast_exp2(largest[half] - reference);
      largest[half] = best;
      float part = 0;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = c[4 * j + 2 * half + e];
          x = fast_exp2(fmaf(x, scale, -reference));
          part += x;
        }
      }
      sum[half] = sum[half] * shrink[half] + part;
    }
  }
};

__device__ __forceinline__ void pack_weights(const float (&c)[64], uint32_t (&weights)[8][4]) {
#pragma unroll
  for (int s = 0; s < 8; ++s) {
#pragma unroll
    for (int i = 0; i < 4; ++i) weights[s][i] = pack_bf16(c[8 * s + 2 * i], c[8 * s + 2 * i + 1]);
  }
}

// Begins o += weights V and closes the group.
__device__ __forceinline__ void start_values(float (&o)[64], const uint32_t (&weights)[8][4],
                                             uint32_t values) {
#pragma unroll
  for (uint32_t s = 0; s < 8; ++s)
    ptx::wgmma_across_k(o, weights[s], ptx::operand_across_k(values + s * 16 * 128, kKeyBox), true);
  ptx::wgmma_commit();
}

// Arrives at a barrier of the consumers, one arrival a warp.
__device__ __forceinline__ void release(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::barrier_arrive(barrier);
}

// Eight numbers of a row for each lane of a quad that holds two of each of four places.
__device__ __forceinline__ uint4 gather_quad(const uint32_t (&words)[4]) {
  const bool is_odd = threadIdx.x & 1, is_upper = threadIdx.x & 2;
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t got = __shfl_xor_sync(0xffffffffU, is_odd ? words[i] : words[i + 1], 1);
    pairs[i] = is_odd ? got : words[i];
    pairs[i + 1] = is_odd ? words[i + 1] : got;
  }
  uint32_t own[4];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t got = __shfl_xor_sync(0xffffffffU, is_upper ? pairs[i] : pairs[i + 2], 2);
    own[i] = is_upper ? got : pairs[i];
    own[i + 2] = is_upper ? pairs[i + 2] : got;
  }
  return {own[0], own[1], own[2], own[3]};
}

__device__ void attend(const Params& p, const Shared& shared) {
  const AttentionArgs& a = p.a;
  // Taken from one lane, so that the compiler sees that all have the same.
  const int consumer = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const int lane = threadIdx.x % 32;
  const int group = static_cast<int>(a.q.heads / a.cache.kv_heads);
  const uint32_t queries = shared.queries + static_cast<uint32_t>(consumer) * kQueryTileBytes;
  const auto wait_for_turn = [&] { ptx::named_barrier(1 + consumer, kMathThreads); };
  const auto pass_turn = [&](int to) { ptx::named_arrive(1 + to, kMathThreads); };
  if (consumer == 1) pass_turn(0);
  uint32_t count = 0, tiles = 0;
  for (int turn = 0; has_turn(p, turn); ++turn) {
    const Tile tile = find_tile(p, turn);
    if (!tile.is_there) continue;
    const int steps = tile.steps();
    int position[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4 + 8 * half;
      position[half] = tile.first + row / p.heads_per_tile + tile.shift;
    }
    // Keys behind a row's own position are none.
    const auto mask = [&](float(&c)[64], int step) {
      const int first = step * kStepKeys;
      // The position of the tile's first token: keys up to it need no mask.
      if (first + kStepKeys - 1 <= tile.first + tile.shift) return;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int own = position[half] - first - 2 * (lane % 4);
#pragma unroll
        for (int j = 0; j < 16; ++j) {
          if (8 * j > own) c[4 * j + 2 * half] = -INFINITY;
          if (8 * j + 1 > own) c[4 * j + 2 * half + 1] = -INFINITY;
        }
      }
    };
    Softmax softmax{a.scale * 1.4426950408889634F};
    float o[64], c[64], shrink[2];
    uint32_t weights[8][4];
#pragma unroll
    for (float& x : o) x = 0;

    ptx::barrier_wait(shared.queries_full(), tiles & 1);
    ptx::barrier_wait(shared.keys_full(count), parity_of(count));
    start_scores(c, queries, shared.keys(count));
    ptx::wgmma_wait<0>();
    keep(c);
    release(shared.keys_empty(count));
    if (steps == 1) release(shared.queries_empty());
    mask(c, 0);
    softmax.take(c, shrink);
    pack_weights(c, weights);
    ptx::barrier_wait(shared.values_full(count), parity_of(count));
    for (int step = 1; step < steps; ++step) {
      const uint32_t next = count + 1;
      ptx::barrier_wait(shared.keys_full(next), parity_of(next));
      wait_for_turn();
      keep(o);
      start_scores(c, queries, shared.keys(next));
      start_values(o, weights, shared.values(count));
      pass_turn(consumer ^ 1);
      ptx::wgmma_wait<1>();
      keep(c);
      release(shared.keys_empty(next));
      if (step == steps - 1) release(shared.queries_empty());
      mask(c, step);
      softmax.take(c, shrink);
      // The loop in here keeps the compiler from waiting for products before it takes the softmax.
      keep(c);
      ptx::barrier_wait(shared.values_full(next), parity_of(next));
      ptx::wgmma_wait<0>();
      keep(o);
      release(shared.values_empty(count));
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        o[4 * j] *= shrink[0];
        o[4 * j + 1] *= shrink[0];
        o[4 * j + 2] *= shrink[1];
        o[4 * j + 3] *= shrink[1];
      }
      pack_weights(c, weights);
      count = next;
    }
    keep(o);
    ptx::wgmma_fence();
    start_values(o, weights, shared.values(count));
    ptx::wgmma_wait<0>();
    keep(o);
    release(shared.values_empty(count));
    ++count;
    ++tiles;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = softmax.sum[half];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      const float factor = 1.0F / sum;
      const int row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4 + 8 * half;
      const int token = row / p.heads_per_tile, head = tile.first_head + row % p.heads_per_tile;
      const bool is_in = token < tile.tokens && head < group;
      bf16_t* to = static_cast<bf16_t*>(a.out.data) + (tile.first + token) * a.out.token_stride +
                   (tile.kv_head * group + head) * a.out.head_stride + lane % 4 * 8;
#pragma unroll
      for (int four = 0; four < 4; ++four) {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float* x = o + 16 * four + 4 * i + 2 * half;
          words[i] = pack_bf16(x[0] * factor, x[1] * factor);
        }
        const uint4 eight = gather_quad(words);
        if (is_in) *reinterpret_cast<uint4*>(to + 32 * four) = eight;
      }
    }
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename Cache>
__global__ void __launch_bounds__(kThreads, 1)
    attention_sm90_kernel(const __grid_constant__ Params p, const __grid_constant__ CUtensorMap k_map,
                          const __grid_constant__ CUtensorMap v_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t shared_bytes[];
  Shared shared;
  shared.stages = (ptx::shared_address(shared_bytes) + 1023) / 1024 * 1024;
  shared.queries = shared.stages + kStages * kStageBytes;
  shared.staging = shared.queries + kConsumers * kQueryTileBytes;
  shared.barriers = shared.staging + kStagingBytes<Cache>;
  if (threadIdx.x == 0) {
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      ptx::barrier_init(shared.keys_full(stage), kGroupThreads / 32);
      ptx::barrier_init(shared.values_full(stage), kGroupThreads / 32);
      ptx::barrier_init(shared.keys_empty(stage), kMathThreads / 32);
      ptx::barrier_init(shared.values_empty(stage), kMathThreads / 32);
    }
    ptx::barrier_init(shared.queries_full(), kGroupThreads / 32);
    ptx::barrier_init(shared.queries_empty(), kMathThreads / 32);
    ptx::barrier_init(shared.staged_full(0), 1);
    ptx::barrier_init(shared.staged_full(1), 1);
    ptx::barrier_init_fence();
  }
  __syncthreads();
  ptx::wait_for_previous_kernel();
  if (threadIdx.x >= kMathThreads) {
    ptx::give_registers<56>();
    bring_tiles<Cache>(p, shared, &k_map, &v_map);
  } else {
    ptx::take_registers<224>();
    attend(p, shared);
  }
#else
  __trap();
#endif
}

int multiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

// Keys or values [slots, KV heads, 128], read in boxes of `rows` slots: of BF16 both halves of the
// dimensions, or one, of codes all.
CUtensorMap make_cache_map(const PagedKv& cache, const void* data, int rows) {
  constexpr int64_t kMostSlots = int64_t{1} << 31;  // as many as there are, the kernel sees to that
  if (cache.scalar == Scalar::kE4m3) {
    return make_swizzled_map(CU_TENSOR_MAP_DATA_TYPE_UINT8, data, {kDim, kMostSlots, cache.kv_heads},
                             {kDim * cache.kv_heads, kDim}, {kDim, rows, 1});
  }
  return make_swizzled_map(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, data, {kDim / 2, kMostSlots, 2, cache.kv_heads},
                           {2 * kDim * cache.kv_heads, kDim, 2 * kDim},
                           {kDim / 2, rows, rows == kStepKeys ? 2 : 1, 1});
}

}  // namespace

bool can_attention_sm90(const AttentionArgs& a) {
  const int64_t page = a.cache.page_size;
  return can_attention_mma(a) && !a.is_decode_shape && a.q.dim == kDim && page > 0 &&
         (page & (page - 1)) == 0;
}

void launch_attention_sm90(const AttentionArgs& a, cudaStream_t stream) {
  if (a.q.tokens == 0 || a.q.heads == 0) return;
  const int64_t group = a.q.heads / a.cache.kv_heads;
  Params p;
  p.a = a;
  p.heads_per_tile = static_cast<int>(group < kRows ? group : kRows);
  p.head_parts = static_cast<int>(ceil_div(group, p.heads_per_tile));
  p.tokens_per_tile = kRows / p.heads_per_tile;
  while ((int64_t{1} << p.page_shift) < a.cache.page_size) ++p.page_shift;
  p.box_shift = p.page_shift < 7 ? p.page_shift : 7;
  const bool is_bf16 = a.cache.scalar == Scalar::kBF16;
  p.has_boxes = a.cache.page_size >= kLeastBox;
  CUtensorMap k_map = {}, v_map = {};
  if (p.has_boxes) {
    k_map = make_cache_map(a.cache, a.cache.k, 1 << p.box_shift);
    v_map = make_cache_map(a.cache, a.cache.v, 1 << p.box_shift);
  }
  // No sequence has more tiles than its rows fill, and one begun.
  const int64_t tiles = ceil_div(a.batch.tokens, p.tokens_per_tile) +
                        (a.batch.sequences < a.batch.tokens ? a.batch.sequences : a.batch.tokens);
  p.blocks = static_cast<int>(tiles * p.head_parts);
  const int64_t most = multiprocessors(), wanted = p.blocks * a.cache.kv_heads;
  const auto blocks = static_cast<unsigned>(wanted < most ? wanted : most);
  const auto start = [&]<typename Cache>(Cache) {
    cudaFuncSetAttribute(attention_sm90_kernel<Cache>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         kBytes<Cache>);
    launch(attention_sm90_kernel<Cache>, blocks, kThreads, kBytes<Cache>, stream, p, k_map, v_map);
  };
  if (is_bf16) {
    start(bf16_t{});
  } else {
    start(e4m3_t{});
  }
  launch_attention_padding(a, stream);
}

}  // namespace minimax::cuda
