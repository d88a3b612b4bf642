// Mixture of experts: the order of tokens by expert, expert MLPs for few and for many tokens, and the
// weighted sum. A pair is one of a token's choices, t * top_k + j; its place is where it stands among all
// pairs in the order of experts. Sums over a token's choices run in the order of j, so no atomics.
#include "backends/cuda/expert_tile.cuh"
#include "backends/cuda/rows_product.cuh"
#include "backends/cuda/tile_product.cuh"

namespace minimax::cuda {
namespace {

// --- order

__device__ int64_t expert_of(const MoeArgs& a, int64_t pair) {
  const int64_t expert = static_cast<int64_t>(a.ids[pair]) - a.first_expert;
  return expert >= 0 && expert < a.experts ? expert : -1;
}

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

// --- the weighted sum

// Where the row of a pair stands in `partial`: with the order of pairs or without; -1 for none.
template <bool kIsOrdered>
__device__ int64_t partial_row(const MoeArgs& a, int64_t pair) {
  if (kIsOrdered) return a.order.places[pair];
  return expert_of(a, pair) >= 0 ? pair : -1;
}

template <bool kIsOrdered, typename Out>
__global__ void moe_combine_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  const int64_t t = blockIdx.y;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.out.columns) return;
  float sum = 0;
  for (int64_t j = 0; j < a.top_k; ++j) {
    const int64_t pair = t * a.top_k + j, row = partial_row<kIsOrdered>(a, pair);
    if (row >= 0) sum += a.weights[pair] * a.partial[row * a.out.columns + i];
  }
  static_cast<Out*>(a.out.data)[t * a.out.stride + i] = from_f32<Out>(sum);
}

// Four columns a thread.
template <bool kIsOrdered, typename Out>
__global__ void moe_combine_four_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  const int64_t t = blockIdx.x;
  const int64_t i = 4 * (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x);
  if (i >= a.out.columns) return;
  float4 sum = {0, 0, 0, 0};
  for (int64_t j = 0; j < a.top_k; ++j) {
    const int64_t pair = t * a.top_k + j, row = partial_row<kIsOrdered>(a, pair);
    if (row < 0) continue;
    const float weight = a.weights[pair];
    const float4 y = load_four(a.partial + row * a.out.columns + i);
    sum = {sum.x + weight * y.x, sum.y + weight * y.y, sum.z + weight * y.z, sum.w + weight * y.w};
  }
  store_four(static_cast<Out*>(a.out.data) + t * a.out.stride + i, sum);
}

template <bool kIsOrdered>
void launch_combine(const MoeArgs& a, cudaStream_t stream) {
  // Few rows take as many blocks as they can.
  const int threads = a.out.rows <= kMostSmallMoeTokens ? 128 : 256;
  constexpr int64_t kMostRows = 65535;
  const bool has_fours =
      a.out.columns % 4 == 0 && a.out.stride % 4 == 0 && reinterpret_cast<uintptr_t>(a.out.data) % 16 == 0;
  with_activation(a.out.scalar, [&](auto o) {
    using Out = decltype(o);
    if (has_fours) {
      const dim3 grid(static_cast<unsigned>(a.out.rows),
                      static_cast<unsigned>(ceil_div(a.out.columns, 4 * threads)));
      return launch(moe_combine_four_kernel<kIsOrdered, Out>, grid, threads, 0, stream, a);
    }
    for (int64_t first = 0; first < a.out.rows; first += kMostRows) {
      MoeArgs part = a;
      const int64_t rows = a.out.rows - first < kMostRows ? a.out.rows - first : kMostRows;
      part.out.data = static_cast<Out*>(a.out.data) + first * a.out.stride;
      part.weights += first * a.top_k;
      part.order.places += first * a.top_k;
      const dim3 grid(static_cast<unsigned>(ceil_div(a.out.columns, threads)), static_cast<unsigned>(rows));
      launch(moe_combine_kernel<kIsOrdered, Out>, grid, threads, 0, stream, part);
    }
  });
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
  launch_combine<true>(a, stream);
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

void launch_moe_small(const MoeArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const int64_t pairs = a.x.rows * a.top_k;
  const auto experts = static_cast<unsigned>(pairs < a.experts ? pairs : a.experts);
  const auto start = [&]<RowFormat kFormat, bool kTiny>() {
    using Up = GateUpRows<kFormat>;
    using Down = DownRows<kFormat>;
    with_activation(a.x.scalar, [&](auto x) {
      launch(moe_small_up_kernel<kFormat, Up, kTiny, decltype(x)>,
             dim3(static_cast<unsigned>(ceil_div(a.intermediate, 8 * Up::kTiles)), experts), Up::kThreads, 0,
             stream, a);
    });
    launch(moe_small_down_kernel<kFormat, Down, kTiny>,
           dim3(static_cast<unsigned>(ceil_div(a.out.columns, 16 * Down::kTiles)), experts), Down::kThreads, 0,
           stream, a);
    launch_combine<false>(a, stream);
  };
  with_row_format(a.first.w1, [&]<RowFormat kFormat>() {
    if (needs_expert_order(a)) {
      start.template operator()<kFormat, false>();
    } else {
      start.template operator()<kFormat, true>();
    }
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
    return launch_combine<true>(a, stream);
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
  launch_combine<true>(a, stream);
}

}  // namespace minimax::cuda
