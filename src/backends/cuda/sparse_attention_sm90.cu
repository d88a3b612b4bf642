// Attention of prompts to their chosen blocks, block by block, on Hopper's warpgroups.
//
// Row by row every row would read its 16 blocks of keys and values: at 64k tokens 275 GB, from the cache at
// best. So the choice is turned around: for each KV head and block the list of rows that chose it. Keys and
// values of a block stay in shared memory while those rows pass by, four rows of 16 heads as one tile of 64;
// each row's result for the block, a numerator divided by its own sum, and log2 of that sum, goes to the
// workspace, and a second kernel adds up a row's results. Numerators are F16 times a power of two for each
// head: three bits more than BF16, whose rounding would show. Rows are taken in chunks, so that the workspace
// stays bounded.
//
// The lists come from atomic counters and have no fixed order, but what is computed for a row and block does
// not depend on its place in them, and is added up in the order of blocks: results are the same in every run.
#include "backends/cuda/sparse_sm90.cuh"

namespace minimax::cuda {
namespace {

constexpr int kGroup = 16;
constexpr int kConsumers = 3;
constexpr int kThreads = kConsumers * kGroupThreads;
constexpr int kTileRows = 4;  // one a warp
// Most rows of an item of work: a block and some that chose it.
constexpr int kItemRows = 192;
static_assert(kItemRows % kTileRows == 0);
constexpr int64_t kChunkRows = 4096;                // at most: a gigabyte of results
constexpr uint32_t kPairBytes = 2 * kKeyTileBytes;  // keys and values of a block
constexpr int kBytes = 2 * kPairBytes + 2 * kConsumers * kQueryTileBytes + 1024;
constexpr int64_t kUnitBytes = kGroup * kSparseDim * 2;  // a row's numerators for one block and KV head
constexpr int kScanThreads = 1024;
constexpr int kAnyThreads = 256;

struct __align__(16) Item {
  int32_t page;
  int32_t kv_head;
  int32_t first;  // in the chunk's list
  int32_t rows;
  int32_t first_key;  // position of the block's first key
  int32_t shift;      // from rows of the batch to positions
  int32_t keys;       // of the sequence from the first key on
  int32_t unused;
};
static_assert(sizeof(Item) == 32);

// Of a row's head for one block: the softmax's sum, and what its numerators are to be multiplied with.
struct __align__(8) Weight {
  float log_sum;
  float unscale;
};

// Pieces of the workspace. A bucket is a sequence, block and KV head.
struct Plan {
  int64_t rows, selected, kv_heads, chunks, chunk_rows, buckets, entries, items;
  int64_t counts_at, tickets_at, starts_at, item_counts_at, list_at, items_at, weights_at, units_at, bytes;

  __host__ __device__ Plan(int64_t rows_, int64_t kv_heads_, int64_t selected_, int64_t sequences,
                           int64_t max_pages)
      : rows(rows_), selected(selected_), kv_heads(kv_heads_) {
    chunk_rows = rows < kChunkRows ? rows : kChunkRows;
    chunks = ceil_div(rows, chunk_rows);
    buckets = sequences * max_pages * kv_heads;
    entries = chunk_rows * kv_heads * selected;
    items = entries / kItemRows + (buckets < entries ? buckets : entries);
    int64_t at = 0;
    const auto take = [&](int64_t size) {
      const int64_t begin = at;
      at += ceil_div(size, 256) * 256;
      return begin;
    };
    counts_at = take(chunks * buckets * 4);
    tickets_at = take(chunks * 4);
    starts_at = take(chunks * buckets * 4);
    item_counts_at = take(chunks * 4);
    list_at = take(chunks * entries * 4);
    items_at = take(chunks * items * static_cast<int64_t>(sizeof(Item)));
    weights_at = take(chunk_rows * kv_heads * selected * kGroup * static_cast<int64_t>(sizeof(Weight)));
    units_at = take(chunk_rows * kv_heads * selected * kUnitBytes);
    bytes = at;
  }
};

struct Params {
  AttentionArgs a;
  Plan plan;
  uint8_t* workspace;

