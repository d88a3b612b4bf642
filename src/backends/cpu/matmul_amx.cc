// Products of some rows of x with tiles (AMX-BF16): 16 weight rows times 16 rows of x in one instruction.
//
// Weight rows are the left operand as they lie in memory, rows of x in lanes (matmul_lanes.cc) the right one,
// whose pairs tiles want interleaved just so. 8-bit weights are unpacked to BF16 a stretch at a time first,
// which stays in the nearest cache. What fills no tile is left to lanes.
#include "backends/cpu/matmul_kernels.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "backends/cpu/avx512_bf16.h"
#include "backends/cpu/unpack_mxfp8.h"
#include "quant/fp8.h"

#define MINIMAX_AMX_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi,amx-tile,amx-bf16")))

namespace minimax::cpu {
namespace {

constexpr int64_t kTileRows = 16;    // weight rows of a tile
constexpr int64_t kTileInputs = 32;  // inputs of a tile of weights
constexpr int64_t kLineBytes = kTileInputs * static_cast<int64_t>(sizeof(bf16));
constexpr int64_t kLaneBytes = kMaxLanes * static_cast<int64_t>(sizeof(uint32_t));  // a pair of all rows of x

// Tile registers, whose numbers GCC 12 wants literally: 0 to 3 are sums of as many tiles of weight rows, 4
// and 5 weights, 6 rows of x.
constexpr size_t kTileRegisters = 7;

// What LDTILECFG loads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  std::array<uint8_t, 14> reserved{};
  std::array<uint16_t, 16> row_bytes{};
  std::array<uint8_t, 16> rows{};
};

constexpr TileConfig tile_config() {
  TileConfig config;
  for (size_t tile = 0; tile < kTileRegisters; ++tile) {
    config.rows[tile] = kTileRows;
    config.row_bytes[tile] = 64;
  }
  return config;
}
constexpr TileConfig kTileConfig = tile_config();

// Tiles of this thread, for as long as it multiplies with them.
class TileScope {
 public:
  MINIMAX_AMX_TARGET TileScope() { _tile_loadconfig(&kTileConfig); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
  MINIMAX_AMX_TARGET ~TileScope() { _tile_release(); }
};

// Rows of x in lanes, [pairs, kMaxLanes], from `input` on.
MINIMAX_INLINE const uint32_t* lanes_at(const uint32_t* x, int64_t input) {
  return x + input / 2 * kMaxLanes;
}

// Asks for `bytes` bytes from p on, into the second-level cache.
MINIMAX_AMX_TARGET MINIMAX_INLINE void fetch_ahead(const void* p, int64_t bytes) {
  const auto* line = static_cast<const char*>(p);
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(line + i, _MM_HINT_T1);
}

MINIMAX_AMX_TARGET MINIMAX_INLINE void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// Adds the products of kTileInputs inputs with kTiles tiles of weight rows, `stride` bytes from row to row.
template <int kTiles>
MINIMAX_AMX_TARGET MINIMAX_INLINE void add_products(const uint32_t* inputs, const bf16* weights,
                                                    int64_t stride) {
  const auto* rows = reinterpret_cast<const std::byte*>(weights);
  _tile_loadd(6, inputs, kLaneBytes);
  _tile_loadd(4, rows, stride);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kTiles > 1) {
    _tile_loadd(5, rows + kTileRows * stride, stride);
    _tile_dpbf16ps(1, 5, 6);
  }
  if constexpr (kTiles > 2) {
    _tile_loadd(4, rows + 2 * kTileRows * stride, stride);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(5, rows + 3 * kTileRows * stride, stride);
    _tile_dpbf16ps(3, 5, 6);
  }
}

// Sums of kTiles tiles: of a weight row and all lanes in a line, those beyond the last lane not set.
template <int kTiles>
struct Sums {
  static constexpr int64_t kRows = kTiles * kTileRows;
  alignas(64) float values[kRows * kMaxLanes];

