// The inner loop of products of few rows, which are bound by the memory of the weights: a block takes sixteen
// or thirty-two weight rows at a time, its warps share the inputs, and weights stream through a queue in
// shared memory that does not drain between one tile and the next. Every lane copies what it will itself
// use, so that the queue needs no barrier.
//
// A lane takes 16 bytes, neighbouring inputs, of a weight row. An mma wants pairs of inputs spread over
// lanes, but a sum does not care for the order of its terms: lane quarter q holds inputs q n .. q n + n - 1
// of 4 n, for weights and activations alike, and each mma takes four of them. 8-bit weights become BF16 in
// registers, exactly; their scales multiply sums of products, in F32.
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

constexpr int kRowsWarps = 8;
constexpr int kRowsThreads = 32 * kRowsWarps;

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

inline bool can_read_rows(const WeightView& w) {
  if (w.columns <= 0 || w.rows <= 0 || reinterpret_cast<uintptr_t>(w.values) % 16 != 0) return false;
  if (w.scalar == Scalar::kBF16) return w.columns % 32 == 0 && w.stride % 8 == 0;
  if (w.scalar != Scalar::kE4m3 || w.columns % 64 != 0 || w.stride % 16 != 0) return false;
  if (w.scale_scalar == Scalar::kF32) {
    const bool is_whole = w.column_offset + w.columns <= w.block_columns;
    const bool is_power_of_two = (w.block_columns & (w.block_columns - 1)) == 0;
    return is_whole || (is_power_of_two && w.block_columns % 64 == 0 && w.column_offset % 64 == 0);
  }
  return w.block_rows == 1 && w.block_columns == 32 && w.column_offset % 128 == 0 && w.row_offset == 0 &&
         w.columns % 128 == 0 && w.scale_stride % 4 == 0 && reinterpret_cast<uintptr_t>(w.scales) % 4 == 0;
}

// One row of a weight: where the 16 bytes of values at input k are, and the four bytes of scales with them.
template <RowFormat kFormat>
struct WeightRow {
  static constexpr bool kIs8Bit = kFormat != RowFormat::kBF16;
  static constexpr int kInputs = kIs8Bit ? 16 : 8;  // of 16 bytes

  WeightRow() = default;
  __device__ WeightRow(const WeightView& w, int64_t n)
      : values(static_cast<const uint8_t*>(w.values) + n * w.stride * (kIs8Bit ? 1 : 2)) {
    if constexpr (kFormat == RowFormat::kFp8) {
      const auto row =
          static_cast<uint32_t>(n + w.row_offset) / static_cast<uint32_t>(w.block_rows) * w.scale_stride;
      scales = reinterpret_cast<const uint32_t*>(w.scales) + row;
      column_offset = static_cast<uint32_t>(w.column_offset);
      column_shift = w.column_offset + w.columns <= w.block_columns
                         ? 31
                         : 31 - static_cast<uint32_t>(__clz(static_cast<int>(w.block_columns)));
    } else if constexpr (kFormat == RowFormat::kMxfp8) {
      scales = reinterpret_cast<const uint32_t*>(static_cast<const uint8_t*>(w.scales) + n * w.scale_stride);
      column_offset = static_cast<uint32_t>(w.column_offset);
      column_shift = 7;
    }
  }

  __device__ const void* values_at(int64_t k) const { return values + k * (kIs8Bit ? 1 : 2); }
  // kFp8: the F32 scale of the warp's 64 inputs. kMxfp8: the E8M0 scales of the 128 inputs around k.
  __device__ const void* scales_at(int64_t k) const {
    return scales + ((static_cast<uint32_t>(k) + column_offset) >> column_shift);
  }

