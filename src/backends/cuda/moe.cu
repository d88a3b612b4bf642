// Mixture of experts: the order of tokens by expert, and expert MLPs for few and for many tokens. A pair is
// one of a token's choices, t * top_k + j; its place is where it stands among all pairs in the order of
// experts.
#include "backends/cuda/codes_ring.cuh"
#include "backends/cuda/expert_sum.h"
#include "backends/cuda/expert_tile.cuh"
#include "backends/cuda/experts.cuh"
#include "backends/cuda/rows_product.cuh"
#include "backends/cuda/tile_product.cuh"

namespace minimax::cuda {
namespace {

// --- order

constexpr int kOrderThreads = 1024;
constexpr int64_t kFewPairs = 1024;

__device__ int32_t warp_prefix_sum(int32_t x) {
  for (int i = 1; i < 32; i <<= 1) {
    const int32_t left = __shfl_up_sync(0xffffffffU, x, i);
    if (static_cast<int>(threadIdx.x % 32) >= i) x += left;
  }
  return x;
}

// The pairs of expert e from `at` on, in their order; all lanes of a warp call it.
__device__ void collect_pairs(const MoeArgs& a, int64_t e, int32_t at) {
  const int lane = threadIdx.x % 32;
  const int64_t pairs = a.x.rows * a.top_k;
  for (int64_t base = 0; base < pairs; base += 32) {
    const int64_t p = base + lane;
    const bool is_its = p < pairs && expert_of(a, p) == e;
    const uint32_t mask = __ballot_sync(0xffffffffU, is_its);
    if (is_its) {
      const int32_t place = at + __popc(mask & ((1U << lane) - 1U));
      a.order.pairs[place] = static_cast<int32_t>(p);
      a.order.places[p] = place;
    }
    at += __popc(mask);
  }
}

// Where each expert's pairs and tiles begin and which experts have any, from their counts. One warp.
__device__ void settle_starts(const MoeArgs& a, const int32_t* counts) {
  const int lane = threadIdx.x % 32;
  int32_t before = 0, active = 0, tiles_before = 0;
  for (int64_t base = 0; base < a.experts; base += 32) {
    const int64_t e = base + lane;
    const int32_t count = e < a.experts ? counts[e] : 0;
    const int32_t tiles = (count + kExpertTileRows - 1) / kExpertTileRows;
    const int32_t upto = warp_prefix_sum(count), tiles_upto = warp_prefix_sum(tiles);
    const uint32_t with_pairs = __ballot_sync(0xffffffffU, count > 0);
    if (e < a.experts) {
      a.order.starts[e] = before + upto - count;
      a.order.tiles[e] = tiles_before + tiles_upto - tiles;
    }
    if (count > 0)
      a.order.active[active + __popc(with_pairs & ((1U << lane) - 1U))] = static_cast<int32_t>(e);
    active += __popc(with_pairs);
    before += __shfl_sync(0xffffffffU, upto, 31);
    tiles_before += __shfl_sync(0xffffffffU, tiles_upto, 31);
  }
  if (lane == 0) {
    a.order.starts[a.experts] = before;
    a.order.tiles[a.experts] = tiles_before;
  }
  if (lane == 0) a.order.active[a.experts] = active;
}

// Adds pairs first .. end - 1 to the counts of their experts.
__device__ void count_pairs(const MoeArgs& a, int64_t first, int64_t end, int32_t* counts) {
  for (int64_t e = threadIdx.x; e < a.experts; e += blockDim.x) counts[e] = 0;
  __syncthreads();
  for (int64_t p = first + threadIdx.x; p < end; p += blockDim.x) {
    const int64_t e = expert_of(a, p);
    if (e >= 0) {
      atomicAdd(&counts[e], 1);
    } else {
      a.order.places[p] = -1;
    }
  }
  __syncthreads();
}

// The order of few pairs, in one block.
__global__ void __launch_bounds__(kOrderThreads) expert_order_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  extern __shared__ int32_t counts[];
  count_pairs(a, 0, a.x.rows * a.top_k, counts);
  if (threadIdx.x < 32) settle_starts(a, counts);
  __syncthreads();
  for (int64_t e = threadIdx.x / 32; e < a.experts; e += kOrderThreads / 32)
    if (counts[e] > 0) collect_pairs(a, e, a.order.starts[e]);
}

// Many pairs, in stretches of kFewPairs, one a block: counts [stretches, experts], ..
__global__ void stretch_counts_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  extern __shared__ int32_t counts[];
  const int64_t pairs = a.x.rows * a.top_k, first = blockIdx.x * kFewPairs;
  count_pairs(a, first, min(first + kFewPairs, pairs), counts);
  for (int64_t e = threadIdx.x; e < a.experts; e += blockDim.x)
    a.order.counts[blockIdx.x * a.experts + e] = counts[e];
}

