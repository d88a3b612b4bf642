// Products of query rows with cached rows in F32, on any processor, for any dtype of the cache.
#include <algorithm>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/paged_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/attention_rows_f32.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "backends/cpu/simd-inl.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

template <typename T>
struct GenericRows {
  static constexpr int64_t kChunk = 16;

  static int64_t Padded(int64_t head_dim) { return (head_dim + kChunk - 1) / kChunk * kChunk; }
  static const T* Row(const CachedRows& rows, int64_t i) {
    return reinterpret_cast<const T*>(rows.base + rows.offsets[i]);
  }
  static void Fetch(const CachedRows& rows, int64_t i) {
    const T* row = reinterpret_cast<const T*>(rows.base + rows.next[i]);
    for (int64_t d = 0; d < rows.head_dim; d += 64 / static_cast<int64_t>(sizeof(T))) hwy::Prefetch(row + d);
  }

  static void Prepare(const void* q, DType dtype, int64_t head_dim, void* prepared) {
    auto* out = static_cast<float*>(prepared);
    const auto convert = [&](const auto* in) {
      for (int64_t i = 0; i < head_dim; ++i) out[i] = to_float(in[i]);
    };
    switch (dtype) {
      case DType::kBF16:
        convert(static_cast<const bf16*>(q));
        break;
      case DType::kF8E4M3:
        convert(static_cast<const f8e4m3*>(q));
        break;
      default:
        convert(static_cast<const float*>(q));
    }
    std::fill(out + head_dim, out + Padded(head_dim), 0.0F);
  }

  template <int kQueries>
  static HWY_INLINE void DotQueries(const CachedRows& rows, const float* q, int64_t padded, int64_t i,
                                    float* scores) {
    const T* row = Row(rows, i);
    VF sums[kQueries];
    HWY_UNROLL(4)
    for (int r = 0; r < kQueries; ++r) sums[r] = hn::Zero(DF());
    const int64_t lanes = LanesF32();
    for (int64_t d = 0; d < rows.head_dim; d += lanes) {
      const int64_t rest = rows.head_dim - d;
      const VF key = rest >= lanes ? LoadF32(row + d) : LoadTail(row + d, rest);
      HWY_UNROLL(4)
      for (int r = 0; r < kQueries; ++r) {
        sums[r] = hn::MulAdd(key, hn::LoadU(DF(), q + r * padded + d), sums[r]);
      }
    }
    HWY_UNROLL(4)
    for (int r = 0; r < kQueries; ++r) scores[r * kRowKeys + i] = SumOfLanes(sums[r]);
  }

  static void Dot(const CachedRows& rows, const void* queries, int64_t num_queries, float* scores) {
    const int64_t padded = Padded(rows.head_dim);
    const auto* q = static_cast<const float*>(queries);
    for (int64_t i = 0; i < rows.count; ++i) {
      Fetch(rows, i);
      int64_t r = 0;
      for (; r + 4 <= num_queries; r += 4) {
        DotQueries<4>(rows, q + r * padded, padded, i, scores + r * kRowKeys);
      }
      for (; r < num_queries; ++r) DotQueries<1>(rows, q + r * padded, padded, i, scores + r * kRowKeys);
    }
  }

  template <int kQueries>
  static HWY_INLINE void AccumulateQueries(const CachedRows& rows, const float* p, int64_t padded,
                                           float* sums) {
    const int64_t lanes = LanesF32();
    for (int64_t d = 0; d < rows.head_dim; d += 2 * lanes) {
      const bool is_whole = d + 2 * lanes <= rows.head_dim;
      VF s[kQueries][2];
      HWY_UNROLL(4)
      for (int r = 0; r < kQueries; ++r) s[r][0] = s[r][1] = hn::Zero(DF());
      for (int64_t i = 0; i < rows.count; ++i) {
        const T* row = Row(rows, i) + d;
        const VF low = is_whole ? LoadF32(row) : LoadTail(row, std::min(lanes, rows.head_dim - d));
        const VF high = is_whole
                            ? LoadF32(row + lanes)
                            : LoadTail(row + lanes, std::clamp<int64_t>(rows.head_dim - d - lanes, 0, lanes));
        HWY_UNROLL(4)
        for (int r = 0; r < kQueries; ++r) {
          const VF weight = hn::Set(DF(), p[r * kRowKeys + i]);
          s[r][0] = hn::MulAdd(weight, low, s[r][0]);
          s[r][1] = hn::MulAdd(weight, high, s[r][1]);
        }
      }
      HWY_UNROLL(4)
      for (int r = 0; r < kQueries; ++r) {
        float* out = sums + r * padded + d;
        hn::StoreU(hn::Add(hn::LoadU(DF(), out), s[r][0]), DF(), out);
        if (d + lanes < padded) {
          hn::StoreU(hn::Add(hn::LoadU(DF(), out + lanes), s[r][1]), DF(), out + lanes);
        }
      }
    }
  }

  static void Accumulate(const CachedRows& rows, const float* p, int64_t num_queries, float* sums) {
    const int64_t padded = Padded(rows.head_dim);
    for (int64_t i = 0; i < rows.count; ++i) Fetch(rows, i);
    int64_t r = 0;
    for (; r + 4 <= num_queries; r += 4) {
      AccumulateQueries<4>(rows, p + r * kRowKeys, padded, sums + r * padded);
    }
    for (; r < num_queries; ++r) {
      AccumulateQueries<1>(rows, p + r * kRowKeys, padded, sums + r * padded);
    }
  }
};

constexpr uint8_t kPlainOrder[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

template <typename T>
constexpr RowKernel kGenericRowKernel = {
    GenericRows<T>::kChunk,  sizeof(float),       kPlainOrder,
    GenericRows<T>::Prepare, GenericRows<T>::Dot, GenericRows<T>::Accumulate};

const RowKernel* FindRowKernel(DType cache) {
  switch (cache) {
    case DType::kBF16:
      return &kGenericRowKernel<bf16>;
    case DType::kF8E4M3:
      return &kGenericRowKernel<f8e4m3>;
    default:
      return &kGenericRowKernel<float>;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace minimax::cpu {
namespace {
HWY_EXPORT(FindRowKernel);
}  // namespace

const RowKernel& row_kernel(DType q, DType cache, const CpuOptions& options) {
  const RowKernel* bf16_kernel = nullptr;
  if (q != DType::kF32 && cache != DType::kF32 && options.use_bf16_dot) {
    if (options.use_tiles) bf16_kernel = tile_row_kernel(cache);
    if (bf16_kernel == nullptr) bf16_kernel = bf16_row_kernel(cache);
  }
  return bf16_kernel != nullptr ? *bf16_kernel : *HWY_DYNAMIC_DISPATCH(FindRowKernel)(cache);
}

bool multiplies_bf16(const RowKernel& kernel, DType cache) {
  return &kernel == bf16_row_kernel(cache) || &kernel == tile_row_kernel(cache);
}

}  // namespace minimax::cpu
#endif
