// Products of many rows with 8-bit weights on Hopper: e4m3 codes of both sides through the tensor cores,
// dense and for experts.
//
// Weights are the rows of a warpgroup product and tokens its columns, so that a tile takes any number of
// tokens up to 136 in small steps: rows are split evenly, and little is computed for nobody. The tensor cores
// add 128 inputs, whose sum is scaled and added to F32 sums; a tile of 256 weight rows by 136 tokens is what
// registers hold of both. Two blocks, a cluster, share the weights of a pair of tiles: each copies half of
// them for both, since the second-level cache would not keep up. Of a block's third warpgroup one warp
// copies, one makes scales, and two have the copy engine write a tile's outputs, which wait in shared memory,
// while the next tile is multiplied. Blocks stay and take every so many-th pair.
#include "backends/cuda/device.cuh"
#include "backends/cuda/expert_sum.h"
#include "backends/cuda/fp8_wgmma.cuh"
#include "backends/cuda/tensor_map.h"

namespace minimax::cuda {
namespace {

enum class Kind { kDense, kUp, kDown };

constexpr int kWeightRows = 256;     // of a tile: 128 of w1 and the same 128 of w3, or 256 of one weight
constexpr int kTokens = 136;         // of a tile at most
constexpr int kCluster = 2;          // tiles of a pair
constexpr int kDepth = kMapColumns;  // a group of inputs, and what a row of a swizzled box holds
// Where outputs take the room of a stage there is one less.
template <Kind kKind>
constexpr int kStages = kKind == Kind::kUp ? 4 : 3;
constexpr int kMathThreads = 256;
constexpr int kThreads = kMathThreads + 128;
constexpr int kWeightBytes = kWeightRows * kDepth;
constexpr int kStageBytes = kWeightBytes + kTokens * kDepth;
// Boxes of tokens.
constexpr int kManyTokens = 64;
constexpr int kFewTokens = 8;
// Scales of a stage, for the tile's upper and lower 128 weight rows: of tokens 2 q, 2 q + 1 of every eight,
// for q = 0 to 3, in a row each, as a lane's fragments need them.
constexpr int kScaleRow = 36;
constexpr int kHalfScales = 4 * kScaleRow;
constexpr int kStageScales = 2 * kHalfScales;
// Outputs on their way to memory: a token's 128 codes, or for each warpgroup its 128 numbers; what is between
// keeps eight tokens' in different banks. Of codes also the largest numbers of each warp's outputs, in BF16,
// and what each token's are to be multiplied with.
constexpr int kStagedCodes = 128 + 16;
constexpr int kStagedNumbers = 256 + 16;
constexpr int kTileBytes = 32;  // what the warps that multiply need to know of a tile
constexpr int kLargestBytes = kMathThreads / 32 * kTokens * 2;
template <Kind kKind>
constexpr int kStagingBytes =
    kKind == Kind::kUp ? kTokens* kStagedCodes + kLargestBytes + kTokens * 4 : 2 * kTokens* kStagedNumbers;
template <Kind kKind>
constexpr int kFixedBytes =
    kStages<kKind>*(kStageBytes + kStageScales * 4 + 2 * 8 + kTileBytes) + kStagingBytes<kKind>;
constexpr int kMapsOfExpert = 3;  // w1, w3, w2

struct RowMaps {
  CUtensorMap many, few;
};

struct ProductArgs {
  const float* x_scales = nullptr;  // [groups, x_scale_stride]
  int64_t x_scale_stride = 0;
  int rows = 0;             // of x, or all pairs
  int parts = 0;            // that the rows are split into, an even number
  int depth = 0;            // inputs
  int outputs = 0;          // rows of the weight, of kUp those of w1
  bool has_blocks = false;  // a scale a block of 128 x 128, else one for the whole of a row
  WeightView weight;
  // Experts:
  const ExpertPointers* table = nullptr;
  const CUtensorMap* maps = nullptr;  // [experts, 3]
  const int32_t* starts = nullptr;    // [experts + 1]
  int experts = 0;
  SwigluParams swiglu;
  bool applies_silu = false;
  bool stores_chunks = false;   // 16 bytes of outputs at a time
  Matrix out;                   // [rows, outputs]; of kUp codes
  float* out_scales = nullptr;  // of kUp [outputs / 128, out_scale_stride]
  int64_t out_scale_stride = 0;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Named barriers. Outputs of a warpgroup, or of both: their room is free, they are there.
constexpr int kAllMath = 1;
constexpr int kFree = 2, kStaged = 4;
// The warps that multiply and the one, or of kUp the two, that have outputs written.
template <Kind kKind>
constexpr int kStoring = kKind == Kind::kUp ? kMathThreads + 64 : kMathThreads / 2 + 32;

template <Kind kKind>
struct Shared {
  uint32_t stages, staging, scales, tiles, barriers;
  const int32_t *pairs, *starts;  // of experts: pairs of tiles before them, with one column of weights; rows
  int rank;                       // in the cluster