// .. which become counts of the stretches before; ..
__global__ void __launch_bounds__(kOrderThreads) stretch_starts_kernel(MoeArgs a, int64_t stretches) {
  ptx::wait_for_previous_kernel();
  extern __shared__ int32_t counts[];
  for (int64_t e = threadIdx.x; e < a.experts; e += blockDim.x) {
    int32_t before = 0;
    constexpr int kAtOnce = 16;
    for (int64_t first = 0; first < stretches; first += kAtOnce) {
      int32_t* at = a.order.counts + first * a.experts + e;
      int32_t own[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) own[i] = first + i < stretches ? at[i * a.experts] : 0;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (first + i < stretches) at[i * a.experts] = before;
        before += own[i];
      }
    }
    counts[e] = before;
  }
  __syncthreads();
  if (threadIdx.x < 32) settle_starts(a, counts);
}

// .. then a pair's place follows from the pairs before it in its stretch.
__global__ void __launch_bounds__(kFewPairs) stretch_places_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  extern __shared__ int32_t counts[];  // [warps, experts]
  constexpr int kWarps = kFewPairs / 32;
  for (int64_t i = threadIdx.x; i < kWarps * a.experts; i += kFewPairs) counts[i] = 0;
  __syncthreads();
  const int64_t p = blockIdx.x * kFewPairs + threadIdx.x;
  const int expert = p < a.x.rows * a.top_k ? static_cast<int>(expert_of(a, p)) : -1;
  const uint32_t same = __match_any_sync(0xffffffffU, expert);
  const int rank = __popc(same & ((1U << (threadIdx.x % 32)) - 1U));
  int32_t* own = counts + threadIdx.x / 32 * a.experts + expert;
  if (expert >= 0 && rank == 0) *own = __popc(same);
  __syncthreads();
  for (int64_t e = threadIdx.x; e < a.experts; e += kFewPairs) {
    int32_t before = a.order.starts[e] + a.order.counts[blockIdx.x * a.experts + e];
    for (int w = 0; w < kWarps; ++w) {
      const int32_t count = counts[w * a.experts + e];
      counts[w * a.experts + e] = before;
      before += count;
    }
  }
  __syncthreads();
  if (expert < 0) return;
  a.order.pairs[*own + rank] = static_cast<int32_t>(p);
  a.order.places[p] = *own + rank;
}

// --- F32 arithmetic, any format

template <typename X>
__device__ float dot_row(const WeightView& w, int64_t n, const X* x) {
  float sum = 0;
  for (int64_t k = threadIdx.x % 32; k < w.columns; k += 32) sum += weight_at(w, n, k) * to_f32(x[k]);
  return warp_sum(sum);
}

constexpr int kAnyWarps = 8;

// hidden [place, I], one warp an element.
template <typename X>
__global__ void moe_any_up_kernel(MoeArgs a) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kAnyWarps + threadIdx.x / 32;
  if (n >= a.intermediate) return;
  for (int64_t place = blockIdx.y; place < a.order.starts[a.experts]; place += gridDim.y) {
    const int64_t pair = a.order.pairs[place];
    const ExpertPointers& expert = a.table[expert_of(a, pair)];
    const X* x = static_cast<const X*>(a.x.data) + pair / a.top_k * a.x.stride;
    const float gate = dot_row(expert.w1, n, x), up = dot_row(expert.w3, n, x);
    if (threadIdx.x % 32 == 0)
      static_cast<float*>(a.hidden)[place * a.intermediate + n] = swiglu(a.swiglu, gate, up);
  }
}

