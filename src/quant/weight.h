// A weight matrix in the format its checkpoint holds: packed values plus, for quantised formats, scales.
//
// Ops take a `Weight` and never ask a model what format it is; a model never looks inside one.
#pragma once

#include <optional>
#include <string_view>

#include "core/range.h"
#include "core/tensor.h"

namespace minimax::quant {

// Storage of a linear weight `[out_features, in_features]`, row-major. The layouts of the 8-bit formats are
// written out in quant/fp8.h.
enum class WeightFormat : uint8_t {
  kF32,    // IEEE binary32
  kBF16,   // upper half of a binary32
  kF16,    // IEEE binary16
  kFp8,    // e4m3 values, one F32 scale a block of any shape
  kMxfp8,  // e4m3 values, one E8M0 scale for 32 consecutive inputs of a row
};

std::string_view name(WeightFormat format);

// Rows and columns of a weight that share one scale.
struct BlockShape {
  int64_t rows = 0;
  int64_t columns = 0;
  bool operator==(const BlockShape&) const = default;
};

// Three dimensions are a stack of matrices `[experts, out_features, in_features]`, scales stacked alike; ops
// take matrices, which `expert` gives.
struct Weight {
  WeightFormat format = WeightFormat::kBF16;
  Tensor values;
  Tensor scales;           // the grid of all blocks that the values touch; undefined for formats without
  int64_t block_rows = 0;  // rows and columns that share a scale; 0 for formats without
  int64_t block_columns = 0;
  // A part of a weight may begin inside a block: the rows and columns of its first block that lie before it.
  int64_t row_offset = 0;
  int64_t column_offset = 0;

  bool defined() const { return values.defined(); }
  bool is_stacked() const { return values.rank() == 3; }
  int64_t out_features() const { return values.dim(values.rank() - 2); }
  int64_t in_features() const { return values.dim(values.rank() - 1); }
  int64_t size_bytes() const { return values.size_bytes() + (scales.defined() ? scales.size_bytes() : 0); }

  // The place of row n and of column k in the grid of scales.
  int64_t scale_row(int64_t n) const { return (n + row_offset) / block_rows; }
  int64_t scale_column(int64_t k) const { return (k + column_offset) / block_columns; }

  // A view of some rows and columns, cut anywhere. REQUIRES: not stacked.
  Weight part(Range rows, Range columns) const;
  // Output rows [begin, end), as a tensor that holds several projections needs. REQUIRES: not stacked.
  Weight rows(int64_t begin, int64_t end) const { return part({begin, end}, {0, in_features()}); }
  // Matrix `e` of a stack.
  Weight expert(int64_t e) const;
};

// The weight that a plain (unquantised) tensor is: F32, BF16 or F16.
// THROWS: Error when its dtype is none of these; for e4m3 values it says which scale is missing.
Weight plain_weight(const Tensor& values);

// The weight that e4m3 `values` [N, K] or [E, N, K] and their `scales` are. What the tensors hold decides:
// F32 scales are kFp8, of shape [ceil(N/128), ceil(K/128)], [N] or [N, 1] (per row), [1] (one for all), or
// [ceil(N/rows), ceil(K/columns)] of the `declared` block; U8 or F8_E8M0 scales [N, K/32] are kMxfp8.
// Stacked values have stacked scales.
// THROWS: Error naming both tensors when shapes or dtypes do not fit each other or what is declared, and when
// a scale is not finite, not positive or the E8M0 NaN. Values are not scanned (that would read the whole
// checkpoint): a NaN code among them makes its outputs wrong, not always NaN.
Weight quantized_weight(const Tensor& values, const Tensor& scales,
                        std::optional<BlockShape> declared = std::nullopt);

// The same without a look at the scales, for who takes parts of it and calls check_scales on those.
Weight quantized_layout(const Tensor& values, const Tensor& scales,
                        std::optional<BlockShape> declared = std::nullopt);

// THROWS: Error naming the scale that is not finite, not positive or the E8M0 NaN. REQUIRES: not stacked, or
// contiguous scales.
void check_scales(const Weight& weight);

// Reference decode of row `i` to float32. REQUIRES: not stacked, out.size() == in_features.
void decode_row(const Weight& weight, int64_t i, std::span<float> out);

}  // namespace minimax::quant
