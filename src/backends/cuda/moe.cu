// Mixture of experts: routing, the order of tokens by expert, expert MLPs for few and for many tokens, and
// the weighted sum. A pair is one of a token's choices, t * top_k + j; its place is where it stands among all
// pairs in the order of experts. Sums over a token's choices run in the order of j, so no atomics.
#include "backends/cuda/expert_tile.cuh"
#include "backends/cuda/rows_product.cuh"
#include "backends/cuda/tile_product.cuh"

namespace minimax::cuda {
namespace {

constexpr float kNever = -INFINITY;

// --- routing

// One warp a token. The k best are found one by one; ties go to the lowest id.
__global__ void route_kernel(RouteArgs a) {
  ptx::wait_for_previous_kernel();
  extern __shared__ float rows[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp;
  if (t >= a.tokens) return;
  float* choice = rows + warp * a.experts;
  const float* logits = a.logits + t * a.logits_stride;
  for (int64_t e = lane; e < a.experts; e += 32) {
    float value = logits[e];
    if (a.is_sigmoid) {
      value = 1.0F / (1.0F + expf(-value));
      if (a.bias.data != nullptr) value += load_scalar(a.bias.data, a.bias.scalar, e);
    }
    choice[e] = value;
  }
  __syncwarp();
  float largest = 0, sum = 0;
  for (int64_t j = 0; j < a.top_k; ++j) {
    float best = kNever;
    int best_at = 0x7fffffff;
    for (int e = lane; e < a.experts; e += 32) {
      if (choice[e] > best || (best_at == 0x7fffffff && choice[e] == choice[e])) {
        best = choice[e];
        best_at = e;
      }
    }
    for (int i = 16; i > 0; i >>= 1) {
      const float other = __shfl_xor_sync(0xffffffffU, best, i);
      const int other_at = __shfl_xor_sync(0xffffffffU, best_at, i);
      if (other_at != 0x7fffffff &&
          (best_at == 0x7fffffff || other > best || (other == best && other_at < best_at))) {
        best = other;
        best_at = other_at;
      }
    }
    // NaN logits leave nothing to compare: the lowest id not taken yet.
    if (best_at == 0x7fffffff) best_at = static_cast<int>(j);
    if (j == 0) largest = best;
    const float p = a.is_sigmoid ? 1.0F / (1.0F + expf(-logits[best_at])) : expf(best - largest);
    sum += p;
    if (lane == 0) {
      a.ids[t * a.ids_stride + j] = best_at;
      a.weights[t * a.weights_stride + j] = p;
      choice[best_at] = NAN;
    }
    __syncwarp();
  }
  const float factor = (a.is_sigmoid ? a.scale : 1.0F) / sum;
  for (int64_t j = lane; j < a.top_k; j += 32) a.weights[t * a.weights_stride + j] *= factor;
}

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

// Counts, then where each expert's pairs begin and which experts have any; with kCollects, which is for few
// pairs, also which these are. One block.
template <bool kCollects>
__global__ void expert_counts_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  extern __shared__ int32_t counts[];
  const int64_t pairs = a.x.rows * a.top_k;
  for (int64_t e = threadIdx.x; e < a.experts; e += kOrderThreads) counts[e] = 0;
  __syncthreads();
  for (int64_t p = threadIdx.x; p < pairs; p += kOrderThreads) {
    const int64_t e = expert_of(a, p);
    if (e >= 0) {
      atomicAdd(&counts[e], 1);
    } else {
      a.order.places[p] = -1;
    }
  }
  __syncthreads();
  const int lane = threadIdx.x % 32;
  int32_t before = 0, active = 0, tiles_before = 0;
  for (int64_t base = 0; threadIdx.x < 32 && base < a.experts; base += 32) {
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
  if (threadIdx.x == 0) {
    a.order.starts[a.experts] = before;
    a.order.tiles[a.experts] = tiles_before;
  }
  for (int64_t e = active + lane; threadIdx.x < 32 && e < a.experts; e += 32) a.order.active[e] = -1;
  if (!kCollects) return;
  __syncthreads();
  for (int64_t e = threadIdx.x / 32; e < a.experts; e += kOrderThreads / 32)
    if (counts[e] > 0) collect_pairs(a, e, a.order.starts[e]);
}

// One block an expert looks through all pairs and keeps their order.
__global__ void expert_pairs_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  __shared__ int32_t warps[33];
  const int64_t e = blockIdx.x;
  const int64_t pairs = a.x.rows * a.top_k;
  int32_t at = a.order.starts[e];
  if (a.order.starts[e + 1] == at) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, num_warps = blockDim.x / 32;
  for (int64_t base = 0; base < pairs; base += blockDim.x) {
    const int64_t p = base + threadIdx.x;
    const bool is_its = p < pairs && expert_of(a, p) == e;
    const uint32_t mask = __ballot_sync(0xffffffffU, is_its);
    if (lane == 0) warps[warp] = __popc(mask);
    __syncthreads();
    int32_t before = 0, all = 0;
    for (int w = 0; w < num_warps; ++w) {
      before += w < warp ? warps[w] : 0;
      all += warps[w];
    }
    if (is_its) {
      const int32_t place = at + before + __popc(mask & ((1U << lane) - 1U));
      a.order.pairs[place] = static_cast<int32_t>(p);
      a.order.places[p] = place;
    }
    at += all;
    __syncthreads();
  }
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

template <typename Out>
__global__ void moe_combine_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  const int64_t t = blockIdx.y;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= a.out.columns) return;
  float sum = 0;
  for (int64_t j = 0; j < a.top_k; ++j) {
    const int64_t pair = t * a.top_k + j;
    const int32_t place = a.order.places[pair];
    if (place >= 0) sum += a.weights[pair] * a.partial[place * a.out.columns + i];
  }
  static_cast<Out*>(a.out.data)[t * a.out.stride + i] = from_f32<Out>(sum);
}

// Four columns a thread.
template <typename Out>
__global__ void moe_combine_four_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  const int64_t t = blockIdx.x;
  const int64_t i = 4 * (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x);
  if (i >= a.out.columns) return;
  float4 sum = {0, 0, 0, 0};
  for (int64_t j = 0; j < a.top_k; ++j) {
    const int64_t pair = t * a.top_k + j;
    const int32_t place = a.order.places[pair];
    if (place < 0) continue;
    const float weight = a.weights[pair];
    const float4 y = load_four(a.partial + place * a.out.columns + i);
    sum = {sum.x + weight * y.x, sum.y + weight * y.y, sum.z + weight * y.z, sum.w + weight * y.w};
  }
  store_four(static_cast<Out*>(a.out.data) + t * a.out.stride + i, sum);
}

