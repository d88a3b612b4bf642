// Row products with e4m3 weights by the AVX-512 BF16 dot product.
//
// Weights stay packed in memory. The bits of an e4m3 number, shifted and with an exponent bias put in, are a
// BF16 number; zero and subnormals are looked up instead (VBMI), which trained weights hardly ever need: a
// branch for 64 weights at a time. The products of a stretch that shares scales are summed in F32 and
// multiplied with them once.
#include "backends/cpu/matmul_kernels.h"

#if defined(__x86_64__)

#include <algorithm>
#include <array>

#include "backends/cpu/avx512_bf16.h"
#include "quant/fp8.h"

#define MINIMAX_FP8_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")))

namespace minimax::cpu {
namespace {

constexpr int64_t kChunk = 64;  // weights in a vector
// Unpacked weights are w * 2^-8: the exponent bias 112 has no bits in common with e4m3's exponent field.
constexpr int kExponentBias = 112 << 7;
constexpr float kUnpackedScale = 0x1p8F;

struct ByteTable {
  alignas(64) std::array<uint8_t, 128> bytes;
};

// One byte of the BF16 numbers that unpacked magnitudes are.
constexpr ByteTable magnitude_bytes(int shift) {
  ByteTable table{};
  for (size_t i = 0; i < table.bytes.size(); ++i) {
    const uint16_t bits = to_bf16(to_float(f8e4m3{static_cast<uint8_t>(i)}) / kUnpackedScale).bits;
    table.bytes[i] = static_cast<uint8_t>(bits >> shift);
  }
  return table;
}

constexpr ByteTable kLowBytes = magnitude_bytes(0);
constexpr ByteTable kHighBytes = magnitude_bytes(8);

// Weights of a chunk, in order.
struct Unpacked {
  __m512bh even;
  __m512bh odd;
};

// A constant that the compiler keeps in a register instead of making it anew in the loop.
MINIMAX_FP8_TARGET inline __m512i in_register(__m512i constant) {
  asm("" : "+v"(constant));  // NOLINT(hicpp-no-assembler)
  return constant;
}

struct Unpacker {
  __m512i exponent = in_register(_mm512_set1_epi8(0x78));
  __m512i kept = in_register(_mm512_set1_epi16(static_cast<int16_t>(0x87f0)));
  __m512i bias = in_register(_mm512_set1_epi16(kExponentBias));

  MINIMAX_FP8_TARGET Unpacker() = default;

  MINIMAX_FP8_TARGET inline Unpacked operator()(__m512i codes) const {
    if (_mm512_testn_epi8_mask(codes, exponent) != 0) [[unlikely]]
      return look_up(codes);
    // An arithmetic shift leaves the sign where BF16 has it and brings the magnitude to its place.
    constexpr int kAndOr = 0xea;  // (a & b) | c
    const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(codes, 8), 4);
    const __m512i odd = _mm512_srai_epi16(codes, 4);
    return {as_bf16(_mm512_ternarylogic_epi64(even, kept, bias, kAndOr)),
            as_bf16(_mm512_ternarylogic_epi64(odd, kept, bias, kAndOr))};
  }

  // By table, for chunks with zeros or subnormals.
  MINIMAX_FP8_TARGET static inline Unpacked look_up(__m512i codes) {
    const auto* low_bytes = reinterpret_cast<const __m512i*>(kLowBytes.bytes.data());
    const auto* high_bytes = reinterpret_cast<const __m512i*>(kHighBytes.bytes.data());
    const __m512i low =
        _mm512_permutex2var_epi8(_mm512_load_si512(low_bytes), codes, _mm512_load_si512(low_bytes + 1));
    const __m512i magnitude =
        _mm512_permutex2var_epi8(_mm512_load_si512(high_bytes), codes, _mm512_load_si512(high_bytes + 1));
    constexpr int kOrAnd = 0xf8;  // a | (b & c)
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i high = _mm512_ternarylogic_epi64(magnitude, codes, sign, kOrAnd);
    const __m512i low_half = _mm512_set1_epi16(0x00ff);
    const __m512i high_half = _mm512_set1_epi16(static_cast<int16_t>(0xff00));
    return {as_bf16(_mm512_ternarylogic_epi64(_mm512_slli_epi16(high, 8), low, low_half, kOrAnd)),
            as_bf16(_mm512_ternarylogic_epi64(_mm512_srli_epi16(low, 8), high, high_half, kOrAnd))};
  }
};

// The scales of a weight, as the loop over its rows needs them.
template <typename T>
struct ScaleGrid {
  const T* scales;
  int64_t stride;
  int64_t block_rows;
  int64_t chunks;  // that share a scale

