// Row products with e4m3 weights by the AVX-512 BF16 dot product.
//
// Weights stay packed in memory. The bits of an e4m3 number, shifted and with an exponent bias put in, are a
// BF16 number; zero and subnormals are looked up instead (VBMI), which trained weights hardly ever need: a
// branch for 64 weights at a time. The products of a stretch that shares scales are summed in F32 and
// multiplied with them once.
#include "backends/cpu/matmul_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>

#include "backends/cpu/avx512_bf16.h"
#include "quant/fp8.h"

namespace minimax::cpu {
namespace {

constexpr int64_t kChunk = 64;  // weights in a vector
// Unpacked weights are w * 2^-8: the exponent bias 112 has no bits in common with e4m3's exponent field.
constexpr int kExponentBias = 112 << 7;
constexpr float kUnpackedScale = 0x1p8F;

// Bytes of the BF16 numbers that unpacked magnitudes are.
constexpr E4m3Bytes kLowBytes = e4m3_bytes(0, 1 / kUnpackedScale);
constexpr E4m3Bytes kHighBytes = e4m3_bytes(8, 1 / kUnpackedScale);

// Weights of a chunk, in order.
struct Unpacked {
  __m512bh even;
  __m512bh odd;
};

// A constant that the compiler keeps in a register instead of making it anew in the loop.
MINIMAX_VBMI_TARGET MINIMAX_INLINE __m512i in_register(__m512i constant) {
  asm("" : "+v"(constant));  // NOLINT(hicpp-no-assembler)
  return constant;
}

struct Unpacker {
  __m512i exponent = in_register(_mm512_set1_epi8(0x78));
  __m512i kept = in_register(_mm512_set1_epi16(static_cast<int16_t>(0x87f0)));
  __m512i bias = in_register(_mm512_set1_epi16(kExponentBias));

  MINIMAX_VBMI_TARGET Unpacker() = default;

  template <int kCount>
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void operator()(const __m512i (&codes)[kCount],
                                                     Unpacked (&w)[kCount]) const {
    __mmask64 small = 0;
#pragma GCC unroll 2
    for (int i = 0; i < kCount; ++i) small |= _mm512_testn_epi8_mask(codes[i], exponent);
    if (small != 0) [[unlikely]] {
#pragma GCC unroll 2
      for (int i = 0; i < kCount; ++i) w[i] = look_up(codes[i]);
    } else {
#pragma GCC unroll 2
      for (int i = 0; i < kCount; ++i) w[i] = shift(codes[i]);
    }
  }

  // An arithmetic shift leaves the sign where BF16 has it and brings the magnitude to its place.
  MINIMAX_VBMI_TARGET MINIMAX_INLINE Unpacked shift(__m512i codes) const {
    constexpr int kAndOr = 0xea;  // (a & b) | c
    const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(codes, 8), 4);
    const __m512i odd = _mm512_srai_epi16(codes, 4);
    return {as_bf16(_mm512_ternarylogic_epi64(even, kept, bias, kAndOr)),
            as_bf16(_mm512_ternarylogic_epi64(odd, kept, bias, kAndOr))};
  }

