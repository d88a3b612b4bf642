// A BF16 product of one tile, 128 rows by 128 columns, of matrices whose rows lie anywhere: asynchronous
// copies three stages deep into swizzled shared memory, mma.sync from there. Four warps, 64 by 64 each.
#pragma once

#include "backends/cuda/coded_rows.cuh"
#include "backends/cuda/device.cuh"

namespace minimax::cuda {

constexpr int kTileRows = 128;
constexpr int kTileColumns = 128;
constexpr int kTileDepth = 64;
constexpr int kTileStages = 3;
constexpr int kTileThreads = 128;
constexpr int kTileStageBytes = (kTileRows + kTileColumns) * kTileDepth * 2;
constexpr int kTileSharedBytes = kTileStages * kTileStageBytes;

struct TileSums {
  float values[4][8][4];  // [sixteen rows][eight columns][fragment]
};

// The column of the tile at which fragment j of a warp begins. With kIsPaired the tile's halves are two
// matrices, and a warp has the same columns of both: fragments j and j + 4 belong together.
template <bool kIsPaired>
__device__ constexpr int tile_column(int warp_column, int j) {
  if (kIsPaired) return j / 4 * (kTileColumns / 2) + warp_column * 32 + j % 4 * 8;
  return warp_column * 64 + j * 8;
}

// sums = A B^T over `depth` inputs, a multiple of 8. a_row(i) gives row i of the tile, 16-byte aligned, or
// null for a row of zeros; so does b, or it is the CodedSource of 8-bit rows, with a depth that is a multiple
// of 16.
template <bool kIsPaired, typename ARow, typename B>
__device__ void multiply_tile(uint8_t* shared, ARow&& a_row, const B& b, int64_t depth, TileSums& sums) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_row = warp / 2, warp_column = warp % 2;
  const uint32_t base = ptx::shared_address(shared);
  CopiedChunks<kTileRows, kTileThreads> a_chunks(a_row);
  typename ChunksOf<kTileColumns, kTileThreads, B>::Type b_chunks(b);
  const int64_t steps = ceil_div(depth, kTileDepth);
  // Steps are loaded in order; what is fetched of B is one step ahead.
  b_chunks.fetch(0, depth);
  const auto load = [&](int64_t step) {
    const uint32_t stage = base + static_cast<uint32_t>(step % kTileStages) * kTileStageBytes;
    a_chunks.fetch(step * kTileDepth, depth);
    a_chunks.store(stage);
    b_chunks.store(stage + kTileRows * 128);
    b_chunks.fetch((step + 1) * kTileDepth, depth);
  };
#pragma unroll
  for (int s = 0; s < kTileStages - 1; ++s) {
    if (s < steps) load(s);
    ptx::copy_async_commit();
  }
  for (int64_t step = 0; step < steps; ++step) {
    ptx::copy_async_wait<kTileStages - 2>();
    __syncthreads();
    if (step + kTileStages - 1 < steps) load(step + kTileStages - 1);
    ptx::copy_async_commit();
    const uint32_t stage = base + static_cast<uint32_t>(step % kTileStages) * kTileStageBytes;
#pragma unroll
    for (int k = 0; k < kTileDepth / 16; ++k) {
      uint32_t a[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = warp_row * 64 + i * 16 + lane % 16;
        ptx::load_matrix_x4(
            a[i], stage + static_cast<uint32_t>(row * 128 + (((2 * k + lane / 16) ^ (row & 7)) * 16)));
      }
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        uint32_t right[4];
        const int row = tile_column<kIsPaired>(warp_column, j) + lane % 8 + lane / 16 * 8;
        ptx::load_matrix_x4(
            right, stage + kTileRows * 128 +
                       static_cast<uint32_t>(row * 128 + (((2 * k + lane / 8 % 2) ^ (row & 7)) * 16)));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          ptx::mma_16x8x16(sums.values[i][j], a[i], right[0], right[1]);
          ptx::mma_16x8x16(sums.values[i][j + 1], a[i], right[2], right[3]);
        }
      }
    }
  }
}

// f(row, column, value, next column's value) for every second element of the tile.
template <typename F>
__device__ void for_tile_values(const TileSums& sums, F&& f) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int row = warp / 2 * 64 + i * 16 + lane / 4;
      const int column = tile_column<false>(warp % 2, j) + lane % 4 * 2;
      f(row, column, sums.values[i][j][0], sums.values[i][j][1]);
      f(row + 8, column, sums.values[i][j][2], sums.values[i][j][3]);
    }
  }
}

// f(row, column, the first matrix's two values, the second's) of a paired tile; column counts in one matrix.
template <bool kIsPaired, typename F>
__device__ void for_tile_pairs(const TileSums& sums, F&& f) {
  static_assert(kIsPaired);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = warp / 2 * 64 + i * 16 + lane / 4;
      const int column = tile_column<true>(warp % 2, j) + lane % 4 * 2;
      const float(&first)[4] = sums.values[i][j];
      const float(&second)[4] = sums.values[i][j + 4];
      f(row, column, first[0], first[1], second[0], second[1]);
      f(row + 8, column, first[2], first[3], second[2], second[3]);
    }
  }
}

}  // namespace minimax::cuda