  explicit ScaleGrid(const quant::Weight& weight)
      : scales(weight.scales.data<T>()),
        stride(weight.scales.stride(0)),
        block_rows(weight.block_rows),
        chunks((weight.block_columns + kChunk - 1) / kChunk) {}
};

// Scales of kFp8: one for `chunks` chunks of a row.
struct BlockScales {
  using Grid = ScaleGrid<float>;
  const float* row;
  int64_t chunks;

  BlockScales(const Grid& grid, int64_t n)
      : row(grid.scales + n / grid.block_rows * grid.stride), chunks(grid.chunks) {}
  MINIMAX_FP8_TARGET __m512 operator()(int64_t block) const { return _mm512_set1_ps(row[block]); }
  MINIMAX_FP8_TARGET __m512 of_part(int64_t block) const { return (*this)(block); }
};

// Scales of kMxfp8: two for each chunk, of the sums in lanes 0..7 and 8..15.
struct MxScales {
  using Grid = ScaleGrid<uint8_t>;
  const uint8_t* row;
  static constexpr int64_t chunks = 1;
  // The exponent of a lane's half goes to its top byte, then one bit down to where a float has it.
  __m512i to_top_byte =
      in_register(_mm512_mask_set1_epi32(_mm512_set1_epi32(kFirstOnTop), 0xff00, kFirstOnTop + (1 << 24)));
  static constexpr int kFirstOnTop = 0x00808080;

  MINIMAX_FP8_TARGET MxScales(const Grid& grid, int64_t n) : row(grid.scales + n * grid.stride) {}
  MINIMAX_FP8_TARGET __m512 operator()(int64_t chunk) const {
    int16_t pair = 0;
    std::memcpy(&pair, row + 2 * chunk, sizeof(pair));
    return from_exponents(_mm512_set1_epi16(pair));
  }
  // Of a chunk that ends after its first half.
  MINIMAX_FP8_TARGET __m512 of_part(int64_t chunk) const {
    return from_exponents(_mm512_set1_epi16(row[2 * chunk]));
  }
  MINIMAX_FP8_TARGET __m512 from_exponents(__m512i pairs) const {
    return _mm512_castsi512_ps(_mm512_srli_epi32(_mm512_shuffle_epi8(pairs, to_top_byte), 1));
  }
};

// Sums of kRows rows of x with kColumns rows of a weight.
template <int kRows, int kColumns>
struct Tile {
  __m512 totals[kRows][kColumns];
  __m512 partial[kRows][kColumns];  // of the stretch that shares scales

  MINIMAX_FP8_TARGET inline void clear(__m512 (&sums)[kRows][kColumns]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) sums[r][c] = _mm512_setzero_ps();
    }
  }

  MINIMAX_FP8_TARGET inline void add(const bf16* x, int64_t x_stride, const __m512i (&codes)[kColumns],
                                     const Unpacker& unpack) {
    Unpacked w[kColumns];
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) w[c] = unpack(codes[c]);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512bh even = as_bf16(_mm512_loadu_si512(x + r * x_stride));
      const __m512bh odd = as_bf16(_mm512_loadu_si512(x + r * x_stride + kChunk / 2));
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) {
        partial[r][c] = _mm512_dpbf16_ps(partial[r][c], even, w[c].even);
        partial[r][c] = _mm512_dpbf16_ps(partial[r][c], odd, w[c].odd);
      }
    }
  }

  MINIMAX_FP8_TARGET inline void scale(const __m512 (&factors)[kColumns]) {
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) totals[r][c] = _mm512_fmadd_ps(partial[r][c], factors[c], totals[r][c]);
    }
  }
};

// out[r * out_stride + c] = x[r] . weight row c of those whose codes and scales are given.
template <int kRows, int kColumns, typename Scales>
MINIMAX_FP8_TARGET inline void dot_tile(const bf16* x, int64_t x_stride, const uint8_t* codes,
                                        int64_t codes_stride, int64_t k, const Scales (&scales)[kColumns],
                                        const Unpacker& unpack, float* out, int64_t out_stride) {
  Tile<kRows, kColumns> tile;
  tile.clear(tile.totals);
  __m512i loaded[kColumns];
  __m512 factors[kColumns];
  const int64_t full = k / kChunk;
  int64_t rest = k % kChunk;
  const auto tail = static_cast<__mmask64>((uint64_t{1} << rest) - 1);
  int64_t block = 0;
  for (int64_t chunk = 0; chunk < full; ++block) {
    tile.clear(tile.partial);
    const int64_t end = chunk + scales[0].chunks;
    for (const int64_t last = std::min(end, full); chunk < last; ++chunk) {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c)
        loaded[c] = _mm512_loadu_si512(codes + c * codes_stride + chunk * kChunk);
      if constexpr (kColumns > 1) {
        prefetch_rows<kRows, kColumns>(codes + kColumns * codes_stride, k, kColumns * chunk * kChunk);
      }
      tile.add(x + chunk * kChunk, x_stride, loaded, unpack);
    }
    if (end > full && rest > 0) {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c)
        loaded[c] = _mm512_maskz_loadu_epi8(tail, codes + c * codes_stride + chunk * kChunk);
      tile.add(x + chunk * kChunk, x_stride, loaded, unpack);
      rest = 0;
    }
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) factors[c] = scales[c](block);
    tile.scale(factors);
  }
  if (rest > 0) {
    tile.clear(tile.partial);
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) {
      loaded[c] = _mm512_maskz_loadu_epi8(tail, codes + c * codes_stride + full * kChunk);
      factors[c] = scales[c].of_part(block);
    }
    tile.add(x + full * kChunk, x_stride, loaded, unpack);
    tile.scale(factors);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c)
      out[r * out_stride + c] = kUnpackedScale * _mm512_reduce_add_ps(tile.totals[r][c]);
  }
}