  MINIMAX_AMX_TARGET MINIMAX_INLINE void clear() { std::fill_n(values, kRows * kMaxLanes, 0.0F); }
  MINIMAX_AMX_TARGET MINIMAX_INLINE void take() {
    constexpr int64_t kTile = kTileRows * kMaxLanes;
    _tile_stored(0, values, kLaneBytes);
    if constexpr (kTiles > 1) _tile_stored(1, values + kTile, kLaneBytes);
    if constexpr (kTiles > 2) {
      _tile_stored(2, values + 2 * kTile, kLaneBytes);
      _tile_stored(3, values + 3 * kTile, kLaneBytes);
    }
  }
  MINIMAX_AMX_TARGET MINIMAX_INLINE __m512 row(int64_t i) const {
    return _mm512_load_ps(values + i * kMaxLanes);
  }
  MINIMAX_AMX_TARGET MINIMAX_INLINE void set_row(int64_t i, __m512 sums) {
    _mm512_store_ps(values + i * kMaxLanes, sums);
  }
};

template <int kTiles>
MINIMAX_AMX_TARGET void multiply_bf16(const uint32_t* x, const quant::Weight& weight, int64_t first,
                                      Sums<kTiles>& sums) {
  constexpr int64_t kRows = kTiles * kTileRows;
  const bf16* weights = weight.values.row<bf16>(first);
  const int64_t stride = weight.values.stride(0) * static_cast<int64_t>(sizeof(bf16));
  const int64_t k = weight.in_features();
  clear_sums();
  for (int64_t i = 0; i < k; i += kTileInputs) {
    fetch_ahead(reinterpret_cast<const std::byte*>(weights) + kRows * (stride + 2 * i), kRows * kLineBytes);
    add_products<kTiles>(lanes_at(x, i), weights + i, stride);
  }
  sums.take();
}

// 8-bit weight rows, and how a chunk of 64 weights becomes BF16: even ones first, as in x.
template <typename Unpack>
struct PackedRows {
  const uint8_t* codes;
  int64_t stride;
  Unpack unpack;  // unpack(row, chunk, codes, out)
};

// A chunk of each row of kTiles tiles as BF16: few enough for the nearest cache beside x.
template <int kTiles>
struct Chunk {
  static constexpr int64_t kRows = kTiles * kTileRows;
  static constexpr int64_t kStride = kE4m3Chunk + 32;  // not a power of two, for the cache's sets
  static constexpr int64_t kStrideBytes = kStride * static_cast<int64_t>(sizeof(bf16));
  alignas(64) bf16 weights[kRows * kStride];

  // Unpacks chunk `chunk` of rows [row, end), and asks for what lies two groups of rows further on, in the
  // order of memory, and for the chunk after this one, which is in the second-level cache by then.
  template <typename Unpack>
  MINIMAX_AMX_TARGET MINIMAX_INLINE void fill(const PackedRows<Unpack>& from, int64_t row, int64_t end,
                                              int64_t chunk) {
    const uint8_t* codes = from.codes + row * from.stride + chunk * kE4m3Chunk;
    const uint8_t* fetched = from.codes + kRows * (2 * from.stride + chunk * kE4m3Chunk) + row * kE4m3Chunk;
    for (; row < end; ++row, codes += from.stride, fetched += kE4m3Chunk) {
      _mm_prefetch(fetched, _MM_HINT_T1);
      _mm_prefetch(codes + kE4m3Chunk, _MM_HINT_T0);
      const __m512i loaded[1] = {_mm512_loadu_si512(codes)};
      E4m3Unpacked unpacked[1];
      from.unpack(row, chunk, loaded, unpacked);
      std::memcpy(weights + row * kStride, unpacked, sizeof(unpacked));
    }
    asm volatile("" ::: "memory");  // NOLINT(hicpp-no-assembler): GCC 12 does not know that tiles load memory
  }
};

// Adds all products of kTiles tiles of 8-bit weight rows; after_step(inputs) is called when so many are done.
// While tiles multiply one chunk, vectors unpack the next.
template <int kTiles, typename Unpack, typename AfterStep>
MINIMAX_AMX_TARGET MINIMAX_INLINE void multiply_unpacked(const uint32_t* x, int64_t k,
                                                         const PackedRows<Unpack>& rows,
                                                         const AfterStep& after_step) {
  constexpr int64_t kRows = kTiles * kTileRows;
  constexpr int64_t kSteps = kE4m3Chunk / kTileInputs;
  const int64_t chunks = k / kE4m3Chunk;
  std::array<Chunk<kTiles>, 2> unpacked;
  unpacked[0].fill(rows, 0, kRows, 0);
  clear_sums();
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const bf16* weights = unpacked[chunk % 2].weights;
    Chunk<kTiles>& following = unpacked[1 - chunk % 2];
#pragma GCC unroll 2
    for (int64_t step = 0; step < kSteps; ++step) {
      const int64_t input = chunk * kE4m3Chunk + step * kTileInputs;
      add_products<kTiles>(lanes_at(x, input), weights + step * kTileInputs, Chunk<kTiles>::kStrideBytes);
      after_step(input + kTileInputs);
      if (chunk + 1 < chunks)
        following.fill(rows, kRows / kSteps * step, kRows / kSteps * (step + 1), chunk + 1);
    }
  }
}