__global__ void moe_any_down_kernel(MoeArgs a) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kAnyWarps + threadIdx.x / 32;
  if (n >= a.out.columns) return;
  for (int64_t place = blockIdx.y; place < a.order.starts[a.experts]; place += gridDim.y) {
    const ExpertPointers& expert = a.table[expert_of(a, a.order.pairs[place])];
    const float y = dot_row(expert.w2, n, static_cast<const float*>(a.hidden) + place * a.intermediate);
    if (threadIdx.x % 32 == 0) a.partial[place * a.out.columns + n] = y;
  }
}

// --- few tokens

constexpr int kTinyPairs = 32;

// The pairs that chose one expert, as the lanes of a warp or as a stretch of the order.
struct ExpertPairs {
  int64_t expert = -1;
  int32_t count = 0;
  uint32_t lanes = 0;              // kTiny: pair p is bit p
  const int32_t* pairs = nullptr;  // else

  template <bool kTiny>
  __device__ int32_t at(int32_t i) const {
    if (!kTiny) return pairs[i];
    uint32_t rest = lanes;
    for (; i > 0; --i) rest &= rest - 1;
    return __ffs(static_cast<int>(rest)) - 1;
  }
};

// Of the index-th expert that has pairs. kTiny: at most 32 pairs, which need no order made before: every warp
// finds it by itself, experts in the order in which they are first chosen.
template <bool kTiny>
__device__ ExpertPairs find_pairs(const MoeArgs& a, int index) {
  if (!kTiny) {
    if (index >= __ldcg(a.order.active + a.experts)) return {};
    const int32_t e = __ldcg(a.order.active + index);
    const int32_t begin = __ldcg(a.order.starts + e);
    return {e, __ldcg(a.order.starts + e + 1) - begin, 0, a.order.pairs + begin};
  }
  const int lane = threadIdx.x % 32;
  const int expert = lane < a.x.rows * a.top_k ? static_cast<int>(expert_of(a, lane)) : -1;
  const uint32_t same = __match_any_sync(0xffffffffU, expert);
  const uint32_t before = (1U << lane) - 1U;
  const bool is_first = expert >= 0 && (same & before) == 0;
  const uint32_t firsts = __ballot_sync(0xffffffffU, is_first);
  const uint32_t leader = __ballot_sync(0xffffffffU, is_first && __popc(firsts & before) == index);
  if (leader == 0) return {};
  const int from = __ffs(static_cast<int>(leader)) - 1;
  const uint32_t lanes = __shfl_sync(0xffffffffU, same, from);
  return {__shfl_sync(0xffffffffU, expert, from), __popc(lanes), lanes, nullptr};
}

// hidden [pair, I] BF16: tiles of eight rows of w1 and the same of w3 of one expert with all its tokens,
// eight at a time.
template <RowFormat kFormat, typename Shape, bool kTiny, typename X>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    moe_small_up_kernel(const __grid_constant__ MoeArgs a) {
  ptx::wait_for_previous_kernel();
  __shared__ float shared[Shape::kWarps * Shape::kSums];
  const ExpertPairs pairs = find_pairs<kTiny>(a, static_cast<int>(blockIdx.y));
  if (pairs.expert < 0) return;
  const ExpertPointers& expert = a.table[pairs.expert];
  const int lane = threadIdx.x % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 8 * Shape::kTiles;
  const auto rows = gate_up_rows<kFormat, Shape>(expert.w1, expert.w3, first);
  for (int32_t begin = 0; begin < pairs.count; begin += 8) {
    // Columns beyond the last pair repeat it and are not stored.
    const int64_t token = pairs.at<kTiny>(min(begin + lane / 4, pairs.count - 1)) / a.top_k;
    const X* inputs[1] = {static_cast<const X*>(a.x.data) + token * a.x.stride};
    float sums[Shape::kTiles][1][4] = {};
    multiply_rows<kFormat, Shape, false>(rows, inputs, a.x.columns, sums);
    reduce_gate_up<Shape>(sums, shared, [&](float g, float u, int n, int column) {
      if (begin + column >= pairs.count || first + n >= a.intermediate) return;
      static_cast<bf16_t*>(a.hidden)[pairs.at<kTiny>(begin + column) * a.intermediate + first + n] =
          from_f32<bf16_t>(swiglu(a.swiglu, g, u));
    });
  }
}

