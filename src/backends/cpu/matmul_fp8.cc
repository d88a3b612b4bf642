// Row products with block-wise scaled e4m3 weights by the AVX-512 BF16 dot product.
//
// Weights stay packed in memory. The bits of an e4m3 number, shifted and with an exponent bias put in, are a
// BF16 number; zero and subnormals are looked up instead (VBMI), which trained weights hardly ever need: a
// branch for 64 weights at a time. The products of a block of weights are summed in F32 and multiplied with
// its scale once. matmul_mxfp8.cc has those of MXFP8.
#include "backends/cpu/matmul_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>

#include "backends/cpu/avx512_bf16.h"
#include "backends/cpu/unpack_e4m3.h"
#include "quant/fp8.h"

namespace minimax::cpu {
namespace {

constexpr int64_t kChunk = kE4m3Chunk;
using Unpacked = E4m3Unpacked;
using Unpacker = E4m3Unpacker;
constexpr float kUnpackedScale = kUnpackedE4m3Scale;

// Scales of kFp8, one for some chunks of a row.
class BlockScales {
 public:
  explicit BlockScales(const quant::Weight& weight)
      : scales_(weight.scales.data<float>()),
        stride_(weight.scales.stride(0)),
        block_rows_(weight.block_rows),
        row_offset_(weight.row_offset),
        shift_(std::has_single_bit(static_cast<uint64_t>(block_rows_))
                   ? std::countr_zero(static_cast<uint64_t>(block_rows_))
                   : -1),
        first_chunks_((weight.block_columns - weight.column_offset + kChunk - 1) / kChunk),
        chunks_((weight.block_columns + kChunk - 1) / kChunk) {}

  // A division takes longer than some rows do.
  const float* row(int64_t n) const {
    n += row_offset_;
    return scales_ + (shift_ >= 0 ? n >> shift_ : n / block_rows_) * stride_;
  }
  // Of the first block, which a part of a weight may cut, and of the others.
  int64_t first_chunks() const { return first_chunks_; }
  int64_t chunks() const { return chunks_; }
  MINIMAX_VBMI_TARGET __m512 at(const float* row, int64_t block) const { return _mm512_set1_ps(row[block]); }

