// Products of few rows with 8-bit weights on Hopper, dense and for experts, bound by the memory of the
// weights.
//
// Weights are the rows of a warpgroup product and tokens its columns; codes go from memory to a ring in
// shared memory and from there to the tensor cores, with no instruction spent on them. Tokens become e4m3
// codes too, in two terms, a code and the code of what it leaves, which are columns of their own: BF16
// numbers are exactly the sum of both. The ring is filled before the kernel before has ended, since weights
// do not depend on it.
//
// A stage of the ring holds 64 weight rows by 256 inputs; two warpgroups take stages in turn, and their sums
// are added at the end of a tile. A product of few tiles is cut along its inputs too: the blocks of a cluster
// take a part each and send their sums to the first one.
#pragma once

#include "backends/cuda/device.cuh"
#include "backends/cuda/fp8_wgmma.cuh"
#include "backends/cuda/tensor_map.h"

namespace minimax::cuda::fp8_stream {

// kSum: the second products of one token's experts and their weighted sum, as one product of all hidden rows
// side by side.
enum class Kind { kDense, kMlpUp, kUp, kDown, kSum };

constexpr int kTileRows = 64;  // of one weight, or 32 of w1 and the same 32 of w3
constexpr int kHalfRows = kTileRows / 2;
constexpr int kGroup = kMapColumns;  // inputs that share a scale, and what a row of a swizzled box holds
constexpr int kGroups = 2;           // of a stage
constexpr int kStageDepth = kGroups * kGroup;
constexpr int kBoxBytes = kTileRows * kGroup;
constexpr int kStageBytes = kGroups * kBoxBytes;
constexpr int kWarpgroups = 2;
constexpr int kMathThreads = 128 * kWarpgroups;
constexpr int kThreads = kMathThreads + 64;  // a warp copies weights, one their scales
constexpr int kMxScaleBytes = kTileRows * kStageDepth / 32;
constexpr int kBlockScaleBytes = 2 * kGroups * 4;  // of the tile's upper and lower 32 rows
constexpr int kMostStages = 8;
constexpr int kSumsRow = kTileRows + 8;
constexpr int kMapsOfExpert = 3;  // w1, w3, w2

// How many tokens a product takes, with two columns for each.
template <int kTokensOf>
struct Shape {
  static constexpr int kTokens = kTokensOf;
  static constexpr int kColumns = 2 * kTokens;
};

struct DenseMaps {
  CUtensorMap map[kMostSmallWeights];
};

struct StreamArgs {
  Matrix x;  // of kDown the hidden rows, one a pair
  Matrix out;
  int depth = 0;
  int cluster = 1;
  int most_steps = 0;       // stages of inputs of a block's share of a tile
  int stages = 0;           // of the ring
  bool has_blocks = false;  // a scale for 128 x 128, else, but for MXFP8, one for the whole of a row
  int tiles = 0;            // dense: of all weights; experts: of each
  SwigluParams swiglu;
  // Dense and MLPs, whose out is the hidden rows:
  WeightView weights[kMostSmallWeights];
  int count = 0;
  bool applies_silu = false;
  Matrix addend;
  // Experts:
  MoeArgs moe;
  const CUtensorMap* maps = nullptr;  // [experts, kMapsOfExpert]
  int pairs = 0;
  bool is_ordered = false;
};

// The pairs of one expert that a tile takes as its tokens.
struct Item {
  int32_t expert, first, count;
};

// Sums that a tile's outputs are added up from: of the warpgroups, or of the blocks of a cluster.
__host__ __device__ inline int parts_of(const StreamArgs& a) {
  return a.cluster > 1 ? a.cluster : kWarpgroups;
}

// Where things lie in shared memory, in bytes from its start.
struct Layout {
  int codes, scales, weight_scales, sums, barriers, items, pairs, bytes;
};
constexpr int kBarrierBytes = (2 * kMostStages + 2) * 8;
template <typename S, bool kIsMx>
__host__ __device__ Layout layout_of(const StreamArgs& a) {
  const int groups = a.most_steps * kGroups;
  Layout l;
  l.codes = a.stages * kStageBytes;
  l.scales = l.codes + groups * S::kColumns * kGroup;
  l.weight_scales = l.scales + groups * S::kTokens * 4;
  l.sums = l.weight_scales + a.stages * (kIsMx ? kMxScaleBytes : kBlockScaleBytes);
  l.barriers = l.sums + parts_of(a) * S::kTokens * kSumsRow * 4;
  l.items = l.barriers + kBarrierBytes;
  l.pairs = l.items + a.pairs * static_cast<int>(sizeof(Item));
  l.bytes = l.pairs + (a.is_ordered ? 0 : a.pairs * 4);
  return l;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Whether a tile is of two weights, gate and up, and whether it is of experts.
template <Kind kKind>
constexpr bool kIsGated = kKind == Kind::kMlpUp || kKind == Kind::kUp;
template <Kind kKind>
constexpr bool kHasExperts = kKind == Kind::kUp || kKind == Kind::kDown || kKind == Kind::kSum;

constexpr float kRestScale = 32;  // what the second term is larger by

struct Shared {
  uint8_t* bytes;
  uint32_t base;
  Layout at;
  const Item* items;
  const int32_t* pairs;
  int item_count;

  __device__ uint32_t stage(uint32_t i) const { return base + i * kStageBytes; }
  __device__ uint32_t full(uint32_t i) const { return base + at.barriers + i * 8; }
  __device__ uint32_t empty(uint32_t i) const { return base + at.barriers + (kMostStages + i) * 8; }
  __device__ uint32_t summed() const { return base + at.barriers + 2 * kMostStages * 8; }
  __device__ int* word() const { return reinterpret_cast<int*>(bytes + at.items - 8); }
  __device__ float* sums() const { return reinterpret_cast<float*>(bytes + at.sums); }
};

// A stage, and the parity that its barriers are waited for with.
struct Ring {
  uint32_t stage = 0, parity = 0;
  __device__ void advance(int count, int stages) {
    stage += static_cast<uint32_t>(count);
    while (stage >= static_cast<uint32_t>(stages)) {
      stage -= static_cast<uint32_t>(stages);
      parity ^= 1;
    }
  }
};

__device__ inline int steps_of(const StreamArgs& a) { return (a.depth + kStageDepth - 1) / kStageDepth; }

// What the block has to do: tiles first .. end - 1 and, of each, some stages of inputs.
struct Share {
  int first, end, first_step, steps;
};
template <Kind kKind>
__device__ Share share_of(const StreamArgs& a, const Shared& shared) {
  const int64_t tiles = kKind == Kind::kUp || kKind == Kind::kDown ? shared.item_count * a.tiles : a.tiles;
  const int clusters = static_cast<int>(gridDim.x) / a.cluster;
  const int own = static_cast<int>(blockIdx.x) / a.cluster, rank = static_cast<int>(blockIdx.x) % a.cluster;
  // Of kSum experts are not cut.
  const int whole = kKind == Kind::kSum ? steps_of(a) : 1;
  const int parts = kKind == Kind::kSum ? shared.item_count : steps_of(a);
  const int first_part = rank * parts / a.cluster;
  return {static_cast<int>(own * tiles / clusters), static_cast<int>((own + 1) * tiles / clusters),
          first_part * whole, ((rank + 1) * parts / a.cluster - first_part) * whole};
}

// The weight or item that a tile belongs to and where its rows begin there.
struct Place {
  int index = 0;
  int row = 0;
  int64_t column = 0;  // dense: where the weight's outputs begin
};
template <Kind kKind>
__device__ Place find_place(const StreamArgs& a, int tile) {
  Place place;
  if constexpr (kKind == Kind::kDense) {
    for (; place.index + 1 < a.count; ++place.index) {
      const int64_t rows = a.weights[place.index].rows;
      const int tiles = static_cast<int>((rows + kTileRows - 1) / kTileRows);
      if (tile < tiles) break;
      tile -= tiles;
      place.column += rows;
    }
    place.row = tile * kTileRows;
  } else if constexpr (kKind == Kind::kSum) {
    place.row = tile * kTileRows;
  } else {
    place.index = tile / a.tiles;
    place.row = tile % a.tiles * (kIsGated<kKind> ? kHalfRows : kTileRows);
  }
  return place;
}

// The weight that row `row` of a tile is of, and which row of it.
template <Kind kKind>
__device__ const WeightView& weight_of(const StreamArgs& a, const Shared& shared, const Place& place,
                                       int row) {
  if constexpr (kKind == Kind::kDense) {
    return a.weights[place.index];
  } else if constexpr (kKind == Kind::kMlpUp) {
    return a.weights[row / kHalfRows];
  } else {
    const ExpertPointers& expert = a.moe.table[shared.items[place.index].expert];
    if constexpr (!kIsGated<kKind>) return expert.w2;
    return row < kHalfRows ? expert.w1 : expert.w3;
  }
}
template <Kind kKind>
__device__ int weight_row(const Place& place, int row) {
  return place.row + (kIsGated<kKind> ? row % kHalfRows : row);
}

// --- copies

// The expert that a step of kSum is of, and which of its steps it is.
__device__ inline int item_of_step(const StreamArgs& a, int step, int& own) {
  const int item = step / steps_of(a);
  own = step - item * steps_of(a);
  return item;
}

// One thread copies weights.
template <Kind kKind>
__device__ void copy_weights(const StreamArgs& a, const DenseMaps& dense, const Shared& shared) {
  const Share share = share_of<kKind>(a, shared);
  const uint64_t policy = ptx::policy_evict_first();
  const CUtensorMap* maps = nullptr;
  int item = -1;
  const auto take_item = [&](int index) {
    if (index == item) return;
    item = index;
    maps = a.maps + shared.items[item].expert * kMapsOfExpert + (kIsGated<kKind> ? 0 : 2);
    ptx::acquire_map(maps);
    if (kIsGated<kKind>) ptx::acquire_map(maps + 1);
  };
  Ring ring;
  for (int tile = share.first; tile < share.end; ++tile) {
    const Place place = find_place<kKind>(a, tile);
    if constexpr (!kHasExperts<kKind>) {
      maps = dense.map + place.index;
    } else if constexpr (kKind != Kind::kSum) {
      take_item(place.index);
    }
    for (int step = 0; step < share.steps; ++step) {
      int own = share.first_step + step;
      if constexpr (kKind == Kind::kSum) take_item(item_of_step(a, share.first_step + step, own));
      ptx::barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
      const uint32_t full = shared.full(ring.stage);
      ptx::barrier_arrive_expect(full, kStageBytes);
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        const uint32_t to = shared.stage(ring.stage) + static_cast<uint32_t>(group * kBoxBytes);
        const int k = own * kStageDepth + group * kGroup;
        ptx::copy_box(to, maps, full, k, place.row, policy);
        if constexpr (kIsGated<kKind>)
          ptx::copy_box(to + kBoxBytes / 2, maps + 1, full, k, place.row, policy);
      }
      ring.advance(1, a.stages);
    }
  }
}

// One warp copies the scales of each stage. MXFP8: eight bytes a row. Blocks: one a group, and half of a
// tile.
template <Kind kKind, bool kIsMx>
__device__ void copy_scales(const StreamArgs& a, const Shared& shared) {
  const Share share = share_of<kKind>(a, shared);
  const int lane = threadIdx.x % 32;
  const int last_group = (a.depth + kGroup - 1) / kGroup - 1;
  const uint8_t* from[2] = {};
  const auto take_rows = [&](const Place& place) {
    if constexpr (kIsMx) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        // Rows behind the last keep what scales there were.
        const WeightView& w = weight_of<kKind>(a, shared, place, lane + 32 * i);
        const int n = weight_row<kKind>(place, lane + 32 * i);
        from[i] = n < w.rows ? static_cast<const uint8_t*>(w.scales) + (n + w.row_offset) * w.scale_stride +
                                   w.column_offset / 32
                             : nullptr;
      }
    } else if (a.has_blocks && lane < 2 * kGroups) {
      const WeightView& w = weight_of<kKind>(a, shared, place, lane / kGroups * kHalfRows);
      from[0] = reinterpret_cast<const uint8_t*>(static_cast<const float*>(w.scales) +
                                                 (place.row + w.row_offset) / kGroup * w.scale_stride +
                                                 w.column_offset / kGroup);
    }
  };
  Ring ring;
  for (int tile = share.first; tile < share.end; ++tile) {
    Place place = find_place<kKind>(a, tile);
    if (kKind != Kind::kSum) take_rows(place);
    for (int step = 0; step < share.steps; ++step) {
      int own = share.first_step + step;
      if constexpr (kKind == Kind::kSum) {
        place.index = item_of_step(a, share.first_step + step, own);
        if (own == 0) take_rows(place);
      }
      ptx::barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
      const int group = own * kGroups;
      const uint32_t to = shared.base + shared.at.weight_scales;
      if constexpr (kIsMx) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (from[i] != nullptr)
            ptx::copy_async<8>(to + ring.stage * kMxScaleBytes + (lane + 32 * i) * 8, from[i] + group * 4);
        }
      } else if (from[0] != nullptr) {
        ptx::copy_async<4>(to + ring.stage * kBlockScaleBytes + lane * 4,
                           from[0] + min(group + lane % kGroups, last_group) * 4);
      }
      ptx::barrier_arrive_after_copies(shared.full(ring.stage));
      ring.advance(1, a.stages);
    }
  }
}

