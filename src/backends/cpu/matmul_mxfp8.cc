// Row products with MXFP8 weights by the AVX-512 BF16 dot product.
//
// A scale is a power of two: its exponent is added to those of the unpacked weights, so that products are
// summed over whole rows. That leaves registers for eight rows of x at a time.
#include "backends/cpu/matmul_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>

#include "backends/cpu/avx512_bf16.h"
#include "backends/cpu/unpack_mxfp8.h"
#include "quant/fp8.h"

namespace minimax::cpu {
namespace {

constexpr int64_t kChunk = kE4m3Chunk;

// Sums of kRows rows of x with kColumns rows of a weight.
template <int kRows, int kColumns>
struct Tile {
  __m512 sums[kRows][kColumns];

  MINIMAX_VBMI_TARGET MINIMAX_INLINE void clear() {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) sums[r][c] = _mm512_setzero_ps();
    }
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void add(const bf16* x, int64_t x_stride,
                                              const E4m3Unpacked (&w)[kColumns]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, x = next_row(x, x_stride)) {
      const __m512bh even = as_bf16(load_once(x));
      const __m512bh odd = as_bf16(load_once(x + kChunk / 2));
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) {
        sums[r][c] = _mm512_dpbf16_ps(sums[r][c], even, w[c].even);
        sums[r][c] = _mm512_dpbf16_ps(sums[r][c], odd, w[c].odd);
      }
    }
  }
};

// Rows of x and kColumns rows of a weight.
template <int kColumns>
struct Operands {
  const bf16* x;
  int64_t x_stride;
  const uint8_t* codes;
  int64_t codes_stride;
  const uint8_t* scales[kColumns];
  int64_t k;
};

// The last k % 64 = 32 weights. Not inlined: few shapes have such a rest.
template <int kRows, int kColumns>
MINIMAX_VBMI_TARGET __attribute__((noinline)) void add_rest(const Operands<kColumns>& in,
                                                            const MxUnpacker& unpack,
                                                            Tile<kRows, kColumns>& tile) {
  const int64_t chunk = in.k / kChunk;
  const auto mask = static_cast<__mmask64>((uint64_t{1} << (in.k % kChunk)) - 1);
  __m512i loaded[kColumns];
  __m512i exponents[kColumns];
  for (int c = 0; c < kColumns; ++c) {
    loaded[c] = _mm512_maskz_loadu_epi8(mask, in.codes + c * in.codes_stride + chunk * kChunk);
    exponents[c] = unpack.exponents_of_part(in.scales[c], chunk);
  }
  E4m3Unpacked w[kColumns];
  unpack(loaded, exponents, w);
  tile.add(in.x + chunk * kChunk, in.x_stride, w);
}

template <int kRows, int kColumns>
MINIMAX_VBMI_TARGET MINIMAX_INLINE void multiply(const Operands<kColumns>& in, const MxUnpacker& unpack,
                                                 Tile<kRows, kColumns>& tile) {
  const int64_t chunks = in.k / kChunk;
  const bf16* x = in.x;
  const uint8_t* codes = in.codes;
  const uint8_t* fetched = codes;
  tile.clear();
#pragma GCC unroll 1
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    __m512i loaded[kColumns];
    __m512i exponents[kColumns];
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) {
      loaded[c] = load_once(codes + c * in.codes_stride);
      exponents[c] = unpack.exponents(in.scales[c], chunk);
      if constexpr (kColumns > 1) {
        _mm_prefetch(fetched + c * kChunk + kNearAhead, _MM_HINT_T0);
        _mm_prefetch(fetched + c * kChunk + kFetchedAhead, _MM_HINT_T1);
      }
    }
    E4m3Unpacked w[kColumns];
    unpack(loaded, exponents, w);
    tile.add(x, in.x_stride, w);
    x += kChunk;
    codes += kChunk;
    fetched += kColumns * kChunk;
  }
  if (in.k % kChunk > 0) [[unlikely]]
    add_rest(in, unpack, tile);
}