// partial [pair, H].
template <RowFormat kFormat, typename Shape, bool kTiny>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    moe_small_down_kernel(const __grid_constant__ MoeArgs a) {
  __shared__ float shared[Shape::kWarps * Shape::kSums];
  // Which experts run was settled before the kernel that makes `hidden` began.
  const ExpertPairs pairs = find_pairs<kTiny>(a, static_cast<int>(blockIdx.y));
  if (pairs.expert < 0) return ptx::wait_for_previous_kernel();
  const int lane = threadIdx.x % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 16 * Shape::kTiles;
  const auto rows = tile_rows<kFormat, Shape>(a.table[pairs.expert].w2, first);
  for (int32_t begin = 0; begin < pairs.count; begin += 8) {
    const int32_t pair = pairs.at<kTiny>(min(begin + lane / 4, pairs.count - 1));
    const bf16_t* inputs[1] = {static_cast<const bf16_t*>(a.hidden) + pair * a.intermediate};
    float sums[Shape::kTiles][1][4] = {};
    multiply_rows<kFormat, Shape, true>(rows, inputs, a.intermediate, sums);
    reduce_rows<Shape>(sums, shared, [&](float y, int row, int column) {
      if (begin + column >= pairs.count || first + row >= a.out.columns) return;
      a.partial[pairs.at<kTiny>(begin + column) * a.out.columns + first + row] = y;
    });
  }
}

template <RowFormat kFormat>
struct DownRows : RowsShape<2, 1, 2, 3, 8> {};
template <>
struct DownRows<RowFormat::kBF16> : RowsShape<1, 1, 8, 4, 2> {};
template <>
struct DownRows<RowFormat::kMxfp8> : RowsShape<1, 1, 4, 4, 6> {};

// --- few tokens, block-wise e4m3 experts of whole shapes

// The fastest measured: gate and up, and down of one token.
using UpRing = RowsShape<1, 1, 4, 3, 4>;
using SumRing = RowsShape<1, 1, 8, 4, 2>;

// What a tile's columns are: up to eight pairs of one expert.
struct PairGroup {
  int32_t expert, count;
  int32_t pairs[8], tokens[8];
};

// The groups of at most 32 pairs, experts in the order in which they are first chosen; returns how many. All
// threads call it.
__device__ __forceinline__ int group_pairs(const MoeArgs& a, PairGroup (&groups)[kTinyPairs]) {
  const int lane = threadIdx.x % 32;
  const int expert = lane < a.x.rows * a.top_k ? static_cast<int>(expert_of(a, lane)) : -1;
  const uint32_t same = __match_any_sync(0xffffffffU, expert);
  const uint32_t before = (1U << lane) - 1U;
  const int rank = __popc(same & before);
  const bool leads = expert >= 0 && rank % 8 == 0;
  const uint32_t leaders = __ballot_sync(0xffffffffU, leads);
  if (expert >= 0 && threadIdx.x < 32) {
    // The last leader of the same expert up to here.
    const int leader = 31 - __clz(static_cast<int>(same & leaders & (before | 1U << lane)));
    PairGroup& group = groups[__popc(leaders & ((1U << leader) - 1U))];
    group.pairs[rank % 8] = lane;
    group.tokens[rank % 8] = lane / static_cast<int>(a.top_k);
    if (leads) {
      group.expert = expert;
      group.count = min(__popc(same) - rank, 8);
    }
  }
  __syncthreads();
  return __popc(leaders);
}

