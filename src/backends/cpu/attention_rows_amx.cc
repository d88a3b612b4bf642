// Products of few query rows with rows of a BF16 cache by tiles (AMX).
//
// Keys are the left operand as they lie in the cache, queries the right one, in lanes. Values must be the
// right operand, pairs of tokens interleaved; weights of keys the left one. What fills no tile is left to the
// kernel with dot products, which prepares queries alike and has the same order of sums.
#include "backends/cpu/paged_attention.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/cpu/amx.h"
#include "backends/cpu/matmul_kernels.h"

namespace minimax::cpu {
namespace {

constexpr int64_t kMaxHeadDim = 256;
constexpr int64_t kChunk = 64;  // elements whose sums have an order of their own
constexpr int64_t kVectorDims = 16;

const RowKernel& dot_kernel() { return *bf16_row_kernel(DType::kBF16); }

MINIMAX_AMX_TARGET MINIMAX_INLINE void fetch_row(const std::byte* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(row + i, _MM_HINT_T1);
}

// Whether entries [first, first + kTileRows) of the list lie at equal distances, `stride`.
bool is_run(const CachedRows& rows, int64_t first, int64_t stride) {
  for (int64_t i = first; i + 1 < first + kTileRows; ++i) {
    if (rows.offsets[i + 1] - rows.offsets[i] != stride) return false;
  }
  return true;
}

// Tiles 0 to 3 are scores of 16 keys each, 4 and 5 keys, 6 queries.
constexpr TileConfig dot_config(int64_t lanes) {
  const int64_t lane_bytes = lanes * int64_t{sizeof(float)};
  TileConfig config;
  for (size_t tile = 0; tile < 4; ++tile) config.set(tile, kTileRows, lane_bytes);
  config.set(4, kTileRows, kTileLineBytes);
  config.set(5, kTileRows, kTileLineBytes);
  config.set(6, kTileRows, lane_bytes);
  return config;
}
template <int kLanes>
constexpr TileConfig kDotConfig = dot_config(kLanes);

// Queries as [pairs of dimensions, kLanes].
template <int kLanes>
MINIMAX_AMX_TARGET MINIMAX_INLINE void lay_out_queries(const bf16* queries, int64_t padded, int64_t count,
                                                       int64_t head_dim, uint32_t* out) {
  for (int64_t i = 0; i < head_dim; i += kTileInputs, out += kPairLanes * kLanes) {
    __m512i rows[kLanes];
    for (int64_t r = 0; r < kLanes; ++r)
      rows[r] = r < count ? _mm512_loadu_si512(queries + r * padded + i) : _mm512_setzero_si512();
    if constexpr (kLanes == kFewLanes) {
      interleave4(rows);
    } else {
      transpose16(rows);
    }
    for (int64_t r = 0; r < kLanes; ++r) _mm512_storeu_si512(out + r * kPairLanes, rows[r]);
  }
}

// Scores of all kRowKeys entries, which lie in runs of kTileRows, and up to kLanes queries; meanwhile asks
// for what comes next if `fetches`.
template <int kLanes>
MINIMAX_AMX_TARGET void dot_lanes(const CachedRows& rows, const bf16* queries, int64_t padded, int64_t count,
                                  int64_t stride, bool fetches, float* scores) {
  constexpr int64_t kLaneBytes = kLanes * int64_t{sizeof(uint32_t)};
  alignas(64) std::array<uint32_t, kMaxHeadDim / 2 * kLanes> lanes;
  lay_out_queries<kLanes>(queries, padded, count, rows.head_dim, lanes.data());
  alignas(64) std::array<float, kRowKeys * kLanes> sums;
  finish_stores();
  {
    const TileScope scope(kDotConfig<kLanes>);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const std::byte* keys = rows.base;
    int64_t fetched = fetches ? 0 : kRowKeys;
    for (int64_t i = 0; i < rows.head_dim; i += kTileInputs, keys += kTileLineBytes) {
      _tile_loadd(6, lanes.data() + i / 2 * kLanes, kLaneBytes);
      _tile_loadd(4, keys + rows.offsets[0], stride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, keys + rows.offsets[kTileRows], stride);
      _tile_dpbf16ps(1, 5, 6);
      _tile_loadd(4, keys + rows.offsets[2 * kTileRows], stride);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(5, keys + rows.offsets[3 * kTileRows], stride);
      _tile_dpbf16ps(3, 5, 6);
      for (; fetched < kRowKeys * (i + kTileInputs) / rows.head_dim; ++fetched)
        fetch_row(rows.base + rows.next[fetched], rows.head_dim * static_cast<int64_t>(sizeof(bf16)));
    }
    _tile_stored(0, sums.data(), kLaneBytes);
    _tile_stored(1, sums.data() + kTileRows * kLanes, kLaneBytes);
    _tile_stored(2, sums.data() + 2 * kTileRows * kLanes, kLaneBytes);
    _tile_stored(3, sums.data() + 3 * kTileRows * kLanes, kLaneBytes);
  }
  finish_stores();
  for (int64_t first = 0; first < kRowKeys; first += kTileRows) {
    __m512i block[kLanes];
    for (int64_t i = 0; i < kLanes; ++i)
      block[i] = _mm512_load_si512(sums.data() + first * kLanes + i * kPairLanes);
    if constexpr (kLanes == kFewLanes) {
      transpose_few(block);
    } else {
      transpose16(block);
    }
    for (int64_t r = 0; r < count; ++r) _mm512_storeu_si512(scores + r * kRowKeys + first, block[r]);
  }
}

MINIMAX_AMX_TARGET void dot(const CachedRows& rows, const void* queries, int64_t num_queries, float* scores) {
  const int64_t stride = rows.offsets[1] - rows.offsets[0];
  bool is_whole = rows.count == kRowKeys && rows.head_dim % kTileInputs == 0 && rows.head_dim <= kMaxHeadDim;
  for (int64_t first = 0; is_whole && first < kRowKeys; first += kTileRows)
    is_whole = is_run(rows, first, stride);
  if (!is_whole) return dot_kernel().dot(rows, queries, num_queries, scores);
  const int64_t padded = (rows.head_dim + kChunk - 1) / kChunk * kChunk;
  const auto* q = static_cast<const bf16*>(queries);
  for (int64_t r = 0; r < num_queries; r += kMaxLanes) {
    const int64_t count = std::min(kMaxLanes, num_queries - r);
    (count <= kFewLanes ? dot_lanes<kFewLanes> : dot_lanes<kMaxLanes>)(rows, q + r * padded, padded, count,
                                                                       stride, r == 0, scores + r * kRowKeys);
  }
}

// Values of kRowKeys tokens, [pairs of tokens, dimensions in the order of sums].
struct Values {
  static constexpr int64_t kPairs = kRowKeys / 2;
  alignas(64) std::array<uint32_t, kPairs * kMaxHeadDim> pairs;