// --- tokens

__device__ __forceinline__ uint32_t encode_two(float low, float high) {
  uint16_t codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
  return codes;
}
__device__ __forceinline__ float2 decode_two(uint32_t codes) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(codes)));
  return __half22float2(*reinterpret_cast<const __half2*>(&halves));
}

// Eight numbers, which come in as they are and go out as codes; sixteen neighbouring lanes share a scale, a
// power of two, so that nothing is lost by it. What is not finite makes it NaN.
__device__ __forceinline__ float encode_eight(const float (&x)[8], uint2& codes, uint2& rest) {
  float largest = 0;
#pragma unroll
  for (float value : x) largest = fmaxf(largest, fabsf(value));
#pragma unroll
  for (int i = 8; i > 0; i >>= 1) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, i));
  // The largest becomes 128 to 256.
  const uint32_t exponent = __float_as_uint(largest) >> 23U;
  const float factor = __uint_as_float(min(261U - exponent, 254U) << 23U);
  uint32_t first[4], second[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float low = x[2 * i] * factor, high = x[2 * i + 1] * factor;
    first[i] = encode_two(low, high);
    const float2 coded = decode_two(first[i]);
    second[i] = encode_two((low - coded.x) * kRestScale, (high - coded.y) * kRestScale);
  }
  codes = {first[0] | first[1] << 16U, first[2] | first[3] << 16U};
  rest = {second[0] | second[1] << 16U, second[2] | second[3] << 16U};
  if (exponent == 255) return NAN;
  return exponent > 7 ? __uint_as_float((exponent - 7) << 23U) : __uint_as_float(0x00400000U);
}

