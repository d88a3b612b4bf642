// Causal GQA of decode steps over a paged cache on tensor cores: BF16 queries, head dimensions 64 and 128,
// few rows a sequence. The rows of a tile are (token, head of one KV group) and share their keys, which are
// cut into parts over blocks. Blocks of a cluster add up their parts among themselves; of all blocks that
// share rows, the one that ends last adds up what is left.
//
// What a block does between the kernel before and its first product is little: rows, parts and pages are
// found before that kernel is done, and the first keys are on their way to the second-level cache by then.
#include "backends/cuda/query_tile.cuh"

namespace minimax::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kTileRows = 16;
constexpr int kKeys = 64;  // of a step
constexpr int kWarpKeys = kKeys / kWarps;
constexpr int kStages = 3;
constexpr int kMostCluster = 8;
constexpr uint32_t kEveryLane = 0xffffffffU;

// How heads and tokens share tiles.
struct Tiling {
  int group, heads, head_parts, tokens;  // heads of a KV head; of a tile; tiles that cut a group; of a tile
  unsigned inverse;                      // row * inverse >> 16 is row / heads
  int cluster;                           // parts that are neighbours in a cluster
};

// The rows of a tile: (token, head) pairs of one sequence and KV head. A tile beyond the last has no
// sequence, and `first` counts on from 0.
struct Tile {
  int sequence = -1;
  int first = 0;  // row of the batch
  int tokens = 0;
  int shift = 0;  // position of row t is t + shift
};
// All lanes of a warp look for it together.
__device__ Tile find_tile(const Ragged& batch, int index, int tokens_per_tile) {
  const int lane = threadIdx.x % 32, sequences = static_cast<int>(batch.sequences);
  for (int base = 0; base < sequences; base += 32) {
    const int b = min(base + lane, sequences - 1);
    const int begin = batch.query_starts[b], end = batch.query_starts[b + 1], length = batch.seq_lens[b];
    const int tokens = base + lane < sequences ? end - begin : 0;
    // Mostly one row or none.
    const int tiles =
        tokens <= tokens_per_tile ? min(tokens, 1) : (tokens + tokens_per_tile - 1) / tokens_per_tile;
    int upto = tiles;
#pragma unroll
    for (int i = 1; i < 32; i <<= 1) {
      const int left = __shfl_up_sync(kEveryLane, upto, i);
      if (lane >= i) upto += left;
    }
    const uint32_t behind = __ballot_sync(kEveryLane, upto > index);
    if (behind == 0) {
      index -= __shfl_sync(kEveryLane, upto, 31);
      continue;
    }
    const int owner = __ffs(static_cast<int>(behind)) - 1;
    const int first = begin + (index - (upto - tiles)) * tokens_per_tile;
    Tile tile;
    tile.sequence = base + owner;
    tile.first = __shfl_sync(kEveryLane, first, owner);
    tile.tokens = min(tokens_per_tile, __shfl_sync(kEveryLane, end, owner) - tile.first);
    tile.shift = __shfl_sync(kEveryLane, length - end, owner);
    return tile;
  }
  return {-1, index};
}

__device__ void store_result(bf16_t* to, const float4& y, float sum) {
  const float factor = 1.0F / sum;
  *reinterpret_cast<uint2*>(to) = {pack_bf16(y.x * factor, y.y * factor),
                                   pack_bf16(y.z * factor, y.w * factor)};
}

// Results of parts with their largest score and sum of weights, so far.
struct Merged {
  float largest = -INFINITY, sum = 0;
  float4 y = {0, 0, 0, 0};