  MINIMAX_AMX_TARGET MINIMAX_INLINE void fill(const CachedRows& rows, int64_t padded) {
    const int64_t row_bytes = rows.head_dim * static_cast<int64_t>(sizeof(bf16));
    for (int64_t pair = 0; pair < kPairs; ++pair) {
      uint32_t* out = pairs.data() + pair * padded;
      const int64_t token = 2 * pair;
      fetch_row(rows.base + rows.next[token], row_bytes);
      fetch_row(rows.base + rows.next[token + 1], row_bytes);
      // Weights of tokens that do not exist are zero, what lies in their rows may be no number.
      const std::byte* even = token < rows.count ? rows.base + rows.offsets[token] : nullptr;
      const std::byte* odd = token + 1 < rows.count ? rows.base + rows.offsets[token + 1] : nullptr;
      for (int64_t i = 0; i < padded; i += kTileInputs, out += kTileInputs) {
        const __m512i a = even == nullptr ? _mm512_setzero_si512() : load(even, i, rows.head_dim);
        const __m512i b = odd == nullptr ? _mm512_setzero_si512() : load(odd, i, rows.head_dim);
        _mm512_store_si512(out, _mm512_unpacklo_epi16(a, b));
        _mm512_store_si512(out + kVectorDims, _mm512_unpackhi_epi16(a, b));
      }
    }
  }

