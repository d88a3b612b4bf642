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

// The fastest measured, of up to eight activation rows: a dense product; gate and up of a tile.
template <RowFormat kFormat>
using FewRows = RowsShape<1, 1, 8, kFormat == RowFormat::kBF16 ? 4 : 2, 4>;
template <RowFormat kFormat>
using GateUpRows =
    RowsShape<1, 1, 8, kFormat == RowFormat::kFp8 ? 3 : 4, kFormat == RowFormat::kMxfp8 ? 3 : 4>;

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

// Four e4m3 codes as BF16 pairs (0, 2) and (1, 3). The bits of a code, moved into a BF16 number, are 2^-120
// of its value, subnormals too; the product with 2^120 is exact. NaN codes become 480.
__device__ inline void unpack_e4m3(uint32_t codes, uint32_t& even, uint32_t& odd) {
  constexpr uint32_t kSign = 0x80008000U, kRest = 0x07f007f0U, kTwoTo120 = 0x7b807b80U, kZero = 0x80008000U;
  const uint32_t moved = codes << 8U;
  const uint32_t even_bits = (moved & kSign) | ((moved >> 4U) & kRest);
  const uint32_t odd_bits = (codes & kSign) | ((codes >> 4U) & kRest);
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(even) : "r"(even_bits), "r"(kTwoTo120), "r"(kZero));
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(odd) : "r"(odd_bits), "r"(kTwoTo120), "r"(kZero));
}

struct E4m3Row {
  static constexpr int kInputs = 16;
  const uint8_t* values;

  E4m3Row() = default;
  __device__ E4m3Row(const WeightView& w, int64_t n)
      : values(static_cast<const uint8_t*>(w.values) + n * w.stride) {}
  __device__ static void unpack(const uint4& bits, uint32_t (&pairs)[8]) {
    unpack_e4m3(bits.x, pairs[0], pairs[1]);
    unpack_e4m3(bits.y, pairs[2], pairs[3]);
    unpack_e4m3(bits.z, pairs[4], pairs[5]);
    unpack_e4m3(bits.w, pairs[6], pairs[7]);
  }
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
  __device__ Chunk load(int64_t k) const {
    return {load_stream_16(values + k),
            __ldg(scales + ((static_cast<uint32_t>(k) + column_offset) >> column_shift))};
  }
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

// kInputs inputs at `k` of an activation row as BF16 pairs, for 8-bit weights in the order of unpack_e4m3;
// zeros where `row` is null.
template <int kInputs>
__device__ void load_inputs(const float* row, int64_t k, uint32_t (&b)[kInputs / 2]) {
#pragma unroll
  for (int i = 0; i < kInputs / 4; ++i) {
    const float4 v = row == nullptr ? float4{0, 0, 0, 0} : *reinterpret_cast<const float4*>(row + k + 4 * i);
    b[2 * i] = kInputs == 8 ? pack_bf16(v.x, v.y) : pack_bf16(v.x, v.z);
    b[2 * i + 1] = kInputs == 8 ? pack_bf16(v.z, v.w) : pack_bf16(v.y, v.w);
  }
}
template <int kInputs>
__device__ void load_inputs(const bf16_t* row, int64_t k, uint32_t (&b)[kInputs / 2]) {
#pragma unroll
  for (int i = 0; i < kInputs / 8; ++i) {
    const uint4 v = row == nullptr ? uint4{0, 0, 0, 0} : *reinterpret_cast<const uint4*>(row + k + 8 * i);
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

__device__ inline void multiply_chunk(const WeightRow<RowFormat::kBF16>::Chunk& low,
                                      const WeightRow<RowFormat::kBF16>::Chunk& high, const uint32_t (&b)[4],
                                      float (&sums)[4]) {
  const uint32_t first[4] = {low.bits.x, high.bits.x, low.bits.y, high.bits.y};
  const uint32_t second[4] = {low.bits.z, high.bits.z, low.bits.w, high.bits.w};
  ptx::mma_16x8x16(sums, first, b[0], b[1]);
  ptx::mma_16x8x16(sums, second, b[2], b[3]);
}

__device__ inline void multiply_codes(const uint32_t (&low)[8], const uint32_t (&high)[8],
                                      const uint32_t (&b)[8], float low_scale, float high_scale,
                                      float (&sums)[4]) {
  float part[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t a[4] = {low[2 * i], high[2 * i], low[2 * i + 1], high[2 * i + 1]};
    ptx::mma_16x8x16(part, a, b[2 * i], b[2 * i + 1]);
  }
  sums[0] += low_scale * part[0];
  sums[1] += low_scale * part[1];
  sums[2] += high_scale * part[2];
  sums[3] += high_scale * part[3];
}

// sums[m][n] += the products of the warp's share of the inputs: sixteen rows of weights of each tile with
// each eight activation rows. low_rows[m] is row lane / 4 of tile m, high_rows[m] the one eight further.
// `inputs[n]` is the lane's activation row or null. With kWaits the previous kernel is waited for, behind the
// first loads of weights.
template <RowFormat kFormat, typename Shape, bool kWaits, typename X>
__device__ void multiply_rows(const WeightRow<kFormat> (&low_rows)[Shape::kTiles],
                              const WeightRow<kFormat> (&high_rows)[Shape::kTiles],
                              const X* const (&inputs)[Shape::kGroups], int64_t columns,
                              float (&sums)[Shape::kTiles][Shape::kGroups][4]) {
  constexpr int kTiles = Shape::kTiles, kGroups = Shape::kGroups, kAhead = Shape::kAhead;
  using Row = WeightRow<kFormat>;
  constexpr bool kIs8Bit = kFormat != RowFormat::kBF16;
  constexpr int kInputs = Row::kInputs;
  const int warp = threadIdx.x / 32, quarter = threadIdx.x % 4;
  // Warps take 4 kInputs inputs in turn, so that a block reads long runs.
  constexpr int64_t kStep = 4 * kInputs * Shape::kWarps;
  bool is_first = true;
  for (int64_t k = warp * 4 * kInputs + quarter * kInputs; k < columns; k += kAhead * kStep) {
    typename Row::Chunk low[kAhead][kTiles], high[kAhead][kTiles];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t at = k + a * kStep;
      if (at >= columns) break;
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        low[a][m] = low_rows[m].load(at);
        high[a][m] = high_rows[m].load(at);
      }
    }
    if (kWaits && is_first) ptx::wait_for_previous_kernel();
    is_first = false;
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int64_t at = k + a * kStep;
      if (at >= columns) break;
      uint32_t b[kGroups][kInputs / 2];
#pragma unroll
      for (int n = 0; n < kGroups; ++n) load_inputs<kInputs>(inputs[n], at, b[n]);
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        if constexpr (!kIs8Bit) {
#pragma unroll
          for (int n = 0; n < kGroups; ++n) multiply_chunk(low[a][m], high[a][m], b[n], sums[m][n]);
        } else {
          uint32_t low_pairs[8], high_pairs[8];
          Row::unpack(low[a][m].bits, low_pairs);
          Row::unpack(high[a][m].bits, high_pairs);
          if constexpr (kFormat == RowFormat::kFp8) {
#pragma unroll
            for (int n = 0; n < kGroups; ++n)
              multiply_codes(low_pairs, high_pairs, b[n], low[a][m].scale, high[a][m].scale, sums[m][n]);
          } else {
            // Quarters 0 and 1 hold the inputs of the first scale, 2 and 3 those of the second.
            const auto scale = [](uint32_t two, int i) {
              return to_f32(e8m0_t{static_cast<uint8_t>(two >> (8 * i))});
            };
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const uint32_t mask = quarter / 2 == half ? 0xffffffffU : 0U;
#pragma unroll
              for (int n = 0; n < kGroups; ++n) {
                uint32_t own[8];
#pragma unroll
                for (int i = 0; i < 8; ++i) own[i] = b[n][i] & mask;
                multiply_codes(low_pairs, high_pairs, own, scale(low[a][m].scales, half),
                               scale(high[a][m].scales, half), sums[m][n]);
              }
            }
          }
        }
      }
    }
  }
  if (kWaits && is_first) ptx::wait_for_previous_kernel();
}

