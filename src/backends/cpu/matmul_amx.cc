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
#include <bit>

#include "backends/cpu/amx.h"
#include "backends/cpu/unpack_mxfp8.h"
#include "quant/fp8.h"

namespace minimax::cpu {
namespace {

// Tiles of 8-bit weight rows at once: twice as many unpacked weights would crowd the nearest cache.
constexpr int64_t kMaxUnpackedTiles = 2;

// Tile registers, whose numbers GCC 12 wants literally: 0 to 3 are sums, 4 and 5 weights, 6 rows of x. BF16
// weights have sums of up to four tiles of weight rows, 8-bit weights two sets of up to two.
constexpr size_t kFirstWeights = 4;
constexpr size_t kFirstInputs = 6;
constexpr size_t kTileRegisters = 7;

// Sums and x are `lanes` wide.
constexpr TileConfig tile_config(int64_t lanes) {
  TileConfig config;
  for (size_t tile = 0; tile < kTileRegisters; ++tile) {
    const bool is_weights = tile >= kFirstWeights && tile < kFirstInputs;
    config.set(tile, kTileRows, is_weights ? kTileLineBytes : lanes * int64_t{sizeof(float)});
  }
  return config;
}
template <int kLanes>
constexpr TileConfig kTileConfig = tile_config(kLanes);

// Rows of x in lanes, [pairs, kLanes], from `input` on.
template <int kLanes>
MINIMAX_INLINE const uint32_t* lanes_at(const uint32_t* x, int64_t input) {
  return x + input / 2 * kLanes;
}

// Asks for `bytes` bytes from p on, into the second-level cache.
MINIMAX_AMX_TARGET MINIMAX_INLINE void fetch_ahead(const void* p, int64_t bytes) {
  const auto* line = static_cast<const char*>(p);
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(line + i, _MM_HINT_T1);
}

// Clears the first or the second pair of sums.
template <int kSet>
MINIMAX_AMX_TARGET MINIMAX_INLINE void clear_sums() {
  if constexpr (kSet == 0) {
    _tile_zero(0);
    _tile_zero(1);
  } else {
    _tile_zero(2);
    _tile_zero(3);
  }
}

// Adds to the first sums the products of kTileInputs inputs of 16 rows of x with kTiles tiles of weight rows,
// `stride` bytes from row to row.
template <int kTiles>
MINIMAX_AMX_TARGET MINIMAX_INLINE void add_products(const uint32_t* inputs, const bf16* weights,
                                                    int64_t stride) {
  const auto* rows = reinterpret_cast<const std::byte*>(weights);
  _tile_loadd(6, inputs, kMaxLanes * sizeof(uint32_t));
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

// Adds those of up to two tiles of weight rows with kLanes rows of x to a set of sums.
template <int kTiles, int kLanes, int kSet>
MINIMAX_AMX_TARGET MINIMAX_INLINE void add_to_set(const uint32_t* inputs, const std::byte* rows,
                                                  int64_t stride) {
  _tile_loadd(6, inputs, kLanes * sizeof(uint32_t));
  _tile_loadd(4, rows, stride);
  if constexpr (kSet == 0) {
    _tile_dpbf16ps(0, 4, 6);
  } else {
    _tile_dpbf16ps(2, 4, 6);
  }
  if constexpr (kTiles > 1) {
    _tile_loadd(5, rows + kTileRows * stride, stride);
    if constexpr (kSet == 0) {
      _tile_dpbf16ps(1, 5, 6);
    } else {
      _tile_dpbf16ps(3, 5, 6);
    }
  }
}

// Sums of kTiles tiles: all lanes of a weight row, then those of the next.
template <int kTiles, int kLanes>
struct Sums {
  static constexpr int64_t kRows = kTiles * kTileRows;
  static constexpr int64_t kVectors = kRows * kLanes / 16;
  static constexpr int64_t kRowsPerVector = 16 / kLanes;
  static constexpr int64_t kRowBytes = kLanes * int64_t{sizeof(float)};
  static constexpr int64_t kTile = kTileRows * kLanes;
  alignas(64) float values[kRows * kLanes];

  MINIMAX_AMX_TARGET MINIMAX_INLINE void take_all() {
    _tile_stored(0, values, kRowBytes);
    if constexpr (kTiles > 1) _tile_stored(1, values + kTile, kRowBytes);
    if constexpr (kTiles > 2) {
      _tile_stored(2, values + 2 * kTile, kRowBytes);
      _tile_stored(3, values + 3 * kTile, kRowBytes);
    }
  }
  template <int kSet>
  MINIMAX_AMX_TARGET MINIMAX_INLINE void take_set() {
    if constexpr (kSet == 0) {
      _tile_stored(0, values, kRowBytes);
      if constexpr (kTiles > 1) _tile_stored(1, values + kTile, kRowBytes);
    } else {
      _tile_stored(2, values, kRowBytes);
      if constexpr (kTiles > 1) _tile_stored(3, values + kTile, kRowBytes);
    }
  }
  MINIMAX_AMX_TARGET MINIMAX_INLINE __m512 vector(int64_t i) const { return _mm512_load_ps(values + i * 16); }
  MINIMAX_AMX_TARGET MINIMAX_INLINE void set_vector(int64_t i, __m512 sums) {
    _mm512_store_ps(values + i * 16, sums);
  }
};

// `fetched`: what is read after these rows, as many bytes, or null.
template <int kTiles>
MINIMAX_AMX_TARGET void multiply_bf16(const uint32_t* x, const quant::Weight& weight, int64_t first,
                                      const std::byte* fetched, Sums<kTiles, kMaxLanes>& sums) {
  constexpr int64_t kRows = kTiles * kTileRows;
  const bf16* weights = weight.values.row<bf16>(first);
  const int64_t stride = weight.values.stride(0) * static_cast<int64_t>(sizeof(bf16));
  const int64_t k = weight.in_features();
  clear_sums<0>();
  clear_sums<1>();
  for (int64_t i = 0; i < k; i += kTileInputs) {
    if (fetched != nullptr) fetch_ahead(fetched + kRows * 2 * i, kRows * kTileLineBytes);
    add_products<kTiles>(lanes_at<kMaxLanes>(x, i), weights + i, stride);
  }
  sums.take_all();
}

// 8-bit weight rows, and how a chunk of 64 weights becomes BF16: even ones first, as in x.
template <typename Unpack>
struct PackedRows {
  const uint8_t* codes;
  int64_t stride;
  const std::byte* fetched;  // what is asked for meanwhile
  Unpack unpack;             // unpack(row, chunk, codes, out)
};

// A chunk of each row of kTiles tiles as BF16: few enough for the nearest cache beside x.
template <int kTiles>
struct Chunk {
  static constexpr int64_t kRows = kTiles * kTileRows;
  static constexpr int64_t kStride = kE4m3Chunk + 32;  // not a power of two, for the cache's sets
  static constexpr int64_t kStrideBytes = kStride * static_cast<int64_t>(sizeof(bf16));
  alignas(64) std::byte weights[kRows * kStrideBytes];  // elements of bf16 would be set to zero first

  // Unpacks chunk `chunk` of rows [row, end). Meanwhile asks for as many lines of what lies further on, in
  // the order of memory, and for the chunk after this one, which is in the second-level cache by then.
  template <typename Unpack>
  MINIMAX_AMX_TARGET MINIMAX_INLINE void fill(const PackedRows<Unpack>& from, int64_t row, int64_t end,
                                              int64_t chunk) {
    const uint8_t* codes = from.codes + row * from.stride + chunk * kE4m3Chunk;
    const std::byte* fetched = from.fetched + (kRows * chunk + row) * kE4m3Chunk;
    for (; row < end; ++row, codes += from.stride, fetched += kE4m3Chunk) {
      _mm_prefetch(fetched, _MM_HINT_T1);
      _mm_prefetch(codes + kE4m3Chunk, _MM_HINT_T0);
      const __m512i loaded[1] = {_mm512_loadu_si512(codes)};
      E4m3Unpacked unpacked[1];
      from.unpack(row, chunk, loaded, unpacked);
      std::memcpy(weights + row * kStrideBytes, unpacked, sizeof(unpacked));
    }
    finish_stores();
  }
};

// The products of kTiles tiles of 8-bit weight rows. While tiles multiply one chunk, vectors unpack the next.
template <int kTiles, int kLanes, typename Unpack>
class UnpackedProduct {
 public:
  MINIMAX_AMX_TARGET MINIMAX_INLINE UnpackedProduct(const uint32_t* x, int64_t chunks,
                                                    const PackedRows<Unpack>& rows)
      : x_(x), chunks_(chunks), rows_(rows) {
    unpacked_[0].fill(rows, 0, kRows, 0);
    clear_sums<0>();
    clear_sums<1>();
  }

  // Adds chunks [chunk, end) to a set of sums, and calls after_first() when the first is under way.
  template <int kSet, typename AfterFirst>
  MINIMAX_AMX_TARGET MINIMAX_INLINE void add(int64_t chunk, int64_t end, const AfterFirst& after_first) {
    constexpr int64_t kSteps = kE4m3Chunk / kTileInputs;
    for (const int64_t first = chunk; chunk < end; ++chunk) {
      const std::byte* weights = unpacked_[chunk % 2].weights;
      Chunk<kTiles>& following = unpacked_[1 - chunk % 2];
#pragma GCC unroll 2
      for (int64_t step = 0; step < kSteps; ++step) {
        const int64_t input = chunk * kE4m3Chunk + step * kTileInputs;
        add_to_set<kTiles, kLanes, kSet>(lanes_at<kLanes>(x_, input), weights + step * kTileLineBytes,
                                         Chunk<kTiles>::kStrideBytes);
        if (chunk + 1 < chunks_)
          following.fill(rows_, kRows / kSteps * step, kRows / kSteps * (step + 1), chunk + 1);
      }
      if (chunk == first) after_first();
    }
  }

 private:
  static constexpr int64_t kRows = kTiles * kTileRows;
  const uint32_t* x_;
  int64_t chunks_;
  PackedRows<Unpack> rows_;
  std::array<Chunk<kTiles>, 2> unpacked_;  // not initialised
};

struct UnpackFp8 {
  E4m3Unpacker unpacker;
  MINIMAX_AMX_TARGET MINIMAX_INLINE void operator()(int64_t, int64_t, const __m512i (&codes)[1],
                                                    E4m3Unpacked (&out)[1]) const {
    unpacker(codes, out);
  }
};

// Scales of kRows rows of kFp8, and where blocks end.
template <int kRows>
class TileScales {
 public:
  TileScales(const quant::Weight& weight, int64_t first)
      : width_(weight.block_columns / kE4m3Chunk),
        first_end_((weight.block_columns - weight.column_offset) / kE4m3Chunk),
        is_whole_(weight.block_columns - weight.column_offset >= weight.in_features()) {
    const int64_t n = first + weight.row_offset;
    // A division takes as long as some rows.
    const auto block_rows = static_cast<uint64_t>(weight.block_rows);
    const int64_t row =
        std::has_single_bit(block_rows) ? n >> std::countr_zero(block_rows) : n / weight.block_rows;
    const float* scale_row = weight.scales.data<float>() + row * weight.scales.stride(0);
    int64_t rows_left = (row + 1) * weight.block_rows - n;
    rows_[0] = scale_row;
    is_uniform_ = rows_left >= kRows;
    if (is_uniform_) return;
    for (const float*& of_row : rows_) {
      if (rows_left-- == 0) {
        scale_row += weight.scales.stride(0);
        rows_left = weight.block_rows - 1;
      }
      of_row = scale_row;
    }
  }

  // The chunk behind a block.
  int64_t end(int64_t block, int64_t chunks) const {
    return is_whole_ ? chunks : std::min(chunks, first_end_ + block * width_);
  }
  // sums += part times the block's scales.
  template <int kTiles, int kLanes>
  MINIMAX_AMX_TARGET MINIMAX_INLINE void add(const Sums<kTiles, kLanes>& part, int64_t block,
                                             Sums<kTiles, kLanes>& sums) const {
    if (is_uniform_) {
      const __m512 scale = _mm512_set1_ps(rows_[0][block]);
      for (int64_t i = 0; i < Sums<kTiles, kLanes>::kVectors; ++i) add_scaled(part, i, scale, block, sums);
    } else {
      for (int64_t i = 0; i < Sums<kTiles, kLanes>::kVectors; ++i)
        add_scaled(part, i, scales_of<kLanes>(i, block), block, sums);
    }
  }

 private:
  template <int kTiles, int kLanes>
  MINIMAX_AMX_TARGET MINIMAX_INLINE static void add_scaled(const Sums<kTiles, kLanes>& part, int64_t i,
                                                           __m512 scale, int64_t block,
                                                           Sums<kTiles, kLanes>& sums) {
    sums.set_vector(i, block == 0 ? _mm512_mul_ps(part.vector(i), scale)
                                  : _mm512_fmadd_ps(part.vector(i), scale, sums.vector(i)));
  }
  // Those of the weight rows in vector i.
  template <int kLanes>
  MINIMAX_AMX_TARGET MINIMAX_INLINE __m512 scales_of(int64_t i, int64_t block) const {
    constexpr int64_t kRowsPerVector = 16 / kLanes;
    alignas(64) std::array<float, 16> scales;
    for (size_t lane = 0; lane < 16; ++lane)
      scales[lane] = rows_[static_cast<size_t>(i * kRowsPerVector) + lane / kLanes][block];
    return _mm512_load_ps(scales.data());
  }

  std::array<const float*, kRows> rows_;
  bool is_uniform_;
  int64_t width_;
  int64_t first_end_;
  bool is_whole_;
};

// Sums of each block of inputs are multiplied with the scales of its rows. Blocks take turns between two sets
// of sums: tiles of one are stored while the next one's are multiplied.
template <int kTiles, int kLanes>
MINIMAX_AMX_TARGET void multiply_fp8(const uint32_t* x, const quant::Weight& weight, int64_t first,
                                     const std::byte* fetched, Sums<kTiles, kLanes>& sums) {
  const int64_t chunks = weight.in_features() / kE4m3Chunk;
  const TileScales<kTiles * kTileRows> scales(weight, first);
  const PackedRows<UnpackFp8> rows{weight.values.row<uint8_t>(first), weight.values.stride(0), fetched, {}};
  UnpackedProduct<kTiles, kLanes, UnpackFp8> product(x, chunks, rows);
  Sums<kTiles, kLanes> part;
  const auto finish_first = [&](int64_t block) MINIMAX_AMX_TARGET {
    part.template take_set<0>();
    clear_sums<0>();
    scales.add(part, block, sums);
  };
  const auto finish_second = [&](int64_t block) MINIMAX_AMX_TARGET {
    part.template take_set<1>();
    clear_sums<1>();
    scales.add(part, block, sums);
  };
  int64_t block = 0;
  for (int64_t chunk = 0;; ++block) {
    int64_t end = scales.end(block, chunks);
    product.template add<0>(chunk, end, [&]() MINIMAX_AMX_TARGET {
      if (block > 0) finish_second(block - 1);
    });
    chunk = end;
    if (chunk == chunks) return finish_first(block);
    end = scales.end(++block, chunks);
    product.template add<1>(chunk, end, [&]() MINIMAX_AMX_TARGET { finish_first(block - 1); });
    chunk = end;
    if (chunk == chunks) return finish_second(block);
  }
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
template <int kTiles, int kLanes>
MINIMAX_AMX_TARGET void multiply_mxfp8(const uint32_t* x, const quant::Weight& weight, int64_t first,
                                       const std::byte* fetched, Sums<kTiles, kLanes>& sums) {
  const int64_t chunks = weight.in_features() / kE4m3Chunk;
  const PackedRows<UnpackMxfp8> rows{
      weight.values.row<uint8_t>(first), weight.values.stride(0), fetched, {MxUnpacker(weight), first}};
  UnpackedProduct<kTiles, kLanes, UnpackMxfp8> product(x, chunks, rows);
  product.template add<0>(0, chunks, []() MINIMAX_AMX_TARGET {});
  sums.template take_set<0>();
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
template <int kTiles, int kLanes>
MINIMAX_AMX_TARGET void store_rows(const Sums<kTiles, kLanes>& sums, float factor, int64_t rows, float* out,
                                   int64_t out_stride) {
  const __m512 factors = _mm512_set1_ps(factor);
  for (int64_t tile = 0; tile < kTiles; ++tile, out += kTileRows) {
    if constexpr (kLanes == kFewLanes) {
      __m512i block[4];
      for (int64_t i = 0; i < 4; ++i)
        block[i] = _mm512_castps_si512(_mm512_mul_ps(sums.vector(4 * tile + i), factors));
      transpose_few(block);
      for (int64_t r = 0; r < rows; ++r) _mm512_storeu_si512(out + r * out_stride, block[r]);
    } else {
      __m512i block[16];
      for (int64_t i = 0; i < 16; ++i)
        block[i] = _mm512_castps_si512(_mm512_mul_ps(sums.vector(kTileRows * tile + i), factors));
      transpose16(block);
      for (int64_t r = 0; r < rows; ++r) _mm512_storeu_si512(out + r * out_stride, block[r]);
    }
  }
}

// Where the weight rows `ahead` rows behind row n are read from, or null.
const std::byte* rows_ahead(const quant::Weight& weight, int64_t n, int64_t ahead, const RunEnd& run) {
  const quant::Weight* from = &weight;
  n += ahead;
  if (n >= run.end) {
    if (run.next.weight == nullptr) return nullptr;
    from = run.next.weight;
    n += run.next.first - run.end;
    if (n >= from->out_features()) return nullptr;
  }
  return static_cast<const std::byte*>(from->values.raw()) +
         n * from->values.stride(0) * size_of(from->values.dtype());
}

template <int kTiles, int kLanes>
void multiply_tiles(const uint32_t* x, int64_t rows, const quant::Weight& weight, int64_t first,
                    const RunEnd& run, float* out, int64_t out_stride) {
  constexpr int64_t kRows = kTiles * kTileRows;
  Sums<kTiles, kLanes> sums;
  if constexpr (kLanes == kMaxLanes) {
    if (weight.format == quant::WeightFormat::kBF16) {
      multiply_bf16<kTiles>(x, weight, first, rows_ahead(weight, first, kRows, run), sums);
      return store_rows(sums, 1.0F, rows, out, out_stride);
    }
  }
  if constexpr (kTiles <= kMaxUnpackedTiles) {
    // Rows are read a chunk of each after the other, so all of the next ones should have come by then.
    const std::byte* fetched = rows_ahead(weight, first, kFetchedTileRows, run);
    if (fetched == nullptr) fetched = reinterpret_cast<const std::byte*>(weight.values.row<uint8_t>(first));
    if (weight.format == quant::WeightFormat::kMxfp8) {
      multiply_mxfp8<kTiles, kLanes>(x, weight, first, fetched, sums);
      store_rows(sums, kMxUnpackedScale, rows, out, out_stride);
    } else {
      multiply_fp8<kTiles, kLanes>(x, weight, first, fetched, sums);
      store_rows(sums, kUnpackedE4m3Scale, rows, out, out_stride);
    }
  }
}

// Columns [c, ..) as far as tiles take them; RETURNS: the first that is left.
template <int kLanes>
MINIMAX_AMX_TARGET int64_t multiply_columns(const uint32_t* x, int64_t rows, const quant::Weight& weight,
                                            int64_t first, int64_t columns, const RunEnd& run, float* out,
                                            int64_t out_stride) {
  const int64_t most = weight.format == quant::WeightFormat::kBF16 ? 4 : kMaxUnpackedTiles;
  const TileScope scope(kTileConfig<kLanes>);
  int64_t c = 0;
  while (columns - c >= kTileRows) {
    const int64_t tiles = columns - c >= most * kTileRows ? most : columns - c >= 2 * kTileRows ? 2 : 1;
    if (!fits_tiles(weight, first + c, tiles * kTileRows)) break;
    (tiles == 4   ? multiply_tiles<4, kLanes>
     : tiles == 2 ? multiply_tiles<2, kLanes>
                  : multiply_tiles<1, kLanes>)(x, rows, weight, first + c, run, out + c, out_stride);
    c += tiles * kTileRows;
  }
  return c;
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
  const TileScope scope(kTileConfig<kMaxLanes>);
  clear_sums<0>();
  clear_sums<1>();
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

void dot_products_tiles(const uint32_t* x, int64_t lanes, int64_t rows, const quant::Weight& weight,
                        int64_t first, int64_t columns, const RunEnd& run, float* out, int64_t out_stride) {
  const int64_t done = (lanes == kFewLanes ? multiply_columns<kFewLanes>
                                           : multiply_columns<kMaxLanes>)(x, rows, weight, first, columns,
                                                                          run, out, out_stride);
  if (done < columns)
    dot_products_lanes(x, lanes, rows, weight, first + done, columns - done, out + done, out_stride);
}

}  // namespace minimax::cpu

#else

namespace minimax::cpu {
bool has_tiles() { return false; }
double multiply_tile_chain(int64_t) { return 0; }
void dot_products_tiles(const uint32_t*, int64_t, int64_t, const quant::Weight&, int64_t, int64_t,
                        const RunEnd&, float*, int64_t) {}
}  // namespace minimax::cpu

#endif