  template <typename T>
  __device__ T* at(int64_t offset) const {
    return reinterpret_cast<T*>(workspace + offset);
  }
};

// Adds every choice to its bucket's count, or, when `writes`, to its list. One thread a choice.
template <bool kWrites>
__global__ void __launch_bounds__(kAnyThreads) sparse_lists_kernel(const __grid_constant__ Params p) {
  const int64_t i = int64_t{blockIdx.x} * kAnyThreads + threadIdx.x;
  ptx::wait_for_previous_kernel();
  if (i >= p.plan.rows * p.plan.kv_heads * p.plan.selected) return;
  const int32_t block = p.a.selection[i];
  if (block < 0) return;
  const int64_t head_row = i / p.plan.selected;
  const int64_t t = head_row / p.plan.kv_heads, kv_head = head_row % p.plan.kv_heads;
  // The list ends at its first -1.
  const int64_t slot = i % p.plan.selected;
  for (int64_t j = 0; j < slot; ++j) {
    if (p.a.selection[i - slot + j] < 0) return;
  }
  const int64_t b = sequence_of(p.a.batch, t);
  if (b < 0) return;
  const int64_t chunk = t / p.plan.chunk_rows;
  const int64_t bucket = (b * p.a.batch.max_pages + block) * p.plan.kv_heads + kv_head;
  int32_t* counter =
      p.at<int32_t>(kWrites ? p.plan.starts_at : p.plan.counts_at) + chunk * p.plan.buckets + bucket;
  const int32_t place = atomicAdd(counter, 1);
  if (kWrites) {
    const int64_t row = t - chunk * p.plan.chunk_rows;
    p.at<int32_t>(p.plan.list_at)[chunk * p.plan.entries + place] =
        static_cast<int32_t>(row * p.plan.selected + slot);
  }
}

// Where each bucket's list begins, and the items of work. One block of threads a chunk.
__global__ void __launch_bounds__(kScanThreads) sparse_items_kernel(const __grid_constant__ Params p) {
  __shared__ int32_t sums[2][kScanThreads / 32];
  const int64_t chunk = blockIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  ptx::wait_for_previous_kernel();
  const int32_t* counts = p.at<int32_t>(p.plan.counts_at) + chunk * p.plan.buckets;
  int32_t* starts = p.at<int32_t>(p.plan.starts_at) + chunk * p.plan.buckets;
  Item* items = p.at<Item>(p.plan.items_at) + chunk * p.plan.items;
  int32_t rows_before = 0, items_before = 0;
  for (int64_t base = 0; base < p.plan.buckets; base += kScanThreads) {
    const int64_t bucket = base + threadIdx.x;
    const int32_t rows = bucket < p.plan.buckets ? counts[bucket] : 0;
    const int32_t own = (rows + kItemRows - 1) / kItemRows;
    int32_t row_sum = rows, item_sum = own;
    for (int i = 1; i < 32; i <<= 1) {
      const int32_t x = __shfl_up_sync(0xffffffffU, row_sum, i), y = __shfl_up_sync(0xffffffffU, item_sum, i);
      if (lane >= i) {
        row_sum += x;
        item_sum += y;
      }
    }
    __syncthreads();
    if (lane == 31) {
      sums[0][warp] = row_sum;
      sums[1][warp] = item_sum;
    }
    __syncthreads();
    int32_t all_rows = 0, all_items = 0;
    for (int w = 0; w < kScanThreads / 32; ++w) {
      if (w < warp) {
        row_sum += sums[0][w];
        item_sum += sums[1][w];
      }
      all_rows += sums[0][w];
      all_items += sums[1][w];
    }
    const int32_t first = rows_before + row_sum - rows;
    if (bucket < p.plan.buckets) starts[bucket] = first;
    const int64_t place = bucket / p.plan.kv_heads;
    const int64_t b = place / p.a.batch.max_pages, block = place % p.a.batch.max_pages;
    // Items of one size, so that none is much smaller.
    for (int32_t i = 0; i < own; ++i) {
      const auto begin = static_cast<int32_t>(int64_t{rows} * i / own);
      const auto end = static_cast<int32_t>(int64_t{rows} * (i + 1) / own);
      const auto first_key = static_cast<int32_t>(block * kSparseBlock);
      items[items_before + item_sum - own + i] = {p.a.batch.block_table[b * p.a.batch.table_stride + block],
                                                  static_cast<int32_t>(bucket % p.plan.kv_heads),
                                                  first + begin,
                                                  end - begin,
                                                  first_key,
                                                  p.a.batch.seq_lens[b] - p.a.batch.query_starts[b + 1],
                                                  p.a.batch.seq_lens[b] - first_key,
                                                  0};
    }
    rows_before += all_rows;
    items_before += all_items;
  }
  if (threadIdx.x == 0) {
    p.at<int32_t>(p.plan.item_counts_at)[chunk] = items_before;
    p.at<int32_t>(p.plan.tickets_at)[chunk] = 0;
  }
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// An item and its number of tiles; -1 when there is none left.
struct Work {
  Item item;
  int tiles;

  __device__ void set(const Item* items, int32_t count, int32_t number) {
    tiles = -1;
    if (number >= count) return;
    item = items[number];
    tiles = (item.rows + kTileRows - 1) / kTileRows;
  }
};

template <typename Cache>
__device__ __forceinline__ void bring_block(const Params& p, const Work& work, uint32_t to) {
  const int64_t row_numbers = p.a.cache.kv_heads * kSparseDim;
  const int64_t first = work.item.page * kSparseBlock * row_numbers + work.item.kv_head * kSparseDim;
  const Cache* k = static_cast<const Cache*>(p.a.cache.k) + first;
  const Cache* v = static_cast<const Cache*>(p.a.cache.v) + first;
  // Zeros for values behind the sequence's end: 0 times whatever lies there is not 0.
  const int left = work.item.keys;
  if constexpr (sizeof(Cache) == 2) {
    for (int i = static_cast<int>(threadIdx.x); i < kSparseBlock * 16; i += kThreads) {
      const int row = i / 16, chunk = i % 16;
      const uint32_t place = to + tile_place(kKeyBox, row, chunk);
      ptx::copy_async_16(place, k + row * row_numbers + chunk * 8, true);
      ptx::copy_async_16(place + kKeyTileBytes, v + row * row_numbers + chunk * 8, row < left);
    }
  } else {
#pragma unroll 3
    for (int i = static_cast<int>(threadIdx.x); i < kSparseBlock * 8; i += kThreads) {
      const int row = i / 8, piece = i % 8;
      const uint4 keys = *reinterpret_cast<const uint4*>(k + row * row_numbers + piece * 16);
      const uint4 values =
          row < left ? *reinterpret_cast<const uint4*>(v + row * row_numbers + piece * 16) : uint4{};
      store_codes(to, kKeyBox, row, piece * 2, keys);
      store_codes(to + kKeyTileBytes, kKeyBox, row, piece * 2, values);
    }
  }
}

// Entries of an item's list to shared memory.
__device__ __forceinline__ void bring_list(const Params& p, int64_t chunk, const Work& work, int32_t* to) {
  const int32_t* from = p.at<int32_t>(p.plan.list_at) + chunk * p.plan.entries + work.item.first;
  for (int i = static_cast<int>(threadIdx.x); i < work.item.rows; i += kThreads) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(ptx::shared_address(to + i)), "l"(from + i)
                 : "memory");
  }
}

// This warp's row of a tile: which, and which of its choices; row -1 for none.
struct Row {
  int32_t row = -1;  // of the chunk
  int32_t unit = 0;

