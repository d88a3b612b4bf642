// The indexer of block-sparse attention: scores of blocks and the choice of the best.
#include "backends/cuda/device.cuh"

namespace minimax::cuda {
namespace {

constexpr int kScoreWarps = 4;

// One block of threads a row and block of keys; a warp takes keys in turn and scores them for every group.
template <typename Q, typename Key>
__global__ void index_scores_kernel(IndexerArgs a, int64_t first_row) {
  extern __shared__ float queries[];  // [groups, dim], then the warps' best [warps, groups]
  const int64_t t = first_row + blockIdx.y, block = blockIdx.x;
  const int64_t groups = a.index_q.heads, dim = a.index_q.dim;
  float* scores = static_cast<float*>(a.scores.data) + t * a.scores.token_stride + block;
  const int64_t b = sequence_of(a.batch, t);
  const int64_t position = b < 0 ? -1 : a.batch.seq_lens[b] - a.batch.query_starts[b + 1] + t;
  if (b < 0 || block * a.block_size > position) {
    for (int64_t g = threadIdx.x; g < groups; g += blockDim.x) scores[g * a.scores.head_stride] = -INFINITY;
    return;
  }
  for (int64_t i = threadIdx.x; i < groups * dim; i += blockDim.x) {
    queries[i] = to_f32(static_cast<const Q*>(
        a.index_q.data)[t * a.index_q.token_stride + i / dim * a.index_q.head_stride + i % dim]);
  }
  float* best = queries + groups * dim;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int64_t g = lane; g < groups; g += 32) best[warp * groups + g] = -INFINITY;
  __syncthreads();
  const int64_t page = a.batch.block_table[b * a.batch.table_stride + block];
  const int64_t left = position + 1 - block * a.block_size;
  const int64_t keys = left < a.block_size ? left : a.block_size;
  for (int64_t i = warp; i < keys; i += kScoreWarps) {
    const Key* key = static_cast<const Key*>(a.index_cache) + (page * a.block_size + i) * dim;
    for (int64_t g = 0; g < groups; ++g) {
      float sum = 0;
      for (int64_t d = lane; d < dim; d += 32) sum += queries[g * dim + d] * to_f32(key[d]);
      sum = warp_sum(sum);
      if (lane == 0) best[warp * groups + g] = fmaxf(best[warp * groups + g], sum);
    }
  }
  __syncthreads();
  for (int64_t g = threadIdx.x; g < groups; g += blockDim.x) {
    float largest = best[g];
    for (int w = 1; w < kScoreWarps; ++w) largest = fmaxf(largest, best[w * groups + g]);
    scores[g * a.scores.head_stride] = largest;
  }
}

constexpr int kSelectThreads = 256;
// The compiler reads the chosen blocks four at a time, beyond the last one too.
constexpr int kReadAhead = 8;

struct Best {
  float score;
  int64_t block;
};
__device__ Best better(Best x, Best y) {
  if (y.block < 0) return x;
  if (x.block < 0 || y.score > x.score || (y.score == x.score && y.block < x.block)) return y;
  return x;
}

// One block of threads a row and group; the best are found one by one.
__global__ void select_blocks_kernel(IndexerArgs a) {
  extern __shared__ __align__(16) int32_t chosen[];  // [top_k + kReadAhead]
  __shared__ Best warps[kSelectThreads / 32];
  __shared__ int64_t winner;
  const int64_t t = blockIdx.x, g = blockIdx.y;
  int32_t* selection = a.selection + (t * a.scores.heads + g) * a.top_k;
  const int64_t b = sequence_of(a.batch, t);
  const int64_t position = b < 0 ? -1 : a.batch.seq_lens[b] - a.batch.query_starts[b + 1] + t;
  const int64_t valid = b < 0 ? 0 : position / a.block_size + 1;
  const int64_t count = valid < a.top_k ? valid : a.top_k;
  const float* scores =
      static_cast<const float*>(a.scores.data) + t * a.scores.token_stride + g * a.scores.head_stride;
  const auto is_taken = [&](int64_t block, int64_t taken) {
    for (int64_t i = 0; i < taken; ++i)
      if (chosen[i] == block) return true;
    return false;
  };
  for (int64_t j = 0; j < count; ++j) {
    // The forced ones first: the initial blocks, then the newest.
    int64_t forced = -1;
    if (j < a.init_blocks) {
      forced = j;
    } else {
      int64_t skipped = j - (a.init_blocks < valid ? a.init_blocks : valid);
      if (skipped < a.local_blocks) {
        const int64_t newest = valid - 1 - skipped;
        if (newest >= a.init_blocks) forced = newest;
      }
    }
    if (forced < 0) {
      Best best = {-INFINITY, -1};
      for (int64_t i = threadIdx.x; i < valid; i += kSelectThreads) {
        if (is_taken(i, j)) continue;
        const float score = scores[i];
        best = better(best, {score == score ? score : -INFINITY, i});
      }
      for (int i = 16; i > 0; i >>= 1) {
        const Best other = {__shfl_xor_sync(0xffffffffU, best.score, i),
                            __shfl_xor_sync(0xffffffffU, best.block, i)};
        best = better(best, other);
      }
      if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = best;
      __syncthreads();
      if (threadIdx.x == 0) {
        for (int w = 1; w < kSelectThreads / 32; ++w) best = better(best, warps[w]);
        winner = best.block;
      }
      __syncthreads();
      forced = winner;
    }
    if (threadIdx.x == 0) chosen[j] = static_cast<int32_t>(forced);
    __syncthreads();
  }
  // Ascending: each goes behind those that are smaller.
  for (int64_t j = threadIdx.x; j < a.top_k; j += kSelectThreads) {
    if (j >= count) {
      selection[j] = -1;
      continue;
    }
    int64_t place = 0;
    for (int64_t i = 0; i < count; ++i) place += chosen[i] < chosen[j] ? 1 : 0;
    selection[place] = chosen[j];
  }
}

}  // namespace

void launch_index_block_scores(const IndexerArgs& a, cudaStream_t stream) {
  if (a.scores.tokens * a.scores.dim * a.scores.heads == 0) return;
  const auto bytes = static_cast<size_t>(a.index_q.heads * (a.index_q.dim + kScoreWarps)) * sizeof(float);
  // A grid's second dimension ends at 65,535.
  constexpr int64_t kMostRows = 65535;
  with_cache(a.index_q.scalar, [&](auto q) {
    with_cache(a.index_scalar, [&](auto key) {
      for (int64_t first = 0; first < a.scores.tokens; first += kMostRows) {
        const int64_t left = a.scores.tokens - first;
        const dim3 grid(static_cast<unsigned>(a.scores.dim),
                        static_cast<unsigned>(left < kMostRows ? left : kMostRows));
        index_scores_kernel<decltype(q), decltype(key)><<<grid, kScoreWarps * 32, bytes, stream>>>(a, first);
      }
    });
  });
}

void launch_select_blocks(const IndexerArgs& a, cudaStream_t stream) {
  if (a.scores.tokens * a.scores.heads == 0) return;
  select_blocks_kernel<<<dim3(static_cast<unsigned>(a.scores.tokens), static_cast<unsigned>(a.scores.heads)),
                         kSelectThreads, static_cast<size_t>(a.top_k + kReadAhead) * sizeof(int32_t),
                         stream>>>(a);
}

}  // namespace minimax::cuda