__device__ __forceinline__ void load_eight(const Matrix& x, int64_t row, int k, float (&values)[8]) {
  if (x.scalar == Scalar::kBF16) {
    const uint4 raw =
        __ldcg(reinterpret_cast<const uint4*>(static_cast<const bf16_t*>(x.data) + row * x.stride + k));
    const uint32_t parts[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[2 * i] = ptx::low_float(parts[i]);
      values[2 * i + 1] = ptx::high_float(parts[i]);
    }
  } else {
    const auto* from =
        reinterpret_cast<const float4*>(static_cast<const float*>(x.data) + row * x.stride + k);
    const float4 low = __ldcg(from), high = __ldcg(from + 1);
    const float all[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = all[i];
  }
}

__device__ __forceinline__ void store_shared8(uint32_t address, uint2 value) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(address), "r"(value.x), "r"(value.y) : "memory");
}

// Where eight inputs of a token come from, and what they are multiplied by.
struct Source {
  int64_t row;
  int k;  // from depth on there is nothing
  float factor = 1;
};

// Tokens 0 .. count - 1 as codes [group, column, 128] and scales [group, token]: inputs k .. k + 7 of the
// block's share come from source(token, k). What other columns hold does not matter.
template <typename S, typename SourceOf>
__device__ void encode_tokens(const StreamArgs& a, const Shared& shared, int steps, int count,
                              SourceOf&& source) {
  constexpr int kAtOnce = 4;
  const int chunks = steps * kStageDepth / 8, total = count * chunks;
  auto* scales = reinterpret_cast<float*>(shared.bytes + shared.at.scales);
  for (int base = threadIdx.x; base < total; base += kAtOnce * kMathThreads) {
    float values[kAtOnce][8], factors[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int index = base + i * kMathThreads;
#pragma unroll
      for (float& value : values[i]) value = 0;
      if (index >= total) continue;
      const int token = index / chunks;
      const Source from = source(token, (index - token * chunks) * 8);
      factors[i] = from.factor;
      if (from.k < a.depth) load_eight(a.x, from.row, from.k, values[i]);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int index = base + i * kMathThreads;
      if (index >= total) break;  // of a whole warp
      const int token = index / chunks, chunk = index - token * chunks, group = chunk / 16;
      uint2 codes, rest;
      const float scale = encode_eight(values[i], codes, rest);
      const uint32_t to = shared.base + shared.at.codes + static_cast<uint32_t>(group * S::kColumns * kGroup);
      const auto place = [&](int column) {
        return to + ptx::swizzled(static_cast<uint32_t>(column), static_cast<uint32_t>(chunk % 16 / 2)) +
               static_cast<uint32_t>(chunk % 2 * 8);
      };
      store_shared8(place(2 * token), codes);
      store_shared8(place(2 * token + 1), rest);
      if (chunk % 16 == 0) scales[group * S::kTokens + token] = scale * factors[i];
    }
  }
  ptx::fence_shared_async();
}

