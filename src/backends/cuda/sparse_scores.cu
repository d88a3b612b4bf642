// Scores of blocks on the tensor cores of any GPU: up to four index heads of 128 dimensions, blocks of 128
// keys.
//
// A warp takes pages in turn, 32 keys at a time, and waits for no other: a barrier for each page, with four
// warps at it, cost up to a third; only few pages are shared by the warps of a block. Pages whose keys are
// all older than this step's are asked for while the kernel before still runs, which writes none of them.
// Keys come by asynchronous copies, some steps ahead, into a queue in shared memory that every lane fills and
// empties by itself; all heads of two rows are the columns of one product. Pages are counted over all
// sequences, so that short and long ones load the chip alike; the grid follows from shapes.
#include "backends/cuda/sparse.cuh"

namespace minimax::cuda {
namespace {

constexpr int kHeads = 4;  // of a row's columns; what is not there counts as zeros
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int64_t kMostSequences = 1024;

constexpr int kStepKeys = 32;
constexpr int kPageSteps = kSparseBlock / kStepKeys;
template <typename Key>
constexpr int kStepBytes = kStepKeys* kSparseDim* static_cast<int>(sizeof(Key));
// Up to so many pages for each multiprocessor, one block on each takes them all: the others end at once, and
// in their room the kernel after this one asks for its first keys.
constexpr unsigned kFewPages = 4;
// Rows of a sequence that a warp takes for each page it reads.
constexpr int64_t kPartRows = 64;

// Pages that sequence b has keys in; none when no row from `first_row` on asks.
__device__ __forceinline__ int32_t pages_of(const Ragged& batch, int64_t b, int64_t first_row) {
  if (b >= batch.sequences) return 0;
  // Three loads at once, not one behind the others' condition.
  const int32_t first = batch.query_starts[b], end = batch.query_starts[b + 1], length = batch.seq_lens[b];
  return end - first <= first_row ? 0 : (length + kSparseBlock - 1) / kSparseBlock;
}

// All sequences' pages one behind the other, and the part of them that a warp takes.
struct Pages {
  int32_t starts[kMostSequences + 1];  // pages before a sequence's
  int32_t sums[kWarps];

  __device__ void count(const Ragged& batch, int64_t first_row) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const auto sequences = static_cast<int>(batch.sequences);
    const int each = (sequences + kThreads - 1) / kThreads;
    const int first = static_cast<int>(threadIdx.x) * each;
    int32_t own = 0;
    for (int i = first; i < min(first + each, sequences); ++i) own += pages_of(batch, i, first_row);
    int32_t sum = own;
    for (int i = 1; i < 32; i <<= 1) {
      const int32_t other = __shfl_up_sync(0xffffffffU, sum, i);
      if (lane >= i) sum += other;
    }
    if (lane == 31) sums[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; ++w) sum += sums[w];
    int32_t before = sum - own;
    for (int i = first; i < min(first + each, sequences); ++i) {
      starts[i] = before;
      before += pages_of(batch, i, first_row);
    }
    if (first < sequences && first + each >= sequences) starts[sequences] = before;
    __syncthreads();
  }
  // Blocks that take any.
  __device__ unsigned blocks(const Ragged& batch, unsigned few) const {
    return static_cast<unsigned>(starts[batch.sequences]) <= kFewPages * few ? few : gridDim.x;
  }
  // Where the part of a worker begins.
  __device__ int32_t begin(const Ragged& batch, unsigned worker, unsigned workers) const {
    const auto total = static_cast<unsigned>(starts[batch.sequences]);
    return static_cast<int32_t>(worker * (total / workers) + min(worker, total % workers));
  }
};

// A page in that order.
struct Place {
  int32_t at;
  int32_t sequence;

