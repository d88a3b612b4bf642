// Causal GQA over a paged cache: a plain kernel for any shape and dtype, and one on tensor cores for prompts,
// BF16 queries and head dimensions 64 and 128.
#include "backends/cuda/query_tile.cuh"

namespace minimax::cuda {
namespace {

constexpr int kAnyThreads = 128;
constexpr int kMostAnyDim = 512;

// One block a row and head, 128 keys at a time.
template <typename Q, typename Cache>
__global__ void attention_any_kernel(AttentionArgs a) {
  __shared__ float query[kMostAnyDim];
  __shared__ float weights[kAnyThreads];
  __shared__ int64_t slots[kAnyThreads];
  __shared__ float scratch[33];
  const int64_t t = blockIdx.x, head = blockIdx.y;
  const int64_t dim = a.q.dim;
  Q* out = static_cast<Q*>(a.out.data) + t * a.out.token_stride + head * a.out.head_stride;
  const int64_t b = sequence_of(a.batch, t);
  if (b < 0) {
    for (int64_t d = threadIdx.x; d < dim; d += kAnyThreads) out[d] = from_f32<Q>(0.0F);
    return;
  }
  const Q* q = static_cast<const Q*>(a.q.data) + t * a.q.token_stride + head * a.q.head_stride;
  for (int64_t d = threadIdx.x; d < dim; d += kAnyThreads) query[d] = to_f32(q[d]) * a.scale;
  const int64_t kv_head = head / (a.q.heads / a.cache.kv_heads);
  const int64_t keys = a.batch.seq_lens[b] - a.batch.query_starts[b + 1] + t + 1;
  const int32_t* table = a.batch.block_table + b * a.batch.table_stride;
  const int32_t* selection =
      a.selection == nullptr ? nullptr : a.selection + (t * a.cache.kv_heads + kv_head) * a.selected;
  const int64_t candidates = selection == nullptr ? keys : a.selected * a.cache.page_size;
  const Cache* k_cache = static_cast<const Cache*>(a.cache.k);
  const Cache* v_cache = static_cast<const Cache*>(a.cache.v);
  float largest = -INFINITY, sum = 0;
  float sums[kMostAnyDim / kAnyThreads] = {};
  __syncthreads();
  for (int64_t base = 0; base < candidates; base += kAnyThreads) {
    int64_t key = base + threadIdx.x;
    if (selection != nullptr) {
      const int64_t block = key < candidates ? selection[key / a.cache.page_size] : -1;
      key = block < 0 ? keys : block * a.cache.page_size + key % a.cache.page_size;
    }
    float score = -INFINITY;
    slots[threadIdx.x] = 0;
    if (key < keys) {
      const int64_t slot =
          int64_t{table[key / a.cache.page_size]} * a.cache.page_size + key % a.cache.page_size;
      slots[threadIdx.x] = (slot * a.cache.kv_heads + kv_head) * dim;
      const Cache* row = k_cache + slots[threadIdx.x];
      score = 0;
      for (int64_t d = 0; d < dim; ++d) score += query[d] * to_f32(row[d]);
    }
    float chunk = warp_max(score);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = chunk;
    __syncthreads();
    chunk = fmaxf(fmaxf(scratch[0], scratch[1]), fmaxf(scratch[2], scratch[3]));
    const float next = fmaxf(largest, chunk);
    const float reference = next == -INFINITY ? 0.0F : next;
    const float shrink = expf(largest - reference);
    const float weight = key < keys ? expf(score - reference) : 0.0F;
    weights[threadIdx.x] = weight;
    sum = sum * shrink + block_sum(weight, scratch);
    largest = next;
    const int64_t count = candidates - base < kAnyThreads ? candidates - base : kAnyThreads;
#pragma unroll
    for (int i = 0; i < kMostAnyDim / kAnyThreads; ++i) {
      const int64_t d = threadIdx.x + i * kAnyThreads;
      if (d >= dim) break;
      float y = sums[i] * shrink;
      for (int64_t j = 0; j < count; ++j) y += weights[j] * to_f32(v_cache[slots[j] + d]);
      sums[i] = y;
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kMostAnyDim / kAnyThreads; ++i) {
    const int64_t d = threadIdx.x + i * kAnyThreads;
    if (d < dim) out[d] = from_f32<Q>(sums[i] / sum);
  }
}

// --- tensor cores

constexpr int kKeys = 64;  // of a step
constexpr int kTileRows = 64;

struct RowState {
  float largest[2];
  float sum[2];
};

// Rows of a tile are (token, head of one KV group): they share their keys.
template <int kDim, typename Cache>
__global__ void __launch_bounds__(128) attention_mma_kernel(AttentionArgs a) {
  ptx::wait_for_previous_kernel();
  constexpr int kChunks = kDim / 8;
  constexpr int kRowBytes = kDim * 2;
  extern __shared__ __align__(128) uint8_t shared[];  // K and V, two stages
  const uint32_t base = ptx::shared_address(shared);
  constexpr uint32_t kMatrixBytes = kKeys * kRowBytes;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  const int64_t group = a.q.heads / a.cache.kv_heads;
  const int64_t kv_head = blockIdx.y;
  // More heads than rows: the group is cut into several tiles.
  const int64_t heads_per_tile = group < kTileRows ? group : kTileRows;
  const int64_t head_parts = ceil_div(group, heads_per_tile);
  const int64_t tokens_per_tile = kTileRows / heads_per_tile;
  const int64_t first_head = static_cast<int64_t>(blockIdx.x) % head_parts * heads_per_tile;
  const QueryTile tile =
      find_query_tile(a.batch, static_cast<int64_t>(blockIdx.x) / head_parts, tokens_per_tile);
  if (tile.sequence < 0) return;
  const int64_t b = tile.sequence;
  const int64_t tokens = min(tokens_per_tile, tile.end - tile.first);
  // Position of the batch's row t is t + shift.
  const int64_t shift = a.batch.seq_lens[b] - tile.end;
  const int64_t keys = tile.first + tokens + shift;  // of the tile's last row

  // Queries as fragments, scaled by log2(e) so that exp2 gives the softmax.
  const float scale = a.scale * 1.4426950408889634F;
  uint32_t q[kDim / 16][4];
  int64_t row_position[2];
  bool row_is_in[2];
  int64_t row_token[2], row_head[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t row = warp * 16 + lane / 4 + 8 * half;
    const int64_t token = row / heads_per_tile, head = first_head + row % heads_per_tile;
    row_is_in[half] = token < tokens && head < group;
    row_token[half] = tile.first + (row_is_in[half] ? token : 0);
    row_head[half] = kv_head * group + (row_is_in[half] ? head : 0);
    row_position[half] = row_token[half] + shift;
    const bf16_t* from = static_cast<const bf16_t*>(a.q.data) + row_token[half] * a.q.token_stride +
                         row_head[half] * a.q.head_stride;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const int at = k * 16 + lane % 4 * 2;
      q[k][half] = row_is_in[half] ? *reinterpret_cast<const uint32_t*>(from + at) : 0;
      q[k][half + 2] = row_is_in[half] ? *reinterpret_cast<const uint32_t*>(from + at + 8) : 0;
    }
  }

  const int32_t* table = a.batch.block_table + b * a.batch.table_stride;
  const auto load = [&](int64_t first_key, int stage) {
    const uint32_t k_at = base + static_cast<uint32_t>(stage) * 2 * kMatrixBytes;
    for (int i = threadIdx.x; i < kKeys * kChunks; i += 128) {
      const int row = i / kChunks, chunk = i % kChunks;
      const int64_t key = first_key + row;
      const bool valid = key < keys;
      const int64_t slot =
          valid ? int64_t{table[key / a.cache.page_size]} * a.cache.page_size + key % a.cache.page_size : 0;
      const int64_t at = (slot * a.cache.kv_heads + kv_head) * kDim + chunk * 8;
      const uint32_t to = static_cast<uint32_t>(row * kRowBytes + ((chunk ^ (row & 7)) * 16));
      load_chunk(k_at + to, static_cast<const Cache*>(a.cache.k) + at, valid);
      load_chunk(k_at + kMatrixBytes + to, static_cast<const Cache*>(a.cache.v) + at, valid);
    }
  };

  float out[kDim / 8][4] = {};
  RowState state = {{-INFINITY, -INFINITY}, {0, 0}};
  if (keys > 0) load(0, 0);
  ptx::copy_async_commit();
  int stage = 0;
  for (int64_t first_key = 0; first_key < keys; first_key += kKeys, stage ^= 1) {
    ptx::copy_async_wait<0>();
    __syncthreads();
    if (first_key + kKeys < keys) load(first_key + kKeys, stage ^ 1);
    ptx::copy_async_commit();
    const uint32_t k_at = base + static_cast<uint32_t>(stage) * 2 * kMatrixBytes;
    const uint32_t v_at = k_at + kMatrixBytes;
    float scores[kKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int j = 0; j < kKeys / 8; j += 2) {
        uint32_t r[4];
        const int row = j * 8 + lane % 8 + lane / 16 * 8;
        ptx::load_matrix_x4(
            r, k_at + static_cast<uint32_t>(row * kRowBytes + (((2 * k + lane / 8 % 2) ^ (row & 7)) * 16)));
        ptx::mma_16x8x16(scores[j], q[k], r[0], r[1]);
        ptx::mma_16x8x16(scores[j + 1], q[k], r[2], r[3]);
      }
    }
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = state.largest[half];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int64_t key = first_key + j * 8 + lane % 4 * 2 + c;
          float& s = scores[j][2 * half + c];
          s = key <= row_position[half] && key < keys ? s * scale : -INFINITY;
          largest = fmaxf(largest, s);
        }
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
      const float reference = largest == -INFINITY ? 0.0F : largest;
      shrink[half] = exp2f(state.largest[half] - reference);
      state.largest[half] = largest;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float& s = scores[j][2 * half + c];
          s = exp2f(s - reference);
          sum += s;
        }
      }
      state.sum[half] = state.sum[half] * shrink[half] + sum;
    }
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      out[d][0] *= shrink[0];
      out[d][1] *= shrink[0];
      out[d][2] *= shrink[1];
      out[d][3] *= shrink[1];
    }
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const uint32_t p[4] = {pack_bf16(scores[2 * k][0], scores[2 * k][1]),
                             pack_bf16(scores[2 * k][2], scores[2 * k][3]),
                             pack_bf16(scores[2 * k + 1][0], scores[2 * k + 1][1]),
                             pack_bf16(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
      for (int d = 0; d < kDim / 8; d += 2) {
        uint32_t r[4];
        const int row = k * 16 + lane % 16;
        ptx::load_matrix_x4_trans(
            r, v_at + static_cast<uint32_t>(row * kRowBytes + (((d + lane / 16) ^ (row & 7)) * 16)));
        ptx::mma_16x8x16(out[d], p, r[0], r[1]);
        ptx::mma_16x8x16(out[d + 1], p, r[2], r[3]);
      }
    }
    __syncthreads();
  }
  ptx::copy_async_wait<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    state.sum[half] += __shfl_xor_sync(0xffffffffU, state.sum[half], 1);
    state.sum[half] += __shfl_xor_sync(0xffffffffU, state.sum[half], 2);
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!row_is_in[half]) continue;
    const float factor = 1.0F / state.sum[half];
    bf16_t* to = static_cast<bf16_t*>(a.out.data) + row_token[half] * a.out.token_stride +
                 row_head[half] * a.out.head_stride;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      *reinterpret_cast<uint32_t*>(to + d * 8 + lane % 4 * 2) =
          pack_bf16(out[d][2 * half] * factor, out[d][2 * half + 1] * factor);
    }
  }
}