  __device__ Row() {}
  // `list`: the item's, from its first row on.
  __device__ Row(const Params& p, const Work& work, const int32_t* list, int tile) {
    const int at = tile * kTileRows + static_cast<int>(threadIdx.x) / 32 % 4;
    if (tile < work.tiles && at < work.item.rows) set(p, work, list[at]);
  }
  __device__ void set(const Params& p, const Work& work, int32_t entry) {
    const auto selected = static_cast<int32_t>(p.plan.selected);
    row = entry / selected;
    unit = (row * static_cast<int32_t>(p.plan.kv_heads) + work.item.kv_head) * selected + entry % selected;
  }

  // Its 16 heads' queries to this warp's rows of a tile.
  __device__ void bring(const Params& p, int64_t chunk, int kv_head, uint32_t to) const {
    if (row < 0) return;
    const bf16_t* from = static_cast<const bf16_t*>(p.a.q.data) +
                         (chunk * p.plan.chunk_rows + row) * p.a.q.token_stride +
                         int64_t{kv_head} * kGroup * p.a.q.head_stride;
    const int lane = threadIdx.x % 32;
    const uint32_t first_row = threadIdx.x / 32 % 4 * 16;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int head = i * 2 + lane / 16, at = lane % 16;
      ptx::copy_async_16(to + tile_place(kQueryBox, first_row + head, at),
                         from + head * p.a.q.head_stride + at * 8, true);
    }
  }
};