  __device__ Place(const Pages& pages, const Ragged& batch, int32_t place) : at(place), sequence(0) {
    auto high = static_cast<int32_t>(batch.sequences);  // the last sequence that starts at or before it
    while (high - sequence > 1) {
      const int32_t middle = (sequence + high) / 2;
      (pages.starts[middle] <= at ? sequence : high) = middle;
    }
  }
  __device__ int32_t page(const Pages& pages) const { return at - pages.starts[sequence]; }
  // REQUIRES: there is a next one.
  __device__ void advance(const Pages& pages) {
    ++at;
    while (pages.starts[sequence + 1] <= at) ++sequence;
  }
  __device__ int32_t cache_page(const Pages& pages, const Ragged& batch) const {
    return batch.block_table[sequence * batch.table_stride + page(pages)];
  }
  // Whether all its keys came before this step's.
  __device__ bool is_old(const Pages& pages, const Ragged& batch) const {
    const int32_t rows = batch.query_starts[sequence + 1] - batch.query_starts[sequence];
    return (page(pages) + 1) * kSparseBlock <= batch.seq_lens[sequence] - rows;
  }
};

// -inf for the blocks behind each row's sequence, by the block whose turn it is.
__device__ void fill_rest(const IndexerArgs& a, unsigned turn) {
  const int64_t blocks = a.scores.dim, quads = ceil_div(blocks, 4);
  const int64_t threads = int64_t{gridDim.x} * gridDim.y * kThreads;
  for (int64_t i = int64_t{turn} * kThreads + threadIdx.x; i < a.scores.tokens * quads; i += threads) {
    const int64_t t = i / quads, first = i % quads * 4;
    int64_t b = 0;
    const int64_t position = position_of(a.batch, t, b);
    const int64_t valid = position < 0 ? 0 : int64_t{pages_of(a.batch, b, 0)};
    if (first + 4 <= valid) continue;
    float* to = static_cast<float*>(a.scores.data) + t * a.scores.token_stride;
    for (int64_t g = 0; g < a.scores.heads; ++g) {
      for (int64_t n = max(first, valid); n < min(first + 4, blocks); ++n)
        to[g * a.scores.head_stride + n] = -INFINITY;
    }
  }
}

// Two rows of queries, four heads each, as the eight columns of a product.
template <typename Key>
struct Columns {
  uint32_t pairs[kSparseSteps][2];
  float unscale = 1;

  // Column lane / 4: head lane / 4 % 4 of row `row` + lane / 16; zeros from `end` and from the last head on.
  template <typename Q>
  __device__ void load(const Heads& q, int64_t row, int64_t end) {
    const int lane = threadIdx.x % 32;
    const int64_t t = row + lane / 16;
    const int head = lane / 4 % kHeads;
    const bool is_there = t < end && head < q.heads;
    const Q* from = static_cast<const Q*>(q.data) + t * q.token_stride + head * q.head_stride;
    float4 numbers[kSparseSteps];
    float largest = 0;
#pragma unroll
    for (int s = 0; s < kSparseSteps; ++s) {
      numbers[s] = is_there ? load_numbers(from + order_of<Key>(lane % 4, s)) : float4{0, 0, 0, 0};
      largest = fmaxf(largest, largest_of(numbers[s]));
    }
    float scale = 1;
    if constexpr (sizeof(Key) == 1 && sizeof(Q) == 2) {
      scale = scale_for_half(warp_max(largest));
      unscale = 1 / scale;
    }
#pragma unroll
    for (int s = 0; s < kSparseSteps; ++s) {
      pairs[s][0] = pack_pair<Key>(numbers[s].x * scale, numbers[s].y * scale);
      pairs[s][1] = pack_pair<Key>(numbers[s].z * scale, numbers[s].w * scale);
    }
  }
};

// Keys of one step.
template <typename Key>
struct Keys {
  uint4 rows[kStepKeys / 8][kRowLoads<Key>];  // rows lane / 4 + 8 i