// Rows that belong to no sequence.
__global__ void attention_padding_kernel(AttentionArgs a) {
  ptx::wait_for_previous_kernel();
  const int64_t t = blockIdx.x;
  if (t >= a.batch.query_starts[a.batch.sequences]) clear_row(a, t);
}

template <int kDim, typename Cache>
void launch_mma(const AttentionArgs& a, cudaStream_t stream) {
  constexpr int kBytes = 4 * kKeys * kDim * 2;
  const int64_t group = a.q.heads / a.cache.kv_heads;
  const int64_t heads_per_tile = group < kTileRows ? group : kTileRows;
  const int64_t tokens_per_tile = kTileRows / heads_per_tile;
  // No sequence has more tiles than its rows fill, and one begun.
  const int64_t tiles = ceil_div(a.batch.tokens, tokens_per_tile) +
                        (a.batch.sequences < a.batch.tokens ? a.batch.sequences : a.batch.tokens);
  cudaFuncSetAttribute(attention_mma_kernel<kDim, Cache>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       kBytes);
  const dim3 grid(static_cast<unsigned>(tiles * ceil_div(group, heads_per_tile)),
                  static_cast<unsigned>(a.cache.kv_heads));
  launch(attention_mma_kernel<kDim, Cache>, grid, 128, kBytes, stream, a);
  launch_attention_padding(a, stream);
}

}  // namespace

