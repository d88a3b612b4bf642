#include "quant/fp8.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace minimax::quant {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The shape of the scales of one matrix, or of a stack.
std::string grid_string(const Tensor& values, int64_t rows, int64_t columns) {
  if (values.rank() == 3) return fmt::format("[{}, {}, {}]", values.dim(0), rows, columns);
  return fmt::format("[{}, {}]", rows, columns);
}

// `scales` as a grid: [N] becomes [N, 1], [1] becomes [1, 1]; of a stack, every matrix alike.
Tensor as_grid(const Tensor& values, const Tensor& scales) {
  const bool stacked = values.rank() == 3;
  if (!scales.is_contiguous()) fail("scale {} of {} is not contiguous", scales.describe(), values.describe());
  if (stacked && scales.rank() >= 1 && scales.dim(0) != values.dim(0))
    fail("scale {} does not hold one grid for each matrix of {}", scales.describe(), values.describe());
  if (stacked && scales.rank() == 1) return scales.reshape({scales.dim(0), 1, 1});
  if (stacked && scales.rank() == 2) return scales.reshape({scales.dim(0), scales.dim(1), 1});
  if (!stacked && scales.rank() == 1) return scales.reshape({scales.dim(0), 1});
  if (scales.rank() != values.rank())
    fail("scale {} has too many dimensions for {}", scales.describe(), values.describe());
  return scales;
}

bool has_grid_of(const Weight& weight, BlockShape block) {
  const int rank = weight.scales.rank();
  return weight.scales.dim(rank - 2) == ceil_div(weight.out_features(), block.rows) &&
         weight.scales.dim(rank - 1) == ceil_div(weight.in_features(), block.columns);
}

void expect_grid(const Weight& weight, BlockShape block) {
  if (has_grid_of(weight, block)) return;
  fail("scale {} does not fit weight {}: blocks of {} x {} need {}", weight.scales.describe(),
       weight.values.describe(), block.rows, block.columns,
       grid_string(weight.values, ceil_div(weight.out_features(), block.rows),
                   ceil_div(weight.in_features(), block.columns)));
}

// The block shape that the scale grid implies.
BlockShape block_of(const Weight& weight) {
  const int64_t n = std::max<int64_t>(weight.out_features(), 1);
  const int64_t k = std::max<int64_t>(weight.in_features(), 1);
  for (const BlockShape block : {kFp8Block, BlockShape{1, k}, BlockShape{n, k}}) {
    if (has_grid_of(weight, block)) return block;
  }
  fail(
      "scale {} does not fit weight {}: expected {} (blocks of 128 x 128), [{}] or [{}, 1] (one a row), or "
      "[1]",
      weight.scales.describe(), weight.values.describe(),
      grid_string(weight.values, ceil_div(n, kFp8Block.rows), ceil_div(k, kFp8Block.columns)), n, n);
}

BlockShape mx_block(const Weight& weight, std::optional<BlockShape> declared) {
  const BlockShape block{1, kMxBlock};
  if (declared && *declared != block) {
    fail("scale {} of {} holds E8M0 exponents, which come in blocks of 1 x 32; declared are {} x {}",
         weight.scales.describe(), weight.values.describe(), declared->rows, declared->columns);
  }
  if (weight.in_features() % kMxBlock != 0)
    fail("weight {}: MXFP8 needs a multiple of 32 inputs", weight.values.describe());
  expect_grid(weight, block);
  return block;
}

BlockShape fp8_block(const Weight& weight, std::optional<BlockShape> declared) {
  if (!declared) return block_of(weight);
  if (declared->rows <= 0 || declared->columns <= 0)
    fail("weight {}: a block of {} x {} is declared", weight.values.describe(), declared->rows,
         declared->columns);
  if (*declared == BlockShape{1, kMxBlock}) {
    fail("scale {} of {} is F32; the declared blocks of 1 x 32 need E8M0 exponents (U8)",
         weight.scales.describe(), weight.values.describe());
  }
  expect_grid(weight, *declared);
  return *declared;
}

}  // namespace