  // Best products, in `out` so far, of the columns 2 (lane % 4) and the next with this lane's keys up to
  // `limit`.
  __device__ void take(const Columns<Key>& columns, int64_t limit, float (&out)[2]) const {
#pragma unroll
    for (int tile = 0; tile < kStepKeys / 16; ++tile) {
      float c[4] = {};
#pragma unroll
      for (int s = 0; s < kSparseSteps; ++s) {
        uint32_t a0, a1, a2, a3;
        step_pairs<Key>(rows[2 * tile], s, a0, a2);
        step_pairs<Key>(rows[2 * tile + 1], s, a1, a3);
        sparse_mma<Key>(c, a0, a1, a2, a3, columns.pairs[s][0], columns.pairs[s][1]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (static_cast<int>(threadIdx.x) % 32 / 4 + 16 * tile + 8 * (i / 2) <= limit)
          out[i % 2] = fmaxf(out[i % 2], c[i]);
      }
    }
  }
};
// The best of all lanes, in every lane.
__device__ __forceinline__ void best_of_lanes(float (&out)[2]) {
#pragma unroll
  for (int i = 4; i < 32; i <<= 1) {
    out[0] = fmaxf(out[0], __shfl_xor_sync(0xffffffffU, out[0], i));
    out[1] = fmaxf(out[1], __shfl_xor_sync(0xffffffffU, out[1], i));
  }
}

// `few`: blocks that take all pages when those are few.
template <typename Q, typename Key, int kQueueBytes>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    block_scores_kernel(IndexerArgs a, unsigned few) {
  constexpr int kStages = kQueueBytes / kWarps / kStepBytes<Key>;
  constexpr int kLoads = kStepKeys / 8 * kRowLoads<Key>;
  extern __shared__ __align__(16) uint8_t queue[];  // [warp][stage][load][lane] of 16 bytes
  __shared__ float best_of_rows[kWarps][kPartRows * kHeads];
  __shared__ Pages pages;
  ptx::start_next_kernel();
  // Lengths and pages are inputs of the step: no kernel writes them.
  pages.count(a.batch, blockIdx.y * kPartRows);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  // The first warps of all blocks come first.
  const unsigned blocks = pages.blocks(a.batch, few);
  const bool are_shared = static_cast<unsigned>(pages.starts[a.batch.sequences]) <= blocks;
  const unsigned worker = are_shared ? blockIdx.x : warp * blocks + blockIdx.x;
  const unsigned workers = are_shared ? blocks : blocks * kWarps;
  const int32_t begin = pages.begin(a.batch, worker, workers);
  const int32_t count = blockIdx.x < blocks ? pages.begin(a.batch, worker + 1, workers) - begin : 0;
  // Blocks with nothing to do make room; the last one waits.
  const unsigned turn = blockIdx.y * gridDim.x + (gridDim.x - 1 - blockIdx.x);  // to fill
  if (count == 0 && turn > 0 && int64_t{turn} * kThreads >= a.scores.tokens * ceil_div(a.scores.dim, 4))
    return;
  Place place(pages, a.batch, begin), ahead = place;
  int64_t next_page = count > 0 ? ahead.cache_page(pages, a.batch) : 0;

  const uint32_t base =
      ptx::shared_address(queue) + static_cast<uint32_t>(warp * (kQueueBytes / kWarps) + lane * 16);
  const int page_steps = are_shared ? kPageSteps / kWarps : kPageSteps;
  const int first_step = are_shared ? warp * page_steps : 0;
  const int32_t steps = count * page_steps;
  int32_t begun = 0;
  const Key* from_page = nullptr;
  const auto copy = [&] {
    if (begun < steps) {
      if (begun % page_steps == 0) {
        from_page = static_cast<const Key*>(a.index_cache) +
                    (next_page * kSparseBlock + lane / 4) * kSparseDim +
                    lane % 4 * (16 / static_cast<int>(sizeof(Key)));
        if (begun + page_steps < steps) {
          ahead.advance(pages);
          next_page = ahead.cache_page(pages, a.batch);
        }
      }
      const Key* from = from_page + (first_step + begun % page_steps) * kStepKeys * kSparseDim;
      const uint32_t to = base + static_cast<uint32_t>(begun % kStages * kStepBytes<Key>);
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        ptx::copy_async_16(to + i * 512,
                           from + i / kRowLoads<Key> * 8 * kSparseDim +
                               i % kRowLoads<Key> * (64 / static_cast<int>(sizeof(Key))),
                           true);
      }
      ++begun;
    }
    ptx::copy_async_commit();
  };
  Columns<Key> columns;
  int64_t loaded = -1;
  // Rows [first, end) of this part of the sequence; position of row t is t + shift.
  int64_t first = 0, end = 0, shift = 0;
  const auto enter = [&] {
    const int64_t b = place.sequence, last = a.batch.query_starts[b + 1];
    first = a.batch.query_starts[b] + blockIdx.y * kPartRows;
    end = min(last, first + kPartRows);
    shift = a.batch.seq_lens[b] - last;
  };
  if (count > 0) enter();
  // The kernel before writes no key but this step's.
  int ready = 0;
  while (ready < kStages - 1 && (begun >= steps || begun % page_steps > 0 || ahead.is_old(pages, a.batch))) {
    copy();
    ++ready;
  }
  ptx::wait_for_previous_kernel();
  for (; ready < kStages - 1; ++ready) copy();
  fill_rest(a, turn);

