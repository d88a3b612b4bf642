#include "quant/weight.h"

#include <utility>

#include "quant/fp8.h"

namespace minimax::quant {

std::string_view name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBF16:
      return "bf16";
    case WeightFormat::kF16:
      return "f16";
    case WeightFormat::kFp8:
      return "fp8_e4m3";
    case WeightFormat::kMxfp8:
      return "mxfp8";
  }
  return "?";
}

namespace {

// The blocks that elements `part` touch.
Range blocks_of(Range part, int64_t block) { return {part.begin / block, (part.end + block - 1) / block}; }

}  // namespace

Weight Weight::part(Range rows, Range columns) const {
  MM_CHECK(values.rank() == 2, "a part of {}: not a matrix", values.describe());
  Weight result = *this;
  result.values = values.slice(0, rows.begin, rows.end).slice(1, columns.begin, columns.end);
  if (!scales.defined()) return result;
  const Range grid_rows = blocks_of({rows.begin + row_offset, rows.end + row_offset}, block_rows);
  const Range grid_columns =
      blocks_of({columns.begin + column_offset, columns.end + column_offset}, block_columns);
  result.scales =
      scales.slice(0, grid_rows.begin, grid_rows.end).slice(1, grid_columns.begin, grid_columns.end);
  result.row_offset = (rows.begin + row_offset) % block_rows;
  result.column_offset = (columns.begin + column_offset) % block_columns;
  return result;
}

Weight Weight::expert(int64_t e) const {
  Weight matrix = *this;
  matrix.values = values.select(e);
  if (scales.defined()) matrix.scales = scales.select(e);
  return matrix;
}

Weight plain_weight(const Tensor& values) {
  switch (values.dtype()) {
    case DType::kF32:
      return {WeightFormat::kF32, values, {}};
    case DType::kBF16:
      return {WeightFormat::kBF16, values, {}};
    case DType::kF16:
      return {WeightFormat::kF16, values, {}};
    case DType::kF8E4M3:
      fail("weight {} is F8_E4M3 but its scale ({}_scale_inv) is missing", values.name(), values.name());
    default:
      fail("weight {} has dtype {}; a linear weight must be BF16, F16, F32, or F8_E4M3 with scales",
           values.name(), minimax::name(values.dtype()));
  }
}

namespace {

template <typename T>
void decode_plain_row(const Tensor& values, int64_t i, std::span<float> out) {
  const T* row = values.row<T>(i);
  for (size_t j = 0; j < out.size(); ++j) out[j] = to_float(row[j]);
}

}  // namespace

void decode_row(const Weight& weight, int64_t i, std::span<float> out) {
  MM_CHECK(static_cast<int64_t>(out.size()) == weight.in_features() && !weight.is_stacked(),
           "decode_row: {} outputs for {}", out.size(), weight.values.describe());
  switch (weight.format) {
    case WeightFormat::kF32:
      return decode_plain_row<float>(weight.values, i, out);
    case WeightFormat::kBF16:
      return decode_plain_row<bf16>(weight.values, i, out);
    case WeightFormat::kF16:
      return decode_plain_row<f16>(weight.values, i, out);
    case WeightFormat::kFp8:
    case WeightFormat::kMxfp8:
      return decode_fp8_row(weight, i, out);
  }
}

}  // namespace minimax::quant