// --- products

struct Math {
  int warpgroup, warp, lane;  // warp: in the warpgroup
  __device__ int row() const { return warp * 16 + lane / 4; }
};

template <typename S>
constexpr int kOwnTokens = S::kTokens / 4;  // of a lane

// Own token o of a lane, and what a product's sums say of it and row 8 h.
__device__ __forceinline__ int own_token(const Math& m, int o) { return 4 * o + m.lane % 4; }
template <int kSize>
__device__ __forceinline__ float own_sum(const float (&c)[kSize], int o, int h) {
  return fmaf(c[4 * o + 2 * h + 1], 1.0F / kRestScale, c[4 * o + 2 * h]);
}

template <int kCount, int kSize>
__device__ __forceinline__ void settle(float (&c)[kCount][kSize]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int j = 0; j < kSize; ++j) asm volatile("" : "+f"(c[i][j])::"memory");
  }
}

__device__ __forceinline__ float scale_of(uint32_t four, int i) {
  const uint32_t bits = four >> (8 * i) & 0xffU;
  return to_f32(e8m0_t{static_cast<uint8_t>(bits)});
}

// sums[o][h] += a stage's products; `group` counts from the block's first. `lower` says whether the warp's
// rows are of the tile's lower half.
template <typename S>
__device__ __forceinline__ void multiply_blocks(const StreamArgs& a, const Shared& shared, const Math& m,
                                                uint32_t stage, int group, int lower,
                                                float (&sums)[kOwnTokens<S>][2]) {
  const uint32_t codes = shared.base + shared.at.codes + static_cast<uint32_t>(group * S::kColumns * kGroup);
  float c[kGroups][S::kColumns / 2];
  ptx::wgmma_fence();
#pragma unroll
  for (uint32_t k = 0; k < kGroup / 32; ++k) {
#pragma unroll
    for (uint32_t g = 0; g < kGroups; ++g) {
      ptx::wgmma_e4m3(c[g], ptx::operand_along_k(shared.stage(stage) + g * kBoxBytes + k * 32),
                      ptx::operand_along_k(codes + g * S::kColumns * kGroup + k * 32), k > 0);
    }
  }
  ptx::wgmma_commit();
  const auto* scales = reinterpret_cast<const float*>(shared.bytes + shared.at.scales) + group * S::kTokens;
  float weight_scales[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    weight_scales[g] =
        a.has_blocks
            ? reinterpret_cast<const float*>(
                  shared.bytes + shared.at.weight_scales)[stage * (2 * kGroups) + lower * kGroups + g]
            : 1.0F;
  }
  ptx::wgmma_wait<0>();
  settle(c);
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
#pragma unroll
    for (int o = 0; o < kOwnTokens<S>; ++o) {
      const float factor = scales[g * S::kTokens + own_token(m, o)] * weight_scales[g];
#pragma unroll
      for (int h = 0; h < 2; ++h) sums[o][h] = fmaf(own_sum(c[g], o, h), factor, sums[o][h]);
    }
  }
}