// Weights of a tile in place of its scores, not yet divided by their sums. Of each half-warp's row: the sum,
// and log2 of it in terms of the softmax.
__device__ __forceinline__ void weigh(float (&c)[64], float scale, int limit, float (&inverse)[2],
                                      float (&log_sum)[2]) {
  if (limit < kSparseBlock - 1) {
    const int own = limit - 2 * (static_cast<int>(threadIdx.x) % 4);
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      if (i / 4 * 8 + i % 2 > own) c[i] = -INFINITY;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = -INFINITY;
#pragma unroll
    for (int j = 0; j < 16; ++j)
      largest = fmaxf(largest, fmaxf(c[4 * j + 2 * half], c[4 * j + 2 * half + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
    const float reference = largest == -INFINITY ? 0.0F : largest * scale;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = c[4 * j + 2 * half + e];
        x = exp2_approx(fmaf(x, scale, -reference));
        sum += x;
      }
    }
    sum += __shfl_xor_sync(0xffffffffU, sum, 1);
    sum += __shfl_xor_sync(0xffffffffU, sum, 2);
    inverse[half] = sum > 0 ? 1.0F / sum : 0.0F;
    log_sum[half] = reference + log2f(sum);
  }
}

// A row's result for one block, in the order in which the lanes hold it.
__device__ __forceinline__ void write_unit(const Params& p, int64_t unit, const float (&o)[64],
                                           const float (&inverse)[2], const float (&log_sum)[2]) {
  const int lane = threadIdx.x % 32;
  float scale[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = 0;
#pragma unroll
    for (int j = 0; j < 16; ++j)
      largest = fmaxf(largest, fmaxf(fabsf(o[4 * j + 2 * half]), fabsf(o[4 * j + 2 * half + 1])));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
    const float up = scale_for_half(largest * inverse[half]);
    scale[half] = inverse[half] * up;
    if (lane % 4 == 0)
      p.at<Weight>(p.plan.weights_at)[unit * kGroup + lane / 4 + 8 * half] = {log_sum[half], 1.0F / up};
  }
  uint4* to = p.at<uint4>(p.plan.units_at) + unit * (kUnitBytes / 16) + lane;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float* x = o + 8 * i;
    to[i * 32] = {pack_pair<e4m3_t>(x[0] * scale[0], x[1] * scale[0]),
                  pack_pair<e4m3_t>(x[2] * scale[1], x[3] * scale[1]),
                  pack_pair<e4m3_t>(x[4] * scale[0], x[5] * scale[0]),
                  pack_pair<e4m3_t>(x[6] * scale[1], x[7] * scale[1])};
  }
}