  template <int kCount>
  __device__ void add(const float2 (&stats)[kCount], const float4 (&values)[kCount]) {
    float next = largest;
#pragma unroll
    for (const float2& s : stats) next = fmaxf(next, s.x);
    const float reference = next == -INFINITY ? 0.0F : next;
    const float shrink = exp2f(largest - reference);
    sum *= shrink;
    y = {y.x * shrink, y.y * shrink, y.z * shrink, y.w * shrink};
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float factor = exp2f(stats[i].x - reference);
      sum += factor * stats[i].y;
      y = {y.x + factor * values[i].x, y.y + factor * values[i].y, y.z + factor * values[i].z,
           y.w + factor * values[i].w};
    }
    largest = next;
  }
};

template <int kDim>
constexpr int kMatrixBytes = kKeys* kDim * 2;
template <int kDim>
constexpr int kQueryBytes = kTileRows* kDim * 2;
template <int kDim>
constexpr int kDecodeBytes = kQueryBytes<kDim> + kStages * 2 * kMatrixBytes<kDim>;

#if __CUDA_ARCH__ >= 900
__device__ uint32_t cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
__device__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
// What stands at `address` of this block's shared memory in that of block `rank` of the cluster.
__device__ uint32_t in_block(uint32_t address, uint32_t rank) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
__device__ float4 load_cluster16(uint32_t address) {
  float4 v;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address)
               : "memory");
  return v;
}
__device__ float2 load_cluster8(uint32_t address) {
  float2 v;
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address) : "memory");
  return v;
}
#else
__device__ uint32_t cluster_rank() { return 0; }
__device__ void cluster_arrive() {}
__device__ void cluster_wait() {}
__device__ uint32_t in_block(uint32_t address, uint32_t) { return address; }
__device__ float4 load_cluster16(uint32_t) { return {}; }
__device__ float2 load_cluster8(uint32_t) { return {}; }
#endif

