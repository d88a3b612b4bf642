#include "quant/weight.h"

namespace minimax::quant {

std::string_view name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBF16:
      return "bf16";
  }
  return "?";
}

Weight plain_weight(const Tensor& values) {
  switch (values.dtype()) {
    case DType::kF32:
      return {WeightFormat::kF32, values, {}};
    case DType::kBF16:
      return {WeightFormat::kBF16, values, {}};
    default:
      fail("weight {} has dtype {}; a linear weight must be BF16 or F32", values.name(),
           name(values.dtype()));
  }
}

void decode_row(const Weight& weight, int64_t i, std::span<float> out) {
  MM_CHECK(static_cast<int64_t>(out.size()) == weight.in_features(), "decode_row: {} outputs for {}",
           out.size(), weight.values.describe());
  switch (weight.format) {
    case WeightFormat::kF32: {
      const float* row = weight.values.row<float>(i);
      for (size_t j = 0; j < out.size(); ++j) out[j] = row[j];
      return;
    }
    case WeightFormat::kBF16: {
      const bf16* row = weight.values.row<bf16>(i);
      for (size_t j = 0; j < out.size(); ++j) out[j] = to_float(row[j]);
      return;
    }
  }
}

}  // namespace minimax::quant