// hidden [pair, I] BF16. Blocks stay and take tiles of eight rows of w1 and the same of w3 in turn.
template <typename X>
__global__ void __launch_bounds__(UpRing::kThreads, UpRing::kBlocks)
    moe_ring_up_kernel(const __grid_constant__ MoeArgs a) {
  using Shape = UpRing;
  extern __shared__ __align__(16) uint8_t room[];
  __shared__ float shared[2][Shape::kWarps * Shape::kSums];
  __shared__ PairGroup groups[kTinyPairs];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int columns = static_cast<int>(a.x.columns), chunks = columns / kChunk;
  const int tiles = static_cast<int>(ceil_div(a.intermediate, 8));
  ptx::wait_for_previous_kernel();
  const int count = group_pairs(a, groups);

  // Where a tile's codes and scales are; tile t of group g.
  int g = 0, t = static_cast<int>(blockIdx.x);
  const auto settle = [&] {
    for (; t >= tiles && g < count; t -= tiles) ++g;
  };
  CodeRows rows;
  RowScales gate_scales, up_scales;
  const auto locate = [&] {
    const ExpertPointers& expert = a.table[groups[g].expert];
    const int64_t row = min(static_cast<int64_t>(t) * 8 + lane / 4, a.intermediate - 1);
    rows = {code_row(expert.w1, row), code_row(expert.w3, row)};
    gate_scales = RowScales(expert.w1, static_cast<int64_t>(t) * 8);
    up_scales = RowScales(expert.w3, static_cast<int64_t>(t) * 8);
  };
  settle();
  if (g >= count) return;
  locate();
  CodesRing<Shape::kAhead, Shape::kWarps> ring(warp, columns);
  ring.fill(rows);
  auto* scales = reinterpret_cast<float2*>(room);  // of this tile and of the next
  for (int c = threadIdx.x; c < chunks; c += Shape::kThreads)
    scales[c] = {gate_scales.at(c), up_scales.at(c)};
  const SharedInputs inputs(room + chunks * 16, static_cast<int>(a.x.rows));
  inputs.fill<Shape::kThreads>(static_cast<const X*>(a.x.data), a.x.stride, columns);
  __syncthreads();
  for (int parity = 0;; parity ^= 1) {
    const PairGroup& group = groups[g];
    const int64_t first = static_cast<int64_t>(t) * 8;
    const CodeRows own = rows;
    t += static_cast<int>(gridDim.x);
    settle();
    const bool has_next = g < count;
    if (has_next) {
      locate();
      float2* next = scales + (parity ^ 1) * chunks;
      for (int c = threadIdx.x; c < chunks; c += Shape::kThreads)
        next[c] = {gate_scales.at(c), up_scales.at(c)};
    }
    const float2* own_scales = scales + parity * chunks;
    const uint8_t* row = inputs.row(group.tokens[min(lane / 4, group.count - 1)]);
    float sums[1][1][4] = {};
    ring.multiply(
        own, rows, has_next, [&](int c, uint32_t(&b)[8]) { inputs.load(row, c, b); },
        [&](int c) { return own_scales[c]; }, sums[0][0]);
    // The other half of `shared` may still be read by those who are behind.
    reduce_gate_up<Shape, false>(sums, shared[parity], [&](float gate, float up, int n, int column) {
      if (column >= group.count || first + n >= a.intermediate) return;
      static_cast<bf16_t*>(a.hidden)[group.pairs[column] * a.intermediate + first + n] =
          from_f32<bf16_t>(swiglu(a.swiglu, gate, up));
    });
    if (!has_next) return;
  }
}