  __device__ uint32_t full(uint32_t stage) const { return barriers + stage * 8; }
  __device__ uint32_t empty(uint32_t stage) const { return barriers + (kStages<kKind> + stage) * 8; }
  __device__ uint32_t scales_of(uint32_t stage) const { return scales + stage * kStageScales * 4; }
  // The tile whose first step the stage holds.
  __device__ uint32_t tile_of(uint32_t stage) const { return tiles + stage * kTileBytes; }
};

struct Tile {
  bool is_there = false;
  int expert = 0;
  int first = 0;   // row of x
  int count = 0;   // rows; none of a pair's second tile, maybe
  int width = 0;   // rows computed, those behind the last for nothing
  int output = 0;  // first row of the weight
};

// Widths that there are products for.
__device__ inline int round_width(int rows) {
  return rows <= 32    ? 32
         : rows <= 64  ? 64
         : rows <= 80  ? (rows + 7) / 8 * 8
         : rows <= 128 ? (rows + 15) / 16 * 16
                       : kTokens;
}
__device__ inline void split_rows(int rows, int parts, int part, Tile& tile) {
  const int share = (rows + parts - 1) / parts;
  tile.is_there = true;
  tile.first += part * share;
  tile.count = max(0, min(share, rows - part * share));
  tile.width = round_width(share);
}

template <Kind kKind>
__device__ Tile find_tile(const ProductArgs& a, const Shared<kKind>& shared, int index) {
  constexpr int kOutputs = kKind == Kind::kUp ? kWeightRows / 2 : kWeightRows;
  const int columns = (a.outputs + kOutputs - 1) / kOutputs;
  Tile tile;
  if constexpr (kKind == Kind::kDense) {
    // Tiles at work at one time share both tokens and weights.
    constexpr int kGroup = 8;
    const int pairs = a.parts / kCluster;
    if (index >= pairs * columns) return tile;
    const int first = index / (kGroup * columns) * kGroup, inside = index - first * columns;
    const int group = min(kGroup, pairs - first);
    tile.output = inside / group * kOutputs;
    split_rows(a.rows, a.parts, (first + inside % group) * kCluster + shared.rank, tile);
  } else {
    if (index >= shared.pairs[a.experts] * columns) return tile;
    int low = 0, high = a.experts;  // the last expert whose tiles begin at or before this one
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (shared.pairs[middle] * columns <= index ? low : high) = middle;
    }
    const int inside = index - shared.pairs[low] * columns;
    const int pairs = shared.pairs[low + 1] - shared.pairs[low];
    tile.expert = low;
    tile.first = shared.starts[low];
    tile.output = inside / pairs * kOutputs;
    split_rows(shared.starts[low + 1] - shared.starts[low], pairs * kCluster,
               inside % pairs * kCluster + shared.rank, tile);
  }
  return tile;
}

__device__ inline const WeightView& upper_weight(const ProductArgs& a, Kind kind, int expert) {
  if (kind == Kind::kDense) return a.weight;
  return kind == Kind::kUp ? a.table[expert].w1 : a.table[expert].w2;
}
__device__ inline const WeightView& lower_weight(const ProductArgs& a, Kind kind, int expert) {
  return kind == Kind::kUp ? a.table[expert].w3 : upper_weight(a, kind, expert);
}
// The scales of the block row that holds weight row n, or null behind the last.
__device__ inline const float* scales_of_row(const WeightView& w, int64_t n) {
  if (n >= w.rows) return nullptr;
  return static_cast<const float*>(w.scales) + (n + w.row_offset) / w.block_rows * w.scale_stride +
         w.column_offset / w.block_columns;
}

__device__ __forceinline__ void store_shared4(uint32_t address, float value) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}
__device__ __forceinline__ uint32_t load_shared4(uint32_t address) {
  uint32_t v;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ float2 load_shared8f(uint32_t address) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address) : "memory");
  return v;
}
__device__ __forceinline__ void store_shared16(uint32_t address, const uint4& v) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}
__device__ __forceinline__ float4 load_shared16f(uint32_t address) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

// Which stage comes next, and the parity that its barriers are waited for with.
template <Kind kKind>
struct Ring {
  uint32_t stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == kStages<kKind>) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// One thread copies weights, for both blocks of the cluster, and codes.
template <Kind kKind>
__device__ void copy_tiles(const ProductArgs& a, const RowMaps& x_maps, const CUtensorMap& w_map,
                           const Shared<kKind>& shared) {
  const int steps = (a.depth + kDepth - 1) / kDepth;
  Ring<kKind> ring;
  for (int index = blockIdx.x / kCluster;; index += gridDim.x / kCluster) {
    const Tile tile = find_tile<kKind>(a, shared, index);
    if (!tile.is_there) {
      ptx::barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
      ptx::barrier_arrive(shared.full(ring.stage));
      return;
    }
    // This block's half of the weights: of w1 or w3, or the upper or lower rows.
    const CUtensorMap* weights = &w_map;
    int row = tile.output + shared.rank * (kWeightRows / kCluster);
    if constexpr (kKind != Kind::kDense) {
      weights = a.maps + tile.expert * kMapsOfExpert + (kKind == Kind::kUp ? shared.rank : 2);
      if (kKind == Kind::kUp) row = tile.output;
      ptx::acquire_map(weights);
    }
    for (int step = 0; step < steps; ++step) {
      ptx::barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
      const uint32_t full = shared.full(ring.stage), to = shared.stages + ring.stage * kStageBytes;
      ptx::barrier_arrive_expect(full, static_cast<uint32_t>(kWeightBytes + tile.width * kDepth));
      ptx::copy_box_to_all(to + static_cast<uint32_t>(shared.rank * (kWeightBytes / kCluster)), weights, full,
                           step * kDepth, row, (1 << kCluster) - 1);
      const uint32_t tokens = to + kWeightBytes;
      int at = 0;
      for (; at + kManyTokens <= tile.width; at += kManyTokens)
        ptx::copy_box(tokens + static_cast<uint32_t>(at * kDepth), &x_maps.many, full, step * kDepth,
                      tile.first + at);
      for (; at < tile.width; at += kFewTokens)
        ptx::copy_box(tokens + static_cast<uint32_t>(at * kDepth), &x_maps.few, full, step * kDepth,
                      tile.first + at);
      ring.advance();
    }
  }
}

