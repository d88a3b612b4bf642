// Internal to the files of AVX-512 intrinsics: their target attribute and how they load BF16 pairs. x86-64
// only.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "quant/weight.h"

#define MINIMAX_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace minimax::cpu {

constexpr int64_t kPairLanes = 16;  // pairs in a vector

MINIMAX_BF16_TARGET inline __m512bh as_bf16(__m512i bits) {
  __m512bh result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

// Pairs [pair, pair + 16) of a BF16 row of k elements; zeros beyond k. F32 rows are rounded (exact when they
// hold BF16 values).
MINIMAX_BF16_TARGET inline __m512i load_pairs(const std::byte* row, DType dtype, int64_t pair, int64_t k) {
  const int64_t rest = std::min<int64_t>(2 * kPairLanes, k - 2 * pair);
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

// Asks for kColumns lines of the weight rows at `next`, from `offset` bytes on. A product that reads several
// rows at once calls it as often as it reads a line of each, so that memory is asked for in order: streams a
// row apart confuse the hardware's prefetchers. `row_bytes` is the length of a row; kRows rows of x in BF16
// and two sets of weight rows should fit the nearest cache, or they go to the next.
template <int kRows, int kColumns>
MINIMAX_BF16_TARGET inline void prefetch_rows(const void* next, int64_t row_bytes, int64_t offset) {
  constexpr int64_t kNearBytes = 24 << 10;
  const bool is_near = (2 * kRows + 2 * kColumns) * row_bytes <= kNearBytes;
  const auto* line = static_cast<const char*>(next) + offset;
#pragma GCC unroll 2
  for (int c = 0; c < kColumns; ++c) {
    if (is_near) {
      _mm_prefetch(line + c * int64_t{64}, _MM_HINT_T0);
    } else {
      _mm_prefetch(line + c * int64_t{64}, _MM_HINT_T1);
    }
  }
}

// out[r * out_stride + c] = x row r . weight row (first + c), for a fixed number of rows.
using DotRows = void (*)(const bf16* x, int64_t x_stride, const quant::Weight& weight, int64_t first,
                         int64_t columns, float* out, int64_t out_stride);
constexpr int64_t kMaxTileRows = 4;  // two columns of four rows fit the registers

inline void dot_all_rows(const std::array<DotRows, kMaxTileRows>& functions, const bf16* x, int64_t x_stride,
                         int64_t rows, const quant::Weight& weight, int64_t first, int64_t columns,
                         float* out, int64_t out_stride) {
  // Two columns at a time, so that the second pass over rows finds the weights in the nearest cache.
  const int64_t step = rows > kMaxTileRows ? 2 : columns;
  for (int64_t c = 0; c < columns; c += step) {
    for (int64_t r = 0; r < rows; r += kMaxTileRows) {
      const int64_t count = std::min(kMaxTileRows, rows - r);
      functions[static_cast<size_t>(count - 1)](x + r * x_stride, x_stride, weight, first + c,
                                                std::min(step, columns - c), out + r * out_stride + c,
                                                out_stride);
    }
  }
}

}  // namespace minimax::cpu