  const uint8_t* values;
  const uint32_t* scales;
  uint32_t column_offset, column_shift;
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
__device__ inline void unpack_e4m3(const uint4& codes, uint32_t (&pairs)[8]) {
  unpack_e4m3(codes.x, pairs[0], pairs[1]);
  unpack_e4m3(codes.y, pairs[2], pairs[3]);
  unpack_e4m3(codes.z, pairs[4], pairs[5]);
  unpack_e4m3(codes.w, pairs[6], pairs[7]);
}

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
    const uint4 v =
        row == nullptr ? uint4{0, 0, 0, 0} : *reinterpret_cast<const uint4*>(row + k + 8 * i);
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

// Which of `count` tiles a block computes, how weights reach it and how its warps' shares are added up.
// kTiles: sixteen-row tiles at a time; kGroups: eight activation rows each.
template <RowFormat kFormat, int kTiles, int kGroups>
struct RowStream {
  using Row = WeightRow<kFormat>;
  static constexpr bool kIs8Bit = Row::kIs8Bit;
  static constexpr int kInputs = Row::kInputs;
  static constexpr int kRows = 2 * kTiles;  // that a lane reads: lane / 4 and eight further, of each tile
  // Warps take 4 kInputs inputs in turn, so that a block reads long runs.
  static constexpr int64_t kStep = 4 * kInputs * kRowsWarps;
  static constexpr int kValueBytes = kRows * kRowsThreads * 16;
  static constexpr int kStageBytes = kValueBytes + (kIs8Bit ? kRows * kRowsThreads * 4 : 0);
  static constexpr int kSums = kTiles * 16 * 8 * kGroups;
  static constexpr int kSumBytes = kRowsWarps * kSums * 4;
  // Two blocks share a multiprocessor.
  static constexpr int kStages = (112 * 1024 - kSumBytes) / kStageBytes > 8
                                     ? 8
                                     : (112 * 1024 - kSumBytes) / kStageBytes;
  static constexpr int kSharedBytes = kSumBytes + kStages * kStageBytes;
  static_assert(kStages >= 3);

  uint8_t* shared;  // [kSharedBytes]
  int64_t columns;
  int64_t count;