// One token: the products of sixteen rows of all its experts' w2 in one block, kShare warps an expert, added
// up with their weights.
template <int kShare, typename Out>
__global__ void __launch_bounds__(SumRing::kThreads, SumRing::kBlocks)
    moe_ring_sum_kernel(const __grid_constant__ MoeArgs a) {
  using Shape = SumRing;
  __shared__ float shared[Shape::kWarps * Shape::kSums];
  const int warp = threadIdx.x / 32, rank = warp % kShare, quarter = threadIdx.x % 4;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 16;
  float sums[1][1][4] = {};
  bool waits = true;
#pragma unroll 1
  for (int j = warp / kShare; j < a.top_k; j += Shape::kWarps / kShare) {
    // Which experts run was settled before the kernel that makes `hidden` began.
    const int64_t expert = expert_of(a, j);
    if (expert < 0) continue;
    const WeightView& w = a.table[expert].w2;
    const CodeRows own = tile_code_rows(w, first);
    CodesRing<Shape::kAhead, kShare> ring(rank, a.intermediate);
    ring.fill(own);
    const RowScales scales(w, first);
    const float weight = a.weights[j];
    if (waits) ptx::wait_for_previous_kernel();
    waits = false;
    const bf16_t* x = static_cast<const bf16_t*>(a.hidden) + j * a.intermediate + quarter * 16;
    float products[4] = {};
    ring.multiply(
        own, own, false, [&](int c, uint32_t(&b)[8]) { load_inputs<16>(x, c * kChunk, b); },
        [&](int c) {
          const float scale = weight * scales.at(c);
          return float2{scale, scale};
        },
        products);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[0][0][i] += products[i];
  }
  if (waits) ptx::wait_for_previous_kernel();
  reduce_rows<Shape>(sums, shared, [&](float y, int n, int column) {
    if (column == 0 && first + n < a.out.columns) static_cast<Out*>(a.out.data)[first + n] = from_f32<Out>(y);
  });
}

// --- many tokens

// hidden [place, I] BF16. A tile's columns are 64 of w1 and the same 64 of w3, so that a thread holds the
// gate and the up value of an element.
template <RowKind kKind>
__global__ void __launch_bounds__(kTileThreads) moe_tiles_up_kernel(MoeArgs a) {
  extern __shared__ __align__(128) uint8_t shared[];
  const ExpertTile tile = find_tile(a, ceil_div(a.intermediate, kTileColumns / 2));
  if (tile.expert < 0) return;
  const int64_t n0 = tile.column * (kTileColumns / 2);
  const WeightView &w1 = a.table[tile.expert].w1, &w3 = a.table[tile.expert].w3;
  const auto a_row = [&](int row) -> const bf16_t* {
    if (tile.first + row >= tile.end) return nullptr;
    return static_cast<const bf16_t*>(a.x.data) + a.order.pairs[tile.first + row] / a.top_k * a.x.stride;
  };
  const auto b_row = [&](int row) {
    return weight_row<kKind>(row < kTileColumns / 2 ? w1 : w3, n0 + row % (kTileColumns / 2));
  };
  TileSums sums = {};
  multiply_tile<true>(shared, a_row, weight_rows<kKind>(w1, b_row), w1.columns, sums);
  for_tile_pairs<true>(sums, [&](int row, int column, float gate0, float gate1, float up0, float up1) {
    const int64_t place = tile.first + row, n = n0 + column;
    if (place >= tile.end || n >= a.intermediate) return;
    bf16_t* to = static_cast<bf16_t*>(a.hidden) + place * a.intermediate + n;
    *reinterpret_cast<uint32_t*>(to) = pack_bf16(swiglu(a.swiglu, gate0, up0), swiglu(a.swiglu, gate1, up1));
  });
}

template <RowKind kKind>
__global__ void __launch_bounds__(kTileThreads) moe_tiles_down_kernel(MoeArgs a) {
  extern __shared__ __align__(128) uint8_t shared[];
  const ExpertTile tile = find_tile(a, ceil_div(a.out.columns, kTileColumns));
  if (tile.expert < 0) return;
  const int64_t n0 = tile.column * kTileColumns;
  const WeightView& w = a.table[tile.expert].w2;
  const auto a_row = [&](int row) -> const bf16_t* {
    if (tile.first + row >= tile.end) return nullptr;
    return static_cast<const bf16_t*>(a.hidden) + (tile.first + row) * a.intermediate;
  };
  const auto b_row = [&](int row) { return weight_row<kKind>(w, n0 + row); };
  TileSums sums = {};
  multiply_tile<false>(shared, a_row, weight_rows<kKind>(w, b_row), w.columns, sums);
  for_tile_values(sums, [&](int row, int column, float first, float second) {
    const int64_t place = tile.first + row, n = n0 + column;
    if (place >= tile.end || n >= a.out.columns) return;
    *reinterpret_cast<float2*>(a.partial + place * a.out.columns + n) = {first, second};
  });
}

}  // namespace