// What a tile's first stage says of it. Behind the last tile there is a stage that says so.
__device__ __forceinline__ void put_tile(uint32_t to, const Tile& tile) {
  store_shared16(to, {static_cast<uint32_t>(tile.is_there), static_cast<uint32_t>(tile.expert),
                      static_cast<uint32_t>(tile.first), static_cast<uint32_t>(tile.count)});
  store_shared16(to + 16, {static_cast<uint32_t>(tile.width), static_cast<uint32_t>(tile.output), 0, 0});
}
__device__ __forceinline__ Tile get_tile(uint32_t from) {
  const uint4 a = ptx::load_shared16(from), b = ptx::load_shared16(from + 16);
  return {a.x != 0,
          static_cast<int>(a.y),
          static_cast<int>(a.z),
          static_cast<int>(a.w),
          static_cast<int>(b.x),
          static_cast<int>(b.y)};
}

// One warp multiplies the scales of tokens with those of weights, and finds the tiles for those that
// multiply.
template <Kind kKind>
__device__ void make_scales(const ProductArgs& a, const Shared<kKind>& shared) {
  constexpr int kCount = (kTokens + 31) / 32;
  const int lane = threadIdx.x % 32;
  const int steps = (a.depth + kDepth - 1) / kDepth;
  // Where the scale of token lane + 32 i stands, less 8 i.
  const uint32_t place = static_cast<uint32_t>(lane % 8 / 2 * kScaleRow + lane / 8 * 2 + lane % 2) * 4;
  Ring<kKind> ring;
  for (int index = blockIdx.x / kCluster;; index += gridDim.x / kCluster) {
    const Tile tile = find_tile<kKind>(a, shared, index);
    if (!tile.is_there) {
      ptx::barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
      if (lane == 0) put_tile(shared.tile_of(ring.stage), tile);
      ptx::barrier_arrive(shared.full(ring.stage));
      return;
    }
    const float *upper = nullptr, *lower = nullptr;
    if (a.has_blocks) {
      upper = scales_of_row(upper_weight(a, kKind, tile.expert), tile.output);
      lower = scales_of_row(lower_weight(a, kKind, tile.expert),
                            tile.output + (kKind == Kind::kUp ? 0 : kWeightRows / 2));
    }
    const float* x_scales = a.x_scales + tile.first + lane;
    float next[kCount], next_upper = 1, next_lower = 1;
    const auto fetch = [&](int step) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        next[i] = lane + 32 * i < tile.count ? x_scales[step * a.x_scale_stride + 32 * i] : 0.0F;
      if (upper != nullptr) next_upper = upper[step];
      if (lower != nullptr) next_lower = lower[step];
    };
    fetch(0);
    for (int step = 0; step < steps; ++step) {
      float scales[kCount];
#pragma unroll
      for (int i = 0; i < kCount; ++i) scales[i] = next[i];
      const float above = next_upper, below = next_lower;
      if (step + 1 < steps) fetch(step + 1);
      ptx::barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
      const uint32_t to = shared.scales_of(ring.stage) + place;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (lane + 32 * i >= kTokens) break;
        store_shared4(to + static_cast<uint32_t>(32 * i), scales[i] * above);
        store_shared4(to + static_cast<uint32_t>(32 * i + kHalfScales * 4), scales[i] * below);
      }
      if (lane == 0 && step == 0) put_tile(shared.tile_of(ring.stage), tile);
      // One lane for all after __syncwarp() would do, but racecheck does not follow that; it costs nothing.
      ptx::barrier_arrive(shared.full(ring.stage));
      ring.advance();
    }
  }
}

// A math thread's place and the stage it will read next.
template <Kind kKind>
struct Math {
  int warpgroup, warp, lane;  // warp: in the warpgroup
  Ring<kKind> ring;

  // The first of the tile's 256 weight rows whose sums are `half`, and which 128 of them hold it.
  __device__ int first_row(int half) const {
    return kKind == Kind::kUp ? half * 128 + warpgroup * 64 : warpgroup * 128 + half * 64;
  }
  __device__ int side(int half) const { return kKind == Kind::kUp ? half : warpgroup; }
};