  const auto use_columns = [&](int64_t row) {
    if (row == loaded) return;
    columns.template load<Q>(a.index_q, row, end);
    loaded = row;
  };
  const auto write = [&](int64_t t, int head, int32_t page, float score) {
    if (t < end && head < a.scores.heads)
      static_cast<float*>(a.scores.data)[t * a.scores.token_stride + head * a.scores.head_stride + page] =
          score;
  };
  float best[2] = {-INFINITY, -INFINITY};
  for (int32_t n = 0; n < steps; ++n) {
    copy();
    ptx::copy_async_wait<kStages - 1>();
    Keys<Key> keys;
    const uint32_t from = base + static_cast<uint32_t>(n % kStages * kStepBytes<Key>);
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
      keys.rows[i / kRowLoads<Key>][i % kRowLoads<Key>] = load_private(from + i * 512);

    const int32_t page = place.page(pages);
    const int step = n % page_steps;
    const bool is_page_done = step == page_steps - 1;
    // Position of row t, counted from the first of these keys, is t + left.
    const int64_t left = shift - int64_t{page} * kSparseBlock - (first_step + step) * kStepKeys;
    if (end - first <= 2) {
      use_columns(first);
      keys.take(columns, first + lane % 4 / 2 + left, best);
      if (is_page_done) {
        best_of_lanes(best);
        if (lane < 4) {
          best_of_rows[warp][2 * lane] = best[0] * columns.unscale;
          best_of_rows[warp][2 * lane + 1] = best[1] * columns.unscale;
        }
        best[0] = best[1] = -INFINITY;
      }
    } else {
      for (int64_t row = first; row < end; row += 2) {
        float found[2] = {-INFINITY, -INFINITY};
        if (row + 1 + left >= 0) {
          use_columns(row);
          keys.take(columns, row + lane % 4 / 2 + left, found);
          best_of_lanes(found);
          found[0] *= columns.unscale;
          found[1] *= columns.unscale;
        }
        if (lane < 4) {
          float* so_far = best_of_rows[warp] + (row - first) * kHeads + 2 * lane;
          so_far[0] = step == 0 ? found[0] : fmaxf(so_far[0], found[0]);
          so_far[1] = step == 0 ? found[1] : fmaxf(so_far[1], found[1]);
        }
      }
    }
    if (is_page_done) {
      are_shared ? __syncthreads() : __syncwarp();
      for (int i = are_shared ? static_cast<int>(threadIdx.x) : lane; i < (end - first) * kHeads;
           i += are_shared ? kThreads : 32) {
        float score = best_of_rows[warp][i];
        if (are_shared) {
          for (int w = 0; w < kWarps; ++w) score = fmaxf(score, best_of_rows[w][i]);
        }
        write(first + i / kHeads, i % kHeads, page, score);
      }
      are_shared ? __syncthreads() : __syncwarp();
    }
    if (is_page_done && n + 1 < steps) {
      const int32_t sequence = place.sequence;
      place.advance(pages);
      if (place.sequence != sequence) enter();
    }
  }
  ptx::copy_async_wait<0>();
}

}  // namespace

bool can_block_scores(const IndexerArgs& a) {
  const Heads& q = a.index_q;
  return a.batch.sequences > 0 && a.batch.sequences <= kMostSequences && a.block_size == kSparseBlock &&
         q.dim == kSparseDim && q.heads <= kHeads &&
         (q.scalar == Scalar::kBF16 || q.scalar == Scalar::kE4m3) &&
         (a.index_scalar == Scalar::kBF16 || a.index_scalar == Scalar::kE4m3) && q.token_stride % 8 == 0 &&
         q.head_stride % 8 == 0 && reinterpret_cast<uintptr_t>(q.data) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(a.index_cache) % 16 == 0;
}

void launch_block_scores(const IndexerArgs& a, int multiprocessors, cudaStream_t stream) {
  if (a.scores.tokens * a.scores.dim == 0) return;
  const auto with_types = [&]<typename Q, typename Key>(Q, Key) {
    const int64_t parts = ceil_div(a.scores.tokens, kPartRows);
    int64_t blocks = multiprocessors * kBlocksPerMultiprocessor;
    if (a.scores.tokens > a.batch.sequences && parts > 1) blocks = ceil_div(8 * blocks, parts);
    const int64_t most = a.batch.sequences * a.scores.dim;
    if (blocks > most) blocks = most;
    const auto few = static_cast<unsigned>(blocks < multiprocessors ? blocks : multiprocessors);
    const auto with_queue = [&](auto* kernel, int bytes) {
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      launch(kernel, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(parts)), kThreads,
             static_cast<size_t>(bytes), stream, a, few);
    };
    has_wide_queue() ? with_queue(block_scores_kernel<Q, Key, kWideQueue>, kWideQueue)
                     : with_queue(block_scores_kernel<Q, Key, kNarrowQueue>, kNarrowQueue);
  };
  const bool q_is_bf16 = a.index_q.scalar == Scalar::kBF16;
  if (a.index_scalar == Scalar::kBF16) {
    q_is_bf16 ? with_types(bf16_t{}, bf16_t{}) : with_types(e4m3_t{}, bf16_t{});
  } else {
    q_is_bf16 ? with_types(bf16_t{}, e4m3_t{}) : with_types(e4m3_t{}, e4m3_t{});
  }
}

}  // namespace minimax::cuda