struct UnpackFp8 {
  E4m3Unpacker unpacker;
  MINIMAX_AMX_TARGET MINIMAX_INLINE void operator()(int64_t, int64_t, const __m512i (&codes)[1],
                                                    E4m3Unpacked (&out)[1]) const {
    unpacker(codes, out);
  }
};

// Sums of each block of inputs are multiplied with the scales of its rows.
template <int kTiles>
MINIMAX_AMX_TARGET void multiply_fp8(const uint32_t* x, const quant::Weight& weight, int64_t first,
                                     Sums<kTiles>& sums) {
  constexpr int64_t kRows = kTiles * kTileRows;
  const int64_t k = weight.in_features();
  std::array<const float*, kRows> scales;
  const float* scale_row = weight.scales.row<float>(weight.scale_row(first));
  int64_t rows_left = weight.block_rows - (first + weight.row_offset) % weight.block_rows;
  for (const float*& of_row : scales) {
    if (rows_left-- == 0) {
      scale_row += weight.scales.stride(0);
      rows_left = weight.block_rows - 1;
    }
    of_row = scale_row;
  }
  int64_t block = 0;
  int64_t block_end = weight.block_columns - weight.column_offset;
  Sums<kTiles> part;
  sums.clear();
  const auto after_step = [&](int64_t inputs) MINIMAX_AMX_TARGET {
    if (inputs < block_end && inputs < k) return;
    part.take();
    clear_sums();
    for (int64_t r = 0; r < kRows; ++r) {
      const __m512 scale = _mm512_set1_ps(scales[static_cast<size_t>(r)][block]);
      sums.set_row(r, _mm512_fmadd_ps(part.row(r), scale, sums.row(r)));
    }
    ++block;
    block_end += weight.block_columns;
  };
  const PackedRows<UnpackFp8> rows{weight.values.row<uint8_t>(first), weight.values.stride(0), {}};
  multiply_unpacked<kTiles>(x, k, rows, after_step);
}

struct UnpackMxfp8 {
  MxUnpacker unpacker;
  int64_t first;
  MINIMAX_AMX_TARGET MINIMAX_INLINE void operator()(int64_t row, int64_t chunk, const __m512i (&codes)[1],
                                                    E4m3Unpacked (&out)[1]) const {
    const __m512i exponents[1] = {unpacker.exponents(unpacker.row(first + row), chunk)};
    unpacker(codes, exponents, out);
  }
};

// Scales go into the exponents of the unpacked weights.
template <int kTiles>
MINIMAX_AMX_TARGET void multiply_mxfp8(const uint32_t* x, const quant::Weight& weight, int64_t first,
                                       Sums<kTiles>& sums) {
  const PackedRows<UnpackMxfp8> rows{
      weight.values.row<uint8_t>(first), weight.values.stride(0), {MxUnpacker(weight), first}};
  multiply_unpacked<kTiles>(x, weight.in_features(), rows, [](int64_t) MINIMAX_AMX_TARGET {});
  sums.take();
}