// Element 4 j + 2 h + i of sums[half] is row first_row(half) + 16 warp + lane / 4 + 8 h, token 8 j + 2 (lane
// % 4) + i.
template <Kind kKind, int kWidth>
__device__ __forceinline__ void multiply(const Shared<kKind>& shared, Math<kKind>& m, int steps,
                                         float (&sums)[2][kWidth / 2]) {
  constexpr int kQuads = (kWidth + 15) / 16;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) sums[half][i] = 0;
  }
  for (int step = 0; step < steps; ++step) {
    ptx::barrier_wait(shared.full(m.ring.stage), m.ring.parity);
    const uint32_t stage = shared.stages + m.ring.stage * kStageBytes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t scales = shared.scales_of(m.ring.stage) +
                              static_cast<uint32_t>(m.side(half) * kHalfScales + m.lane % 4 * kScaleRow) * 4;
      float c[kWidth / 2];
      const uint32_t weights = stage + static_cast<uint32_t>(m.first_row(half)) * kDepth;
      ptx::wgmma_fence();
#pragma unroll
      for (uint32_t k = 0; k < kDepth / 32; ++k) {
        ptx::wgmma_e4m3(c, ptx::operand_along_k(weights + k * 32),
                        ptx::operand_along_k(stage + kWeightBytes + k * 32), k > 0);
      }
      ptx::wgmma_commit();
      const float4 first_scales = load_shared16f(scales);
      ptx::wgmma_wait<0>();
#pragma unroll
      for (int i = 0; i < kWidth / 2; ++i) asm volatile("" : "+f"(c[i])::"memory");
#pragma unroll
      for (int quad = 0; quad < kQuads; ++quad) {
        const float4 s = quad == 0 ? first_scales : load_shared16f(scales + static_cast<uint32_t>(quad) * 16);
        const float factors[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
        for (int i = 0; i < 8 && quad * 8 + i < kWidth / 2; ++i)
          sums[half][quad * 8 + i] += c[quad * 8 + i] * factors[i / 4 * 2 + i % 2];
      }
    }
    __syncwarp();
    if (m.lane < kCluster) ptx::barrier_arrive_at(shared.empty(m.ring.stage), static_cast<uint32_t>(m.lane));
    m.ring.advance();
  }
}

// Scales that are not a block's, of whole rows.
template <int kWidth>
__device__ __forceinline__ void scale_rows(const WeightView& w, int row, float (&sums)[kWidth]) {
  float factors[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float* scale = scales_of_row(w, row + 8 * h);
    factors[h] = scale == nullptr ? 0.0F : *scale;
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sums[i] *= factors[i / 2 % 2];
}

__device__ __forceinline__ float fast_swiglu(const SwigluParams& p, float gate, float up) {
  const float g = fminf(gate, p.limit);
  const float u = fminf(fmaxf(up, -p.limit), p.limit);
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(g * (p.alpha * -1.4426950408889634F)));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0F + power));
  return (u + p.up_offset) * (g * inverse);
}

// The larger magnitudes of two pairs of BF16.
__device__ __forceinline__ uint32_t larger_pair(uint32_t a, uint32_t b) {
  uint32_t larger;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(larger) : "r"(a & 0x7fff7fffU), "r"(b & 0x7fff7fffU));
  return larger;
}

// SwiGLU of the tile's 128 gates and ups of each token, which share a scale, as codes for store_tiles().
template <Kind kKind, int kWidth>
__device__ __forceinline__ void store_hidden(const ProductArgs& a, const Shared<kKind>& shared,
                                             const Math<kKind>& m, const Tile& tile,
                                             const float (&sums)[2][kWidth / 2]) {
  constexpr int kBlocks = kWidth / 8;
  const uint32_t largest = shared.staging + kTokens * kStagedCodes, inverses = largest + kLargestBytes;
  const uint32_t warp = static_cast<uint32_t>(m.warpgroup * 4 + m.warp);
  // Tokens 8 j + 2 (lane % 4) and the one after it, rows lane / 4 and 8 below.
  uint32_t above[kBlocks], below[kBlocks];
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = fast_swiglu(a.swiglu, sums[0][4 * j + i], sums[1][4 * j + i]);
    above[j] = pack_bf16(values[0], values[1]);
    below[j] = pack_bf16(values[2], values[3]);
    uint32_t pair = larger_pair(above[j], below[j]);
#pragma unroll
    for (int i = 4; i < 32; i <<= 1) pair = larger_pair(pair, __shfl_xor_sync(0xffffffffU, pair, i));
    if (m.lane < 4)
      ptx::store_shared(largest + (warp * (kTokens / 2) + static_cast<uint32_t>(4 * j + m.lane)) * 4, pair);
  }
  ptx::named_barrier(kFree, kStoring<kKind>);
  if (threadIdx.x < kWidth / 2) {
    uint32_t pair = 0;
#pragma unroll
    for (uint32_t w = 0; w < kMathThreads / 32; ++w)
      pair = larger_pair(pair, load_shared4(largest + (w * (kTokens / 2) + threadIdx.x) * 4));
    const float scales[2] = {fmaxf(ptx::low_float(pair) / 448.0F, 1e-10F),
                             fmaxf(ptx::high_float(pair) / 448.0F, 1e-10F)};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = 2 * static_cast<int>(threadIdx.x) + i;
      store_shared4(inverses + static_cast<uint32_t>(token) * 4, 1.0F / scales[i]);
      if (token < tile.count)
        a.out_scales[tile.output / kDepth * a.out_scale_stride + tile.first + token] = scales[i];
    }
  }
  ptx::named_barrier(kAllMath, kMathThreads);
  const uint32_t column = static_cast<uint32_t>(m.warpgroup * 64 + m.warp * 16);