void launch_combine(const MoeArgs& a, cudaStream_t stream) {
  constexpr int kThreads = 256;
  constexpr int64_t kMostRows = 65535;
  const bool has_fours =
      a.out.columns % 4 == 0 && a.out.stride % 4 == 0 && reinterpret_cast<uintptr_t>(a.out.data) % 16 == 0;
  with_activation(a.out.scalar, [&](auto o) {
    using Out = decltype(o);
    if (has_fours) {
      const dim3 grid(static_cast<unsigned>(a.out.rows),
                      static_cast<unsigned>(ceil_div(a.out.columns, 4 * kThreads)));
      return launch(moe_combine_four_kernel<Out>, grid, kThreads, 0, stream, a);
    }
    for (int64_t first = 0; first < a.out.rows; first += kMostRows) {
      MoeArgs part = a;
      const int64_t rows = a.out.rows - first < kMostRows ? a.out.rows - first : kMostRows;
      part.out.data = static_cast<Out*>(a.out.data) + first * a.out.stride;
      part.weights += first * a.top_k;
      part.order.places += first * a.top_k;
      const dim3 grid(static_cast<unsigned>(ceil_div(a.out.columns, kThreads)), static_cast<unsigned>(rows));
      launch(moe_combine_kernel<Out>, grid, kThreads, 0, stream, part);
    }
  });
}

// --- few tokens

