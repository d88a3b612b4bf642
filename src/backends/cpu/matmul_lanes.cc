// Products of some rows of x, up to 32, by the AVX-512 BF16 dot product, with a row of x in each lane.
//
// A pair of weights is broadcast and meets the same pair of inputs of 8 or 16 rows at once: no sum over lanes
// is left to do, and weights are used as they lie in memory. 8-bit weights are unpacked to BF16 a stretch at
// a time first, in their own order of pairs, which x shares.
#include "backends/cpu/matmul_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>

#include "backends/cpu/avx512_bf16.h"
#include "backends/cpu/unpack_e4m3.h"

namespace minimax::cpu {
namespace {

constexpr int kColumns = 8;         // weight rows of a tile
constexpr int64_t kStretch = 512;   // weights unpacked at a time: eight rows of them fit the nearest cache
constexpr int64_t kLinePairs = 16;  // pairs of BF16 in a line

// Sixteen rows of x.
struct Wide {
  static constexpr int64_t kLanes = 16;
  static constexpr int kChains =
      1;  // sums of a column that take turns: enough to hide the dot product's latency
  using Sums = __m512;
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums zero() { return _mm512_setzero_ps(); }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static __m512i load(const uint32_t* x) { return _mm512_loadu_si512(x); }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums dot(Sums sums, __m512i x, int pair) {
    return _mm512_dpbf16_ps(sums, as_bf16(x), as_bf16(_mm512_set1_epi32(pair)));
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums add(Sums a, Sums b) { return _mm512_add_ps(a, b); }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums scaled(Sums a, float factor, Sums b) {
    return _mm512_fmadd_ps(a, _mm512_set1_ps(factor), b);
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static void store(float* out, Sums sums) { _mm512_storeu_ps(out, sums); }
};

// Eight rows, at twice the instructions a cycle.
struct Narrow {
  static constexpr int64_t kLanes = 8;
  static constexpr int kChains = 2;
  using Sums = __m256;
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums zero() { return _mm256_setzero_ps(); }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static __m256i load(const uint32_t* x) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums dot(Sums sums, __m256i x, int pair) {
    const __m256i weights = _mm256_set1_epi32(pair);
    __m256bh a;
    __m256bh b;
    std::memcpy(&a, &x, sizeof(a));
    std::memcpy(&b, &weights, sizeof(b));
    return _mm256_dpbf16_ps(sums, a, b);
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums add(Sums a, Sums b) { return _mm256_add_ps(a, b); }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums scaled(Sums a, float factor, Sums b) {
    return _mm256_maskz_fmadd_ps(0xff, a, _mm256_set1_ps(factor), b);  // the plain one is not of AVX-512
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static void store(float* out, Sums sums) { _mm256_storeu_ps(out, sums); }
};

// Four rows, which leave most of a vector empty: for what tiles leave over.
struct Few {
  static constexpr int64_t kLanes = kFewLanes;
  static constexpr int kChains = 2;
  using Sums = __m128;
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums zero() { return _mm_setzero_ps(); }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static __m128i load(const uint32_t* x) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums dot(Sums sums, __m128i x, int pair) {
    const __m128i weights = _mm_set1_epi32(pair);
    __m128bh a;
    __m128bh b;
    std::memcpy(&a, &x, sizeof(a));
    std::memcpy(&b, &weights, sizeof(b));
    return _mm_dpbf16_ps(sums, a, b);
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums add(Sums a, Sums b) { return _mm_add_ps(a, b); }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Sums scaled(Sums a, float factor, Sums b) {
    return _mm_maskz_fmadd_ps(0xf, a, _mm_set1_ps(factor), b);
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static void store(float* out, Sums sums) { _mm_storeu_ps(out, sums); }
};

// A pair of BF16 weights, however it lies.
MINIMAX_VBMI_TARGET MINIMAX_INLINE int load_pair(const bf16* weights) {
  int pair = 0;
  std::memcpy(&pair, weights, sizeof(pair));
  return pair;
}

// Sums of kCount columns.
template <typename Lanes, int kCount>
struct Tile {
  typename Lanes::Sums sums[Lanes::kChains][kCount];

  MINIMAX_VBMI_TARGET MINIMAX_INLINE void clear() {
#pragma GCC unroll 2
    for (int chain = 0; chain < Lanes::kChains; ++chain) {
#pragma GCC unroll 8
      for (int c = 0; c < kCount; ++c) sums[chain][c] = Lanes::zero();
    }
  }
  // Adds `pairs` pairs, a multiple of the chains, of columns `stride` weights apart.
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void add(const uint32_t* x, const bf16* weights, int64_t stride,
                                              int64_t pairs) {
    for (int64_t p = 0; p < pairs; p += Lanes::kChains) {
#pragma GCC unroll 2
      for (int chain = 0; chain < Lanes::kChains; ++chain) {
        const auto inputs = Lanes::load(x + (p + chain) * Lanes::kLanes);
#pragma GCC unroll 8
        for (int c = 0; c < kCount; ++c)
          sums[chain][c] =
              Lanes::dot(sums[chain][c], inputs, load_pair(weights + c * stride + 2 * (p + chain)));
      }
    }
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE typename Lanes::Sums total(int c) const {
    return Lanes::kChains == 2 ? Lanes::add(sums[0][c], sums[Lanes::kChains - 1][c]) : sums[0][c];
  }
};

// Asks for `bytes` bytes from p on, into the second-level cache.
MINIMAX_VBMI_TARGET MINIMAX_INLINE void fetch_ahead(const void* p, int64_t bytes) {
  const auto* line = static_cast<const char*>(p);
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(line + i, _MM_HINT_T1);
}

// results[c * kLanes + lane] of kCount BF16 columns of `pairs` pairs.
template <typename Lanes, int kCount>
MINIMAX_VBMI_TARGET void multiply_bf16(const uint32_t* x, const quant::Weight& weight, int64_t first,
                                       float* results) {
  const bf16* weights = weight.values.row<bf16>(first);
  const int64_t stride = weight.values.stride(0);
  const int64_t pairs = weight.in_features() / 2;
  Tile<Lanes, kCount> tile;
  tile.clear();
  int64_t p = 0;
  for (; p + kLinePairs <= pairs; p += kLinePairs) {
    fetch_ahead(weights + kCount * (stride + 2 * p), kCount * int64_t{64});
    tile.add(x + p * Lanes::kLanes, weights + 2 * p, stride, kLinePairs);
  }
  Tile<Lanes, kCount> rest;
  rest.clear();
  for (; p < pairs; ++p) {
    const auto inputs = Lanes::load(x + p * Lanes::kLanes);
#pragma GCC unroll 8
    for (int c = 0; c < kCount; ++c)
      rest.sums[0][c] = Lanes::dot(rest.sums[0][c], inputs, load_pair(weights + c * stride + 2 * p));
  }
#pragma GCC unroll 8
  for (int c = 0; c < kCount; ++c)
    Lanes::store(results + c * Lanes::kLanes, Lanes::add(tile.total(c), rest.sums[0][c]));
}

// A stretch of e4m3 columns as BF16, each chunk of 64 weights in the order in which it is unpacked.
template <typename Lanes, int kCount>
struct Stretch {
  static constexpr int64_t kStride = kStretch + 32;  // not a power of two, for the cache's sets
  alignas(64) bf16 weights[kCount * kStride];
  typename Lanes::Sums totals[kCount];

  MINIMAX_VBMI_TARGET MINIMAX_INLINE void unpack(const quant::Weight& weight, int64_t first, int64_t begin,
                                                 int64_t count) {
    const E4m3Unpacker unpacker;
    const int64_t stride = weight.values.stride(0);
    const uint8_t* codes = weight.values.row<uint8_t>(first) + begin;
    for (int c = 0; c < kCount; ++c) {
      fetch_ahead(codes - begin + kCount * (stride + begin) + c * count, count);
      for (int64_t i = 0; i < count; i += kE4m3Chunk) {
        const __m512i loaded[1] = {_mm512_loadu_si512(codes + c * stride + i)};
        E4m3Unpacked unpacked[1];
        unpacker(loaded, unpacked);
        std::memcpy(weights + c * kStride + i, unpacked, sizeof(unpacked));
      }
    }
  }

  // Pairs [begin, begin + count) of the stretch share a scale with those `again` pairs further on, if any.
  template <typename Factor>
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void add(const uint32_t* x, int64_t begin, int64_t count, int64_t again,
                                              const Factor& factor) {
    Tile<Lanes, kCount> tile;
    tile.clear();
    tile.add(x + begin * Lanes::kLanes, weights + 2 * begin, kStride, count);
    if (again > 0)
      tile.add(x + (begin + again) * Lanes::kLanes, weights + 2 * (begin + again), kStride, count);
#pragma GCC unroll 8
    for (int c = 0; c < kCount; ++c) totals[c] = Lanes::scaled(tile.total(c), factor(c), totals[c]);
  }
};

// Scales of kCount weight rows.
template <int kCount>
struct BlockScales {
  std::array<const float*, kCount> rows;
  int64_t block_columns;
  int64_t column_offset;

  BlockScales(const quant::Weight& weight, int64_t first)
      : rows(), block_columns(weight.block_columns), column_offset(weight.column_offset) {
    for (int c = 0; c < kCount; ++c) rows[c] = weight.scales.row<float>(weight.scale_row(first + c));
  }
  // Weights [begin, begin + count) of every row, which lie in `columns`.
  template <typename Columns>
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void add(const uint32_t* x, int64_t begin, int64_t count,
                                              Columns& columns) const {
    for (int64_t i = 0; i < count;) {
      const int64_t block = (begin + i + column_offset) / block_columns;
      const int64_t end = std::min(count, (block + 1) * block_columns - column_offset - begin);
      columns.add(x, i / 2, (end - i) / 2, 0, [&](int c) { return rows[c][block]; });
      i = end;
    }
  }
};

template <int kCount>
struct MxScales {
  std::array<const uint8_t*, kCount> rows;

  MxScales(const quant::Weight& weight, int64_t first) : rows() {
    for (int c = 0; c < kCount; ++c) rows[c] = weight.scales.row<uint8_t>(first + c);
  }
  // Two scales a chunk: of its first and its last 32 weights, which are the same halves of even and odd ones.
  template <typename Columns>
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void add(const uint32_t* x, int64_t begin, int64_t count,
                                              Columns& columns) const {
    constexpr int64_t kPairs = kE4m3Chunk / 8;
    constexpr int64_t kInputs = 32;
    for (int64_t group = 0; group < count / kInputs; ++group) {
      const int64_t scale = begin / kInputs + group;
      columns.add(x, group / 2 * 4 * kPairs + group % 2 * kPairs, kPairs, 2 * kPairs,
                  [&](int c) { return std::bit_cast<float>(uint32_t{rows[c][scale]} << 23U); });
    }
  }
};

template <typename Lanes, int kCount, template <int> typename Scales>
MINIMAX_VBMI_TARGET void multiply_fp8(const uint32_t* x, const quant::Weight& weight, int64_t first,
                                      float* results) {
  const int64_t k = weight.in_features();
  const Scales<kCount> scales(weight, first);
  Stretch<Lanes, kCount> columns;
  for (int c = 0; c < kCount; ++c) columns.totals[c] = Lanes::zero();
  for (int64_t begin = 0; begin < k; begin += kStretch) {
    const int64_t count = std::min(kStretch, k - begin);
    columns.unpack(weight, first, begin, count);
    scales.add(x + begin / 2 * Lanes::kLanes, begin, count, columns);
  }
#pragma GCC unroll 8
  for (int c = 0; c < kCount; ++c) {
    Lanes::store(results + c * Lanes::kLanes,
                 Lanes::scaled(columns.totals[c], kUnpackedE4m3Scale, Lanes::zero()));
  }
}

// Lanes become rows.
template <typename Lanes>
void store_rows(const float* results, int64_t rows, int64_t columns, float* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) out[r * out_stride + c] = results[c * Lanes::kLanes + r];
  }
}

using Multiply = void (*)(const uint32_t* x, const quant::Weight& weight, int64_t first, float* results);

template <typename Lanes, int kCount>
Multiply multiply_of(quant::WeightFormat format) {
  if (format == quant::WeightFormat::kBF16) return multiply_bf16<Lanes, kCount>;
  if (format == quant::WeightFormat::kFp8) return multiply_fp8<Lanes, kCount, BlockScales>;
  return multiply_fp8<Lanes, kCount, MxScales>;
}

template <typename Lanes>
void multiply_columns(const uint32_t* x, int64_t rows, const quant::Weight& weight, int64_t first,
                      int64_t columns, float* out, int64_t out_stride) {
  const auto tile = multiply_of<Lanes, kColumns>(weight.format);
  const auto column = multiply_of<Lanes, 1>(weight.format);
  std::array<float, kColumns * Lanes::kLanes> results;
  for (int64_t c = 0; c < columns;) {
    const int64_t count = columns - c >= kColumns ? kColumns : 1;
    (count == kColumns ? tile : column)(x, weight, first + c, results.data());
    store_rows<Lanes>(results.data(), rows, count, out + c, out_stride);
    c += count;
  }
}

// The elements at even or at odd places of two vectors.
MINIMAX_VBMI_TARGET MINIMAX_INLINE __m512i every_other(__m512i a, __m512i b, int first) {
  alignas(64) static constexpr std::array<uint16_t, 32> kEven = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20,
                                                                 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42,
                                                                 44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
  const __m512i places =
      _mm512_add_epi16(_mm512_load_si512(kEven.data()), _mm512_set1_epi16(static_cast<int16_t>(first)));
  return _mm512_permutex2var_epi16(a, places, b);
}

// Rows [first, first + rows) of up to four, k a multiple of 64, as for_bytes wants them.
MINIMAX_VBMI_TARGET void lay_out_few(const RowView& x, int64_t first, int64_t rows, int64_t k,
                                     uint32_t* out) {
  for (int64_t i = 0; i < k; i += kE4m3Chunk) {
    __m512i even[kFewLanes];
    __m512i odd[kFewLanes];
    for (int64_t r = 0; r < kFewLanes; ++r) {
      even[r] = odd[r] = _mm512_setzero_si512();
      if (r >= rows) continue;
      const __m512i a = load_pairs(x.row(first + r), x.dtype, i / 2, k);
      const __m512i b = load_pairs(x.row(first + r), x.dtype, i / 2 + kPairLanes, k);
      even[r] = every_other(a, b, 0);
      odd[r] = every_other(a, b, 1);
    }
    interleave4(even);
    interleave4(odd);
    for (const __m512i& groups : even) {
      _mm512_storeu_si512(out, groups);
      out += kPairLanes;
    }
    for (const __m512i& groups : odd) {
      _mm512_storeu_si512(out, groups);
      out += kPairLanes;
    }
  }
}

}  // namespace

MINIMAX_VBMI_TARGET void lay_out_lanes(const RowView& x, int64_t first, int64_t rows, int64_t lanes,
                                       int64_t k, bool for_bytes, uint32_t* out) {
  if (!for_bytes) {
    return interleave16(rows, lanes, x.dtype, k, out, [&](int64_t r) { return x.row(first + r); });
  }
  if (lanes == kFewLanes && k % kE4m3Chunk == 0) return lay_out_few(x, first, rows, k, out);
  alignas(64) std::array<std::array<bf16, kStretch>, Wide::kLanes> ordered;
  const int64_t element = size_of(x.dtype);
  for (int64_t begin = 0; begin < k; begin += kStretch) {
    const int64_t count = std::min(kStretch, k - begin);
    for (int64_t r = 0; r < rows; ++r)
      lay_out_fp8_row(x.row(first + r) + begin * element, x.dtype, count,
                      ordered[static_cast<size_t>(r)].data());
    interleave16(rows, lanes, DType::kBF16, count, out + begin / 2 * lanes, [&](int64_t r) {
      return reinterpret_cast<const std::byte*>(ordered[static_cast<size_t>(r)].data());
    });
  }
}

void dot_products_lanes(const uint32_t* x, int64_t lanes, int64_t rows, const quant::Weight& weight,
                        int64_t first, int64_t columns, float* out, int64_t out_stride) {
  if (lanes == Few::kLanes) {
    multiply_columns<Few>(x, rows, weight, first, columns, out, out_stride);
  } else if (lanes == Narrow::kLanes) {
    multiply_columns<Narrow>(x, rows, weight, first, columns, out, out_stride);
  } else {
    multiply_columns<Wide>(x, rows, weight, first, columns, out, out_stride);
  }
}

}  // namespace minimax::cpu

#else

namespace minimax::cpu {
void lay_out_lanes(const RowView&, int64_t, int64_t, int64_t, int64_t, bool, uint32_t*) {}
void dot_products_lanes(const uint32_t*, int64_t, int64_t, const quant::Weight&, int64_t, int64_t, float*,
                        int64_t) {}
}  // namespace minimax::cpu

#endif