// The same where 32 inputs of a row share a scale.
template <typename S>
__device__ __forceinline__ void multiply_mx(const Shared& shared, const Math& m, uint32_t stage, int group,
                                            float (&sums)[kOwnTokens<S>][2]) {
  constexpr int kPieces = kGroup / 32;
  constexpr int kAtOnce = S::kColumns <= 8 ? kGroups : 1;  // groups
  const uint32_t codes = shared.base + shared.at.codes + static_cast<uint32_t>(group * S::kColumns * kGroup);
  const auto* scales = reinterpret_cast<const float*>(shared.bytes + shared.at.scales) + group * S::kTokens;
  const auto* weight_scales =
      reinterpret_cast<const uint32_t*>(shared.bytes + shared.at.weight_scales + stage * kMxScaleBytes);
#pragma unroll
  for (int first = 0; first < kGroups; first += kAtOnce) {
    float c[kAtOnce * kPieces][S::kColumns / 2];
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kAtOnce * kPieces; ++i) {
      const auto g = static_cast<uint32_t>(first + i / kPieces), k = static_cast<uint32_t>(i % kPieces);
      ptx::wgmma_e4m3(c[i], ptx::operand_along_k(shared.stage(stage) + g * kBoxBytes + k * 32),
                      ptx::operand_along_k(codes + g * S::kColumns * kGroup + k * 32), false);
    }
    ptx::wgmma_commit();
    uint32_t four[kAtOnce][2];
#pragma unroll
    for (int g = 0; g < kAtOnce; ++g) {
#pragma unroll
      for (int h = 0; h < 2; ++h) four[g][h] = weight_scales[(m.row() + 8 * h) * kGroups + first + g];
    }
    ptx::wgmma_wait<0>();
    settle(c);
#pragma unroll
    for (int g = 0; g < kAtOnce; ++g) {
#pragma unroll
      for (int o = 0; o < kOwnTokens<S>; ++o) {
        const float scale = scales[(first + g) * S::kTokens + own_token(m, o)];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
          for (int k = 0; k < kPieces; ++k) {
            const float factor = scale_of(four[g][h], k) * scale;
            sums[o][h] = fmaf(own_sum(c[g * kPieces + k], o, h), factor, sums[o][h]);
          }
        }
      }
    }
  }
}

