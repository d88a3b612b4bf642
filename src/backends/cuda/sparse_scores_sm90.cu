// Scores of blocks for prompts, on Hopper's warpgroups. A block of threads has 64 rows with up to four heads,
// 256 rows of a product, and goes through the pages of their sequence: one warpgroup brings keys, converts
// those in e4m3 (exactly) and keeps some pages ahead, two multiply, each with two tiles of 64 in turn, so
// that one is multiplied while the maxima of the other are taken.
#include "backends/cuda/sparse_sm90.cuh"

namespace minimax::cuda {
namespace {

constexpr int kHeads = 4;
constexpr int kTokens = 64;  // of a block
constexpr int kConsumers = 2;
constexpr int kThreads = (kConsumers + 1) * kGroupThreads;
constexpr int kStages = 4;
constexpr int kBytes = kTokens * kHeads / 64 * kQueryTileBytes + kStages * kKeyTileBytes + 1024;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct Barriers {
  uint64_t full[kStages];
  uint64_t empty[kStages];
};

// The rows of a block: consecutive rows of one sequence.
struct Tile {
  int64_t sequence = -1;
  int64_t first = 0;  // row of the batch
  int64_t rows = 0;
  int64_t position = 0;  // of the first
  bool is_first_left_over = false;

  __device__ Tile(const Ragged& batch, int64_t tile) {
    for (int64_t b = 0; b < batch.sequences; ++b) {
      const int64_t begin = batch.query_starts[b], end = batch.query_starts[b + 1];
      const int64_t tiles = ceil_div(end - begin, kTokens);
      if (tile < tiles) {
        sequence = b;
        first = begin + tile * kTokens;
        rows = min(int64_t{kTokens}, end - first);
        position = batch.seq_lens[b] - end + first;
        return;
      }
      tile -= tiles;
    }
    is_first_left_over = tile == 0;
  }
  __device__ int64_t pages() const { return (position + rows - 1) / kSparseBlock + 1; }
};

// Pages [begin, end) into the stages in turn.
template <typename Key>
__device__ void bring_keys(const IndexerArgs& a, const int32_t* table, Barriers& barriers, uint32_t stages,
                           int begin, int end) {
  const int thread = threadIdx.x % kGroupThreads;
  const auto wait_empty = [&](int n) {
    if (n >= kStages) {
      ptx::barrier_wait(ptx::shared_address(&barriers.empty[n % kStages]),
                        static_cast<uint32_t>(n / kStages - 1) & 1);
    }
  };
  const auto announce = [&](int n) {
    ptx::fence_shared_async();
    ptx::barrier_arrive(ptx::shared_address(&barriers.full[n % kStages]));
  };
  const auto page_at = [&](int n) {
    return static_cast<const Key*>(a.index_cache) + int64_t{table[n]} * kSparseBlock * kSparseDim;
  };
  const int count = end - begin;
  if constexpr (sizeof(Key) == 2) {
    for (int n = 0; n < count; ++n) {
      wait_empty(n);
      const Key* from = page_at(begin + n);
      const uint32_t to = stages + static_cast<uint32_t>(n % kStages) * kKeyTileBytes;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const int at = i * kGroupThreads + thread;
        ptx::copy_async_16(to + tile_place(kKeyBox, at / 16, at % 16), from + at * 8, true);
      }
      ptx::copy_async_commit();
      ptx::copy_async_wait<1>();
      if (n > 0) announce(n - 1);
    }
    ptx::copy_async_wait<0>();
    if (count > 0) announce(count - 1);
  } else {
    uint4 codes[8];
    const auto load = [&](int n) {
      const uint4* from = reinterpret_cast<const uint4*>(page_at(n));
#pragma unroll
      for (int i = 0; i < 8; ++i) codes[i] = from[i * kGroupThreads + thread];
    };
    if (count > 0) load(begin);
    for (int n = 0; n < count; ++n) {
      wait_empty(n);
      const uint32_t to = stages + static_cast<uint32_t>(n % kStages) * kKeyTileBytes;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int at = i * kGroupThreads + thread;
        store_codes(to, kKeyBox, at / 8, at % 8 * 2, codes[i]);
      }
      if (n + 1 < count) load(begin + n + 1);
      announce(n);
    }
  }
}