// One row of x: the weight is read strictly in memory order. More rows: two columns share the loads of x.
template <int kRows, typename Scales>
MINIMAX_FP8_TARGET void dot_rows(const bf16* x, int64_t x_stride, const quant::Weight& weight, int64_t first,
                                 int64_t columns, float* out, int64_t out_stride) {
  const Unpacker unpack;
  const typename Scales::Grid grid(weight);
  const int64_t k = weight.in_features();
  const int64_t stride = weight.values.stride(0);
  const uint8_t* codes = weight.values.row<uint8_t>(first);
  int64_t c = 0;
  if constexpr (kRows > 1) {
    for (; c + 2 <= columns; c += 2) {
      const Scales scales[2] = {Scales(grid, first + c), Scales(grid, first + c + 1)};
      dot_tile<kRows, 2, Scales>(x, x_stride, codes + c * stride, stride, k, scales, unpack, out + c,
                                 out_stride);
    }
  }
  for (; c < columns; ++c) {
    const Scales scales[1] = {Scales(grid, first + c)};
    dot_tile<kRows, 1, Scales>(x, x_stride, codes + c * stride, stride, k, scales, unpack, out + c,
                               out_stride);
  }
}

template <typename Scales>
constexpr std::array<DotRows, kMaxTileRows> kDotRows = {dot_rows<1, Scales>, dot_rows<2, Scales>,
                                                        dot_rows<3, Scales>, dot_rows<4, Scales>};

}  // namespace

bool has_fp8_dot() {
  static const bool supported = bf16_kernel() != nullptr && __builtin_cpu_supports("avx512vbmi") > 0;
  return supported;
}

bool can_dot_fp8(const quant::Weight& weight) {
  if (weight.format == quant::WeightFormat::kMxfp8) return true;
  if (weight.format != quant::WeightFormat::kFp8) return false;
  return weight.block_columns % kChunk == 0 || weight.block_columns >= weight.in_features();
}

MINIMAX_FP8_TARGET void lay_out_fp8_row(const std::byte* row, DType dtype, int64_t k, bf16* out) {
  for (int64_t i = 0; i < k; i += kChunk, out += kChunk) {
    const __m512i a = load_pairs(row, dtype, i / 2, k);
    const __m512i b = load_pairs(row, dtype, i / 2 + kPairLanes, k);
    auto* halves = reinterpret_cast<__m256i*>(out);
    _mm256_storeu_si256(halves, _mm512_cvtepi32_epi16(a));
    _mm256_storeu_si256(halves + 1, _mm512_cvtepi32_epi16(b));
    _mm256_storeu_si256(halves + 2, _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16)));
    _mm256_storeu_si256(halves + 3, _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)));
  }
}

void dot_products_fp8(const bf16* x, int64_t x_stride, int64_t rows, const quant::Weight& weight,
                      int64_t first, int64_t columns, float* out, int64_t out_stride) {
  const bool is_mx = weight.format == quant::WeightFormat::kMxfp8;
  const auto& functions = is_mx ? kDotRows<MxScales> : kDotRows<BlockScales>;
  dot_all_rows(functions, x, x_stride, rows, weight, first, columns, out, out_stride);
}

}  // namespace minimax::cpu

#else

namespace minimax::cpu {
bool has_fp8_dot() { return false; }
bool can_dot_fp8(const quant::Weight&) { return false; }
void lay_out_fp8_row(const std::byte*, DType, int64_t, bf16*) {}
void dot_products_fp8(const bf16*, int64_t, int64_t, const quant::Weight&, int64_t, int64_t, float*,
                      int64_t) {}
}  // namespace minimax::cpu

#endif