// hidden [place, I] BF16: sixteen rows of w1 and of w3 of one expert with all its tokens, eight at a time.
template <typename X>
__global__ void __launch_bounds__(kRowsWarps * 32) moe_small_up_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  __shared__ float shared[kRowsWarps * 2 * 16 * 8];
  const int32_t e = a.order.active[blockIdx.y];
  if (e < 0) return;
  const WeightView &w1 = a.table[e].w1, &w3 = a.table[e].w3;
  const int lane = threadIdx.x % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 16;
  const int64_t last = a.intermediate - 1;
  const int64_t low = min(first + lane / 4, last), high = min(first + lane / 4 + 8, last);
  const bf16_t* low_rows[2] = {static_cast<const bf16_t*>(w1.values) + low * w1.stride,
                               static_cast<const bf16_t*>(w3.values) + low * w3.stride};
  const bf16_t* high_rows[2] = {static_cast<const bf16_t*>(w1.values) + high * w1.stride,
                                static_cast<const bf16_t*>(w3.values) + high * w3.stride};
  const int32_t end = a.order.starts[e + 1];
  for (int32_t place = a.order.starts[e]; place < end; place += 8) {
    const X* inputs[1] = {nullptr};
    if (place + lane / 4 < end) {
      const int64_t token = a.order.pairs[place + lane / 4] / a.top_k;
      inputs[0] = static_cast<const X*>(a.x.data) + token * a.x.stride;
    }
    float sums[2][1][4] = {};
    multiply_rows<2, 1, X>(low_rows, high_rows, inputs, w1.columns, sums);
    reduce_rows<2, 1>(sums, shared, [&](const float(&values)[2], int row, int column) {
      if (place + column >= end || first + row > last) return;
      static_cast<bf16_t*>(a.hidden)[(place + column) * a.intermediate + first + row] =
          from_f32<bf16_t>(swiglu(a.swiglu, values[0], values[1]));
    });
  }
}

__global__ void __launch_bounds__(kRowsWarps * 32) moe_small_down_kernel(MoeArgs a) {
  ptx::wait_for_previous_kernel();
  __shared__ float shared[kRowsWarps * 2 * 16 * 8];
  const int32_t e = a.order.active[blockIdx.y];
  if (e < 0) return;
  const WeightView& w = a.table[e].w2;
  const int lane = threadIdx.x % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 32;
  const int64_t last = a.out.columns - 1;
  const bf16_t *low_rows[2], *high_rows[2];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    const int64_t row = first + 16 * m + lane / 4;
    low_rows[m] = static_cast<const bf16_t*>(w.values) + min(row, last) * w.stride;
    high_rows[m] = static_cast<const bf16_t*>(w.values) + min(row + 8, last) * w.stride;
  }
  const int32_t end = a.order.starts[e + 1];
  for (int32_t place = a.order.starts[e]; place < end; place += 8) {
    const bf16_t* inputs[1] = {nullptr};
    if (place + lane / 4 < end)
      inputs[0] = static_cast<const bf16_t*>(a.hidden) + (place + lane / 4) * a.intermediate;
    float sums[2][1][4] = {};
    multiply_rows<2, 1, bf16_t>(low_rows, high_rows, inputs, w.columns, sums);
    reduce_rows<2, 1>(sums, shared, [&](const float(&values)[2], int row, int column) {
      if (place + column >= end) return;
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const int64_t n = first + 16 * m + row;
        if (n <= last) a.partial[(place + column) * a.out.columns + n] = values[m];
      }
    });
  }
}

// --- many tokens

// hidden [place, I] BF16. A tile's columns are 64 of w1 and the same 64 of w3, so that a thread holds the
// gate and the up value of an element.
template <bool kIsCoded>
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
    return weight_row<kIsCoded>(row < kTileColumns / 2 ? w1 : w3, n0 + row % (kTileColumns / 2));
  };
  TileSums sums = {};
  multiply_tile<true>(shared, a_row, weight_rows<kIsCoded>(w1, b_row), w1.columns, sums);
  for_tile_pairs<true>(sums, [&](int row, int column, float gate0, float gate1, float up0, float up1) {
    const int64_t place = tile.first + row, n = n0 + column;
    if (place >= tile.end || n >= a.intermediate) return;
    bf16_t* to = static_cast<bf16_t*>(a.hidden) + place * a.intermediate + n;
    *reinterpret_cast<uint32_t*>(to) = pack_bf16(swiglu(a.swiglu, gate0, up0), swiglu(a.swiglu, gate1, up1));
  });
}

template <bool kIsCoded>
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
  const auto b_row = [&](int row) { return weight_row<kIsCoded>(w, n0 + row); };
  TileSums sums = {};
  multiply_tile<false>(shared, a_row, weight_rows<kIsCoded>(w, b_row), w.columns, sums);
  for_tile_values(sums, [&](int row, int column, float first, float second) {
    const int64_t place = tile.first + row, n = n0 + column;
    if (place >= tile.end || n >= a.out.columns) return;
    *reinterpret_cast<float2*>(a.partial + place * a.out.columns + n) = {first, second};
  });
}

}  // namespace