// A warpgroup's two tiles of 64 rows.
struct Scorer {
  const IndexerArgs& a;
  Barriers& barriers;
  const Tile& tile;
  uint32_t queries, stages;
  int begin;      // first page of this block
  int first_row;  // this lane's first row in the first tile

  __device__ void wait_full(int page) const {
    const int n = page - begin;
    ptx::barrier_wait(ptx::shared_address(&barriers.full[n % kStages]),
                      static_cast<uint32_t>(n / kStages) & 1);
  }
  __device__ uint32_t keys(int page) const {
    return stages + static_cast<uint32_t>((page - begin) % kStages) * kKeyTileBytes;
  }

  // Maxima of a tile and page; every four pages the lanes of a row write one each.
  template <bool kMasked>
  __device__ __forceinline__ void take(const float (&c)[64], int row, int page, int first, int last,
                                       float (&kept)[2]) const {
    const int quarter = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t token = (row + 8 * half) / kHeads;
      const int64_t left = tile.position + token - int64_t{page} * kSparseBlock - 2 * quarter;
      const int limit = static_cast<int>(min(left, int64_t{kSparseBlock}));
      float largest = -INFINITY;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float x = c[4 * j + 2 * half + e];
          largest = fmaxf(largest, !kMasked || 8 * j + e <= limit ? x : -INFINITY);
        }
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
      if (page % 4 == quarter) kept[half] = largest;
      const int own = page / 4 * 4 + quarter;
      const int head = (row + 8 * half) % kHeads;
      if ((page % 4 == 3 || page == last) && own >= first && own <= page && token < tile.rows &&
          head < a.scores.heads) {
        static_cast<float*>(
            a.scores.data)[(tile.first + token) * a.scores.token_stride + head * a.scores.head_stride + own] =
            kept[half];
      }
    }
  }

  // Pages [first, end).
  template <bool kMasked>
  __device__ __forceinline__ void run(int first, int end) const {
    if (first >= end) return;
    float c0[64], c1[64];
    float kept0[2] = {}, kept1[2] = {};
    // Products in flight at the end of a turn would make the compiler wait after every one.
    for (int page = first; page < end; ++page) {
      wait_full(page);
      start_scores(c0, queries, keys(page));
      start_scores(c1, queries + kQueryTileBytes, keys(page));
      ptx::wgmma_wait<1>();
      keep(c0);
      take<kMasked>(c0, first_row, page, first, end - 1, kept0);
      ptx::wgmma_wait<0>();
      keep(c1);
      if (threadIdx.x % 32 == 0)
        ptx::barrier_arrive(ptx::shared_address(&barriers.empty[(page - begin) % kStages]));
      take<kMasked>(c1, first_row + 64, page, first, end - 1, kept1);
    }
  }
};

// -inf for all blocks from `valid` on of rows [first, first + rows), a warp a row and head.
__device__ void fill(const IndexerArgs& a, int64_t first, int64_t rows, int64_t valid) {
  for (int64_t i = threadIdx.x / 32; i < rows * a.scores.heads; i += blockDim.x / 32) {
    float* to = static_cast<float*>(a.scores.data) + (first + i / a.scores.heads) * a.scores.token_stride +
                i % a.scores.heads * a.scores.head_stride;
    for (int64_t block = valid + threadIdx.x % 32; block < a.scores.dim; block += 32) to[block] = -INFINITY;
  }
}

