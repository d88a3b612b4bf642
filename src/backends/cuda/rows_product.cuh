// The inner loop of products of few rows, which are bound by the memory of the weights: a block takes sixteen
// or thirty-two weight rows, its warps share the inputs, and weights go from memory to the tensor cores'
// registers without a stop in shared memory.
//
// A lane loads 16 bytes, neighbouring inputs, of a weight row. An mma wants pairs of inputs spread over
// lanes, but a sum does not care for the order of its terms: lane quarter q holds inputs q n .. q n + n - 1
// of 4 n, for weights and activations alike, and each mma takes four of them. 8-bit weights become BF16 in
// registers, exactly; their scales multiply sums of products, in F32.
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

// How a block takes its share of a product: kTiles tiles of sixteen weight rows, 8 kGroups activation rows,
// kWarps warps that share the inputs, kAhead loads of each row in flight, kBlocks blocks a multiprocessor.
template <int kTilesOf, int kGroupsOf, int kWarpsOf, int kAheadOf, int kBlocksOf>
struct RowsShape {
  static constexpr int kTiles = kTilesOf, kGroups = kGroupsOf, kWarps = kWarpsOf, kAhead = kAheadOf;
  static constexpr int kBlocks = kBlocksOf;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kSums = kTiles * 16 * 8 * kGroups;
};

// How the weights of a product of few rows are stored.
enum class RowFormat { kBF16, kFp8, kMxfp8 };

// Calls f.operator()<RowFormat>() with the format of `w`. REQUIRES: can_read_rows(w).
template <typename F>
void with_row_format(const WeightView& w, F&& f) {
  if (w.scalar == Scalar::kBF16) {
    f.template operator()<RowFormat::kBF16>();
  } else if (w.scale_scalar == Scalar::kF32) {
    f.template operator()<RowFormat::kFp8>();
  } else {
    f.template operator()<RowFormat::kMxfp8>();
  }
}

// The fastest measured of up to eight activation rows. BF16 wants few warps with registers for all loads of a
// group, of activations too.
template <RowFormat kFormat>
struct FewRows : RowsShape<1, 1, 8, 2, 4> {};
template <>
struct FewRows<RowFormat::kBF16> : RowsShape<1, 1, 8, 4, 2> {};
template <>
struct FewRows<RowFormat::kFp8> : RowsShape<2, 1, 8, 3, 2> {};
template <RowFormat kFormat>
struct GateUpRows : RowsShape<1, 1, 8, 4, 3> {};
template <>
struct GateUpRows<RowFormat::kBF16> : RowsShape<1, 1, 8, 4, 2> {};
template <>
struct GateUpRows<RowFormat::kFp8> : RowsShape<2, 1, 4, 3, 4> {};

inline bool can_read_rows(const WeightView& w) {
  if (w.columns <= 0 || w.rows <= 0 || reinterpret_cast<uintptr_t>(w.values) % 16 != 0) return false;
  if (w.scalar == Scalar::kBF16) return w.columns % 32 == 0 && w.stride % 8 == 0;
  if (w.scalar != Scalar::kE4m3 || w.columns % 64 != 0 || w.stride % 16 != 0) return false;
  if (w.scale_scalar == Scalar::kF32) {
    const bool is_whole = w.column_offset + w.columns <= w.block_columns;
    const bool is_power_of_two = (w.block_columns & (w.block_columns - 1)) == 0;
    return is_whole || (is_power_of_two && w.block_columns % 64 == 0 && w.column_offset % 64 == 0);
  }
  return w.block_rows == 1 && w.block_columns == 32 && w.column_offset % 64 == 0 && w.row_offset == 0 &&
         w.scale_stride % 2 == 0 && reinterpret_cast<uintptr_t>(w.scales) % 2 == 0;
}

// One row of a weight as a lane reads it: kInputs inputs at a time, as kInputs / 2 BF16 pairs in the order in
// which load_inputs gives activations.
template <RowFormat kFormat>
struct WeightRow;

template <>
struct WeightRow<RowFormat::kBF16> {
  static constexpr int kInputs = 8;
  struct Chunk {
    uint4 bits;
  };
  const bf16_t* values;

  WeightRow() = default;
  __device__ WeightRow(const WeightView& w, int64_t n)
      : values(static_cast<const bf16_t*>(w.values) + n * w.stride) {}
  __device__ Chunk load(int64_t k) const { return {load_stream_16(values + k)}; }
};