#pragma unroll
  for (int first = 0; first < kBlocks; first += 4) {
    // A code of `above` beside the one of `below`, of two tokens.
    uint32_t codes[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      codes[i] = 0;
      if (first + i >= kBlocks) continue;
      const uint32_t rows[2] = {above[first + i], below[first + i]};
      const float2 scale =
          load_shared8f(inverses + static_cast<uint32_t>(8 * (first + i) + 2 * (m.lane % 4)) * 4);
      const uint32_t even = __nv_cvt_float2_to_fp8x2(
          {ptx::low_float(rows[0]) * scale.x, ptx::low_float(rows[1]) * scale.x}, __NV_SATFINITE, __NV_E4M3);
      const uint32_t odd =
          __nv_cvt_float2_to_fp8x2({ptx::high_float(rows[0]) * scale.y, ptx::high_float(rows[1]) * scale.y},
                                   __NV_SATFINITE, __NV_E4M3);
      codes[i] = even | odd << 16;
    }
    // Behind the tile's last token there is no room; the largest numbers are no longer needed.
    const int token = 8 * first + m.lane;
    const uint32_t place = token < kWidth
                               ? shared.staging + static_cast<uint32_t>(token) * kStagedCodes + column
                               : largest + static_cast<uint32_t>(m.lane) * 16;
    ptx::store_matrix_x4_trans(place, codes[0], codes[1], codes[2], codes[3]);
    __syncwarp();
    if (token < kWidth) {
      const uint4 mixed = ptx::load_shared16(place);
      store_shared16(place, {__byte_perm(mixed.x, mixed.y, 0x6420), __byte_perm(mixed.z, mixed.w, 0x6420),
                             __byte_perm(mixed.x, mixed.y, 0x7531), __byte_perm(mixed.z, mixed.w, 0x7531)});
    }
  }
  ptx::fence_shared_async();
  ptx::named_arrive(kStaged, kStoring<kKind>);
}

// A warpgroup's 128 outputs of each token, for store_tiles(): as BF16 at once, as F32 one half after the
// other.
template <typename Out, Kind kKind, int kWidth>
__device__ __forceinline__ void store_numbers(const Shared<kKind>& shared, const Math<kKind>& m,
                                              const float (&sums)[2][kWidth / 2]) {
  const uint32_t staging = shared.staging + static_cast<uint32_t>(m.warpgroup * kTokens * kStagedNumbers);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (half == 0 || sizeof(Out) == 4) ptx::named_barrier(kFree + m.warpgroup, kStoring<kKind>);
    if constexpr (sizeof(Out) == 4) {
#pragma unroll
      for (int i = 0; i < kWidth / 2; ++i) {
        const int token = i / 4 * 8 + m.lane % 4 * 2 + i % 2, row = m.warp * 16 + m.lane / 4 + i / 2 % 2 * 8;
        store_shared4(staging + static_cast<uint32_t>(token * kStagedNumbers + row * 4), sums[half][i]);
      }
    } else {
#pragma unroll
      for (int block = 0; block < kWidth / 8; block += 2) {
        // The second eight tokens of a lonely eight are these once more.
        const bool is_lonely = block * 8 + 8 >= kWidth;
        const float* v = sums[half] + block * 4;
        const float* w = is_lonely ? v : v + 4;
        const int token = 8 * block + (is_lonely ? 0 : m.lane / 16 * 8) + m.lane % 8;
        const int column = half * 64 + m.warp * 16 + m.lane / 8 % 2 * 8;
        ptx::store_matrix_x4_trans(staging + static_cast<uint32_t>(token * kStagedNumbers + column * 2),
                                   pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(w[0], w[1]),
                                   pack_bf16(w[2], w[3]));
      }
    }
    if (half == 1 || sizeof(Out) == 4) {
      ptx::fence_shared_async();
      ptx::named_arrive(kStaged + m.warpgroup, kStoring<kKind>);
    }
  }
}

template <typename Out, Kind kKind, int kWidth>
__device__ __forceinline__ void store_one_by_one(const ProductArgs& a, const Math<kKind>& m, const Tile& tile,
                                                 const float (&sums)[kWidth], int output) {
  const int n = output + m.warp * 16 + m.lane / 4;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const int token = i / 4 * 8 + m.lane % 4 * 2 + i % 2, row = n + i / 2 % 2 * 8;
    if (token >= tile.count || row >= a.outputs) continue;
    static_cast<Out*>(a.out.data)[(tile.first + token) * a.out.stride + row] = from_f32<Out>(sums[i]);
  }
}