// Adds up the warps' shares: total(values[kTiles], row, column) is called once for each row < 16 and column <
// 8 kGroups, by some thread. REQUIRES: `shared` holds kWarps * kSums floats.
template <typename Shape, typename Total>
__device__ void reduce_rows(const float (&sums)[Shape::kTiles][Shape::kGroups][4], float* shared,
                            Total&& total) {
  constexpr int kTiles = Shape::kTiles, kWidth = 8 * Shape::kGroups;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  __syncthreads();
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < Shape::kGroups; ++n) {
      float* at = shared + warp * Shape::kSums + (m * 16 + lane / 4) * kWidth + n * 8 + lane % 4 * 2;
      at[0] = sums[m][n][0];
      at[1] = sums[m][n][1];
      at[8 * kWidth] = sums[m][n][2];
      at[8 * kWidth + 1] = sums[m][n][3];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 16 * kWidth; i += Shape::kThreads) {
    float values[kTiles];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < Shape::kWarps; ++w) sum += shared[w * Shape::kSums + m * 16 * kWidth + i];
      values[m] = sum;
    }
    total(values, i / kWidth, i % kWidth);
  }
}

// Of a tile whose first eight rows are of the gate and the others of the same rows of the up projection:
// total(gate, up, row < 8, column).
template <typename Shape, typename Total>
__device__ void reduce_gate_up(const float (&sums)[1][Shape::kGroups][4], float* shared, Total&& total) {
  constexpr int kWidth = 8 * Shape::kGroups;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  __syncthreads();
#pragma unroll
  for (int n = 0; n < Shape::kGroups; ++n) {
    float* at = shared + warp * Shape::kSums + lane / 4 * kWidth + n * 8 + lane % 4 * 2;
    at[0] = sums[0][n][0];
    at[1] = sums[0][n][1];
    at[8 * kWidth] = sums[0][n][2];
    at[8 * kWidth + 1] = sums[0][n][3];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 8 * kWidth; i += Shape::kThreads) {
    float gate = 0, up = 0;
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      gate += shared[w * Shape::kSums + i];
      up += shared[w * Shape::kSums + 8 * kWidth + i];
    }
    total(gate, up, i / kWidth, i % kWidth);
  }
}

}  // namespace minimax::cuda
