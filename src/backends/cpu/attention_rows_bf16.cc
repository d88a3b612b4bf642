// Products of few query rows with cached rows by the AVX-512 BF16 dot product, without a detour over memory.
//
// Keys are multiplied along the head dimension, values along pairs of tokens. A cache of F8_E4M3 becomes
// BF16, exactly, by two table look-ups of 64 bytes. As in matmul_bf16.cc, intrinsics behind a run-time check.
#include "backends/cpu/paged_attention.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/cpu/avx512_bf16.h"
#include "backends/cpu/matmul_kernels.h"

#define MINIMAX_ROWS_INLINE MINIMAX_VBMI_TARGET MINIMAX_INLINE

namespace minimax::cpu {
namespace {

constexpr int64_t kChunk = 64;  // elements: two vectors of BF16

// Dimension of element j of a chunk, in queries and in sums.
using Order = std::array<uint8_t, kChunk>;

struct Bf16Cache {
  static constexpr int64_t kBytes = 2;
  static constexpr int dim_of_query(int j) { return j; }
  // Interleaving the rows of two tokens takes 4 elements of each 8 at a time.
  static constexpr int dim_of_sum(int j) { return j / 32 * 32 + j % 16 / 4 * 8 + j % 32 / 16 * 4 + j % 4; }

  struct Tables {};
  MINIMAX_ROWS_INLINE static Tables load_tables() { return {}; }
  // Elements [0, 64) of the chunk at p, of which `mask` exist.
  MINIMAX_ROWS_INLINE static void load(const Tables&, const std::byte* p, __mmask64 mask, __m512i& low,
                                       __m512i& high) {
    low = _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask), p);
    high = _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask >> 32U), p + 64);
  }
};

constexpr E4m3Bytes kLowBytes = e4m3_bytes(0, 1);
constexpr E4m3Bytes kHighBytes = e4m3_bytes(8, 1);

struct E4m3Cache {
  static constexpr int64_t kBytes = 1;
  // Joining low and high bytes takes 8 elements of each 16 at a time, interleaving tokens 4 of these 8.
  static constexpr int dim_of_query(int j) { return j % 32 / 8 * 16 + j / 32 * 8 + j % 8; }
  static constexpr int dim_of_sum(int j) { return j % 16 / 4 * 16 + j / 16 * 4 + j % 4; }

  struct Tables {
    __m512i low0, low1, high0, high1;
  };
  MINIMAX_ROWS_INLINE static Tables load_tables() {
    return {_mm512_load_si512(kLowBytes.bytes.data()), _mm512_load_si512(kLowBytes.bytes.data() + 64),
            _mm512_load_si512(kHighBytes.bytes.data()), _mm512_load_si512(kHighBytes.bytes.data() + 64)};
  }
  MINIMAX_ROWS_INLINE static void load(const Tables& t, const std::byte* p, __mmask64 mask, __m512i& low,
                                       __m512i& high) {
    const __m512i codes = _mm512_maskz_loadu_epi8(mask, p);
    const __m512i low_bytes = _mm512_permutex2var_epi8(t.low0, codes, t.low1);
    const __m512i high_bytes = _mm512_permutex2var_epi8(t.high0, codes, t.high1);
    // high_bytes | (codes & 0x80)
    const __m512i signed_bytes =
        _mm512_ternarylogic_epi32(high_bytes, codes, _mm512_set1_epi32(static_cast<int>(0x80808080U)), 0xf8);
    low = _mm512_unpacklo_epi8(low_bytes, signed_bytes);
    high = _mm512_unpackhi_epi8(low_bytes, signed_bytes);
  }
};

template <typename Cache>
constexpr Order make_sum_order() {
  Order order{};
  for (int j = 0; j < kChunk; ++j) order[static_cast<size_t>(j)] = static_cast<uint8_t>(Cache::dim_of_sum(j));
  return order;
}
template <typename Cache>
constexpr Order kSumOrder = make_sum_order<Cache>();

MINIMAX_ROWS_INLINE __mmask64 chunk_mask(int64_t rest) {
  return rest >= kChunk ? ~__mmask64{0} : (__mmask64{1} << static_cast<unsigned>(rest)) - 1U;
}

template <typename Cache>
void prepare(const void* q, DType dtype, int64_t head_dim, void* prepared) {
  constexpr int kRun = 8;  // elements that every order keeps together
  auto* out = static_cast<bf16*>(prepared);
  for (int64_t first = 0; first < head_dim; first += kChunk) {
    for (int j = 0; j < kChunk; j += kRun) {
      const int64_t from = first + Cache::dim_of_query(j);
      bf16* run = out + first + j;
      if (dtype == DType::kBF16 && from + kRun <= head_dim) {
        std::memcpy(run, static_cast<const bf16*>(q) + from, kRun * sizeof(bf16));
        continue;
      }
      for (int64_t i = 0; i < kRun; ++i) {
        run[i] = bf16{};
        if (from + i >= head_dim) continue;
        run[i] = dtype == DType::kBF16 ? static_cast<const bf16*>(q)[from + i]
                                       : to_bf16(to_float(static_cast<const f8e4m3*>(q)[from + i]));
      }
    }
  }
}