template <typename Cache>
__device__ void attend(const Params& p, int64_t chunk) {
  extern __shared__ uint8_t shared_bytes[];
  __shared__ int32_t numbers[3];
  __shared__ int32_t lists[2][kItemRows];
  ptx::wait_for_previous_kernel();
  const uint32_t base = (ptx::shared_address(shared_bytes) + 1023) / 1024 * 1024;
  const int group = threadIdx.x / kGroupThreads;
  const uint32_t queries = base + 2 * kPairBytes + static_cast<uint32_t>(group) * 2 * kQueryTileBytes;
  int32_t* ticket = p.at<int32_t>(p.plan.tickets_at) + chunk;
  const float scale = p.a.scale * 1.4426950408889634F;

  const Item* items = p.at<Item>(p.plan.items_at) + chunk * p.plan.items;
  const int32_t count = p.at<int32_t>(p.plan.item_counts_at)[chunk];

  // Numbers of the next items are known two items ahead, so that nobody waits for them.
  if (threadIdx.x < 3) numbers[threadIdx.x] = atomicAdd(ticket, 1);
  __syncthreads();
  Work work, next, later;
  work.set(items, count, numbers[0]);
  if (work.tiles < 0) return;
  next.set(items, count, numbers[1]);
  const int32_t* all_lists = p.at<int32_t>(p.plan.list_at) + chunk * p.plan.entries;
  bring_list(p, chunk, work, lists[0]);
  bring_block<Cache>(p, work, base);
  Row row(p, work, all_lists + work.item.first, group);
  int turn = 0;  // of the two query tiles
  row.bring(p, chunk, work.item.kv_head, queries);
  ptx::copy_async_commit();
  for (int n = 0; work.tiles >= 0; ++n) {
    // The block and the first queries have arrived; everybody is done with the block before.
    ptx::copy_async_wait<0>();
    ptx::fence_shared_async();
    __syncthreads();
    later.set(items, count, numbers[(n + 2) % 3]);
    int32_t number = 0;
    if (threadIdx.x == 0) number = atomicAdd(ticket, 1);
    const uint32_t keys = base + static_cast<uint32_t>(n % 2) * kPairBytes;
    const auto bring_next = [&] {
      if (next.tiles >= 0) {
        bring_list(p, chunk, next, lists[(n + 1) % 2]);
        bring_block<Cache>(p, next, base + static_cast<uint32_t>((n + 1) % 2) * kPairBytes);
      }
      ptx::copy_async_commit();
    };
    // The next item's first row of this warp, whose queries come while the last tile is worked on.
    Row first_of_next;
    const auto bring_first = [&] {
      first_of_next.bring(p, chunk, next.item.kv_head,
                          queries + static_cast<uint32_t>(turn) * kQueryTileBytes);
    };
    if (next.tiles >= 0) first_of_next = Row(p, next, all_lists + next.item.first, group);
    if (group >= work.tiles) {
      bring_next();
      bring_first();
    }
    for (int tile = group; tile < work.tiles; tile += kConsumers) {
      const bool is_last = tile + kConsumers >= work.tiles;
      const Row next_row = is_last ? first_of_next : Row(p, work, lists[n % 2], tile + kConsumers);
      next_row.bring(p, chunk, is_last ? next.item.kv_head : work.item.kv_head,
                     queries + static_cast<uint32_t>(turn ^ 1) * kQueryTileBytes);
      ptx::copy_async_commit();
      ptx::copy_async_wait<1>();
      ptx::fence_shared_async();
      ptx::named_barrier(1 + group, kGroupThreads);
      float c[64];
      start_scores(c, queries + static_cast<uint32_t>(turn) * kQueryTileBytes, keys);
      int limit = kSparseBlock;
      if (row.row >= 0) {
        limit = static_cast<int>(chunk * p.plan.chunk_rows) + row.row + work.item.shift - work.item.first_key;
      }
      ptx::wgmma_wait<0>();
      keep(c);
      if (tile == group) bring_next();
      float inverse[2], log_sum[2];
      weigh(c, scale, limit, inverse, log_sum);
      uint32_t weights[8][4];
#pragma unroll
      for (int s = 0; s < 8; ++s) {
#pragma unroll
        for (int i = 0; i < 4; ++i) weights[s][i] = pack_bf16(c[8 * s + 2 * i], c[8 * s + 2 * i + 1]);
      }
      float o[64];
      ptx::wgmma_fence();
#pragma unroll
      for (uint32_t s = 0; s < 8; ++s)
        ptx::wgmma_across_k(o, weights[s],
                            ptx::operand_across_k(keys + kKeyTileBytes + s * 16 * 128, kKeyBox), s > 0);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      keep(o);
      if (row.row >= 0) write_unit(p, row.unit, o, inverse, log_sum);
      row = next_row;
      turn ^= 1;
    }
    if (group >= work.tiles) row = first_of_next;
    if (threadIdx.x == 0) numbers[n % 3] = number;
    work = next;
    next = later;
  }
  ptx::copy_async_wait<0>();
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename Cache>
__global__ void __launch_bounds__(kThreads, 1)
    sparse_blocks_kernel(const __grid_constant__ Params p, int64_t chunk) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  attend<Cache>(p, chunk);
#else
  __trap();
#endif
}