// Whether the scales of weight rows [first, first + rows) go into exponents.
bool fits_tiles(const quant::Weight& weight, int64_t first, int64_t rows) {
  if (weight.format != quant::WeightFormat::kMxfp8) return true;
  const MxUnpacker unpacker(weight);
  const int64_t scales = weight.in_features() / quant::kMxBlock;
  if (weight.scales.stride(0) == scales) return unpacker.fits(first, rows * scales);
  for (int64_t r = first; r < first + rows; ++r) {
    if (!unpacker.fits(r, scales)) return false;
  }
  return true;
}

// Lanes become rows.
template <int kTiles>
MINIMAX_AMX_TARGET void store_rows(const Sums<kTiles>& sums, float factor, int64_t rows, float* out,
                                   int64_t out_stride) {
  for (int64_t first = 0; first < kTiles * kTileRows; first += kTileRows) {
    __m512i block[16];
    for (int64_t i = 0; i < 16; ++i)
      block[i] = _mm512_castps_si512(_mm512_mul_ps(sums.row(first + i), _mm512_set1_ps(factor)));
    transpose16(block);
    for (int64_t r = 0; r < rows; ++r) _mm512_storeu_si512(out + r * out_stride + first, block[r]);
  }
}

template <int kTiles>
void multiply_tiles(const uint32_t* x, int64_t rows, const quant::Weight& weight, int64_t first, float* out,
                    int64_t out_stride) {
  Sums<kTiles> sums;
  switch (weight.format) {
    case quant::WeightFormat::kBF16:
      multiply_bf16<kTiles>(x, weight, first, sums);
      return store_rows(sums, 1.0F, rows, out, out_stride);
    case quant::WeightFormat::kMxfp8:
      multiply_mxfp8<kTiles>(x, weight, first, sums);
      return store_rows(sums, kMxUnpackedScale, rows, out, out_stride);
    default:
      multiply_fp8<kTiles>(x, weight, first, sums);
      return store_rows(sums, kUnpackedE4m3Scale, rows, out, out_stride);
  }
}

// Whether the processor has the instructions and the system lets this process use them: their state is so
// large that Linux wants to be asked.
bool may_use_tiles() {
  constexpr unsigned kTile = 1U << 24U;
  constexpr unsigned kBf16 = 1U << 22U;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  return (d & kTile) != 0 && (d & kBf16) != 0 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool has_tiles() {
  static const bool supported = has_fp8_dot() && may_use_tiles();
  return supported;
}

MINIMAX_AMX_TARGET double multiply_tile_chain(int64_t iterations) {
  constexpr int64_t kOperations = 2 * kTileRows * kMaxLanes * kTileInputs;
  constexpr int kChains = 4;
  const TileScope scope;
  clear_sums();
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  for (int64_t i = 0; i < iterations; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 5, 6);
    _tile_dpbf16ps(2, 4, 6);
    _tile_dpbf16ps(3, 5, 6);
  }
  return static_cast<double>(kOperations * kChains * iterations);
}

void dot_products_tiles(const uint32_t* x, int64_t rows, const quant::Weight& weight, int64_t first,
                        int64_t columns, float* out, int64_t out_stride) {
  // Twice as many unpacked weights would crowd the nearest cache.
  const int64_t most = weight.format == quant::WeightFormat::kBF16 ? 4 : 2;
  int64_t c = 0;
  {
    const TileScope scope;
    while (columns - c >= kTileRows) {
      const int64_t tiles = columns - c >= most * kTileRows ? most : columns - c >= 2 * kTileRows ? 2 : 1;
      if (!fits_tiles(weight, first + c, tiles * kTileRows)) break;
      (tiles == 4   ? multiply_tiles<4>
       : tiles == 2 ? multiply_tiles<2>
                    : multiply_tiles<1>)(x, rows, weight, first + c, out + c, out_stride);
      c += tiles * kTileRows;
    }
  }
  if (c < columns)
    dot_products_lanes(x, kMaxLanes, rows, weight, first + c, columns - c, out + c, out_stride);
}

}  // namespace minimax::cpu

#else

namespace minimax::cpu {
bool has_tiles() { return false; }
double multiply_tile_chain(int64_t) { return 0; }
void dot_products_tiles(const uint32_t*, int64_t, const quant::Weight&, int64_t, int64_t, float*, int64_t) {}
}  // namespace minimax::cpu

#endif
