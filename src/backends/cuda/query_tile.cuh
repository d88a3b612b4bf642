// Which rows of a ragged batch a block of attention computes.
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

// The tile's sequence and first token in it, from the block's place among the tiles of all sequences.
struct QueryTile {
  int64_t sequence = -1;
  int64_t first = 0;  // row of the batch
  int64_t end = 0;    // of the sequence's rows
};
// Beyond the last tile `first` counts on from 0.
__device__ inline QueryTile find_query_tile(const Ragged& batch, int64_t tile, int64_t tokens_per_tile) {
  for (int64_t b = 0; b < batch.sequences; ++b) {
    const int64_t begin = batch.query_starts[b], end = batch.query_starts[b + 1];
    const int64_t tiles = ceil_div(end - begin, tokens_per_tile);
    if (tile < tiles) return {b, begin + tile * tokens_per_tile, end};
    tile -= tiles;
  }
  return {-1, tile, 0};
}

}  // namespace minimax::cuda