// Adds the upper and lower halves of neighbouring 128-bit lanes of a, then of b.
MINIMAX_ROWS_INLINE __m512 fold_lanes(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

// Lane i of the result is the sum of v[i]'s lanes.
MINIMAX_ROWS_INLINE __m512 sum_lanes_of_16(const __m512 (&v)[16]) {
  __m512 pairs[8];
  for (int i = 0; i < 8; ++i) {
    pairs[i] =
        _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
  }
  __m512 quads[4];
  for (int i = 0; i < 4; ++i) {
    const __m512d a = _mm512_castps_pd(pairs[2 * i]);
    const __m512d b = _mm512_castps_pd(pairs[2 * i + 1]);
    quads[i] =
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  return fold_lanes(fold_lanes(quads[0], quads[1]), fold_lanes(quads[2], quads[3]));
}

constexpr int kTileKeys = 4;
constexpr int kTileQueries = 4;

MINIMAX_ROWS_INLINE void fetch_row(const std::byte* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(row + i, _MM_HINT_T1);
}

// Keys [first, first + 4) with kQueries queries.
template <typename Cache, int kQueries>
MINIMAX_ROWS_INLINE void dot_tile(const CachedRows& rows, const typename Cache::Tables& tables, int64_t first,
                                  const bf16* queries, int64_t padded, float* scores) {
  const std::byte* keys[kTileKeys];
  for (int64_t k = 0; k < kTileKeys; ++k) {
    keys[k] = rows.base + rows.offsets[std::min(first + k, rows.count - 1)];
  }
  __m512 sums[kTileQueries * kTileKeys];
#pragma GCC unroll 16
  for (int i = 0; i < kTileQueries * kTileKeys; ++i) sums[i] = _mm512_setzero_ps();
  for (int64_t c = 0; c < rows.head_dim; c += kChunk) {
    const __mmask64 mask = chunk_mask(rows.head_dim - c);
    __m512i low[kTileKeys];
    __m512i high[kTileKeys];
#pragma GCC unroll 4
    for (int k = 0; k < kTileKeys; ++k) {
      Cache::load(tables, keys[k] + c * Cache::kBytes, mask, low[k], high[k]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
      const __m512bh q_low = as_bf16(_mm512_loadu_si512(queries + r * padded + c));
      const __m512bh q_high = as_bf16(_mm512_loadu_si512(queries + r * padded + c + 32));
#pragma GCC unroll 4
      for (int k = 0; k < kTileKeys; ++k) {
        __m512& sum = sums[r * kTileKeys + k];
        sum = _mm512_dpbf16_ps(_mm512_dpbf16_ps(sum, q_low, as_bf16(low[k])), q_high, as_bf16(high[k]));
      }
    }
  }
  const __m512 all = sum_lanes_of_16(sums);
  _mm_storeu_ps(scores + first, _mm512_castps512_ps128(all));
  if constexpr (kQueries > 1) _mm_storeu_ps(scores + kRowKeys + first, _mm512_extractf32x4_ps(all, 1));
  if constexpr (kQueries > 2) _mm_storeu_ps(scores + 2 * kRowKeys + first, _mm512_extractf32x4_ps(all, 2));
  if constexpr (kQueries > 3) _mm_storeu_ps(scores + 3 * kRowKeys + first, _mm512_extractf32x4_ps(all, 3));
}

template <typename Cache>
MINIMAX_VBMI_TARGET void dot(const CachedRows& rows, const void* queries, int64_t num_queries,
                             float* scores) {
  const int64_t padded = (rows.head_dim + kChunk - 1) / kChunk * kChunk;
  const auto* q = static_cast<const bf16*>(queries);
  const typename Cache::Tables tables = Cache::load_tables();
  for (int64_t first = 0; first < rows.count; first += kTileKeys) {
    for (int64_t k = 0; k < kTileKeys; ++k) {
      fetch_row(rows.base + rows.next[first + k], rows.head_dim * Cache::kBytes);
    }
    int64_t r = 0;
    for (; r + 4 <= num_queries; r += 4) {
      dot_tile<Cache, 4>(rows, tables, first, q + r * padded, padded, scores + r * kRowKeys);
    }
    switch (num_queries - r) {
      case 3:
        dot_tile<Cache, 3>(rows, tables, first, q + r * padded, padded, scores + r * kRowKeys);
        break;
      case 2:
        dot_tile<Cache, 2>(rows, tables, first, q + r * padded, padded, scores + r * kRowKeys);
        break;
      case 1:
        dot_tile<Cache, 1>(rows, tables, first, q + r * padded, padded, scores + r * kRowKeys);
        break;
      default:
        break;
    }
  }
}

// One chunk of the sums of kQueries queries; p in BF16, even and odd tokens in pairs.
template <typename Cache, int kQueries>
MINIMAX_ROWS_INLINE void accumulate_tile(const CachedRows& rows, const typename Cache::Tables& tables,
                                         int64_t c, const uint32_t* p, int64_t padded, const int64_t* next,
                                         float* sums) {
  const __mmask64 mask = chunk_mask(rows.head_dim - c);
  __m512 s[kQueries][4];
#pragma GCC unroll 4
  for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) s[r][v] = _mm512_loadu_ps(sums + r * padded + c + 16 * v);
  }
  const std::byte* base = rows.base + c * Cache::kBytes;
  for (int64_t i = 0; i < rows.count; i += 2) {
    if (next != nullptr) fetch_row(rows.base + next[i / 2], rows.head_dim * Cache::kBytes);
    __m512i even[2];
    __m512i odd[2];
    Cache::load(tables, base + rows.offsets[i], mask, even[0], even[1]);
    Cache::load(tables, base + rows.offsets[std::min(i + 1, rows.count - 1)], mask, odd[0], odd[1]);
    const __m512bh values[4] = {
        as_bf16(_mm512_unpacklo_epi16(even[0], odd[0])), as_bf16(_mm512_unpackhi_epi16(even[0], odd[0])),
        as_bf16(_mm512_unpacklo_epi16(even[1], odd[1])), as_bf16(_mm512_unpackhi_epi16(even[1], odd[1]))};
#pragma GCC unroll 4
    for (int r = 0; r < kQueries; ++r) {
      const __m512bh pair = as_bf16(_mm512_set1_epi32(static_cast<int>(p[r * kRowKeys / 2 + i / 2])));
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) s[r][v] = _mm512_dpbf16_ps(s[r][v], pair, values[v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kQueries; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) _mm512_storeu_ps(sums + r * padded + c + 16 * v, s[r][v]);
  }
}

template <typename Cache, int kQueries>
MINIMAX_ROWS_INLINE void accumulate_queries(const CachedRows& rows, const typename Cache::Tables& tables,
                                            const float* p, int64_t padded, bool fetch, float* sums) {
  alignas(64) uint32_t pairs[kQueries * kRowKeys / 2];
  for (int64_t i = 0; i < kQueries * kRowKeys; i += 32) {
    const __m512bh packed = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + i + 16), _mm512_loadu_ps(p + i));
    std::memcpy(pairs + i / 2, &packed, sizeof(packed));
  }
  for (int64_t c = 0; c < rows.head_dim; c += kChunk) {
    // The first two passes fetch one half of the next rows each; of a single chunk, one half is left alone.
    const int64_t* next = fetch && c < 2 * kChunk ? rows.next + c / kChunk * (kRowKeys / 2) : nullptr;
    accumulate_tile<Cache, kQueries>(rows, tables, c, pairs, padded, next, sums);
  }
}