// --- outputs

constexpr int kAllMath = 1;  // a named barrier

// The scale that rows have instead of blocks.
__device__ inline float scale_of_row(const WeightView& w, int64_t n) {
  if (n >= w.rows) return 0;
  return static_cast<const float*>(
      w.scales)[(n + w.row_offset) / w.block_rows * w.scale_stride + w.column_offset / w.block_columns];
}

template <Kind kKind, bool kIsMx, typename S>
__device__ float total_of(const StreamArgs& a, const Shared& shared, const Place& place, int token, int row) {
  float sum = 0;
  const float* at = shared.sums() + token * kSumsRow + row;
  for (int i = 0; i < parts_of(a); ++i) sum += at[i * S::kTokens * kSumsRow];
  if (!kIsMx && !a.has_blocks)
    sum *= scale_of_row(weight_of<kKind>(a, shared, place, row), weight_row<kKind>(place, row));
  return sum;
}

__device__ inline void store_scalar(const Matrix& to, int64_t row, int64_t column, float value) {
  const int64_t at = row * to.stride + column;
  if (to.scalar == Scalar::kBF16) {
    static_cast<bf16_t*>(to.data)[at] = from_f32<bf16_t>(value);
  } else {
    static_cast<float*>(to.data)[at] = value;
  }
}

__device__ inline bool is_local(const MoeArgs& a, int64_t pair) {
  const int64_t expert = static_cast<int64_t>(a.ids[pair]) - a.first_expert;
  return expert >= 0 && expert < a.experts;
}

template <Kind kKind, bool kIsMx, typename S>
__device__ void store_tile(const StreamArgs& a, const Shared& shared, const Place& place) {
  constexpr int kRows = kIsGated<kKind> ? kHalfRows : kTileRows;
  const int count = kKind == Kind::kSum  ? 1
                    : kHasExperts<kKind> ? shared.items[place.index].count
                                         : static_cast<int>(a.x.rows);
  const auto total = [&](int token, int row) {
    return total_of<kKind, kIsMx, S>(a, shared, place, token, row);
  };
  for (int i = threadIdx.x; i < kRows * count; i += kMathThreads) {
    const int token = i / kRows, row = i % kRows, n = place.row + row;
    if constexpr (kKind == Kind::kDense) {
      if (n >= a.weights[place.index].rows) continue;
      float y = total(token, row);
      if (a.applies_silu) y = silu(y);
      const int64_t column = place.column + n;
      if (a.addend.data != nullptr)
        y += load_scalar(a.addend.data, a.addend.scalar, token * a.addend.stride + column);
      store_scalar(a.out, token, column, y);
    } else if constexpr (kKind == Kind::kMlpUp) {
      if (n < a.out.columns)
        store_scalar(a.out, token, n, swiglu(a.swiglu, total(token, row), total(token, kHalfRows + row)));
    } else if constexpr (kKind == Kind::kSum) {
      if (n < a.out.columns) store_scalar(a.out, 0, n, total(token, row));
    } else {
      const int64_t pair = shared.pairs[shared.items[place.index].first + token];
      if constexpr (kKind == Kind::kUp) {
        if (n >= a.moe.intermediate) continue;
        static_cast<bf16_t*>(a.moe.hidden)[pair * a.moe.intermediate + n] =
            from_f32<bf16_t>(swiglu(a.swiglu, total(token, row), total(token, kHalfRows + row)));
      } else {
        if (n >= a.out.columns) continue;
        a.moe.partial[pair * a.out.columns + n] = total(token, row);
      }
    }
  }
}