 private:
  MINIMAX_AMX_TARGET MINIMAX_INLINE static __m512i load(const std::byte* row, int64_t i, int64_t head_dim) {
    const int64_t rest = std::clamp<int64_t>(head_dim - i, 0, kTileInputs);
    const auto mask = static_cast<__mmask32>((uint64_t{1} << static_cast<uint64_t>(rest)) - 1);
    return _mm512_maskz_loadu_epi16(mask, row + 2 * i);
  }
};

// Tiles 0 to 3 are sums of 16 dimensions each, 4 and 5 values, 6 and 7 weights of half the keys each.
MINIMAX_AMX_TARGET void accumulate_rows(const Values& values, const float* p, int64_t count, int64_t padded,
                                        float* sums) {
  alignas(64) std::array<uint32_t, kMaxLanes * Values::kPairs> weights;
  for (int64_t i = 0; i < count * kRowKeys; i += kTileInputs) {
    const __m512bh packed = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + i + 16), _mm512_loadu_ps(p + i));
    std::memcpy(weights.data() + i / 2, &packed, sizeof(packed));
  }
  TileConfig config;
  for (size_t tile = 0; tile < 4; ++tile) config.set(tile, count, kTileLineBytes);
  config.set(4, kTileRows, kTileLineBytes);
  config.set(5, kTileRows, kTileLineBytes);
  config.set(6, count, kTileLineBytes);
  config.set(7, count, kTileLineBytes);
  finish_stores();
  const TileScope scope(config);
  constexpr int64_t kWeightBytes = Values::kPairs * int64_t{sizeof(uint32_t)};
  _tile_loadd(6, weights.data(), kWeightBytes);
  _tile_loadd(7, weights.data() + Values::kPairs / 2, kWeightBytes);
  const int64_t stride = padded * static_cast<int64_t>(sizeof(float));
  const uint32_t* first = values.pairs.data();
  const uint32_t* second = first + Values::kPairs / 2 * padded;
  for (int64_t d = 0; d < padded; d += kChunk) {
    _tile_loadd(0, sums + d, stride);
    _tile_loadd(1, sums + d + kVectorDims, stride);
    _tile_loadd(2, sums + d + 2 * kVectorDims, stride);
    _tile_loadd(3, sums + d + 3 * kVectorDims, stride);
    _tile_loadd(4, first + d, stride);
    _tile_dpbf16ps(0, 6, 4);
    _tile_loadd(5, first + d + kVectorDims, stride);
    _tile_dpbf16ps(1, 6, 5);
    _tile_loadd(4, first + d + 2 * kVectorDims, stride);
    _tile_dpbf16ps(2, 6, 4);
    _tile_loadd(5, first + d + 3 * kVectorDims, stride);
    _tile_dpbf16ps(3, 6, 5);
    _tile_loadd(4, second + d, stride);
    _tile_dpbf16ps(0, 7, 4);
    _tile_loadd(5, second + d + kVectorDims, stride);
    _tile_dpbf16ps(1, 7, 5);
    _tile_loadd(4, second + d + 2 * kVectorDims, stride);
    _tile_dpbf16ps(2, 7, 4);
    _tile_loadd(5, second + d + 3 * kVectorDims, stride);
    _tile_dpbf16ps(3, 7, 5);
    _tile_stored(0, sums + d, stride);
    _tile_stored(1, sums + d + kVectorDims, stride);
    _tile_stored(2, sums + d + 2 * kVectorDims, stride);
    _tile_stored(3, sums + d + 3 * kVectorDims, stride);
  }
  finish_stores();
}

MINIMAX_AMX_TARGET void accumulate(const CachedRows& rows, const float* p, int64_t num_queries, float* sums) {
  if (rows.head_dim > kMaxHeadDim) return dot_kernel().accumulate(rows, p, num_queries, sums);
  const int64_t padded = (rows.head_dim + kChunk - 1) / kChunk * kChunk;
  Values values;
  values.fill(rows, padded);
  for (int64_t r = 0; r < num_queries; r += kTileRows) {
    const int64_t count = std::min(kTileRows, num_queries - r);
    accumulate_rows(values, p + r * kRowKeys, count, padded, sums + r * padded);
  }
}

}  // namespace

const RowKernel* tile_row_kernel(DType cache) {
  if (cache != DType::kBF16 || !has_tiles()) return nullptr;
  static const RowKernel kernel = [] {
    RowKernel result = dot_kernel();
    result.dot = dot;
    result.accumulate = accumulate;
    return result;
  }();
  return &kernel;
}

}  // namespace minimax::cpu

#else

namespace minimax::cpu {
const RowKernel* tile_row_kernel(DType) { return nullptr; }
}  // namespace minimax::cpu

#endif