template <typename Cache>
MINIMAX_VBMI_TARGET void accumulate(const CachedRows& rows, const float* p, int64_t num_queries,
                                    float* sums) {
  const int64_t padded = (rows.head_dim + kChunk - 1) / kChunk * kChunk;
  const typename Cache::Tables tables = Cache::load_tables();
  int64_t r = 0;
  for (; r + 4 <= num_queries; r += 4) {
    accumulate_queries<Cache, 4>(rows, tables, p + r * kRowKeys, padded, r == 0, sums + r * padded);
  }
  switch (num_queries - r) {
    case 3:
      return accumulate_queries<Cache, 3>(rows, tables, p + r * kRowKeys, padded, r == 0, sums + r * padded);
    case 2:
      return accumulate_queries<Cache, 2>(rows, tables, p + r * kRowKeys, padded, r == 0, sums + r * padded);
    case 1:
      return accumulate_queries<Cache, 1>(rows, tables, p + r * kRowKeys, padded, r == 0, sums + r * padded);
    default:
      return;
  }
}

template <typename Cache>
constexpr RowKernel kKernel = {kChunk,         sizeof(bf16), kSumOrder<Cache>.data(),
                               prepare<Cache>, dot<Cache>,   accumulate<Cache>};

}  // namespace

const RowKernel* bf16_row_kernel(DType cache) {
  if (!has_fp8_dot()) return nullptr;
  return cache == DType::kBF16 ? &kKernel<Bf16Cache> : &kKernel<E4m3Cache>;
}

}  // namespace minimax::cpu

#else

namespace minimax::cpu {
const RowKernel* bf16_row_kernel(DType) { return nullptr; }
}  // namespace minimax::cpu

#endif