// kIsPaged64: steps do not cross pages.
template <int kDim, typename Cache, bool kIsPaged64>
__global__ void __launch_bounds__(kThreads)
    attention_decode_kernel(const __grid_constant__ AttentionArgs a, const __grid_constant__ Tiling tiling) {
  constexpr int kChunks = kDim / 8, kQuads = kDim / 4;
  constexpr int kRowBytes = kDim * 2;
  constexpr int kLoadRows = kThreads / kChunks;       // rows that one load of all threads brings
  extern __shared__ __align__(128) uint8_t shared[];  // queries, then keys and values of each stage
  __shared__ bool is_last;
  const uint32_t queries = ptx::shared_address(shared), base = queries + kQueryBytes<kDim>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (a.lets_next_start) ptx::start_next_kernel();

  const int kv_head = blockIdx.y, part = blockIdx.z;
  // More heads than rows: the group is cut into several tiles.
  const bool is_cut = tiling.head_parts > 1;
  const int tile_index =
      is_cut ? static_cast<int>(blockIdx.x) / tiling.head_parts : static_cast<int>(blockIdx.x);
  const int first_head = is_cut ? static_cast<int>(blockIdx.x) % tiling.head_parts * tiling.heads : 0;
  // Lengths and pages are inputs of the step: no kernel writes them.
  const Tile tile = find_tile(a.batch, tile_index, tiling.tokens);
  if (tile.sequence < 0) {
    ptx::wait_for_previous_kernel();
    const int64_t row = a.batch.query_starts[a.batch.sequences] + tile.first;
    if (first_head == 0 && blockIdx.y == 0 && blockIdx.z == 0 && row < a.q.tokens) clear_row(a, row);
    return;
  }
  const int rows = tile.tokens * tiling.heads;
  const int keys = tile.first + tile.tokens + tile.shift;  // of the tile's last row
  // Parts follow from the sequence's own length, so that short ones are cut as finely as long ones; what is
  // short enough, one cluster adds up.
  constexpr int kFewSteps = 10;
  const int splits = static_cast<int>(a.splits);
  const bool is_short = tiling.cluster > 1 && keys <= tiling.cluster * kFewSteps * kKeys;
  const int wanted = is_short ? min(splits, tiling.cluster) : splits;
  const int per_part = ((keys + wanted - 1) / wanted + kKeys - 1) / kKeys * kKeys;
  const int key_begin = part * per_part, key_end = min(keys, key_begin + per_part);
  // Blocks of a cluster stay together, whether they have keys or not.
  const int cluster_part = part - static_cast<int>(cluster_rank());
  if (cluster_part * per_part >= keys) return;
  const int steps = max(0, key_end - key_begin + kKeys - 1) / kKeys;
  const auto row_token = [&](int row) {
    return tile.first + (static_cast<unsigned>(row) * tiling.inverse >> 16U);
  };
  const auto row_head = [&](int row) {
    return kv_head * tiling.group + first_head + row -
           (static_cast<unsigned>(row) * tiling.inverse >> 16U) * tiling.heads;
  };
  const auto is_in = [&](int row) {
    return row < rows && (!is_cut || row_head(row) < (kv_head + 1) * tiling.group);
  };

  const int32_t* table = a.batch.block_table + tile.sequence * a.batch.table_stride;
  const auto page_size = static_cast<unsigned>(a.cache.page_size);
  const auto row_stride = static_cast<unsigned>(a.cache.kv_heads) * kDim;
  // Where the key's row begins, in elements.
  const auto row_at = [&](int key) {
    const auto at = static_cast<unsigned>(key), page = at / page_size;
    return (int64_t{table[page]} * page_size + (at - page * page_size)) * row_stride + kv_head * kDim;
  };
  const int chunk = threadIdx.x % kChunks, load_row = threadIdx.x / kChunks;
  const auto load = [&](int step) {
    const int first_key = key_begin + step * kKeys;
    const int64_t step_at = kIsPaged64 ? row_at(first_key) : 0;
    const uint32_t k_at = base + static_cast<uint32_t>(step % kStages * 2 * kMatrixBytes<kDim>);
#pragma unroll
    for (int i = 0; i < kKeys / kLoadRows; ++i) {
      const int row = load_row + i * kLoadRows;
      const bool valid = first_key + row < key_end;
      const int64_t at = (kIsPaged64 ? step_at + static_cast<unsigned>(valid ? row : 0) * row_stride
                                     : row_at(valid ? first_key + row : key_begin)) +
                         chunk * 8;
      const uint32_t to = k_at + static_cast<uint32_t>(row * kRowBytes + ((chunk ^ (row & 7)) * 16));
      load_chunk(to, static_cast<const Cache*>(a.cache.k) + at, valid);
      load_chunk(to + kMatrixBytes<kDim>, static_cast<const Cache*>(a.cache.v) + at, valid);
    }
  };
  // A thread asks for the row of a key or of a value.
  static_assert(kThreads == 2 * kKeys);
#pragma unroll 1
  for (int first_key = key_begin; first_key < min(key_end, key_begin + (kStages - 1) * kKeys);
       first_key += kKeys) {
    const int key = first_key + static_cast<int>(threadIdx.x) % kKeys;
    if (key >= key_end) continue;
    const auto* from = reinterpret_cast<const uint8_t*>(
        static_cast<const Cache*>(threadIdx.x < kKeys ? a.cache.k : a.cache.v) + row_at(key));
#pragma unroll
    for (int line = 0; line < kDim * static_cast<int>(sizeof(Cache)); line += 128)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(from + line));
  }
  ptx::wait_for_previous_kernel();