template <typename Q, typename Key>
__device__ void score(const IndexerArgs& a) {
  extern __shared__ uint8_t shared_bytes[];
  __shared__ Barriers barriers;
  // The last rows have most to do and come first.
  const Tile tile(a.batch, int64_t{gridDim.x} - 1 - blockIdx.x);
  const bool is_last_part = blockIdx.y + 1 == gridDim.y;
  ptx::wait_for_previous_kernel();
  if (tile.sequence < 0) {
    const int64_t used = a.batch.query_starts[a.batch.sequences];
    if (tile.is_first_left_over && is_last_part) fill(a, used, a.scores.tokens - used, 0);
    return;
  }
  const int64_t pages = tile.pages();
  const int begin = static_cast<int>(pages * blockIdx.y / gridDim.y);
  const int end = static_cast<int>(pages * (blockIdx.y + 1) / gridDim.y);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::barrier_init(ptx::shared_address(&barriers.full[i]), kGroupThreads);
      ptx::barrier_init(ptx::shared_address(&barriers.empty[i]), kConsumers * 4);
    }
    ptx::barrier_init_fence();
  }
  const uint32_t base = (ptx::shared_address(shared_bytes) + 1023) / 1024 * 1024;
  constexpr int kRows = kTokens * kHeads;
  constexpr int kChunks = sizeof(Q) == 2 ? 16 : 8;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const int token = row / kHeads;
    const bool is_there = token < tile.rows && row % kHeads < a.index_q.heads;
    const Q* from =
        static_cast<const Q*>(a.index_q.data) +
        (is_there ? (tile.first + token) * a.index_q.token_stride + row % kHeads * a.index_q.head_stride
                  : 0) +
        chunk * (16 / static_cast<int>(sizeof(Q)));
    const uint32_t to = base + static_cast<uint32_t>(row / 64) * kQueryTileBytes;
    if constexpr (sizeof(Q) == 2) {
      ptx::copy_async_16(to + tile_place(kQueryBox, row % 64, chunk), from, is_there);
    } else {
      const uint2 none = {0, 0};
      const uint2 low = is_there ? *reinterpret_cast<const uint2*>(from) : none;
      const uint2 high = is_there ? *reinterpret_cast<const uint2*>(from + 8) : none;
      store_codes(to, kQueryBox, row % 64, chunk * 2, {low.x, low.y, high.x, high.y});
    }
  }
  ptx::copy_async_commit();
  ptx::copy_async_wait<0>();
  ptx::fence_shared_async();
  __syncthreads();

  const uint32_t stages = base + kRows / 64 * kQueryTileBytes;
  const int group = threadIdx.x / kGroupThreads;
  if (group == kConsumers) {
    bring_keys<Key>(a, a.batch.block_table + tile.sequence * a.batch.table_stride, barriers, stages, begin,
                    end);
  } else {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const Scorer scorer{a,
                        barriers,
                        tile,
                        base + static_cast<uint32_t>(group) * 2 * kQueryTileBytes,
                        stages,
                        begin,
                        group * 128 + warp * 16 + lane / 4};
    // Pages that all rows see as a whole, then those they end in.
    const int whole = max(begin, min(end, static_cast<int>((tile.position + 1) / kSparseBlock)));
    scorer.run<false>(begin, whole);
    scorer.run<true>(whole, end);
  }
  if (is_last_part) fill(a, tile.first, tile.rows, pages);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename Q, typename Key>
__global__ void __launch_bounds__(kThreads, 1) block_scores_sm90_kernel(IndexerArgs a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  score<Q, Key>(a);
#else
  __trap();
#endif
}

}  // namespace

void launch_block_scores_sm90(const IndexerArgs& a, int multiprocessors, cudaStream_t stream) {
  if (a.scores.tokens * a.scores.dim == 0) return;
  const auto with_types = [&]<typename Q, typename Key>(Q, Key) {
    cudaFuncSetAttribute(block_scores_sm90_kernel<Q, Key>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         kBytes);
    // No sequence has more tiles than its rows fill, and one begun.
    const int64_t full = ceil_div(a.scores.tokens, kTokens);
    const int64_t tiles = full + (a.batch.sequences < a.scores.tokens ? a.batch.sequences : a.scores.tokens);
    int64_t parts = ceil_div(4 * int64_t{multiprocessors}, full);
    const int64_t most = ceil_div(a.scores.dim, 8);
    if (parts > most) parts = most;
    launch(block_scores_sm90_kernel<Q, Key>, dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(parts)),
           kThreads, kBytes, stream, a);
  };
  const bool q_is_bf16 = a.index_q.scalar == Scalar::kBF16;
  if (a.index_scalar == Scalar::kBF16) {
    q_is_bf16 ? with_types(bf16_t{}, bf16_t{}) : with_types(e4m3_t{}, bf16_t{});
  } else {
    q_is_bf16 ? with_types(bf16_t{}, e4m3_t{}) : with_types(e4m3_t{}, e4m3_t{});
  }
}

}  // namespace minimax::cuda
