// Causal attention of prompts on Hopper's warpgroups: 192 rows, which are tokens and heads of one KV head,
// pass over the keys in steps of 128. Three warpgroups of 64 rows share keys and values, which asynchronous
// copies bring one step ahead; while one takes its softmax, the others multiply.
#include "backends/cuda/query_tile.cuh"
#include "backends/cuda/sparse_sm90.cuh"

namespace minimax::cuda {
namespace {

constexpr int kDim = 128;
constexpr int kStepKeys = 128;
static_assert(kStepKeys == kSparseBlock, "tiles of keys are those of sparse attention");
constexpr int kConsumers = 3;
constexpr int kThreads = kConsumers * kGroupThreads;
constexpr int64_t kRows = 64 * kConsumers;
constexpr uint32_t kStageBytes = 2 * kKeyTileBytes;
// Tiles begin at multiples of 1024 bytes.
constexpr int kBytes = 2 * kStageBytes + kConsumers * kQueryTileBytes + 1024;

struct Params {
  AttentionArgs a;
  int64_t heads_per_tile, head_parts, tokens_per_tile;
  uint32_t page_shift;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// 128 keys and values from `first` on; zeros behind the last.
template <typename Cache>
__device__ __forceinline__ void bring_keys(const Params& p, const int32_t* table, int64_t kv_head,
                                           int64_t first, int64_t keys, uint32_t to) {
  constexpr int kPieces = kDim * static_cast<int>(sizeof(Cache)) / 16;
  constexpr int kPerPiece = 16 / static_cast<int>(sizeof(Cache));
  const int64_t mask = (int64_t{1} << p.page_shift) - 1;
  for (int i = static_cast<int>(threadIdx.x); i < kStepKeys * kPieces; i += kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const int64_t key = first + row;
    const bool is_there = key < keys;
    const int64_t slot = is_there ? (int64_t{table[key >> p.page_shift]} << p.page_shift) + (key & mask) : 0;
    const int64_t at = (slot * p.a.cache.kv_heads + kv_head) * kDim + piece * kPerPiece;
    const Cache* k = static_cast<const Cache*>(p.a.cache.k) + at;
    const Cache* v = static_cast<const Cache*>(p.a.cache.v) + at;
    if constexpr (sizeof(Cache) == 2) {
      const uint32_t place = to + tile_place(kKeyBox, row, piece);
      ptx::copy_async_16(place, k, is_there);
      ptx::copy_async_16(place + kKeyTileBytes, v, is_there);
    } else {
      const uint4 k_codes = is_there ? *reinterpret_cast<const uint4*>(k) : uint4{};
      const uint4 v_codes = is_there ? *reinterpret_cast<const uint4*>(v) : uint4{};
      store_codes(to, kKeyBox, row, piece * 2, k_codes);
      store_codes(to + kKeyTileBytes, kKeyBox, row, piece * 2, v_codes);
    }
  }
}

template <typename Cache>
__device__ void attend(const Params& p) {
  extern __shared__ uint8_t shared_bytes[];
  ptx::wait_for_previous_kernel();
  const AttentionArgs& a = p.a;
  const uint32_t base = (ptx::shared_address(shared_bytes) + 1023) / 1024 * 1024;
  const int consumer = threadIdx.x / kGroupThreads, lane = threadIdx.x % 32;
  const int64_t group = a.q.heads / a.cache.kv_heads, kv_head = blockIdx.y;
  // Long tiles first: the last ones to start are then the short ones.
  const int64_t block = static_cast<int64_t>(gridDim.x) - 1 - blockIdx.x;
  const int64_t first_head = block % p.head_parts * p.heads_per_tile;
  const QueryTile tile = find_query_tile(a.batch, block / p.head_parts, p.tokens_per_tile);
  if (tile.sequence < 0) return;
  const int64_t tokens = min(p.tokens_per_tile, tile.end - tile.first);
  const int64_t shift = a.batch.seq_lens[tile.sequence] - tile.end;
  const int64_t keys = tile.first + tokens + shift;  // of the tile's last row
  const int32_t* table = a.batch.block_table + tile.sequence * a.batch.table_stride;

  // Queries; rows beyond the last are zeros.
  const uint32_t all_queries = base + 2 * kStageBytes;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * 16; i += kThreads) {
    const int row = i / 16, chunk = i % 16;
    const int64_t token = row / p.heads_per_tile, head = first_head + row % p.heads_per_tile;
    const bool is_there = token < tokens && head < group;
    const bf16_t* from = static_cast<const bf16_t*>(a.q.data) +
                         (tile.first + (is_there ? token : 0)) * a.q.token_stride +
                         (kv_head * group + (is_there ? head : 0)) * a.q.head_stride + chunk * 8;
    ptx::copy_async_16(all_queries + static_cast<uint32_t>(row / 64) * kQueryTileBytes +
                           tile_place(kQueryBox, row % 64, chunk),
                       from, is_there);
  }
  bring_keys<Cache>(p, table, kv_head, 0, keys, base);
  ptx::copy_async_commit();