Weight quantized_layout(const Tensor& values, const Tensor& scales, std::optional<BlockShape> declared) {
  if (!scales.defined()) return plain_weight(values);
  if (values.dtype() != DType::kF8E4M3)
    fail("weight {} has the scale {}, but only F8_E4M3 values are scaled", values.describe(),
         scales.describe());
  if (values.rank() != 2 && values.rank() != 3)
    fail("weight {}: expected [N, K] or [E, N, K]", values.describe());
  const bool is_mx = scales.dtype() == DType::kU8 || scales.dtype() == DType::kF8E8M0;
  if (!is_mx && scales.dtype() != DType::kF32)
    fail("scale {} of {}: expected F32, or U8 for MXFP8", scales.describe(), values.describe());
  Weight weight{is_mx ? WeightFormat::kMxfp8 : WeightFormat::kFp8, values, as_grid(values, scales)};
  const BlockShape block = is_mx ? mx_block(weight, declared) : fp8_block(weight, declared);
  weight.block_rows = block.rows;
  weight.block_columns = block.columns;
  return weight;
}

namespace {

// What is wrong with the stored scale at `offset`, or nothing.
std::string scale_problem(const Weight& weight, int64_t offset) {
  if (weight.format == WeightFormat::kMxfp8)
    return weight.scales.data<uint8_t>()[offset] == 0xff ? "is NaN" : "";
  const float scale = weight.scales.data<float>()[offset];
  if (std::isfinite(scale) && scale > 0) return "";
  return fmt::format("is {}; a scale must be finite and positive", scale);
}

}  // namespace

void check_scales(const Weight& weight) {
  const Tensor& scales = weight.scales;
  if (!scales.defined() || scales.raw() == nullptr || scales.device().type != DeviceType::kCpu) return;
  const int64_t columns = scales.dim(scales.rank() - 1);
  for (int64_t i = 0; i < scales.numel(); ++i) {
    const int64_t offset = i / columns * scales.stride(scales.rank() - 2) + i % columns;
    if (const std::string problem = scale_problem(weight, offset); !problem.empty()) {
      fail("scale {} of {}: element {} {}", scales.describe(), weight.values.describe(), i, problem);
    }
  }
}

Weight quantized_weight(const Tensor& values, const Tensor& scales, std::optional<BlockShape> declared) {
  const Weight weight = quantized_layout(values, scales, declared);
  check_scales(weight);
  return weight;
}

int64_t activation_group(WeightFormat weight) {
  if (weight == WeightFormat::kFp8) return kFp8Block.columns;
  return weight == WeightFormat::kMxfp8 ? kMxBlock : 0;
}

f8e8m0 power_of_two_above(float x) {
  int exponent = 0;
  if (std::frexp(x, &exponent) == 0.5F) --exponent;  // x = [0.5, 1) * 2^exponent
  return {static_cast<uint8_t>(std::clamp(exponent + 127, 0, 254))};
}

void round_activations(float* x, int64_t count, int64_t stride, WeightFormat weight) {
  constexpr float kSmallestScale = 1e-10F;
  const int64_t group = activation_group(weight);
  if (group == 0) return;
  for (int64_t first = 0; first < count; first += group) {
    const int64_t end = std::min(first + group, count);
    float largest = 0;
    for (int64_t i = first; i < end; ++i) largest = std::max(largest, std::abs(x[i * stride]));
    float scale = std::max(largest / kMaxE4m3, kSmallestScale);
    if (weight == WeightFormat::kMxfp8) scale = to_float(power_of_two_above(scale));
    for (int64_t i = first; i < end; ++i) x[i * stride] = to_float(to_e4m3(x[i * stride] / scale)) * scale;
  }
}

float scale_at(const Weight& weight, int64_t row, int64_t column) {
  const int64_t at = row * weight.scales.stride(0) + column * weight.scales.stride(1);
  if (weight.format == WeightFormat::kMxfp8) return to_float(f8e8m0{weight.scales.data<uint8_t>()[at]});
  return weight.scales.data<float>()[at];
}

void decode_fp8_row(const Weight& weight, int64_t i, std::span<float> out) {
  const f8e4m3* row = weight.values.row<f8e4m3>(i);
  for (int64_t k = 0; k < static_cast<int64_t>(out.size()); ++k)
    out[k] = to_float(row[k]) * scale_at(weight, weight.scale_row(i), weight.scale_column(k));
}

}  // namespace minimax::quant
