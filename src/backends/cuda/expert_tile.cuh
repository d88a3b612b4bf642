// Which part of which expert's product a block computes.
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

// Which expert, which kExpertTileRows of its pairs and which columns of its weights a block's tile holds;
// expert -1: none. The tiles of one expert follow one another, and of those the ones with the same columns,
// so that its weights are read once.
constexpr int kExpertTileRows = 128;

struct ExpertTile {
  int64_t expert = -1;
  int64_t first = 0;
  int64_t end = 0;
  int64_t column = 0;
};
__device__ inline ExpertTile find_tile(const MoeArgs& a, int64_t column_tiles) {
  const int64_t block = blockIdx.x;
  const int32_t* tiles = a.order.tiles;
  if (block >= tiles[a.experts] * column_tiles) return {};
  int64_t low = 0, high = a.experts;  // the last expert whose tiles begin at or before this block
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (tiles[middle] * column_tiles <= block ? low : high) = middle;
  }
  const int64_t inside = block - tiles[low] * column_tiles;
  const int64_t row_tiles = tiles[low + 1] - tiles[low];
  return {low, a.order.starts[low] + inside % row_tiles * kExpertTileRows, a.order.starts[low + 1],
          inside / row_tiles};
}

// Tiles of all experts at most: those that their pairs fill, and one begun for each.
inline int64_t most_expert_tiles(const MoeArgs& a) {
  const int64_t pairs = a.x.rows * a.top_k;
  return ceil_div(pairs, kExpertTileRows) + (pairs < a.experts ? pairs : a.experts);
}

}  // namespace minimax::cuda