  // set_rows(tile, rows) names the rows a lane reads, for a tile that is computed later. With `kWaits` the
  // previous kernel is waited for when the queue has been filled. inputs_of(tile, n) is the lane's activation
  // row of group n or null. total(tile, values[kTiles], row, t) is called once for each row < 16 and
  // activation row t < 8 kGroups, by some thread; after_tile(tile) by all.
  template <typename X, bool kWaits, typename SetRows, typename InputsOf, typename Total, typename AfterTile>
  __device__ void run(SetRows&& set_rows, InputsOf&& inputs_of, Total&& total, AfterTile&& after_tile) const {
    const int warp = threadIdx.x / 32, quarter = threadIdx.x % 4;
    const int64_t steps = ceil_div(columns, kStep);
    const int64_t first_input = warp * 4 * kInputs + quarter * kInputs;
    const uint32_t queue = ptx::shared_address(shared) + kSumBytes;
    const uint32_t own_values = queue + threadIdx.x * 16, own_scales = queue + kValueBytes + threadIdx.x * 4;
    Row rows[kRows];
    int64_t load_tile = blockIdx.x, load_step = 0;
    uint32_t load_stage = 0, stage = 0;
    const auto load = [&] {
      if (load_tile < count) {
        if (load_step == 0) set_rows(load_tile, rows);
        const int64_t k = load_step * kStep + first_input;
        if (k < columns) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            const uint32_t at = load_stage * kStageBytes;
            ptx::copy_async_16(own_values + at + r * kRowsThreads * 16, rows[r].values_at(k), true);
            if constexpr (kIs8Bit)
              ptx::copy_async_4(own_scales + at + r * kRowsThreads * 4, rows[r].scales_at(k));
          }
        }
        if (++load_step == steps) {
          load_step = 0;
          load_tile += gridDim.x;
        }
      }
      ptx::copy_async_commit();
      load_stage = load_stage + 1 == kStages ? 0 : load_stage + 1;
    };
#pragma unroll 1
    for (int i = 0; i < kStages - 1; ++i) load();
    if (kWaits) ptx::wait_for_previous_kernel();
    for (int64_t tile = blockIdx.x; tile < count; tile += gridDim.x) {
      const X* inputs[kGroups];
#pragma unroll
      for (int n = 0; n < kGroups; ++n) inputs[n] = inputs_of(tile, n);
      float sums[kTiles][kGroups][4] = {};
#pragma unroll 1
      for (int64_t step = 0; step < steps; ++step) {
        load();
        ptx::copy_async_wait<kStages - 1>();
        const int64_t k = step * kStep + first_input;
        if (k < columns) multiply(own_values + stage * kStageBytes, own_scales + stage * kStageBytes, inputs, k, sums);
        stage = stage + 1 == kStages ? 0 : stage + 1;
      }
      add_up(sums, [&](const float(&values)[kTiles], int row, int t) { total(tile, values, row, t); });
      after_tile(tile);
    }
    ptx::copy_async_wait<0>();
  }

 private:
  template <typename X>
  __device__ static void multiply(uint32_t values, uint32_t scales, const X* const (&inputs)[kGroups],
                                  int64_t k, float (&sums)[kTiles][kGroups][4]) {
    constexpr int kPairs = kInputs / 2;
    uint32_t low[kTiles][kPairs], high[kTiles][kPairs], low_scales[kTiles], high_scales[kTiles];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const uint4 l = ptx::load_shared16(values + (2 * m) * kRowsThreads * 16);
      const uint4 h = ptx::load_shared16(values + (2 * m + 1) * kRowsThreads * 16);
      if constexpr (kIs8Bit) {
        unpack_e4m3(l, low[m]);
        unpack_e4m3(h, high[m]);
        low_scales[m] = ptx::load_shared4(scales + (2 * m) * kRowsThreads * 4);
        high_scales[m] = ptx::load_shared4(scales + (2 * m + 1) * kRowsThreads * 4);
        if constexpr (kFormat == RowFormat::kMxfp8) {
          // The warp's two scales of the four.
          const uint32_t shift = k % 128 >= 64 ? 16 : 0;
          low_scales[m] >>= shift;
          high_scales[m] >>= shift;
        }
      } else {
        low[m][0] = l.x, low[m][1] = l.y, low[m][2] = l.z, low[m][3] = l.w;
        high[m][0] = h.x, high[m][1] = h.y, high[m][2] = h.z, high[m][3] = h.w;
      }
    }
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      // The first group always has rows.
      if (n > 0 && !__any_sync(0xffffffffU, inputs[n] != nullptr)) continue;
      uint32_t b[kPairs];
      load_inputs<kInputs>(inputs[n], k, b);
      if constexpr (kFormat == RowFormat::kBF16) {
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const uint32_t a[4] = {low[m][2 * i], high[m][2 * i], low[m][2 * i + 1], high[m][2 * i + 1]};
            ptx::mma_16x8x16(sums[m][n], a, b[2 * i], b[2 * i + 1]);
          }
        }
      } else if constexpr (kFormat == RowFormat::kFp8) {
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
          multiply_codes(low[m], high[m], b, __uint_as_float(low_scales[m]), __uint_as_float(high_scales[m]),
                         sums[m][n]);
        }
      } else {
        // Quarters 0 and 1 hold the inputs of the first scale, 2 and 3 those of the second.
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint32_t mask = static_cast<int>(threadIdx.x) % 4 / 2 == half ? 0xffffffffU : 0U;
          const auto scale = [&](uint32_t two) {
            return to_f32(e8m0_t{static_cast<uint8_t>(two >> (8 * half))});
          };
          uint32_t own[kPairs];
#pragma unroll
          for (int i = 0; i < kPairs; ++i) own[i] = b[i] & mask;
#pragma unroll
          for (int m = 0; m < kTiles; ++m)
            multiply_codes(low[m], high[m], own, scale(low_scales[m]), scale(high_scales[m]), sums[m][n]);
        }
      }
    }
  }

  template <typename Total>
  __device__ void add_up(const float (&sums)[kTiles][kGroups][4], Total&& total) const {
    constexpr int kWidth = 8 * kGroups;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    auto* parts = reinterpret_cast<float*>(shared);
    __syncthreads();
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kGroups; ++n) {
        float* at = parts + warp * kSums + (m * 16 + lane / 4) * kWidth + n * 8 + lane % 4 * 2;
        at[0] = sums[m][n][0];
        at[1] = sums[m][n][1];
        at[8 * kWidth] = sums[m][n][2];
        at[8 * kWidth + 1] = sums[m][n][3];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 16 * kWidth; i += kRowsThreads) {
      float values[kTiles];
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kRowsWarps; ++w) sum += parts[w * kSums + m * 16 * kWidth + i];
        values[m] = sum;
      }
      total(values, i / kWidth, i % kWidth);
    }
  }
};

// Launches a kernel of a RowStream over at most `count` tiles.
template <typename Stream, typename Kernel, typename Args>
void launch_rows(Kernel kernel, int64_t count, cudaStream_t stream, const Args& args) {
  int device = 0, multiprocessors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Stream::kSharedBytes);
  const int64_t most = 2 * static_cast<int64_t>(multiprocessors);
  launch(kernel, static_cast<unsigned>(count < most ? count : most), kRowsThreads, Stream::kSharedBytes,
         stream, args);
}

}  // namespace minimax::cuda
