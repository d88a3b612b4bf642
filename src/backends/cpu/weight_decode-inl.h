// Weights of any format as F32, exactly as quant::decode_row; included once per SIMD target.
#if defined(MINIMAX_WEIGHT_DECODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MINIMAX_WEIGHT_DECODE_INL_H_
#undef MINIMAX_WEIGHT_DECODE_INL_H_
#else
#define MINIMAX_WEIGHT_DECODE_INL_H_
#endif

#include <algorithm>

#include "backends/cpu/simd-inl.h"
#include "quant/fp8.h"

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

HWY_INLINE VF LoadF32(const f16* p) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  return hn::PromoteTo(DF(), hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}

template <typename T>
void DecodeRun(const T* from, int64_t count, float scale, float* out) {
  const int64_t lanes = LanesF32();
  const VF factor = hn::Set(DF(), scale);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) StoreF32(hn::Mul(LoadF32(from + i), factor), out + i);
  for (; i < count; ++i) out[i] = to_float(from[i]) * scale;
}

// out = elements [first, first + count) of row `row`.
void DecodeWeight(const quant::Weight& weight, int64_t row, int64_t first, int64_t count, float* out) {
  switch (weight.format) {
    case quant::WeightFormat::kF32:
      return DecodeRun(weight.values.row<float>(row) + first, count, 1, out);
    case quant::WeightFormat::kBF16:
      return DecodeRun(weight.values.row<bf16>(row) + first, count, 1, out);
    case quant::WeightFormat::kF16:
      return DecodeRun(weight.values.row<f16>(row) + first, count, 1, out);
    case quant::WeightFormat::kFp8:
    case quant::WeightFormat::kMxfp8:
      break;
  }
  const f8e4m3* codes = weight.values.row<f8e4m3>(row);
  for (const int64_t end = first + count; first < end;) {
    const int64_t block = weight.scale_column(first);
    const int64_t run = std::min(end, (block + 1) * weight.block_columns - weight.column_offset) - first;
    DecodeRun(codes + first, run, quant::scale_at(weight, weight.scale_row(row), block), out);
    first += run;
    out += run;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#endif