  // By table, for chunks with zeros or subnormals.
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static Unpacked look_up(__m512i codes) {
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

// Scales of kFp8, one for some chunks of a row.
class BlockScales {
 public:
  explicit BlockScales(const quant::Weight& weight)
      : scales_(weight.scales.data<float>()),
        stride_(weight.scales.stride(0)),
        block_rows_(weight.block_rows),
        row_offset_(weight.row_offset),
        first_chunks_((weight.block_columns - weight.column_offset + kChunk - 1) / kChunk),
        chunks_((weight.block_columns + kChunk - 1) / kChunk) {}

  const float* row(int64_t n) const { return scales_ + (n + row_offset_) / block_rows_ * stride_; }
  // Of the first block, which a part of a weight may cut, and of the others.
  int64_t first_chunks() const { return first_chunks_; }
  int64_t chunks() const { return chunks_; }
  MINIMAX_VBMI_TARGET __m512 at(const float* row, int64_t block) const { return _mm512_set1_ps(row[block]); }
  MINIMAX_VBMI_TARGET __m512 of_part(const float* row, int64_t block) const { return at(row, block); }

 private:
  const float* scales_;
  int64_t stride_;
  int64_t block_rows_;
  int64_t row_offset_;
  int64_t first_chunks_;
  int64_t chunks_;
};

// Scales of kMxfp8: two for each chunk, of the sums in lanes 0..7 and 8..15.
class MxScales {
 public:
  MINIMAX_VBMI_TARGET explicit MxScales(const quant::Weight& weight)
      : scales_(weight.scales.data<uint8_t>()), stride_(weight.scales.stride(0)) {
    constexpr int kFirstOnTop = 0x00808080;  // bytes of a lane: 0, 0, 0, the first of the pair
    const __m512i first = _mm512_set1_epi32(kFirstOnTop);
    to_top_byte_ = in_register(_mm512_mask_set1_epi32(first, 0xff00, kFirstOnTop + (1 << 24)));
  }

  const uint8_t* row(int64_t n) const { return scales_ + n * stride_; }
  static int64_t first_chunks() { return 1; }
  static int64_t chunks() { return 1; }
  MINIMAX_VBMI_TARGET __m512 at(const uint8_t* row, int64_t chunk) const {
    int16_t pair = 0;
    std::memcpy(&pair, row + 2 * chunk, sizeof(pair));
    return from_exponents(_mm512_set1_epi16(pair));
  }
  // Of a chunk that ends after its first half.
  MINIMAX_VBMI_TARGET __m512 of_part(const uint8_t* row, int64_t chunk) const {
    return from_exponents(_mm512_set1_epi16(row[2 * chunk]));
  }

 private:
  // The exponent of a lane's half goes to its top byte, then one bit down to where a float has it.
  MINIMAX_VBMI_TARGET __m512 from_exponents(__m512i pairs) const {
    return _mm512_castsi512_ps(_mm512_srli_epi32(_mm512_shuffle_epi8(pairs, to_top_byte_), 1));
  }

  const uint8_t* scales_;
  int64_t stride_;
  __m512i to_top_byte_;
};

// Sums of kRows rows of x with kColumns rows of a weight.
template <int kRows, int kColumns>
struct Tile {
  __m512 totals[kRows][kColumns];
  __m512 partial[kRows][kColumns];  // of the stretch that shares scales

  MINIMAX_VBMI_TARGET MINIMAX_INLINE void clear(__m512 (&sums)[kRows][kColumns]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) sums[r][c] = _mm512_setzero_ps();
    }
  }

  MINIMAX_VBMI_TARGET MINIMAX_INLINE void add(const bf16* x, int64_t x_stride,
                                              const __m512i (&codes)[kColumns], const Unpacker& unpack) {
    Unpacked w[kColumns];
    unpack(codes, w);
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

  MINIMAX_VBMI_TARGET MINIMAX_INLINE void scale(const __m512 (&factors)[kColumns]) {
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) totals[r][c] = _mm512_fmadd_ps(partial[r][c], factors[c], totals[r][c]);
    }
  }
};

// The operands of a tile.
template <typename Scales>
struct Operands {
  const bf16* x;
  int64_t x_stride;
  const uint8_t* codes;
  int64_t codes_stride;
  int64_t k;
  const Scales& scales;
  const Unpacker& unpack;

  template <int kRows, int kColumns>
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void add_chunk(Tile<kRows, kColumns>& tile, int64_t chunk) const {
    __m512i loaded[kColumns];
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c)
      loaded[c] = _mm512_loadu_si512(codes + c * codes_stride + chunk * kChunk);
    if constexpr (kColumns > 1)
      prefetch_after<kRows, kColumns, kColumns>(codes, codes_stride, k, kColumns * chunk * kChunk);
    tile.add(x + chunk * kChunk, x_stride, loaded, unpack);
  }

  // The last chunk, of k % kChunk weights.
  template <int kRows, int kColumns>
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void add_part(Tile<kRows, kColumns>& tile) const {
    const int64_t begin = k / kChunk * kChunk;
    const auto mask = static_cast<__mmask64>((uint64_t{1} << (k - begin)) - 1);
    __m512i loaded[kColumns];
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c)
      loaded[c] = _mm512_maskz_loadu_epi8(mask, codes + c * codes_stride + begin);
    tile.add(x + begin, x_stride, loaded, unpack);
  }
};