template <Kind kKind, int kWidth>
__device__ __forceinline__ void compute_tile(const ProductArgs& a, const Shared<kKind>& shared,
                                             Math<kKind>& m, const Tile& tile) {
  float sums[2][kWidth / 2];
  multiply<kKind, kWidth>(shared, m, (a.depth + kDepth - 1) / kDepth, sums);
  if (!a.has_blocks) {
    const int row = tile.output + m.warp * 16 + m.lane / 4;
    if (kKind == Kind::kUp) {
      scale_rows(upper_weight(a, kKind, tile.expert), row + m.first_row(0), sums[0]);
      scale_rows(lower_weight(a, kKind, tile.expert), row + m.first_row(0), sums[1]);
    } else {
      scale_rows(upper_weight(a, kKind, tile.expert), row + m.first_row(0), sums[0]);
      scale_rows(upper_weight(a, kKind, tile.expert), row + m.first_row(1), sums[1]);
    }
  }
  if constexpr (kKind == Kind::kUp) {
    store_hidden<kKind, kWidth>(a, shared, m, tile, sums);
  } else {
    if (kKind == Kind::kDense && a.applies_silu) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (float& sum : sums[half]) sum = silu(sum);
      }
    }
    if (kKind == Kind::kDown || (a.stores_chunks && a.out.scalar == Scalar::kBF16)) {
      store_numbers<bf16_t, kKind, kWidth>(shared, m, sums);
    } else if (a.stores_chunks) {
      store_numbers<float, kKind, kWidth>(shared, m, sums);
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int output = tile.output + m.first_row(half);
        if (a.out.scalar == Scalar::kBF16) {
          store_one_by_one<bf16_t>(a, m, tile, sums[half], output);
        } else {
          store_one_by_one<float>(a, m, tile, sums[half], output);
        }
      }
    }
  }
}

template <Kind kKind>
__device__ void compute_tiles(const ProductArgs& a, const Shared<kKind>& shared) {
  // Taken from one lane, so that the compiler sees that all have the same.
  const int warp = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / 32, 0);
  Math<kKind> m{warp / 4, warp % 4, static_cast<int>(threadIdx.x) % 32, {}};
  for (;;) {
    ptx::barrier_wait(shared.full(m.ring.stage), m.ring.parity);
    const Tile tile = get_tile(shared.tile_of(m.ring.stage));
    if (!tile.is_there) return;
    switch (tile.width) {
      case 32:
        compute_tile<kKind, 32>(a, shared, m, tile);
        break;
      case 64:
        compute_tile<kKind, 64>(a, shared, m, tile);
        break;
      case 72:
        compute_tile<kKind, 72>(a, shared, m, tile);
        break;
      case 80:
        compute_tile<kKind, 80>(a, shared, m, tile);
        break;
      case 96:
        compute_tile<kKind, 96>(a, shared, m, tile);
        break;
      case 112:
        compute_tile<kKind, 112>(a, shared, m, tile);
        break;
      case 128:
        compute_tile<kKind, 128>(a, shared, m, tile);
        break;
      default:
        compute_tile<kKind, kTokens>(a, shared, m, tile);
    }
  }
}

// Whether outputs go through shared memory.
template <Kind kKind>
__device__ bool stages_outputs(const ProductArgs& a) {
  return kKind != Kind::kDense || a.stores_chunks;
}

// Has the copy engine write what the warps that multiply have staged: warp `which` of two every other token's
// codes, or one warpgroup's numbers.
template <Kind kKind>
__device__ void store_tiles(const ProductArgs& a, const Shared<kKind>& shared, int which) {
  if (!stages_outputs<kKind>(a)) return;
  constexpr bool kIsUp = kKind == Kind::kUp;
  const bool is_f32 = kKind == Kind::kDense && a.out.scalar == Scalar::kF32;
  const int barrier = kIsUp ? 0 : which;
  const int parts = is_f32 ? 2 : 1;
  const int outputs = kIsUp || !is_f32 ? 128 : 64;  // of a part
  const int bytes_of_one = kIsUp ? 1 : is_f32 ? 4 : 2;
  const uint32_t pitch = kIsUp ? kStagedCodes : kStagedNumbers;
  const uint32_t staging = shared.staging + (kIsUp ? 0U : static_cast<uint32_t>(which) * kTokens * pitch);
  const int lane = threadIdx.x % 32;
  const int first = kIsUp ? 2 * lane + which : lane, step = kIsUp ? 64 : 32;
  ptx::named_arrive(kFree + barrier, kStoring<kKind>);
  for (int index = blockIdx.x / kCluster;; index += gridDim.x / kCluster) {
    const Tile tile = find_tile<kKind>(a, shared, index);
    if (!tile.is_there) break;
    for (int part = 0; part < parts; ++part) {
      const int output = tile.output + (kIsUp ? 0 : which * 128 + part * outputs);
      const int bytes = bytes_of_one * min(outputs, a.outputs - output);
      uint8_t* to = static_cast<uint8_t*>(a.out.data) + (tile.first * a.out.stride + output) * bytes_of_one;
      ptx::named_barrier(kStaged + barrier, kStoring<kKind>);
      if (bytes > 0) {
        for (int token = first; token < tile.count; token += step)
          ptx::bulk_store(to + token * a.out.stride * bytes_of_one,
                          staging + static_cast<uint32_t>(token) * pitch, static_cast<uint32_t>(bytes));
      }
      ptx::bulk_commit();
      ptx::bulk_wait_read();
      ptx::named_arrive(kFree + barrier, kStoring<kKind>);
    }
  }
  ptx::bulk_wait();
}