int64_t expert_order_counts(int64_t pairs, int64_t experts) { return ceil_div(pairs, kFewPairs) * experts; }

void launch_expert_order(const MoeArgs& a, cudaStream_t stream) {
  const int64_t pairs = a.x.rows * a.top_k;
  if (pairs == 0) return;
  const auto bytes = static_cast<size_t>(a.experts) * sizeof(int32_t);
  if (pairs <= kFewPairs) return launch(expert_order_kernel, 1, kOrderThreads, bytes, stream, a);
  const int64_t stretches = ceil_div(pairs, kFewPairs);
  const size_t place_bytes = kFewPairs / 32 * bytes;
  cudaFuncSetAttribute(stretch_places_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(place_bytes));
  launch(stretch_counts_kernel, static_cast<unsigned>(stretches), 256, bytes, stream, a);
  launch(stretch_starts_kernel, 1, kOrderThreads, bytes, stream, a, stretches);
  launch(stretch_places_kernel, static_cast<unsigned>(stretches), kFewPairs, place_bytes, stream, a);
}

void launch_moe_f32(const MoeArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const int64_t pairs = a.x.rows * a.top_k;
  constexpr int64_t kMostRows = 65535;
  const auto places = static_cast<unsigned>(pairs < kMostRows ? pairs : kMostRows);
  with_activation(a.x.scalar, [&](auto x) {
    moe_any_up_kernel<decltype(x)><<<dim3(static_cast<unsigned>(ceil_div(a.intermediate, kAnyWarps)), places),
                                     kAnyWarps * 32, 0, stream>>>(a);
  });
  if (a.rounds_hidden) {
    // Places beyond those in use hold anything and are not looked at again.
    const Matrix hidden = {a.hidden, pairs, a.intermediate, a.intermediate, Scalar::kF32};
    launch_round_e4m3(hidden, a.is_mx, hidden, stream);
  }
  moe_any_down_kernel<<<dim3(static_cast<unsigned>(ceil_div(a.out.columns, kAnyWarps)), places),
                        kAnyWarps * 32, 0, stream>>>(a);
  launch_combine_places(a, stream);
}

bool reads_inputs_as_they_are(const MoeArgs& a) {
  // More tokens read them so often that half the bytes are worth a conversion.
  constexpr int64_t kMostF32Tokens = 8;
  const bool is_aligned = a.x.stride % 8 == 0 && reinterpret_cast<uintptr_t>(a.x.data) % 16 == 0;
  return is_aligned && (a.x.scalar == Scalar::kBF16 || a.x.rows <= kMostF32Tokens);
}

bool can_moe_bf16(const MoeArgs& a) {
  return can_read_rows(a.first.w1) && can_read_rows(a.first.w3) && can_read_rows(a.first.w2) &&
         a.first.w1.scalar == Scalar::kBF16 && a.first.w2.scalar == Scalar::kBF16;
}

bool can_moe_small(const MoeArgs& a) {
  const auto have_one_format = [](const WeightView& x, const WeightView& y) {
    return x.scalar == y.scalar && x.scale_scalar == y.scale_scalar;
  };
  return a.x.rows <= kMostSmallMoeTokens && can_read_rows(a.first.w1) && can_read_rows(a.first.w3) &&
         can_read_rows(a.first.w2) && have_one_format(a.first.w1, a.first.w2);
}

bool needs_expert_order(const MoeArgs& a) { return a.x.rows * a.top_k > kTinyPairs; }

namespace {

int64_t up_ring_bytes(const MoeArgs& a) {
  return a.x.columns / kChunk * 16 + SharedInputs::bytes(a.x.rows, a.x.columns);
}
bool can_ring_up(const MoeArgs& a) {
  constexpr int64_t kMostBytes = 52 * 1024;  // of a block beside others
  constexpr int kChunks = UpRing::kWarps * UpRing::kAhead;
  return a.x.rows <= 8 && !needs_expert_order(a) && can_ring(a.first.w1, kChunks) &&
         can_ring(a.first.w3, kChunks) && up_ring_bytes(a) <= kMostBytes;
}
int sum_ring_share(const MoeArgs& a) { return a.top_k > 4 ? 1 : a.top_k > 2 ? 2 : 4; }
bool can_ring_sum(const MoeArgs& a) {
  return a.x.rows == 1 && can_ring(a.first.w2, SumRing::kAhead * sum_ring_share(a));
}

}  // namespace

