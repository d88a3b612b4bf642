// Internal to the files of AVX-512 intrinsics: their target attribute and how they load BF16 pairs. x86-64
// only.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "backends/cpu/matmul.h"
#include "core/dtype.h"
#include "quant/weight.h"

#define MINIMAX_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
// With look-ups in tables of 128 bytes; has_fp8_dot() tells whether the processor has these.
#define MINIMAX_VBMI_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")))
// Parts of inner loops: called instead, they would pass vectors through memory.
#define MINIMAX_INLINE __attribute__((always_inline)) inline

namespace minimax::cpu {

constexpr int64_t kPairLanes = 16;  // pairs in a vector

struct alignas(64) E4m3Bytes {
  std::array<uint8_t, 128> bytes;
};

// One byte, from bit `shift` on, of the BF16 number that each non-negative e4m3 code times `factor`, a power
// of two, is: exact.
constexpr E4m3Bytes e4m3_bytes(int shift, float factor) {
  E4m3Bytes table{};
  for (size_t i = 0; i < table.bytes.size(); ++i) {
    constexpr uint16_t kNaN = 0x7fc0;
    const f8e4m3 code{static_cast<uint8_t>(i)};
    const uint16_t bits = code.bits == 0x7f ? kNaN : to_bf16(to_float(code) * factor).bits;
    table.bytes[i] = static_cast<uint8_t>(bits >> shift);
  }
  return table;
}

MINIMAX_BF16_TARGET MINIMAX_INLINE __m512bh as_bf16(__m512i bits) {
  __m512bh result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

// A vector that GCC 12 would load again for each of its uses.
MINIMAX_BF16_TARGET MINIMAX_INLINE __m512i load_once(const void* p) {
  __m512i loaded = _mm512_loadu_si512(p);
  asm("" : "+v"(loaded));  // NOLINT(hicpp-no-assembler)
  return loaded;
}

// The next row of x. GCC 12 would keep an offset for each row, more than there are registers.
MINIMAX_INLINE const bf16* next_row(const bf16* x, int64_t stride) {
  x += stride;
  asm("" : "+r"(x));  // NOLINT(hicpp-no-assembler)
  return x;
}

// Pairs [pair, pair + 16) of a BF16 row of k elements; zeros beyond k. F32 rows are rounded (exact when they
// hold BF16 values).
MINIMAX_BF16_TARGET MINIMAX_INLINE __m512i load_pairs(const std::byte* row, DType dtype, int64_t pair,
                                                      int64_t k) {
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

// A 16 x 16 transpose of 32-bit elements in registers.
MINIMAX_BF16_TARGET MINIMAX_INLINE void transpose16(__m512i (&r)[16]) {
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

// Vectors of four blocks of 128 bits: block i of vector j and block j of vector i change places.
MINIMAX_BF16_TARGET MINIMAX_INLINE void transpose_blocks(__m512i (&v)[4]) {
  const __m512i low01 = _mm512_shuffle_i32x4(v[0], v[1], 0x44);
  const __m512i high01 = _mm512_shuffle_i32x4(v[0], v[1], 0xee);
  const __m512i low23 = _mm512_shuffle_i32x4(v[2], v[3], 0x44);
  const __m512i high23 = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
  v[0] = _mm512_shuffle_i32x4(low01, low23, 0x88);
  v[1] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
  v[2] = _mm512_shuffle_i32x4(high01, high23, 0x88);
  v[3] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
}

// Four rows of 16 elements become 16 groups of four, in order.
MINIMAX_BF16_TARGET MINIMAX_INLINE void interleave4(__m512i (&v)[4]) {
  const __m512i low01 = _mm512_unpacklo_epi32(v[0], v[1]);
  const __m512i high01 = _mm512_unpackhi_epi32(v[0], v[1]);
  const __m512i low23 = _mm512_unpacklo_epi32(v[2], v[3]);
  const __m512i high23 = _mm512_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm512_unpacklo_epi64(low01, low23);
  v[1] = _mm512_unpackhi_epi64(low01, low23);
  v[2] = _mm512_unpacklo_epi64(high01, high23);
  v[3] = _mm512_unpackhi_epi64(high01, high23);
  transpose_blocks(v);
}

// out[pair * width + r] = pair of row r, for `count` rows at `row(r)`, r < 16; the others are zero.
template <typename Row>
MINIMAX_BF16_TARGET MINIMAX_INLINE void interleave16(int64_t count, int64_t width, DType dtype, int64_t k,
                                                     uint32_t* out, const Row& row) {
  const int64_t pairs = (k + 1) / 2;
  const auto columns =
      static_cast<__mmask16>(std::min<int64_t>(width, kPairLanes) == kPairLanes ? 0xffff : (1 << width) - 1);
  for (int64_t pair = 0; pair < pairs; pair += kPairLanes) {
    __m512i block[16];
    for (int64_t r = 0; r < 16; ++r) {
      block[r] = r < count ? load_pairs(row(r), dtype, pair, k) : _mm512_setzero_si512();
    }
    transpose16(block);
    const int64_t valid = std::min(kPairLanes, pairs - pair);
    for (int64_t i = 0; i < valid; ++i) _mm512_mask_storeu_epi32(out + (pair + i) * width, columns, block[i]);
  }
}

// The sums over the lanes of four vectors.
MINIMAX_BF16_TARGET MINIMAX_INLINE __m128 reduce4(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512d ab_pairs = _mm512_castps_pd(ab);
  const __m512d cd_pairs = _mm512_castps_pd(cd);
  const __m512 abcd = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab_pairs, cd_pairs)),
                                    _mm512_castpd_ps(_mm512_unpackhi_pd(ab_pairs, cd_pairs)));
  const __m256 halves = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
  return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

// out[r * out_stride + c] = factor * the sum of sums[r][c], for two columns.
template <int kRows>
MINIMAX_BF16_TARGET MINIMAX_INLINE void store_sums(const __m512 (&sums)[kRows][2], float factor, float* out,
                                                   int64_t out_stride) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r += 2) {
    const int other = r + 1 < kRows ? r + 1 : r;
    const __m128 four =
        _mm_mul_ps(reduce4(sums[r][0], sums[r][1], sums[other][0], sums[other][1]), _mm_set1_ps(factor));
    _mm_storel_pi(reinterpret_cast<__m64*>(out + r * out_stride), four);
    _mm_storeh_pi(reinterpret_cast<__m64*>(out + other * out_stride), four);
  }
}

