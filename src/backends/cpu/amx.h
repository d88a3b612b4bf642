// Internal to the files of tiles (AMX): their target attribute and configuration. x86-64 only.
#pragma once

#include "backends/cpu/avx512_bf16.h"

#define MINIMAX_AMX_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,amx-tile,amx-bf16")))

namespace minimax::cpu {

constexpr int64_t kTileRows = 16;    // most rows of a tile
constexpr int64_t kTileInputs = 32;  // BF16 elements of a line of a tile
constexpr int64_t kTileLineBytes = 64;

// What LDTILECFG loads: the shapes of the tile registers, whose numbers GCC 12 wants literally.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  std::array<uint8_t, 14> reserved{};
  std::array<uint16_t, 16> row_bytes{};
  std::array<uint8_t, 16> rows{};

  constexpr void set(size_t tile, int64_t tile_rows, int64_t bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};

// Tiles of this thread, for as long as it multiplies with them.
class TileScope {
 public:
  MINIMAX_AMX_TARGET explicit TileScope(const TileConfig& config) { _tile_loadconfig(&config); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
  MINIMAX_AMX_TARGET ~TileScope() { _tile_release(); }
};

// GCC 12 does not know that tiles load memory: what was stored before is stored.
MINIMAX_INLINE void finish_stores() {
  asm volatile("" ::: "memory");  // NOLINT(hicpp-no-assembler)
}

// Of 16 rows in 4 lanes, a lane of a row after the other: vector r of the result has lane r of them all.
MINIMAX_AMX_TARGET MINIMAX_INLINE void transpose_few(__m512i (&v)[4]) {
  const __m512i by_lane = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (__m512i& vector : v) vector = _mm512_permutexvar_epi32(by_lane, vector);
  transpose_blocks(v);
}

}  // namespace minimax::cpu