 private:
  const float* scales_;
  int64_t stride_;
  int64_t block_rows_;
  int64_t row_offset_;
  int shift_;
  int64_t first_chunks_;
  int64_t chunks_;
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
    for (int r = 0; r < kRows; ++r, x = next_row(x, x_stride)) {
      const __m512bh even = as_bf16(load_once(x));
      const __m512bh odd = as_bf16(load_once(x + kChunk / 2));
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

// The operands of a tile: rows of x and of weights.
struct Operands {
  const bf16* x;
  int64_t x_stride;
  const uint8_t* codes;
  int64_t codes_stride;
  int64_t k;
  const BlockScales& scales;
  const Unpacker& unpack;
};

// The last chunk, of k % kChunk weights.
template <int kRows, int kColumns>
MINIMAX_VBMI_TARGET MINIMAX_INLINE void add_part(const Operands& in, Tile<kRows, kColumns>& tile) {
  const int64_t begin = in.k / kChunk * kChunk;
  const auto mask = static_cast<__mmask64>((uint64_t{1} << (in.k - begin)) - 1);
  __m512i loaded[kColumns];
#pragma GCC unroll 2
  for (int c = 0; c < kColumns; ++c)
    loaded[c] = _mm512_maskz_loadu_epi8(mask, in.codes + c * in.codes_stride + begin);
  tile.add(in.x + begin, in.x_stride, loaded, in.unpack);
}

// What is left behind the blocks that are whole, from `chunk` on, of `block`. Not inlined: few shapes have
// such a rest.
template <int kRows, int kColumns>
MINIMAX_VBMI_TARGET __attribute__((noinline)) void multiply_rest(const Operands& in, int64_t n, int64_t chunk,
                                                                 int64_t block, Tile<kRows, kColumns>& tile) {
  const int64_t full = in.k / kChunk;
  tile.clear(tile.totals);
  tile.clear(tile.partial);
  for (; chunk < full; ++chunk) {
    __m512i loaded[kColumns];
    for (int c = 0; c < kColumns; ++c)
      loaded[c] = _mm512_loadu_si512(in.codes + c * in.codes_stride + chunk * kChunk);
    tile.add(in.x + chunk * kChunk, in.x_stride, loaded, in.unpack);
  }
  if (in.k % kChunk > 0) add_part(in, tile);
  __m512 factors[kColumns];
  for (int c = 0; c < kColumns; ++c) factors[c] = in.scales.at(in.scales.row(n + c), block);
  tile.scale(factors);
}

// tile.totals = the products of kRows rows of x with weight rows n .. n + kColumns.
template <int kRows, int kColumns>
MINIMAX_VBMI_TARGET MINIMAX_INLINE void multiply(const Operands& in, int64_t n, Tile<kRows, kColumns>& tile) {
  decltype(in.scales.row(0)) scale_rows[kColumns];
#pragma GCC unroll 2
  for (int c = 0; c < kColumns; ++c) scale_rows[c] = in.scales.row(n + c);
  const int64_t full = in.k / kChunk;
  const bf16* x = in.x;
  const uint8_t* codes = in.codes;
  const uint8_t* fetched = codes;
  tile.clear(tile.totals);
  int64_t chunk = 0;
  int64_t block = 0;
  for (int64_t end = in.scales.first_chunks(); end <= full; ++block, end += in.scales.chunks()) {
    tile.clear(tile.partial);
#pragma GCC unroll 1
    for (; chunk < end; ++chunk) {
      __m512i loaded[kColumns];
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) {
        loaded[c] = load_once(codes + c * in.codes_stride);
        if constexpr (kColumns > 1) {
          _mm_prefetch(fetched + c * kChunk + kNearAhead, _MM_HINT_T0);
          _mm_prefetch(fetched + c * kChunk + kFetchedAhead, _MM_HINT_T1);
        }
      }
      tile.add(x, in.x_stride, loaded, in.unpack);
      x += kChunk;
      codes += kChunk;
      fetched += kColumns * kChunk;
    }
    __m512 factors[kColumns];
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) factors[c] = in.scales.at(scale_rows[c], block);
    tile.scale(factors);
  }
  if (chunk * kChunk == in.k) [[likely]]
    return;
  Tile<kRows, kColumns> rest;
  multiply_rest(in, n, chunk, block, rest);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c)
      tile.totals[r][c] = _mm512_add_ps(tile.totals[r][c], rest.totals[r][c]);
  }
}

// One row of x and of the weight at a time, strictly in the order of memory.
MINIMAX_VBMI_TARGET void dot_in_order(const bf16* x, const quant::Weight& weight, int64_t first,
                                      int64_t columns, float* out) {
  const Unpacker unpack;
  const BlockScales scales(weight);
  const int64_t stride = weight.values.stride(0);
  Operands in{x, 0, weight.values.row<uint8_t>(first), stride, weight.in_features(), scales, unpack};
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

// Two columns at a time, which share the loads of x. The two streams defeat the hardware's prefetchers, so
// what comes next is asked for in the order of memory, for both caches.
template <int kRows>
MINIMAX_VBMI_TARGET void dot_rows(const bf16* x, int64_t x_stride, const quant::Weight& weight, int64_t first,
                                  int64_t columns, float* out, int64_t out_stride) {
  const Unpacker unpack;
  const BlockScales scales(weight);
  const int64_t stride = weight.values.stride(0);
  Operands in{x, x_stride, weight.values.row<uint8_t>(first), stride, weight.in_features(), scales, unpack};
  int64_t c = 0;
  for (; c + 2 <= columns; c += 2, in.codes += 2 * stride) {
    Tile<kRows, 2> tile;
    multiply(in, first + c, tile);
    store_sums(tile.totals, kUnpackedScale, out + c, out_stride);
  }
  for (int64_t r = 0; r < kRows && c < columns; ++r)
    dot_in_order(x + r * x_stride, weight, first + c, 1, out + r * out_stride + c);
}

constexpr DotRowsByCount kDotRows = {dot_rows<1>, dot_rows<2>, dot_rows<3>, dot_rows<4>,
                                     dot_rows<5>, dot_rows<6>, dot_rows<7>, dot_rows<8>};

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
  kDotRows[static_cast<size_t>(rows - 1)](x, x_stride, weight, first, columns, out, out_stride);
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