// Codes 0 and 2, or 1 and 3, of four as a pair of BF16 numbers. The bits of a code, moved into a BF16 number,
// are 2^-120 of its value, subnormals too; the product with 2^120 is exact. NaN codes become 480.
template <bool kIsOdd>
__device__ __forceinline__ uint32_t unpack_e4m3(uint32_t codes) {
  // Each code beside eight times its sign.
  constexpr uint32_t kWithSigns = kIsOdd ? 0xb391U : 0xa280U;
  constexpr uint32_t kBits = 0x87f087f0U, kTwoTo120 = 0x7b807b80U, kZero = 0x80008000U;
  uint32_t wide, pair;
  asm("prmt.b32 %0, %1, %1, %2;" : "=r"(wide) : "r"(codes), "r"(kWithSigns));
  const uint32_t moved = (wide << 4U) & kBits;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(moved), "r"(kTwoTo120), "r"(kZero));
  return pair;
}

struct E4m3Row {
  static constexpr int kInputs = 16;
  const uint8_t* values;

  E4m3Row() = default;
  __device__ E4m3Row(const WeightView& w, int64_t n)
      : values(static_cast<const uint8_t*>(w.values) + n * w.stride) {}
};

template <>
struct WeightRow<RowFormat::kFp8> : E4m3Row {
  struct Chunk {
    uint4 bits;
    float scale;
  };
  const float* scales;
  uint32_t column_offset, column_shift;
  __device__ static uint32_t shift_of(const WeightView& w) {
    if (w.column_offset + w.columns <= w.block_columns) return 31;
    return 31 - static_cast<uint32_t>(__clz(static_cast<int>(w.block_columns)));
  }

  WeightRow() = default;
  __device__ WeightRow(const WeightView& w, int64_t n)
      : E4m3Row(w, n),
        scales(static_cast<const float*>(w.scales) + static_cast<uint32_t>(n + w.row_offset) /
                                                         static_cast<uint32_t>(w.block_rows) *
                                                         w.scale_stride),
        column_offset(static_cast<uint32_t>(w.column_offset)),
        column_shift(shift_of(w)) {}
  // The warp's 64 inputs share a scale.
  __device__ uint32_t block_of(int64_t k) const {
    return (static_cast<uint32_t>(k) + column_offset) >> column_shift;
  }
  __device__ Chunk load(int64_t k) const { return {load_stream_16(values + k), __ldg(scales + block_of(k))}; }
};

template <>
struct WeightRow<RowFormat::kMxfp8> : E4m3Row {
  struct Chunk {
    uint4 bits;
    uint32_t scales;  // of the warp's first 32 inputs, and of the others above
  };
  const uint16_t* scales;  // two neighbours

  WeightRow() = default;
  __device__ WeightRow(const WeightView& w, int64_t n)
      : E4m3Row(w, n),
        scales(reinterpret_cast<const uint16_t*>(static_cast<const uint8_t*>(w.scales) + n * w.scale_stride) +
               w.column_offset / 64) {}
  __device__ Chunk load(int64_t k) const { return {load_stream_16(values + k), __ldg(scales + k / 64)}; }
};

// kInputs inputs at `k` of an activation row as BF16 pairs, for 8-bit weights in the order of unpack_e4m3.
template <int kInputs>
__device__ __forceinline__ void load_inputs(const float* row, int k, uint32_t (&b)[kInputs / 2]) {
#pragma unroll
  for (int i = 0; i < kInputs / 4; ++i) {
    const float4 v = *reinterpret_cast<const float4*>(row + k + 4 * i);
    b[2 * i] = kInputs == 8 ? pack_bf16(v.x, v.y) : pack_bf16(v.x, v.z);
    b[2 * i + 1] = kInputs == 8 ? pack_bf16(v.z, v.w) : pack_bf16(v.y, v.w);
  }
}
template <int kInputs>
__device__ __forceinline__ void load_inputs(const bf16_t* row, int k, uint32_t (&b)[kInputs / 2]) {
#pragma unroll
  for (int i = 0; i < kInputs / 8; ++i) {
    const uint4 v = *reinterpret_cast<const uint4*>(row + k + 8 * i);
    if (kInputs == 8) {
      b[4 * i] = v.x;
      b[4 * i + 1] = v.y;
      b[4 * i + 2] = v.z;
      b[4 * i + 3] = v.w;
    } else {
      b[4 * i] = __byte_perm(v.x, v.y, 0x5410);
      b[4 * i + 1] = __byte_perm(v.x, v.y, 0x7632);
      b[4 * i + 2] = __byte_perm(v.z, v.w, 0x5410);
      b[4 * i + 3] = __byte_perm(v.z, v.w, 0x7632);
    }
  }
}

__device__ __forceinline__ void multiply_chunk(const WeightRow<RowFormat::kBF16>::Chunk& low,
                                               const WeightRow<RowFormat::kBF16>::Chunk& high,
                                               const uint32_t (&b)[4], float (&sums)[4]) {
  const uint32_t first[4] = {low.bits.x, high.bits.x, low.bits.y, high.bits.y};
  const uint32_t second[4] = {low.bits.z, high.bits.z, low.bits.w, high.bits.w};
  ptx::mma_16x8x16(sums, first, b[0], b[1]);
  ptx::mma_16x8x16(sums, second, b[2], b[3]);
}