// tile.totals = the products of kRows rows of x with weight rows n .. n + kColumns.
template <int kRows, int kColumns, typename Scales>
MINIMAX_VBMI_TARGET MINIMAX_INLINE void multiply(const Operands<Scales>& in, int64_t n,
                                                 Tile<kRows, kColumns>& tile) {
  decltype(in.scales.row(0)) scale_rows[kColumns];
#pragma GCC unroll 2
  for (int c = 0; c < kColumns; ++c) scale_rows[c] = in.scales.row(n + c);
  const int64_t full = in.k / kChunk;
  const bool has_part = in.k % kChunk > 0;
  __m512 factors[kColumns];
  tile.clear(tile.totals);
  int64_t chunk = 0;
  int64_t block = 0;
  int64_t end = in.scales.first_chunks();
  for (; end <= full; ++block, end += in.scales.chunks()) {
    tile.clear(tile.partial);
    for (; chunk < end; ++chunk) in.add_chunk(tile, chunk);
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) factors[c] = in.scales.at(scale_rows[c], block);
    tile.scale(factors);
  }
  if (chunk < full) {
    tile.clear(tile.partial);
    while (chunk < full) in.add_chunk(tile, chunk++);
    if (has_part) in.add_part(tile);
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) factors[c] = in.scales.at(scale_rows[c], block);
    tile.scale(factors);
  } else if (has_part) {
    tile.clear(tile.partial);
    in.add_part(tile);
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) factors[c] = in.scales.of_part(scale_rows[c], block);
    tile.scale(factors);
  }
}

// One row of x: the weight is read strictly in memory order.
template <typename Scales>
MINIMAX_VBMI_TARGET void dot_one_row(const bf16* x, int64_t x_stride, const quant::Weight& weight,
                                     int64_t first, int64_t columns, float* out, int64_t) {
  const Unpacker unpack;
  const Scales scales(weight);
  const int64_t stride = weight.values.stride(0);
  Operands<Scales> in{x,      x_stride, weight.values.row<uint8_t>(first), stride, weight.in_features(),
                      scales, unpack};
  for (int64_t c = 0; c < columns; c += kReducedColumns) {
    const int64_t count = std::min(kReducedColumns, columns - c);
    __m512 totals[kReducedColumns] = {};
    for (int64_t j = 0; j < count; ++j) {
      Tile<1, 1> tile;
      multiply(in, first + c + j, tile);
      totals[j] = tile.totals[0][0];
      in.codes += stride;
    }
    const __m128 sums = reduce4(totals[0], totals[1], totals[2], totals[3]);
    _mm_mask_storeu_ps(out + c, static_cast<__mmask8>((1 << count) - 1),
                       _mm_mul_ps(sums, _mm_set1_ps(kUnpackedScale)));
  }
}

// More rows: two columns share the loads of x.
template <int kRows, typename Scales>
MINIMAX_VBMI_TARGET void dot_rows(const bf16* x, int64_t x_stride, const quant::Weight& weight, int64_t first,
                                  int64_t columns, float* out, int64_t out_stride) {
  const Unpacker unpack;
  const Scales scales(weight);
  const int64_t stride = weight.values.stride(0);
  Operands<Scales> in{x,      x_stride, weight.values.row<uint8_t>(first), stride, weight.in_features(),
                      scales, unpack};
  int64_t c = 0;
  for (; c + 2 <= columns; c += 2) {
    Tile<kRows, 2> tile;
    multiply(in, first + c, tile);
    store_sums(tile.totals, kUnpackedScale, out + c, out_stride);
    in.codes += 2 * stride;
  }
  for (int64_t r = 0; r < kRows && c < columns; ++r)
    dot_one_row<Scales>(x + r * x_stride, x_stride, weight, first + c, 1, out + r * out_stride + c, 0);
}

template <typename Scales>
constexpr std::array<DotRows, kMaxTileRows> kDotRows = {dot_one_row<Scales>, dot_rows<2, Scales>,
                                                        dot_rows<3, Scales>, dot_rows<4, Scales>};

}  // namespace

bool has_fp8_dot() {
  static const bool supported = bf16_kernel() != nullptr && __builtin_cpu_supports("avx512vbmi") > 0;
  return supported;
}

MINIMAX_VBMI_TARGET void lay_out_fp8_row(const std::byte* row, DType dtype, int64_t k, bf16* out) {
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
void lay_out_fp8_row(const std::byte*, DType, int64_t, bf16*) {}
void dot_products_fp8(const bf16*, int64_t, int64_t, const quant::Weight&, int64_t, int64_t, float*,
                      int64_t) {}
}  // namespace minimax::cpu

#endif
