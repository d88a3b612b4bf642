#include "quant/encode.h"

#include <algorithm>
#include <cmath>

#include "quant/fp8.h"

namespace minimax::quant {
namespace {

template <typename T>
void encode_plain(std::span<const float> source, const Weight& target) {
  for (int64_t n = 0; n < target.out_features(); ++n) {
    const float* from = source.data() + n * target.in_features();
    std::transform(from, from + target.in_features(), target.values.row<T>(n),
                   [](float x) { return from_float<T>(x); });
  }
}

// Stores the scale for values up to `largest`; RETURNS: the scale as it is stored.
float store_scale(const Weight& target, int64_t row, int64_t column, float largest) {
  const float wanted = largest / kMaxE4m3;
  const int64_t at = row * target.scales.stride(0) + column * target.scales.stride(1);
  if (target.format == WeightFormat::kFp8)
    return target.scales.data<float>()[at] = wanted > 0 ? wanted : 1.0F;
  const f8e8m0 scale = wanted > 0 ? power_of_two_above(wanted) : f8e8m0{};
  target.scales.data<uint8_t>()[at] = scale.bits;
  return to_float(scale);
}

void encode_block(std::span<const float> source, const Weight& target, int64_t row, int64_t column) {
  const int64_t k = target.in_features();
  const int64_t last_row = std::min((row + 1) * target.block_rows, target.out_features());
  const int64_t first = column * target.block_columns;
  const int64_t last = std::min(first + target.block_columns, k);
  float largest = 0;
  for (int64_t n = row * target.block_rows; n < last_row; ++n) {
    for (int64_t i = first; i < last; ++i) largest = std::max(largest, std::abs(source[n * k + i]));
  }
  const float scale = store_scale(target, row, column, largest);
  for (int64_t n = row * target.block_rows; n < last_row; ++n) {
    for (int64_t i = first; i < last; ++i)
      target.values.row<f8e4m3>(n)[i] = to_e4m3(source[n * k + i] / scale);
  }
}

}  // namespace

void encode(std::span<const float> source, const Weight& target) {
  MM_CHECK(static_cast<int64_t>(source.size()) == target.values.numel() && !target.is_stacked(),
           "encode: {} values for {}", source.size(), target.values.describe());
  switch (target.format) {
    case WeightFormat::kF32:
      return encode_plain<float>(source, target);
    case WeightFormat::kBF16:
      return encode_plain<bf16>(source, target);
    case WeightFormat::kF16:
      return encode_plain<f16>(source, target);
    case WeightFormat::kFp8:
    case WeightFormat::kMxfp8:
      for (int64_t row = 0; row < target.scales.dim(0); ++row) {
        for (int64_t column = 0; column < target.scales.dim(1); ++column)
          encode_block(source, target, row, column);
      }
  }
}

}  // namespace minimax::quant