// As operands of four products.
__device__ __forceinline__ void unpack_rows(const uint4& low, const uint4& high, uint32_t (&a)[4][4]) {
  const uint32_t l[4] = {low.x, low.y, low.z, low.w}, h[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    a[i][0] = unpack_e4m3<false>(l[i]);
    a[i][1] = unpack_e4m3<false>(h[i]);
    a[i][2] = unpack_e4m3<true>(l[i]);
    a[i][3] = unpack_e4m3<true>(h[i]);
  }
}
__device__ __forceinline__ void multiply_codes(const uint32_t (&a)[4][4], const uint32_t (&b)[8],
                                               float low_scale, float high_scale, float (&sums)[4]) {
  float part[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) ptx::mma_16x8x16(part, a[i], b[2 * i], b[2 * i + 1]);
  sums[0] += low_scale * part[0];
  sums[1] += low_scale * part[1];
  sums[2] += high_scale * part[2];
  sums[3] += high_scale * part[3];
}

// Rows of kTiles tiles as a lane takes them: row lane / 4 of each, and the one eight further.
template <RowFormat kFormat, typename Shape>
struct TileRows {
  WeightRow<kFormat> low[Shape::kTiles], high[Shape::kTiles];
};
// Tiles of sixteen rows of one weight; those beyond the last are read as the last one.
template <RowFormat kFormat, typename Shape>
__device__ __forceinline__ TileRows<kFormat, Shape> tile_rows(const WeightView& w, int64_t first) {
  TileRows<kFormat, Shape> rows;
#pragma unroll
  for (int m = 0; m < Shape::kTiles; ++m) {
    const int64_t row = first + m * 16 + static_cast<int64_t>(threadIdx.x) % 32 / 4;
    rows.low[m] = WeightRow<kFormat>(w, min(row, w.rows - 1));
    rows.high[m] = WeightRow<kFormat>(w, min(row + 8, w.rows - 1));
  }
  return rows;
}
// Tiles of eight rows of a gate and the same of an up projection.
template <RowFormat kFormat, typename Shape>
__device__ __forceinline__ TileRows<kFormat, Shape> gate_up_rows(const WeightView& gate, const WeightView& up,
                                                                 int64_t first) {
  TileRows<kFormat, Shape> rows;
#pragma unroll
  for (int m = 0; m < Shape::kTiles; ++m) {
    const int64_t row = min(first + m * 8 + static_cast<int64_t>(threadIdx.x) % 32 / 4, gate.rows - 1);
    rows.low[m] = WeightRow<kFormat>(gate, row);
    rows.high[m] = WeightRow<kFormat>(up, row);
  }
  return rows;
}

template <RowFormat kFormat>
using Chunk = typename WeightRow<kFormat>::Chunk;

// sums[n] += the products of one load of a tile with eight activation rows each.
template <RowFormat kFormat, int kGroups>
__device__ __forceinline__ void multiply_tile_chunk(
    const Chunk<kFormat>& low, const Chunk<kFormat>& high,
    const uint32_t (&b)[kGroups][WeightRow<kFormat>::kInputs / 2], float (&sums)[kGroups][4]) {
  if constexpr (kFormat == RowFormat::kBF16) {
#pragma unroll
    for (int n = 0; n < kGroups; ++n) multiply_chunk(low, high, b[n], sums[n]);
  } else {
    uint32_t a[4][4];
    unpack_rows(low.bits, high.bits, a);
    if constexpr (kFormat == RowFormat::kFp8) {
#pragma unroll
      for (int n = 0; n < kGroups; ++n) multiply_codes(a, b[n], low.scale, high.scale, sums[n]);
    } else {
      // Quarters 0 and 1 hold the inputs of the first scale, 2 and 3 those of the second.
      const auto scale = [](uint32_t two, int half) {
        return to_f32(e8m0_t{static_cast<uint8_t>(two >> (8 * half))});
      };
      const int own_half = static_cast<int>(threadIdx.x) % 4 / 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t mask = own_half == half ? 0xffffffffU : 0U;
#pragma unroll
        for (int n = 0; n < kGroups; ++n) {
          uint32_t own[8];
#pragma unroll
          for (int i = 0; i < 8; ++i) own[i] = b[n][i] & mask;
          multiply_codes(a, own, scale(low.scales, half), scale(high.scales, half), sums[n]);
        }
      }
    }
  }
}