// A warp adds up the results of a row and KV head.
__global__ void __launch_bounds__(kAnyThreads)
    sparse_sum_kernel(const __grid_constant__ Params p, int64_t chunk) {
  const int64_t at = int64_t{blockIdx.x} * (kAnyThreads / 32) + threadIdx.x / 32;
  const int64_t row = at / p.plan.kv_heads, kv_head = at % p.plan.kv_heads;
  const int64_t t = chunk * p.plan.chunk_rows + row;
  const int lane = threadIdx.x % 32;
  ptx::wait_for_previous_kernel();
  if (row >= p.plan.chunk_rows || t >= p.plan.rows) return;
  float sums[64] = {};
  if (t < p.a.batch.query_starts[p.a.batch.sequences]) {
    const auto selected = static_cast<int>(p.plan.selected);
    const int32_t* selection = p.a.selection + (t * p.plan.kv_heads + kv_head) * selected;
    const int64_t unit = at * selected;
    const Weight* weights = p.at<Weight>(p.plan.weights_at) + unit * kGroup + lane / 4;
    int count = 0;
    for (int i = 0; i < selected; i += 32) {
      const uint32_t ends = __ballot_sync(0xffffffffU, i + lane >= selected || selection[i + lane] < 0);
      count += ends == 0 ? 32 : __ffs(static_cast<int>(ends)) - 1;
      if (ends != 0) break;
    }
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll 8
    for (int s = 0; s < count; ++s) {
      largest[0] = fmaxf(largest[0], weights[s * kGroup].log_sum);
      largest[1] = fmaxf(largest[1], weights[s * kGroup + 8].log_sum);
    }
    float total[2] = {};
    const uint4* from = p.at<uint4>(p.plan.units_at) + unit * (kUnitBytes / 16) + lane;
#pragma unroll 2
    for (int s = 0; s < count; ++s, from += kUnitBytes / 16) {
      uint4 x[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = from[i * 32];
      float factor[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Weight w = weights[s * kGroup + 8 * half];
        factor[half] = exp2f(w.log_sum - largest[half]);
        total[half] += factor[half];
        factor[half] *= w.unscale;
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t words[4] = {x[i].x, x[i].y, x[i].z, x[i].w};
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[w]));
          sums[8 * i + 2 * w] += factor[w % 2] * pair.x;
          sums[8 * i + 2 * w + 1] += factor[w % 2] * pair.y;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 64; ++i) sums[i] *= 1.0F / total[i / 2 % 2];
  }
  bf16_t* out = static_cast<bf16_t*>(p.a.out.data) + t * p.a.out.token_stride +
                (kv_head * kGroup + lane / 4) * p.a.out.head_stride + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < 16; ++j) {
    *reinterpret_cast<uint32_t*>(out + 8 * j) = pack_bf16(sums[4 * j], sums[4 * j + 1]);
    *reinterpret_cast<uint32_t*>(out + 8 * p.a.out.head_stride + 8 * j) =
        pack_bf16(sums[4 * j + 2], sums[4 * j + 3]);
  }
}

constexpr int64_t kMostCounters = int64_t{1} << 26;
// Below this many rows, each reads its blocks by itself.
constexpr int64_t kFewestRows = 192;

Plan plan_of(const AttentionArgs& a) {
  return {a.q.tokens, a.cache.kv_heads, a.selected, a.batch.sequences, a.batch.max_pages};
}

}  // namespace

bool can_sparse_attention_sm90(const AttentionArgs& a) {
  if (!can_sparse_attention(a) || a.q.tokens < kFewestRows || a.q.tokens <= a.batch.sequences) return false;
  const Plan plan = plan_of(a);
  return plan.chunks * plan.buckets <= kMostCounters && a.selected <= 64;
}

int64_t sparse_attention_sm90_bytes(const AttentionArgs& a) { return plan_of(a).bytes; }

void launch_sparse_attention_sm90(const AttentionArgs& a, int multiprocessors, cudaStream_t stream) {
  const Params p = {a, plan_of(a), reinterpret_cast<uint8_t*>(a.partial)};
  const auto blocks = [](int64_t count, int64_t each) {
    return dim3(static_cast<unsigned>(ceil_div(count, each)));
  };
  cudaMemsetAsync(p.workspace + p.plan.counts_at, 0, static_cast<size_t>(p.plan.chunks * p.plan.buckets * 4),
                  stream);
  const int64_t choices = p.plan.rows * p.plan.kv_heads * p.plan.selected;
  launch(sparse_lists_kernel<false>, blocks(choices, kAnyThreads), kAnyThreads, 0, stream, p);
  launch(sparse_items_kernel, blocks(p.plan.chunks, 1), kScanThreads, 0, stream, p);
  launch(sparse_lists_kernel<true>, blocks(choices, kAnyThreads), kAnyThreads, 0, stream, p);
  const auto with_cache_type = [&]<typename Cache>(Cache) {
    cudaFuncSetAttribute(sparse_blocks_kernel<Cache>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    for (int64_t chunk = 0; chunk < p.plan.chunks; ++chunk) {
      launch(sparse_blocks_kernel<Cache>, blocks(multiprocessors, 1), kThreads, kBytes, stream, p, chunk);
      launch(sparse_sum_kernel, blocks(p.plan.chunk_rows * p.plan.kv_heads, kAnyThreads / 32), kAnyThreads, 0,
             stream, p, chunk);
    }
  };
  a.cache.scalar == Scalar::kE4m3 ? with_cache_type(e4m3_t{}) : with_cache_type(bf16_t{});
}

}  // namespace minimax::cuda