#pragma unroll
  for (int i = 0; i < kTileRows * kChunks / kThreads; ++i) {
    const int row = load_row + i * kLoadRows;
    const bool valid = is_in(row);
    const bf16_t* from = static_cast<const bf16_t*>(a.q.data) +
                         (valid ? row_token(row) * a.q.token_stride + row_head(row) * a.q.head_stride : 0) +
                         chunk * 8;
    ptx::copy_async_16(queries + static_cast<uint32_t>(row * kRowBytes + ((chunk ^ (row & 7)) * 16)), from,
                       valid);
  }

  // Scores are scaled by log2(e) so that exp2 gives the softmax.
  const float scale = a.scale * 1.4426950408889634F;
  uint32_t q[kDim / 16][4];
  float out[kDim / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, sums[2] = {0, 0};
  // The last key of this lane's rows.
  int last_key[2];
#pragma unroll
  for (int half = 0; half < 2; ++half)
    last_key[half] = min(key_end - 1, row_token(lane / 4 + 8 * half) + tile.shift);
    // Loads are kStages - 1 steps ahead.
#pragma unroll 1
  for (int ahead = 0; ahead < steps + kStages - 1; ++ahead) {
    const int step = ahead - (kStages - 1);
    if (step >= 0) {
      ptx::copy_async_wait<kStages - 2>();
      __syncthreads();
    }
    if (ahead < steps) load(ahead);
    ptx::copy_async_commit();
    if (step < 0) continue;
    if (step == 0) {
#pragma unroll
      for (int k = 0; k < kDim / 16; ++k) {
        const int row = lane % 16;
        ptx::load_matrix_x4(q[k], queries + static_cast<uint32_t>(row * kRowBytes +
                                                                  (((2 * k + lane / 16) ^ (row & 7)) * 16)));
      }
    }
    const uint32_t k_at = base + static_cast<uint32_t>(step % kStages * 2 * kMatrixBytes<kDim>);
    const uint32_t v_at = k_at + kMatrixBytes<kDim>;
    const int first_row = warp * kWarpKeys;

    float scores[kWarpKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int j = 0; j < kWarpKeys / 8; j += 2) {
        uint32_t r[4];
        const int row = first_row + j * 8 + lane % 8 + lane / 16 * 8;
        ptx::load_matrix_x4(
            r, k_at + static_cast<uint32_t>(row * kRowBytes + (((2 * k + lane / 8 % 2) ^ (row & 7)) * 16)));
        ptx::mma_16x8x16(scores[j], q[k], r[0], r[1]);
        ptx::mma_16x8x16(scores[j + 1], q[k], r[2], r[3]);
      }
    }
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int left = last_key[half] - (key_begin + step * kKeys + first_row + lane % 4 * 2);
      float next = largest[half];
#pragma unroll
      for (int j = 0; j < kWarpKeys / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float& s = scores[j][2 * half + c];
          s = j * 8 + c <= left ? s * scale : -INFINITY;
          next = fmaxf(next, s);
        }
      }
      next = fmaxf(next, __shfl_xor_sync(kEveryLane, next, 1));
      next = fmaxf(next, __shfl_xor_sync(kEveryLane, next, 2));
      const float reference = next == -INFINITY ? 0.0F : next;
      shrink[half] = exp2f(largest[half] - reference);
      largest[half] = next;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < kWarpKeys / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float& s = scores[j][2 * half + c];
          s = exp2f(s - reference);
          sum += s;
        }
      }
      sums[half] = sums[half] * shrink[half] + sum;
    }
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      out[d][0] *= shrink[0];
      out[d][1] *= shrink[0];
      out[d][2] *= shrink[1];
      out[d][3] *= shrink[1];
    }
