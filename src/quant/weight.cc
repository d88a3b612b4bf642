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

// The blocks that elements `part` touch, and how many elements of the first one lie before it.
struct Blocks {
  Range blocks;
  int64_t offset;
};

Blocks blocks_of(Range part, int64_t first, int64_t block) {
  if (part.empty()) return {{0, 0}, 0};
  const int64_t begin = part.begin + first;
  return {{begin / block, (part.end + first + block - 1) / block}, begin % block};
}

}  // namespace

Weight Weight::part(Range rows, Range columns) const {
  MM_CHECK(values.rank() == 2, "a part of {}: not a matrix", values.describe());
  Weight result = *this;
  result.values = values.slice(0, rows.begin, rows.end).slice(1, columns.begin, columns.end);
  if (!scales.defined()) return result;
  const Blocks down = blocks_of(rows, row_offset, block_rows);
  const Blocks across = blocks_of(columns, column_offset, block_columns);
  result.scales =
      scales.slice(0, down.blocks.begin, down.blocks.end).slice(1, across.blocks.begin, across.blocks.end);
  result.row_offset = down.offset;
  result.column_offset = across.offset;
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