// How far prefetches into the nearest cache go ahead of two columns; those into the next one go kFetchedAhead
// bytes.
constexpr int64_t kNearAhead = 2048;

// Columns of one row of x whose sums are reduced together.
constexpr int64_t kReducedColumns = 4;

// Asks for kLines lines of what comes after the kColumns weight rows at `rows`, from `offset` bytes on. A
// product that reads several rows at once calls it for as many lines as it reads, so that memory is asked for
// in order: streams a row apart confuse the hardware's prefetchers. kRows rows of x in BF16 and the weight
// rows of two steps should fit the nearest cache, or the lines go to the next.
template <int kRows, int kColumns, int kLines>
MINIMAX_BF16_TARGET MINIMAX_INLINE void prefetch_after(const void* rows, int64_t row_bytes, int64_t k,
                                                       int64_t offset) {
  constexpr int64_t kNearBytes = 24 << 10;
  constexpr int64_t kDistance = 2048;
  const bool is_near = 2 * (kRows * k + kColumns * row_bytes) <= kNearBytes;
  const auto* line = static_cast<const char*>(rows) + offset + std::max(kColumns * row_bytes, kDistance);
#pragma GCC unroll 4
  for (int i = 0; i < kLines; ++i) {
    if (is_near) {
      _mm_prefetch(line + i * int64_t{64}, _MM_HINT_T0);
    } else {
      _mm_prefetch(line + i * int64_t{64}, _MM_HINT_T1);
    }
  }
}

// out[r * out_stride + c] = x row r . weight row (first + c), for a fixed number of rows.
using DotRows = void (*)(const bf16* x, int64_t x_stride, const quant::Weight& weight, int64_t first,
                         int64_t columns, float* out, int64_t out_stride);
// Functions of one row and more.
using DotRowsByCount = std::array<DotRows, kMaxDotRows>;

}  // namespace minimax::cpu