#pragma unroll
    for (int k = 0; k < kWarpKeys / 16; ++k) {
      const uint32_t p[4] = {pack_bf16(scores[2 * k][0], scores[2 * k][1]),
                             pack_bf16(scores[2 * k][2], scores[2 * k][3]),
                             pack_bf16(scores[2 * k + 1][0], scores[2 * k + 1][1]),
                             pack_bf16(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
      for (int d = 0; d < kDim / 8; d += 2) {
        uint32_t r[4];
        const int row = first_row + k * 16 + lane % 16;
        ptx::load_matrix_x4_trans(
            r, v_at + static_cast<uint32_t>(row * kRowBytes + (((d + lane / 16) ^ (row & 7)) * 16)));
        ptx::mma_16x8x16(out[d], p, r[0], r[1]);
        ptx::mma_16x8x16(out[d + 1], p, r[2], r[3]);
      }
    }
  }
  ptx::copy_async_wait<0>();
  __syncthreads();

  // The warps' results meet in shared memory; a thread adds up four numbers of a row.
  constexpr int kPitch = kDim + 8;
  static_assert((kWarps + 1) * kTileRows * (kPitch + 2) * 4 <= kDecodeBytes<kDim>);
  float* meet = reinterpret_cast<float*>(shared);
  float2* meet_stats = reinterpret_cast<float2*>(meet + (kWarps + 1) * kTileRows * kPitch);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sums[half] += __shfl_xor_sync(kEveryLane, sums[half], 1);
    sums[half] += __shfl_xor_sync(kEveryLane, sums[half], 2);
    const int row = lane / 4 + 8 * half;
    if (row >= rows) continue;
    float* to = meet + (warp * kTileRows + row) * kPitch + lane % 4 * 2;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d)
      *reinterpret_cast<float2*>(to + d * 8) = {out[d][2 * half], out[d][2 * half + 1]};
    if (lane % 4 == 0) meet_stats[warp * kTileRows + row] = {largest[half], sums[half]};
  }
  __syncthreads();
  // Partial results that blocks leave for the one that ends last: of each cluster that has keys.
  const int partials = (keys + per_part * tiling.cluster - 1) / (per_part * tiling.cluster);
  const int own_partial = tiling.cluster > 1 ? cluster_part / tiling.cluster : part;
  const int64_t results = a.q.tokens * a.q.heads * a.splits;
  float4* values = reinterpret_cast<float4*>(a.partial);
  float2* stats = reinterpret_cast<float2*>(values + results * kQuads);
  const auto partial_at = [&](int row) { return (row_token(row) * a.q.heads + row_head(row)) * a.splits; };
  const auto write_result = [&](int row, int quad, const Merged& merged) {
    if (!is_in(row)) return;
    store_result(static_cast<bf16_t*>(a.out.data) + row_token(row) * a.out.token_stride +
                     row_head(row) * a.out.head_stride + quad * 4,
                 merged.y, merged.sum);
  };
  const auto write = [&](int row, int quad, const Merged& merged) {
    if (partials == 1) return write_result(row, quad, merged);
    if (!is_in(row)) return;
    const int64_t at = partial_at(row) + own_partial;
    values[at * kQuads + quad] = merged.y;
    if (quad == 0) stats[at] = {merged.largest, merged.sum};
  };
  const bool has_cluster = tiling.cluster > 1;
#pragma unroll 1
  for (int i = threadIdx.x; i < rows * kQuads; i += kThreads) {
    const int row = i / kQuads, quad = i % kQuads;
    float2 own_stats[kWarps];
    float4 own_values[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      own_stats[w] = meet_stats[w * kTileRows + row];
      own_values[w] = *reinterpret_cast<const float4*>(meet + (w * kTileRows + row) * kPitch + quad * 4);
    }
    Merged merged;
    merged.add(own_stats, own_values);
    if (!has_cluster) {
      write(row, quad, merged);
      continue;
    }
    *reinterpret_cast<float4*>(meet + (kWarps * kTileRows + row) * kPitch + quad * 4) = merged.y;
    if (quad == 0) meet_stats[kWarps * kTileRows + row] = {merged.largest, merged.sum};
  }
  if (has_cluster) {
    cluster_arrive();
    cluster_wait();
    const uint32_t values_at = ptx::shared_address(meet + kWarps * kTileRows * kPitch);
    const uint32_t stats_at = ptx::shared_address(meet_stats + kWarps * kTileRows);
#pragma unroll 1
    for (int i = static_cast<int>(cluster_rank()) * kThreads + static_cast<int>(threadIdx.x);
         i < rows * kQuads; i += tiling.cluster * kThreads) {
      const int row = i / kQuads, quad = i % kQuads;
      float2 own_stats[kMostCluster];
      float4 own_values[kMostCluster];
#pragma unroll
      for (int r = 0; r < kMostCluster; ++r) {
        const bool is_there = r < tiling.cluster;
        const uint32_t rank = is_there ? r : 0;
        own_stats[r] = load_cluster8(in_block(stats_at + row * 8, rank));
        own_values[r] = load_cluster16(in_block(values_at + (row * kPitch + quad * 4) * 4, rank));
        if (!is_there) own_stats[r] = {-INFINITY, 0};
      }
      Merged merged;
      merged.add(own_stats, own_values);
      write(row, quad, merged);
    }
    cluster_arrive();
  }
  if (partials > 1) {
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      int32_t* arrivals = a.arrivals + static_cast<int64_t>(blockIdx.x) * gridDim.y + blockIdx.y;
      is_last = atomicAdd(arrivals, 1) + 1 == partials * tiling.cluster;
      if (is_last) *arrivals = 0;
      __threadfence();
    }
    __syncthreads();
    constexpr int kAtOnce = 8;