// pairs[e] = pairs of tiles, of one column of weights, before those of expert e. One warp.
__device__ inline void count_pairs(const ProductArgs& a, int32_t* pairs) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int base = 0; base < a.experts; base += 32) {
    const int e = base + lane;
    const int rows = e < a.experts ? a.starts[e + 1] - a.starts[e] : 0;
    const int own = (rows + kCluster * kTokens - 1) / (kCluster * kTokens);
    int upto = own;
    for (int i = 1; i < 32; i <<= 1) {
      const int left = __shfl_up_sync(0xffffffffU, upto, i);
      if (lane >= i) upto += left;
    }
    if (e < a.experts) pairs[e] = before + upto - own;
    before += __shfl_sync(0xffffffffU, upto, 31);
  }
  if (lane == 0) pairs[a.experts] = before;
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <Kind kKind>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    fp8_product_kernel(const __grid_constant__ ProductArgs a, const __grid_constant__ RowMaps x_maps,
                       const __grid_constant__ CUtensorMap w_map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint8_t bytes[];
  Shared<kKind> shared;
  shared.stages = ptx::shared_address(bytes);
  shared.staging = shared.stages + kStages<kKind> * kStageBytes;
  shared.scales = shared.staging + kStagingBytes<kKind>;
  shared.tiles = shared.scales + kStages<kKind> * kStageScales * 4;
  shared.barriers = shared.tiles + kStages<kKind> * kTileBytes;
  shared.rank = static_cast<int>(ptx::cluster_rank());
  auto* pairs = reinterpret_cast<int32_t*>(bytes + kFixedBytes<kKind>);
  int32_t* starts = pairs + a.experts + 1;
  shared.pairs = pairs;
  shared.starts = starts;
  ptx::wait_for_previous_kernel();
  if (kKind != Kind::kDense) {
    for (int e = threadIdx.x; e <= a.experts; e += kThreads) starts[e] = a.starts[e];
    if (threadIdx.x < 32) count_pairs(a, pairs);
  }
  if (threadIdx.x == 0) {
    for (uint32_t stage = 0; stage < kStages<kKind>; ++stage) {
      ptx::barrier_init(shared.full(stage), 1 + 32);  // the copying thread, the warp of scales
      ptx::barrier_init(shared.empty(stage), kCluster * kMathThreads / 32);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  ptx::cluster_barrier();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp >= kMathThreads / 32) {
    ptx::give_registers<40>();
    if (threadIdx.x == kMathThreads) copy_tiles<kKind>(a, x_maps, w_map, shared);
    if (warp == kMathThreads / 32 + 1) make_scales<kKind>(a, shared);
    if (warp > kMathThreads / 32 + 1) store_tiles<kKind>(a, shared, warp - kMathThreads / 32 - 2);
    __syncwarp();
  } else {
    ptx::take_registers<232>();
    compute_tiles<kKind>(a, shared);
  }
  // The other block's copies and arrivals come here until it has done.
  ptx::cluster_barrier();
#endif
}

// --- host

CUtensorMap make_weight_map(const WeightView& w) {
  return make_code_map(w.values, w.rows, w.columns, w.stride, kWeightRows / 2);
}
RowMaps make_row_maps(const CodedRows& x) {
  return {make_code_map(x.codes, x.rows, x.columns, x.columns, kManyTokens),
          make_code_map(x.codes, x.rows, x.columns, x.columns, kFewTokens)};
}

// A scale a block of 128 x 128, else one for the whole of a row.
bool has_blocks(const WeightView& w) { return w.block_columns < w.columns + w.column_offset; }

int multiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

template <Kind kKind>
void launch_product(const ProductArgs& a, const RowMaps& x_maps, const CUtensorMap& w_map, int64_t pairs,
                    cudaStream_t stream) {
  const auto kernel = fp8_product_kernel<kKind>;
  const int bytes = kFixedBytes<kKind> + 2 * (a.experts + 1) * static_cast<int>(sizeof(int32_t));
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  const int64_t most = multiprocessors() / kCluster;
  const int64_t clusters = pairs < most ? pairs : most;
  launch(kernel, static_cast<unsigned>(clusters * kCluster), kThreads, static_cast<size_t>(bytes), stream, a,
         x_maps, w_map);
}

// Into how many tiles the rows of a dense product are split: so that the last round of tiles is a full one.
int choose_parts(int64_t rows, int64_t columns) {
  const int64_t most = multiprocessors() / kCluster;
  int64_t best = 0, best_cost = 0;
  for (const int64_t width : {int64_t{kTokens}, int64_t{128}, int64_t{112}, int64_t{96}}) {
    const int64_t pairs = ceil_div(rows, kCluster * width);
    const int64_t cost = ceil_div(pairs * columns, most) * width;
    if (best == 0 || cost < best_cost) {
      best = pairs;
      best_cost = cost;
    }
  }
  return static_cast<int>(best * kCluster);
}

// --- around the products of experts

// Maps [experts, 3] of all weights, each from the one of its kind.
__global__ void expert_maps_kernel(const ExpertPointers* table, int experts,
                                   const __grid_constant__ CUtensorMap up,
                                   const __grid_constant__ CUtensorMap down, CUtensorMap* maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= experts * kMapsOfExpert) return;
  const ExpertPointers& expert = table[index / kMapsOfExpert];
  const int which = index % kMapsOfExpert;
  const WeightView& w = which == 0 ? expert.w1 : which == 1 ? expert.w3 : expert.w2;
  const auto* from = reinterpret_cast<const uint4*>(which == 2 ? &down : &up);
  auto* to = reinterpret_cast<uint4*>(maps + index);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(CUtensorMap) / sizeof(uint4)); ++i) to[i] = from[i];
  ptx::redirect_map(maps + index, w.values, static_cast<uint64_t>(w.stride));
  ptx::release_maps();