// sums[m][n] += the products of the warp's share of the inputs: sixteen rows of weights of each tile with
// each eight activation rows. `inputs[n]` is the lane's activation row. With kWaits the previous kernel is
// waited for, behind the first loads of weights.
template <RowFormat kFormat, typename Shape, bool kWaits, typename X>
__device__ __forceinline__ void multiply_rows(const TileRows<kFormat, Shape>& rows,
                                              const X* const (&inputs)[Shape::kGroups], int64_t columns,
                                              float (&sums)[Shape::kTiles][Shape::kGroups][4]) {
  constexpr int kTiles = Shape::kTiles, kGroups = Shape::kGroups, kAhead = Shape::kAhead;
  constexpr int kInputs = WeightRow<kFormat>::kInputs;
  const int warp = threadIdx.x / 32, quarter = threadIdx.x % 4;
  // Warps take 4 kInputs inputs in turn, so that a block reads long runs.
  constexpr int kStep = 4 * kInputs * Shape::kWarps;
  const int end = static_cast<int>(columns);
  int k = warp * 4 * kInputs + quarter * kInputs;
  Chunk<kFormat> low[kAhead][kTiles], high[kAhead][kTiles];
  const auto load = [&](int a, int at) {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      low[a][m] = rows.low[m].load(at);
      high[a][m] = rows.high[m].load(at);
    }
  };
  const auto multiply = [&](int a, int at) {
    uint32_t b[kGroups][kInputs / 2];
#pragma unroll
    for (int n = 0; n < kGroups; ++n) load_inputs<kInputs>(inputs[n], at, b[n]);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) multiply_tile_chunk<kFormat>(low[a][m], high[a][m], b, sums[m]);
  };
  bool waits = kWaits;
  // Whole groups of loads have no condition between them: behind one, activations would be asked for as late
  // as they are used.
#pragma unroll 1
  for (; k + (kAhead - 1) * kStep < end; k += kAhead * kStep) {
#pragma unroll
    for (int a = 0; a < kAhead; ++a) load(a, k + a * kStep);
    if (waits) ptx::wait_for_previous_kernel();
    waits = false;
#pragma unroll
    for (int a = 0; a < kAhead; ++a) multiply(a, k + a * kStep);
  }
  if (waits) ptx::wait_for_previous_kernel();
#pragma unroll 1
  for (; k < end; k += kStep) {
    load(0, k);
    multiply(0, k);
  }
}

// What a block adds up: kWarps * kSums floats.
template <typename Shape>
__device__ void store_sums(const float (&sums)[Shape::kTiles][Shape::kGroups][4], float* shared) {
  constexpr int kWidth = 8 * Shape::kGroups;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < Shape::kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < Shape::kGroups; ++n) {
      float* at = shared + warp * Shape::kSums + (m * 16 + lane / 4) * kWidth + n * 8 + lane % 4 * 2;
      at[0] = sums[m][n][0];
      at[1] = sums[m][n][1];
      at[8 * kWidth] = sums[m][n][2];
      at[8 * kWidth + 1] = sums[m][n][3];
    }
  }
}

// Adds up the warps' shares: total(value, row, column) is called once for each row < 16 kTiles and column <
// 8 kGroups, by some thread. REQUIRES: `shared` holds kWarps * kSums floats.
template <typename Shape, typename Total>
__device__ void reduce_rows(const float (&sums)[Shape::kTiles][Shape::kGroups][4], float* shared,
                            Total&& total) {
  constexpr int kWidth = 8 * Shape::kGroups;
  __syncthreads();
  store_sums<Shape>(sums, shared);
  __syncthreads();
  for (int i = threadIdx.x; i < Shape::kSums; i += Shape::kThreads) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) sum += shared[w * Shape::kSums + i];
    total(sum, i / kWidth, i % kWidth);
  }
}

// Of tiles whose first eight rows are of the gate and the others of the same rows of the up projection:
// total(gate, up, row < 8 kTiles, column). kIsReused: others may still read `shared`.
template <typename Shape, bool kIsReused = true, typename Total>
__device__ void reduce_gate_up(const float (&sums)[Shape::kTiles][Shape::kGroups][4], float* shared,
                               Total&& total) {
  constexpr int kWidth = 8 * Shape::kGroups, kHalf = 8 * kWidth;
  if (kIsReused) __syncthreads();
  store_sums<Shape>(sums, shared);
  __syncthreads();
  for (int i = threadIdx.x; i < Shape::kTiles * kHalf; i += Shape::kThreads) {
    const float* at = shared + i / kHalf * 2 * kHalf + i % kHalf;
    float gate = 0, up = 0;
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      gate += at[w * Shape::kSums];
      up += at[w * Shape::kSums + kHalf];
    }
    total(gate, up, i / kWidth, i % kWidth);
  }
}

}  // namespace minimax::cuda