#pragma unroll 1
    for (int i = threadIdx.x; i < rows * kQuads && is_last; i += kThreads) {
      const int row = i / kQuads, quad = i % kQuads;
      if (!is_in(row)) continue;
      Merged merged;
#pragma unroll 1
      for (int first = 0; first < partials; first += kAtOnce) {
        const int64_t at = partial_at(row) + first;
        float2 own_stats[kAtOnce];
        float4 own_values[kAtOnce];
#pragma unroll
        for (int p = 0; p < kAtOnce; ++p) {
          const bool is_there = first + p < partials;
          own_stats[p] = is_there ? __ldcg(stats + at + p) : float2{-INFINITY, 0};
          own_values[p] = is_there ? __ldcg(values + (at + p) * kQuads + quad) : float4{0, 0, 0, 0};
        }
        merged.add(own_stats, own_values);
      }
      write_result(row, quad, merged);
    }
  }
  // Others may still read this block's shared memory.
  if (has_cluster) cluster_wait();
}

template <int kDim, typename Cache>
void start(const AttentionArgs& a, cudaStream_t stream) {
  const auto group = static_cast<int>(a.q.heads / a.cache.kv_heads);
  const int heads = group < kTileRows ? group : kTileRows;
  const Tiling tiling = {group,
                         heads,
                         (group + heads - 1) / heads,
                         kTileRows / heads,
                         65536U / static_cast<unsigned>(heads) + 1,
                         static_cast<int>(a.cluster)};
  // A sequence has no more tiles than rows, and there are no more rows than sequences.
  const dim3 grid(static_cast<unsigned>(a.batch.sequences * tiling.head_parts),
                  static_cast<unsigned>(a.cache.kv_heads), static_cast<unsigned>(a.splits));
  const auto with_kernel = [&](auto* kernel) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kDecodeBytes<kDim>);
    static_cast<void>(launch_clusters(kernel, grid, dim3(1, 1, static_cast<unsigned>(tiling.cluster)),
                                      kThreads, kDecodeBytes<kDim>, stream, a, tiling));
  };
  a.cache.page_size % kKeys == 0 ? with_kernel(attention_decode_kernel<kDim, Cache, true>)
                                 : with_kernel(attention_decode_kernel<kDim, Cache, false>);
}

}  // namespace

int64_t attention_partial_bytes(int64_t tokens, int64_t heads, int64_t dim, int64_t splits) {
  return splits == 1 ? 0 : tokens * heads * splits * (dim + 2) * 4;
}

void launch_attention_decode(const AttentionArgs& a, cudaStream_t stream) {
  const auto with_cache = [&]<typename Cache>(Cache) {
    a.q.dim == 64 ? start<64, Cache>(a, stream) : start<128, Cache>(a, stream);
  };
  a.cache.scalar == Scalar::kE4m3 ? with_cache(e4m3_t{}) : with_cache(bf16_t{});
}

}  // namespace minimax::cuda