void launch_attention_padding(const AttentionArgs& a, cudaStream_t stream) {
  launch(attention_padding_kernel, static_cast<unsigned>(a.batch.tokens), 128, 0, stream, a);
}

void launch_attention_any(const AttentionArgs& a, cudaStream_t stream) {
  if (a.q.tokens == 0 || a.q.heads == 0) return;
  with_activation(a.q.scalar, [&](auto q) {
    with_cache(a.cache.scalar, [&](auto cache) {
      attention_any_kernel<decltype(q), decltype(cache)>
          <<<dim3(static_cast<unsigned>(a.q.tokens), static_cast<unsigned>(a.q.heads)), kAnyThreads, 0,
             stream>>>(a);
    });
  });
}

bool can_attention_mma(const AttentionArgs& a) {
  const auto is_even = [](const Heads& x) {
    return x.token_stride % 8 == 0 && x.head_stride % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  };
  return a.q.scalar == Scalar::kBF16 && (a.q.dim == 64 || a.q.dim == 128) && a.cache.scalar != Scalar::kF32 &&
         is_even(a.q) && is_even(a.out);
}

void launch_attention_mma(const AttentionArgs& a, cudaStream_t stream) {
  if (a.q.tokens == 0 || a.q.heads == 0) return;
  if (a.is_decode_shape) return launch_attention_decode(a, stream);
  const auto with_cache = [&]<typename Cache>(Cache) {
    a.q.dim == 64 ? launch_mma<64, Cache>(a, stream) : launch_mma<128, Cache>(a, stream);
  };
  a.cache.scalar == Scalar::kE4m3 ? with_cache(e4m3_t{}) : with_cache(bf16_t{});
}

}  // namespace minimax::cuda