  const uint32_t queries = all_queries + static_cast<uint32_t>(consumer) * kQueryTileBytes;
  int64_t row_token[2], row_head[2];
  bool row_is_in[2];
  int64_t position[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t row = threadIdx.x / 32 * 16 + lane / 4 + 8 * half;
    row_token[half] = row / p.heads_per_tile;
    row_head[half] = first_head + row % p.heads_per_tile;
    row_is_in[half] = row_token[half] < tokens && row_head[half] < group;
    position[half] = tile.first + row_token[half] + shift;
  }
  // The position of the tile's first token: keys up to it need no mask.
  const int64_t unmasked = tile.first + shift;

  const float scale = a.scale * 1.4426950408889634F;
  float o[64];
#pragma unroll
  for (float& x : o) x = 0;
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  int stage = 0;
  for (int64_t first = 0; first < keys; first += kStepKeys, stage ^= 1) {
    ptx::copy_async_wait<0>();
    ptx::fence_shared_async();
    __syncthreads();
    if (first + kStepKeys < keys)
      bring_keys<Cache>(p, table, kv_head, first + kStepKeys, keys,
                        base + static_cast<uint32_t>(stage ^ 1) * kStageBytes);
    ptx::copy_async_commit();
    const uint32_t k_tile = base + static_cast<uint32_t>(stage) * kStageBytes;
    float c[64];
    start_scores(c, queries, k_tile);
    ptx::wgmma_wait<0>();
    keep(c);
    if (first + kStepKeys - 1 > unmasked) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t limit = position[half] - first - 2 * (lane % 4);
        const int own = limit > kStepKeys ? kStepKeys : limit < -1 ? -1 : static_cast<int>(limit);
#pragma unroll
        for (int j = 0; j < 16; ++j) {
          if (8 * j > own) c[4 * j + 2 * half] = -INFINITY;
          if (8 * j + 1 > own) c[4 * j + 2 * half + 1] = -INFINITY;
        }
      }
    }
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float best = -INFINITY;
#pragma unroll
      for (int j = 0; j < 16; ++j) best = fmaxf(best, fmaxf(c[4 * j + 2 * half], c[4 * j + 2 * half + 1]));
      best = fmaxf(best, __shfl_xor_sync(0xffffffffU, best, 1));
      best = fmaxf(best, __shfl_xor_sync(0xffffffffU, best, 2));
      best = fmaxf(largest[half], best * scale);
      const float reference = best == -INFINITY ? 0.0F : best;
      shrink[half] = exp2f(largest[half] - reference);
      largest[half] = best;
      float part = 0;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = c[4 * j + 2 * half + e];
          x = exp2f(fmaf(x, scale, -reference));
          part += x;
        }
      }
      sum[half] = sum[half] * shrink[half] + part;
    }
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      o[4 * j] *= shrink[0];
      o[4 * j + 1] *= shrink[0];
      o[4 * j + 2] *= shrink[1];
      o[4 * j + 3] *= shrink[1];
    }
    uint32_t weights[8][4];
#pragma unroll
    for (int s = 0; s < 8; ++s) {
#pragma unroll
      for (int i = 0; i < 4; ++i) weights[s][i] = pack_bf16(c[8 * s + 2 * i], c[8 * s + 2 * i + 1]);
    }
    keep(o);
    ptx::wgmma_fence();
#pragma unroll
    for (uint32_t s = 0; s < 8; ++s)
      ptx::wgmma_across_k(o, weights[s],
                          ptx::operand_across_k(k_tile + kKeyTileBytes + s * 16 * 128, kKeyBox), true);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    keep(o);
  }
  ptx::copy_async_wait<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += __shfl_xor_sync(0xffffffffU, sum[half], 1);
    sum[half] += __shfl_xor_sync(0xffffffffU, sum[half], 2);
    if (!row_is_in[half]) continue;
    const float factor = 1.0F / sum[half];
    bf16_t* to = static_cast<bf16_t*>(a.out.data) + (tile.first + row_token[half]) * a.out.token_stride +
                 (kv_head * group + row_head[half]) * a.out.head_stride + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < 16; ++j)
      *reinterpret_cast<uint32_t*>(to + 8 * j) =
          pack_bf16(o[4 * j + 2 * half] * factor, o[4 * j + 2 * half + 1] * factor);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename Cache>
__global__ void __launch_bounds__(kThreads, 1) attention_sm90_kernel(const __grid_constant__ Params p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  attend<Cache>(p);
#else
  __trap();
#endif
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
  p.heads_per_tile = group < kRows ? group : kRows;
  p.head_parts = ceil_div(group, p.heads_per_tile);
  p.tokens_per_tile = kRows / p.heads_per_tile;
  p.page_shift = 0;
  while ((int64_t{1} << p.page_shift) < a.cache.page_size) ++p.page_shift;
  // No sequence has more tiles than its rows fill, and one begun.
  const int64_t tiles = ceil_div(a.batch.tokens, p.tokens_per_tile) +
                        (a.batch.sequences < a.batch.tokens ? a.batch.sequences : a.batch.tokens);
  const dim3 grid(static_cast<unsigned>(tiles * p.head_parts), static_cast<unsigned>(a.cache.kv_heads));
  const auto start = [&]<typename Cache>(Cache) {
    cudaFuncSetAttribute(attention_sm90_kernel<Cache>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    launch(attention_sm90_kernel<Cache>, grid, kThreads, kBytes, stream, p);
  };
  if (a.cache.scalar == Scalar::kE4m3) {
    start(e4m3_t{});
  } else {
    start(bf16_t{});
  }
  launch_attention_padding(a, stream);
}

}  // namespace minimax::cuda
