// Products with the AVX-512 BF16 dot product: pairs of depth elements, exact products, F32 sums.
//
// Highway has no such operation in the version we build against, hence intrinsics. The functions carry their
// own target attribute; nothing here runs unless the processor reports the instructions.
#include "backends/cpu/matmul_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>

#include "backends/cpu/avx512_bf16.h"

namespace minimax::cpu {
namespace {

constexpr int kMr = 12;
constexpr int kNr = 32;
constexpr int64_t kLanes = kPairLanes;

MINIMAX_BF16_TARGET void pack_tile(const RowView& x, int64_t first, int64_t rows, int64_t k, void* tile) {
  interleave16(rows, kMr, x.dtype, k, static_cast<uint32_t*>(tile),
               [&](int64_t r) { return x.row(first + r); });
}

// Other formats than BF16: decoded to F32 a stretch at a time, which stays in cache, and rounded.
MINIMAX_BF16_TARGET void pack_decoded(const quant::Weight& weight, int64_t first, int64_t columns,
                                      uint32_t* panel) {
  constexpr int64_t kStretch = 256;
  alignas(64) std::array<std::array<float, kStretch>, kLanes> rows;
  for (int64_t i = 0; i < weight.in_features(); i += kStretch) {
    const int64_t count = std::min(kStretch, weight.in_features() - i);
    for (int64_t c = 0; c < columns; ++c) decode_weight(weight, first + c, i, count, rows[c].data());
    interleave16(columns, kNr, DType::kF32, count, panel + i / 2 * kNr,
                 [&](int64_t c) { return reinterpret_cast<const std::byte*>(rows[c].data()); });
  }
}

MINIMAX_BF16_TARGET void pack_panel(const quant::Weight& weight, int64_t first, int64_t columns,
                                    void* panel) {
  if (weight.format != quant::WeightFormat::kBF16) {
    for (int64_t half = 0; half < kNr; half += kLanes) {
      pack_decoded(weight, first + half, std::clamp<int64_t>(columns - half, 0, kLanes),
                   static_cast<uint32_t*>(panel) + half);
    }
    return;
  }
  const auto* data = static_cast<const std::byte*>(weight.values.raw());
  const int64_t stride = weight.values.stride(0) * size_of(weight.values.dtype());
  for (int64_t half = 0; half < kNr; half += kLanes) {
    interleave16(std::clamp<int64_t>(columns - half, 0, kLanes), kNr, weight.values.dtype(),
                 weight.in_features(), static_cast<uint32_t*>(panel) + half,
                 [&](int64_t c) { return data + (first + half + c) * stride; });
  }
}

template <int kRows>
MINIMAX_BF16_TARGET void multiply_rows(const uint32_t* tile, const uint32_t* panel, int64_t pairs,
                                       float* out) {
  __m512 sums[kRows][2];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
  for (int64_t i = 0; i < pairs; ++i) {
    const __m512bh b0 = as_bf16(_mm512_loadu_si512(panel + i * kNr));
    const __m512bh b1 = as_bf16(_mm512_loadu_si512(panel + i * kNr + kLanes));
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512bh a = as_bf16(_mm512_set1_epi32(static_cast<int>(tile[i * kMr + r])));
      sums[r][0] = _mm512_dpbf16_ps(sums[r][0], a, b0);
      sums[r][1] = _mm512_dpbf16_ps(sums[r][1], a, b1);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    _mm512_storeu_ps(out + r * kNr, sums[r][0]);
    _mm512_storeu_ps(out + r * kNr + kLanes, sums[r][1]);
  }
}

MINIMAX_BF16_TARGET void multiply(const void* tile, const void* panel, int64_t k, int64_t rows, float* out) {
  const auto* a = static_cast<const uint32_t*>(tile);
  const auto* b = static_cast<const uint32_t*>(panel);
  const int64_t pairs = (k + 1) / 2;
  if (rows > 8) return multiply_rows<12>(a, b, pairs, out);
  if (rows > 4) return multiply_rows<8>(a, b, pairs, out);
  multiply_rows<4>(a, b, pairs, out);
}

MINIMAX_BF16_TARGET double multiply_chain(int64_t iterations) {
  constexpr int kChains = 24;
  const __m512bh a = as_bf16(_mm512_set1_epi32(0x3f003f00));  // pairs of 0.5
  __m512 sums[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, a);
  }
  __m512 total = _mm512_setzero_ps();
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) total = _mm512_add_ps(total, sums[i]);
  return 64.0 * static_cast<double>(iterations * kChains) +
         1e-30 * static_cast<double>(_mm512_reduce_add_ps(total));
}

// Sums of kRows rows of x with kColumns rows of a weight; the halves of a chunk have sums of their own where
// there are registers for it: more independent chains.
template <int kRows, int kColumns>
struct Tile {
  static constexpr int kParts = kRows * kColumns <= 6 ? 2 : 1;
  __m512 sums[kParts][kRows][kColumns];

  MINIMAX_BF16_TARGET MINIMAX_INLINE void clear() {
#pragma GCC unroll 2
    for (int p = 0; p < kParts; ++p) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int c = 0; c < kColumns; ++c) sums[p][r][c] = _mm512_setzero_ps();
      }
    }
  }

  template <int kPart>
  MINIMAX_BF16_TARGET MINIMAX_INLINE void add(const bf16* x, int64_t x_stride,
                                              const __m512i (&weights)[kColumns]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, x = next_row(x, x_stride)) {
      const __m512bh row = as_bf16(load_once(x));
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) {
        __m512& sum = sums[kPart % kParts][r][c];
        sum = _mm512_dpbf16_ps(sum, row, as_bf16(weights[c]));
      }
    }
  }

  MINIMAX_BF16_TARGET MINIMAX_INLINE void total(__m512 (&totals)[kRows][kColumns]) const {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c)
        totals[r][c] = kParts == 2 ? _mm512_add_ps(sums[0][r][c], sums[kParts - 1][r][c]) : sums[0][r][c];
    }
  }
};