void launch_route(const RouteArgs& a, cudaStream_t stream) {
  if (a.tokens == 0) return;
  constexpr int kWarps = 4;
  launch(route_kernel, static_cast<unsigned>(ceil_div(a.tokens, kWarps)), kWarps * 32,
         static_cast<size_t>(kWarps * a.experts) * sizeof(float), stream, a);
}

void launch_expert_order(const MoeArgs& a, cudaStream_t stream) {
  if (a.x.rows * a.top_k == 0) return;
  const auto bytes = static_cast<size_t>(a.experts) * sizeof(int32_t);
  if (a.x.rows * a.top_k <= kFewPairs)
    return launch(expert_counts_kernel<true>, 1, kOrderThreads, bytes, stream, a);
  launch(expert_counts_kernel<false>, 1, kOrderThreads, bytes, stream, a);
  launch(expert_pairs_kernel, static_cast<unsigned>(a.experts), 256, 0, stream, a);
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
  launch_combine(a, stream);
}

bool reads_inputs_as_they_are(const MoeArgs& a) {
  // More tokens read them so often that half the bytes are worth a conversion.
  constexpr int64_t kMostF32Tokens = 8;
  const bool is_aligned = a.x.stride % 8 == 0 && reinterpret_cast<uintptr_t>(a.x.data) % 16 == 0;
  return is_aligned && (a.x.scalar == Scalar::kBF16 || a.x.rows <= kMostF32Tokens);
}

bool can_moe_bf16(const MoeArgs& a) {
  const auto fits = [](const WeightView& w) {
    return w.scalar == Scalar::kBF16 && w.columns % 32 == 0 && w.stride % 8 == 0 &&
           reinterpret_cast<uintptr_t>(w.values) % 16 == 0;
  };
  return fits(a.first.w1) && fits(a.first.w3) && fits(a.first.w2);
}

void launch_moe_small(const MoeArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const int64_t pairs = a.x.rows * a.top_k;
  const auto experts = static_cast<unsigned>(pairs < a.experts ? pairs : a.experts);
  with_activation(a.x.scalar, [&](auto x) {
    launch(moe_small_up_kernel<decltype(x)>,
           dim3(static_cast<unsigned>(ceil_div(a.intermediate, 16)), experts), kRowsWarps * 32, 0, stream, a);
  });
  launch(moe_small_down_kernel, dim3(static_cast<unsigned>(ceil_div(a.out.columns, 32)), experts),
         kRowsWarps * 32, 0, stream, a);
  launch_combine(a, stream);
}

bool can_moe_tiles(const MoeArgs& a) {
  return can_linear_tiles(a.first.w1) && can_linear_tiles(a.first.w3) && can_linear_tiles(a.first.w2);
}

void launch_moe_tiles(const MoeArgs& a, int architecture, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  static_assert(kTileRows == kExpertTileRows);
  if (architecture >= 90) {
    launch_moe_tiles_sm90(a, stream);
    return launch_combine(a, stream);
  }
  const int64_t tiles = most_expert_tiles(a);
  const bool is_coded = a.first.w1.scalar == Scalar::kE4m3;
  const auto up = is_coded ? moe_tiles_up_kernel<true> : moe_tiles_up_kernel<false>;
  const auto down = is_coded ? moe_tiles_down_kernel<true> : moe_tiles_down_kernel<false>;
  cudaFuncSetAttribute(up, cudaFuncAttributeMaxDynamicSharedMemorySize, kTileSharedBytes);
  cudaFuncSetAttribute(down, cudaFuncAttributeMaxDynamicSharedMemorySize, kTileSharedBytes);
  up<<<static_cast<unsigned>(tiles * ceil_div(a.intermediate, kTileColumns / 2)), kTileThreads,
       kTileSharedBytes, stream>>>(a);
  down<<<static_cast<unsigned>(tiles * ceil_div(a.out.columns, kTileColumns)), kTileThreads, kTileSharedBytes,
         stream>>>(a);
  launch_combine(a, stream);
}

}  // namespace minimax::cuda