template <Kind kKind, bool kIsMx, typename S>
__device__ void compute(const StreamArgs& a, const Shared& shared) {
  // Taken from one lane, so that the compiler sees that all have the same.
  const int warp = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / 32, 0);
  const Math m{warp / 4, warp % 4, static_cast<int>(threadIdx.x) % 32};
  const int rank = static_cast<int>(blockIdx.x) % a.cluster;
  const Share share = share_of<kKind>(a, shared);
  if constexpr (kKind != Kind::kUp) ptx::wait_for_previous_kernel();
  if constexpr (!kHasExperts<kKind>) {
    encode_tokens<S>(a, shared, share.steps, static_cast<int>(a.x.rows), [&](int token, int k) {
      return Source{token, share.first_step * kStageDepth + k};
    });
  }
  if constexpr (kKind == Kind::kSum) {
    encode_tokens<S>(a, shared, share.steps, 1, [&](int, int k) {
      int own;
      const int item = item_of_step(a, share.first_step + k / kStageDepth, own);
      const int64_t pair = shared.pairs[shared.items[item].first];
      return Source{pair, own * kStageDepth + k % kStageDepth, a.moe.weights[pair]};
    });
  }
  int item = -1;
  Ring start;
  for (int tile = share.first; tile < share.end; ++tile) {
    const Place place = find_place<kKind>(a, tile);
    // The tile before is done with tokens and sums.
    if (tile > share.first) ptx::named_barrier(kAllMath, kMathThreads);
    if (kKind == Kind::kUp || kKind == Kind::kDown) {
      if (place.index != item) {
        item = place.index;
        const Item own = shared.items[item];
        encode_tokens<S>(a, shared, share.steps, own.count, [&](int token, int k) {
          const int64_t pair = shared.pairs[own.first + token];
          return Source{kKind == Kind::kUp ? pair / a.moe.top_k : pair, k};
        });
        ptx::named_barrier(kAllMath, kMathThreads);
      }
    } else if (tile == share.first) {
      ptx::named_barrier(kAllMath, kMathThreads);
    }
    float sums[kOwnTokens<S>][2] = {};
    Ring ring = start;
    ring.advance(m.warpgroup, a.stages);
    for (int step = m.warpgroup; step < share.steps; step += kWarpgroups) {
      ptx::barrier_wait(shared.full(ring.stage), ring.parity);
      if constexpr (kIsMx) {
        multiply_mx<S>(shared, m, ring.stage, step * kGroups, sums);
      } else {
        multiply_blocks<S>(a, shared, m, ring.stage, step * kGroups, m.warp / 2, sums);
      }
      __syncwarp();
      if (m.lane == 0) ptx::barrier_arrive(shared.empty(ring.stage));
      ring.advance(kWarpgroups, a.stages);
    }
    start.advance(share.steps, a.stages);
    const auto at = [&](int part, int o, int h) {
      return (part * S::kTokens + own_token(m, o)) * kSumsRow + m.row() + 8 * h;
    };
    // Within a cluster the second warpgroup's sums go to the first one, and both to the first block.
    if (a.cluster == 1 || m.warpgroup > 0) {
#pragma unroll
      for (int o = 0; o < kOwnTokens<S>; ++o) {
#pragma unroll
        for (int h = 0; h < 2; ++h) shared.sums()[at(a.cluster == 1 ? m.warpgroup : 0, o, h)] = sums[o][h];
      }
    }
    ptx::named_barrier(kAllMath, kMathThreads);
    if (a.cluster > 1) {
      ptx::cluster_wait();
      if (m.warpgroup == 0) {
#pragma unroll
        for (int o = 0; o < kOwnTokens<S>; ++o) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            ptx::store_to_first(shared.base + shared.at.sums + static_cast<uint32_t>(at(rank, o, h)) * 4,
                                shared.summed(), sums[o][h] + shared.sums()[at(0, o, h)]);
          }
        }
      }
      if (rank != 0) return;
      ptx::barrier_wait(shared.summed(), 0);
    }
    store_tile<kKind, kIsMx, S>(a, shared, place);
  }
}

// --- experts

__device__ inline int prefix_sum(int x) {
  const int lane = threadIdx.x % 32;
  for (int i = 1; i < 32; i <<= 1) {
    const int left = __shfl_up_sync(0xffffffffU, x, i);
    if (lane >= i) x += left;
  }
  return x;
}