template <int kRows, int kColumns>
MINIMAX_BF16_TARGET MINIMAX_INLINE void dot_tile(const bf16* x, int64_t x_stride, const bf16* w,
                                                 int64_t w_stride, int64_t k,
                                                 __m512 (&totals)[kRows][kColumns]) {
  constexpr int64_t kHalf = 2 * kLanes;
  Tile<kRows, kColumns> tile;
  tile.clear();
  __m512i weights[kColumns];
  int64_t i = 0;
  for (; i + 2 * kHalf <= k; i += 2 * kHalf) {
    if constexpr (kColumns > 1) {
      prefetch_after<kRows, kColumns, 2 * kColumns>(w, 2 * w_stride, k, 2 * kColumns * i);
    }
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) weights[c] = load_once(w + c * w_stride + i);
    tile.template add<0>(x + i, x_stride, weights);
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) weights[c] = load_once(w + c * w_stride + i + kHalf);
    tile.template add<1>(x + i + kHalf, x_stride, weights);
  }
  for (; i < k; i += kHalf) {
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) {
      weights[c] = load_pairs(reinterpret_cast<const std::byte*>(w + c * w_stride), DType::kBF16, i / 2, k);
    }
    tile.template add<0>(x + i, x_stride, weights);
  }
  tile.total(totals);
}

// One row of x: the weight is read strictly in memory order.
MINIMAX_BF16_TARGET void dot_one_row(const bf16* x, int64_t, const quant::Weight& weight, int64_t first,
                                     int64_t columns, float* out, int64_t) {
  const int64_t k = weight.in_features();
  const int64_t stride = weight.values.stride(0);
  const bf16* w = weight.values.row<bf16>(first);
  for (int64_t c = 0; c < columns; c += kReducedColumns) {
    const int64_t count = std::min(kReducedColumns, columns - c);
    __m512 totals[kReducedColumns][1][1] = {};
    for (int64_t j = 0; j < count; ++j) dot_tile<1, 1>(x, 0, w + (c + j) * stride, stride, k, totals[j]);
    const __m128 sums = reduce4(totals[0][0][0], totals[1][0][0], totals[2][0][0], totals[3][0][0]);
    _mm_mask_storeu_ps(out + c, static_cast<__mmask8>((1 << count) - 1), sums);
  }
}

// More rows: two columns share the loads of x.
template <int kRows>
MINIMAX_BF16_TARGET void dot_rows(const bf16* x, int64_t x_stride, const quant::Weight& weight, int64_t first,
                                  int64_t columns, float* out, int64_t out_stride) {
  const int64_t k = weight.in_features();
  const int64_t stride = weight.values.stride(0);
  const bf16* w = weight.values.row<bf16>(first);
  int64_t c = 0;
  for (; c + 2 <= columns; c += 2) {
    __m512 totals[kRows][2];
    dot_tile<kRows, 2>(x, x_stride, w + c * stride, stride, k, totals);
    store_sums(totals, 1.0F, out + c, out_stride);
  }
  for (int64_t r = 0; r < kRows && c < columns; ++r)
    dot_one_row(x + r * x_stride, 0, weight, first + c, 1, out + r * out_stride + c, 0);
}

constexpr DotRowsByCount kDotRows = {dot_one_row, dot_rows<2>, dot_rows<3>, dot_rows<4>,
                                     dot_rows<5>, dot_rows<6>, dot_rows<7>, dot_rows<8>};

constexpr PackedKernel kKernel = {"avx512_bf16", kMr,      kNr,           2, 2, pack_tile,
                                  pack_panel,    multiply, multiply_chain};

}  // namespace

const PackedKernel* bf16_kernel() {
  static const bool supported =
      __builtin_cpu_supports("avx512bf16") > 0 && __builtin_cpu_supports("avx512bw") > 0 &&
      __builtin_cpu_supports("avx512vl") > 0 && __builtin_cpu_supports("avx512dq") > 0;
  return supported ? &kKernel : nullptr;
}

MINIMAX_BF16_TARGET void lay_out_bf16_row(const std::byte* row, DType dtype, int64_t k, bf16* out) {
  for (int64_t i = 0; i < k; i += 2 * kLanes) _mm512_storeu_si512(out + i, load_pairs(row, dtype, i / 2, k));
}

void dot_products_bf16(const bf16* x, int64_t x_stride, int64_t rows, const quant::Weight& weight,
                       int64_t first, int64_t columns, float* out, int64_t out_stride) {
  kDotRows[static_cast<size_t>(rows - 1)](x, x_stride, weight, first, columns, out, out_stride);
}

}  // namespace minimax::cpu

#else

namespace minimax::cpu {
const PackedKernel* bf16_kernel() { return nullptr; }
void lay_out_bf16_row(const std::byte*, DType, int64_t, bf16*) {}
void dot_products_bf16(const bf16*, int64_t, int64_t, const quant::Weight&, int64_t, int64_t, float*,
                       int64_t) {}
}  // namespace minimax::cpu

#endif