// One column whose scales no BF16 exponent holds together with those of codes.
__attribute__((noinline)) void dot_decoded(const bf16* x, int64_t x_stride, int64_t rows,
                                           const quant::Weight& weight, int64_t column, float* out,
                                           int64_t out_stride) {
  const int64_t k = weight.in_features();
  std::array<float, kChunk> decoded;
  for (int64_t r = 0; r < rows; ++r) out[r * out_stride] = 0;
  for (int64_t begin = 0; begin < k; begin += kChunk) {
    const int64_t count = std::min(kChunk, k - begin);
    decode_weight(weight, column, begin, count, decoded.data());
    for (int64_t r = 0; r < rows; ++r) {
      const bf16* row = x + r * x_stride + begin;
      for (int64_t i = 0; i < count; ++i)
        out[r * out_stride] += to_float(row[i / 2 + i % 2 * (kChunk / 2)]) * decoded[static_cast<size_t>(i)];
    }
  }
}

// A last column without a pair.
template <int kRows>
MINIMAX_VBMI_TARGET void dot_column(const Operands<1>& in, const MxUnpacker& unpack, float* out,
                                    int64_t out_stride) {
  Tile<kRows, 1> tile;
  multiply(in, unpack, tile);
  for (int r = 0; r < kRows; ++r)
    out[r * out_stride] = _mm512_reduce_add_ps(tile.sums[r][0]) * kMxUnpackedScale;
}

// Two columns at a time, which share the loads of x. The two streams defeat the hardware's prefetchers, so
// what comes next is asked for in the order of memory, for both caches.
template <int kRows>
MINIMAX_VBMI_TARGET void dot_rows(const bf16* x, int64_t x_stride, const quant::Weight& weight, int64_t first,
                                  int64_t columns, float* out, int64_t out_stride) {
  const MxUnpacker unpack(weight);
  const int64_t k = weight.in_features();
  const int64_t scales = (k + quant::kMxBlock - 1) / quant::kMxBlock;
  const int64_t stride = weight.values.stride(0);
  const uint8_t* codes = weight.values.row<uint8_t>(first);
  for (int64_t c = 0; c < columns; c += 2, codes += 2 * stride, out += 2) {
    const int64_t n = first + c;
    const int64_t count = std::min<int64_t>(2, columns - c);
    if (!unpack.fits(n, scales) || !unpack.fits(n + count - 1, scales)) [[unlikely]] {
      for (int64_t i = 0; i < count; ++i) dot_decoded(x, x_stride, kRows, weight, n + i, out + i, out_stride);
    } else if (count == 2) {
      Tile<kRows, 2> tile;
      multiply<kRows, 2>({x, x_stride, codes, stride, {unpack.row(n), unpack.row(n + 1)}, k}, unpack, tile);
      store_sums(tile.sums, kMxUnpackedScale, out, out_stride);
    } else {
      dot_column<kRows>({x, x_stride, codes, stride, {unpack.row(n)}, k}, unpack, out, out_stride);
    }
  }
}

constexpr DotRowsByCount kDotRows = {dot_rows<1>, dot_rows<2>, dot_rows<3>, dot_rows<4>,
                                     dot_rows<5>, dot_rows<6>, dot_rows<7>, dot_rows<8>};

}  // namespace

void dot_products_mxfp8(const bf16* x, int64_t x_stride, int64_t rows, const quant::Weight& weight,
                        int64_t first, int64_t columns, float* out, int64_t out_stride) {
  kDotRows[static_cast<size_t>(rows - 1)](x, x_stride, weight, first, columns, out, out_stride);
}

}  // namespace minimax::cpu

#else

namespace minimax::cpu {
void dot_products_mxfp8(const bf16*, int64_t, int64_t, const quant::Weight&, int64_t, int64_t, float*,
                        int64_t) {}
}  // namespace minimax::cpu

#endif