void launch_moe_small(const MoeArgs& a, int multiprocessors, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const int64_t pairs = a.x.rows * a.top_k;
  const auto experts = static_cast<unsigned>(pairs < a.experts ? pairs : a.experts);
  const auto up = [&]<RowFormat kFormat, bool kTiny>() {
    using Shape = GateUpRows<kFormat>;
    with_activation(a.x.scalar, [&](auto x) {
      launch(moe_small_up_kernel<kFormat, Shape, kTiny, decltype(x)>,
             dim3(static_cast<unsigned>(ceil_div(a.intermediate, 8 * Shape::kTiles)), experts),
             Shape::kThreads, 0, stream, a);
    });
  };
  const auto down = [&]<RowFormat kFormat, bool kTiny>() {
    using Shape = DownRows<kFormat>;
    launch(moe_small_down_kernel<kFormat, Shape, kTiny>,
           dim3(static_cast<unsigned>(ceil_div(a.out.columns, 16 * Shape::kTiles)), experts), Shape::kThreads,
           0, stream, a);
    launch_combine_pairs(a, stream);
  };
  with_row_format(a.first.w1, [&]<RowFormat kFormat>() {
    if (needs_expert_order(a)) {
      up.template operator()<kFormat, false>();
      return down.template operator()<kFormat, false>();
    }
    if (can_ring_up(a)) {
      const int64_t tiles = pairs * ceil_div(a.intermediate, 8), most = multiprocessors * UpRing::kBlocks;
      const auto bytes = static_cast<size_t>(up_ring_bytes(a));
      with_activation(a.x.scalar, [&](auto x) {
        const auto kernel = moe_ring_up_kernel<decltype(x)>;
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
        launch(kernel, static_cast<unsigned>(tiles < most ? tiles : most), UpRing::kThreads, bytes, stream,
               a);
      });
    } else {
      up.template operator()<kFormat, true>();
    }
    if (!can_ring_sum(a)) return down.template operator()<kFormat, true>();
    with_activation(a.out.scalar, [&](auto out) {
      using Out = decltype(out);
      const int share = sum_ring_share(a);
      launch(share == 1   ? moe_ring_sum_kernel<1, Out>
             : share == 2 ? moe_ring_sum_kernel<2, Out>
                          : moe_ring_sum_kernel<4, Out>,
             static_cast<unsigned>(ceil_div(a.out.columns, 16)), SumRing::kThreads, 0, stream, a);
    });
  });
}

bool can_moe_tiles(const MoeArgs& a) {
  return can_linear_tiles(a.first.w1) && can_linear_tiles(a.first.w3) && can_linear_tiles(a.first.w2);
}

void launch_moe_tiles(const MoeArgs& a, int architecture, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  static_assert(kTileRows == kExpertTileRows);
  if (architecture >= 90) {
    launch_moe_tiles_sm90(a, stream);
    return launch_combine_places(a, stream);
  }
  const int64_t tiles = most_expert_tiles(a);
  with_rows(a.first.w1, a.first.w2, [&]<RowKind kKind>() {
    const auto up = moe_tiles_up_kernel<kKind>;
    const auto down = moe_tiles_down_kernel<kKind>;
    cudaFuncSetAttribute(up, cudaFuncAttributeMaxDynamicSharedMemorySize, kTileSharedBytes);
    cudaFuncSetAttribute(down, cudaFuncAttributeMaxDynamicSharedMemorySize, kTileSharedBytes);
    up<<<static_cast<unsigned>(tiles * ceil_div(a.intermediate, kTileColumns / 2)), kTileThreads,
         kTileSharedBytes, stream>>>(a);
    down<<<static_cast<unsigned>(tiles * ceil_div(a.out.columns, kTileColumns)), kTileThreads,
           kTileSharedBytes, stream>>>(a);
  });
  launch_combine_places(a, stream);
}

}  // namespace minimax::cuda
