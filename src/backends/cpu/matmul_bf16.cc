// Packed products with the AVX-512 BF16 dot product: pairs of depth elements, exact products, F32 sums.
//
// Highway has no such operation in the version we build against, hence intrinsics. The functions carry their
// own target attribute; nothing here runs unless the processor reports the instructions.
#include "backends/cpu/matmul_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#define MINIMAX_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace minimax::cpu {
namespace {

constexpr int kMr = 12;
constexpr int kNr = 32;
constexpr int64_t kLanes = 16;  // pairs in a vector

// A 16 x 16 transpose of 32-bit elements in registers.
MINIMAX_BF16_TARGET inline void transpose16(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 4; ++i) {
      const int a = 8 * half + i;
      t[a] = _mm512_shuffle_i32x4(r[a], r[a + 4], 0x88);
      t[a + 4] = _mm512_shuffle_i32x4(r[a], r[a + 4], 0xdd);
    }
  }
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// Pairs [pair, pair + 16) of a BF16 row of k elements; zeros beyond k. F32 rows are rounded (exact when they
// hold BF16 values).
MINIMAX_BF16_TARGET inline __m512i load_pairs(const std::byte* row, DType dtype, int64_t pair, int64_t k) {
  const int64_t rest = std::min<int64_t>(2 * kLanes, k - 2 * pair);
  if (rest <= 0) return _mm512_setzero_si512();
  const auto mask = static_cast<__mmask32>(rest == 32 ? 0xffffffffU : (1U << rest) - 1U);
  if (dtype == DType::kBF16) {
    return _mm512_maskz_loadu_epi16(mask, reinterpret_cast<const bf16*>(row) + 2 * pair);
  }
  const float* x = reinterpret_cast<const float*>(row) + 2 * pair;
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x);
  const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16U), x + 16);
  const __m512bh packed = _mm512_cvtne2ps_pbh(high, low);
  __m512i bits;
  std::memcpy(&bits, &packed, sizeof(bits));
  return bits;
}

// out[pair * width + r] = pair of row r, for `count` rows at `row(r)`, r < 16; the others are zero.
template <typename Row>
MINIMAX_BF16_TARGET inline void interleave16(int64_t count, int64_t width, DType dtype, int64_t k,
                                             uint32_t* out, const Row& row) {
  const int64_t pairs = (k + 1) / 2;
  const auto columns =
      static_cast<__mmask16>(std::min<int64_t>(width, kLanes) == kLanes ? 0xffff : (1 << width) - 1);
  for (int64_t pair = 0; pair < pairs; pair += kLanes) {
    __m512i block[16];
    for (int64_t r = 0; r < 16; ++r) {
      block[r] = r < count ? load_pairs(row(r), dtype, pair, k) : _mm512_setzero_si512();
    }
    transpose16(block);
    const int64_t valid = std::min(kLanes, pairs - pair);
    for (int64_t i = 0; i < valid; ++i) _mm512_mask_storeu_epi32(out + (pair + i) * width, columns, block[i]);
  }
}

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

MINIMAX_BF16_TARGET inline __m512bh as_bf16(__m512i bits) {
  __m512bh result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
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

constexpr PackedKernel kKernel = {"avx512_bf16", kMr,      kNr,           2, 2, pack_tile,
                                  pack_panel,    multiply, multiply_chain};

}  // namespace

const PackedKernel* bf16_kernel() {
  static const bool supported =
      __builtin_cpu_supports("avx512bf16") > 0 && __builtin_cpu_supports("avx512bw") > 0 &&
      __builtin_cpu_supports("avx512vl") > 0 && __builtin_cpu_supports("avx512dq") > 0;
  return supported ? &kKernel : nullptr;
}

}  // namespace minimax::cpu

#else

namespace minimax::cpu {
const PackedKernel* bf16_kernel() { return nullptr; }
}  // namespace minimax::cpu

#endif