#endif
}

}  // namespace

bool can_multiply_codes(const WeightView& w) {
  if (w.scalar != Scalar::kE4m3 || w.scale_scalar != Scalar::kF32 || w.scales == nullptr) return false;
  const bool is_blocked = w.block_rows == kDepth && w.block_columns == kDepth && w.row_offset % kDepth == 0 &&
                          w.column_offset % kDepth == 0;
  return (is_blocked || !has_blocks(w)) && w.columns > 0 && w.columns % 16 == 0 && w.stride % 16 == 0 &&
         reinterpret_cast<uintptr_t>(w.values) % 16 == 0;
}

void launch_linear_codes(const CodedRows& x, const WeightView& w, bool applies_silu, const Matrix& out,
                         cudaStream_t stream) {
  if (x.rows == 0 || w.rows == 0) return;
  ProductArgs a;
  a.x_scales = x.scales;
  a.x_scale_stride = x.scale_stride;
  a.rows = static_cast<int>(x.rows);
  a.depth = static_cast<int>(w.columns);
  a.outputs = static_cast<int>(w.rows);
  a.weight = w;
  a.applies_silu = applies_silu;
  const int64_t chunk = out.scalar == Scalar::kBF16 ? 8 : 4;
  a.stores_chunks =
      out.stride % chunk == 0 && w.rows % chunk == 0 && reinterpret_cast<uintptr_t>(out.data) % 16 == 0;
  a.out = out;
  const int64_t columns = ceil_div(w.rows, kWeightRows);
  a.has_blocks = has_blocks(w);
  a.parts = choose_parts(x.rows, columns);
  launch_product<Kind::kDense>(a, make_row_maps(x), make_weight_map(w), a.parts / kCluster * columns, stream);
}

int64_t expert_map_bytes(int64_t experts) {
  return experts * kMapsOfExpert * static_cast<int64_t>(sizeof(CUtensorMap));
}

bool can_moe_codes(const MoeArgs& moe) {
  constexpr int64_t kMostExperts = 512;  // for which there is room in shared memory
  return can_multiply_codes(moe.first.w1) && can_multiply_codes(moe.first.w3) &&
         can_multiply_codes(moe.first.w2) && has_blocks(moe.first.w1) == has_blocks(moe.first.w3) &&
         moe.experts <= kMostExperts;
}

void launch_moe_codes(const MoeCodes& codes, cudaStream_t stream) {
  const MoeArgs& moe = codes.moe;
  if (moe.x.rows == 0) return;
  auto* maps = static_cast<CUtensorMap*>(codes.maps);
  const auto experts = static_cast<int>(moe.experts);
  constexpr int kMapThreads = 128;
  expert_maps_kernel<<<static_cast<unsigned>(ceil_div(experts * kMapsOfExpert, kMapThreads)), kMapThreads, 0,
                       stream>>>(moe.table, experts, make_weight_map(moe.first.w1),
                                 make_weight_map(moe.first.w2), maps);
  ProductArgs a;
  a.rows = static_cast<int>(moe.x.rows * moe.top_k);
  a.table = moe.table;
  a.maps = maps;
  a.starts = moe.order.starts;
  a.experts = experts;
  a.swiglu = moe.swiglu;
  a.x_scales = codes.x.scales;
  a.x_scale_stride = codes.x.scale_stride;
  a.depth = static_cast<int>(moe.x.columns);
  a.outputs = static_cast<int>(moe.intermediate);
  a.out.data = codes.hidden.codes;
  a.out.stride = codes.hidden.columns;
  a.out_scales = codes.hidden.scales;
  a.out_scale_stride = codes.hidden.scale_stride;
  const int64_t pairs = ceil_div(a.rows, kCluster * kTokens) + (a.rows < experts ? a.rows : experts);
  a.has_blocks = has_blocks(moe.first.w1);
  launch_product<Kind::kUp>(a, make_row_maps(codes.x), {},
                            pairs * ceil_div(moe.intermediate, kWeightRows / 2), stream);
  a.x_scales = codes.hidden.scales;
  a.x_scale_stride = codes.hidden.scale_stride;
  a.depth = static_cast<int>(moe.intermediate);
  a.outputs = static_cast<int>(moe.out.columns);
  a.out = {codes.rows, a.rows, moe.out.columns, moe.out.columns, Scalar::kBF16};
  a.has_blocks = has_blocks(moe.first.w2);
  launch_product<Kind::kDown>(a, make_row_maps(codes.hidden), {},
                              pairs * ceil_div(moe.out.columns, kWeightRows), stream);
  launch_combine_rows(moe, codes.rows, stream);
}

}  // namespace minimax::cuda