// The experts' pairs, at most kTokens to an item: from the ids of at most 32 pairs, in the order in which
// experts are first chosen, else from the order made before. One warp; returns how many items there are.
template <int kTokens>
__device__ int find_items(const StreamArgs& a, Item* items, int32_t* pairs) {
  const int lane = threadIdx.x % 32;
  const auto store = [&](int at, int32_t expert, int32_t first, int32_t count) {
    for (int32_t begin = 0; begin < count; begin += kTokens)
      items[at++] = {expert, first + begin, min(kTokens, count - begin)};
  };
  if (!a.is_ordered) {
    int expert = -1;
    if (lane < a.pairs && is_local(a.moe, lane))
      expert = a.moe.ids[lane] - static_cast<int>(a.moe.first_expert);
    const uint32_t same = __match_any_sync(0xffffffffU, expert), before = (1U << lane) - 1U;
    const bool is_first = expert >= 0 && (same & before) == 0;
    const int count = is_first ? __popc(same) : 0, own = (count + kTokens - 1) / kTokens;
    const int upto = prefix_sum(own), pairs_upto = prefix_sum(count);
    if (is_first) store(upto - own, expert, pairs_upto - count, count);
    const int first = __shfl_sync(0xffffffffU, pairs_upto - count, __ffs(static_cast<int>(same)) - 1);
    if (expert >= 0) pairs[first + __popc(same & before)] = lane;
    return __shfl_sync(0xffffffffU, upto, 31);
  }
  const ExpertOrder& order = a.moe.order;
  const int active = __ldcg(order.active + a.moe.experts);
  int at = 0;
  for (int base = 0; base < active; base += 32) {
    int32_t expert = 0, first = 0, count = 0;
    if (base + lane < active) {
      expert = __ldcg(order.active + base + lane);
      first = __ldcg(order.starts + expert);
      count = __ldcg(order.starts + expert + 1) - first;
    }
    const int own = (count + kTokens - 1) / kTokens, upto = prefix_sum(own);
    store(at + upto - own, expert, first, count);
    at += __shfl_sync(0xffffffffU, upto, 31);
  }
  return at;
}

// Asks for the block's share of the table and the maps, which weights' copies will wait for.
__device__ inline void prefetch_table(const StreamArgs& a) {
  constexpr int64_t kLine = 128;
  const auto ask = [](const void* data, int64_t bytes) {
    const int64_t lines = bytes / kLine;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < lines;
         i += static_cast<int64_t>(gridDim.x) * kThreads) {
      asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const uint8_t*>(data) + i * kLine));
    }
  };
  ask(a.moe.table, a.moe.experts * static_cast<int64_t>(sizeof(ExpertPointers)));
  ask(a.maps, a.moe.experts * kMapsOfExpert * static_cast<int64_t>(sizeof(CUtensorMap)));
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <Kind kKind, bool kIsMx, typename S>
__global__ void __launch_bounds__(kThreads, 2)
    stream_kernel(const __grid_constant__ StreamArgs a, const __grid_constant__ DenseMaps dense) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint8_t bytes[];
  Shared shared;
  shared.bytes = bytes;
  shared.base = ptx::shared_address(bytes);
  shared.at = layout_of<S, kIsMx>(a);
  auto* items = reinterpret_cast<Item*>(bytes + shared.at.items);
  auto* pairs = reinterpret_cast<int32_t*>(bytes + shared.at.pairs);
  shared.items = items;
  shared.pairs = a.is_ordered ? a.moe.order.pairs : pairs;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (threadIdx.x == kMathThreads) {
    for (uint32_t i = 0; i < static_cast<uint32_t>(a.stages); ++i) {
      ptx::barrier_init(shared.full(i), 33);  // the thread that copies weights, the warp that copies scales
      ptx::barrier_init(shared.empty(i), 4);  // warps of a warpgroup
    }
    ptx::barrier_init(shared.summed(), 1);
    ptx::barrier_init_fence();
    if (a.cluster > 1)
      ptx::barrier_arrive_expect(shared.summed(),
                                 static_cast<uint32_t>(a.cluster * S::kTokens * kTileRows * 4));
  }
  if constexpr (kHasExperts<kKind>) {
    if constexpr (kKind == Kind::kUp) {
      prefetch_table(a);
      ptx::wait_for_previous_kernel();
    }
    // Of the second products which experts run was settled before the kernel that makes hidden rows began.
    if (warp == 0) {
      const int count = find_items<S::kTokens>(a, items, pairs);
      if (threadIdx.x == 0) *shared.word() = count;
    }
  }
  __syncthreads();
  shared.item_count = kHasExperts<kKind> ? *shared.word() : 0;
  if (a.cluster > 1) ptx::cluster_arrive();
  if (warp == kMathThreads / 32) {
    if (threadIdx.x == kMathThreads) copy_weights<kKind>(a, dense, shared);
    __syncwarp();
    if (a.cluster > 1) ptx::cluster_wait();
  } else if (warp == kMathThreads / 32 + 1) {
    copy_scales<kKind, kIsMx>(a, shared);
    if (a.cluster > 1) ptx::cluster_wait();
  } else {
    compute<kKind, kIsMx, S>(a, shared);
  }
#endif
}

}  // namespace minimax::cuda::fp8_stream
