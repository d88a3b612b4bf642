// A weight matrix in the format its checkpoint holds: packed values plus, for quantised formats, scales.
//
// Ops take a `Weight` and never ask a model what format it is; a model never looks inside one.
#pragma once

#include <string_view>

#include "core/tensor.h"

namespace minimax::quant {

// Storage of a linear weight `[out_features, in_features]`, row-major.
enum class WeightFormat : uint8_t {
  kF32,   // IEEE binary32
  kBF16,  // upper half of a binary32
};

std::string_view name(WeightFormat format);

struct Weight {
  WeightFormat format = WeightFormat::kBF16;
  Tensor values;  // [out_features, in_features]
  Tensor scales;  // undefined for formats without scales

  bool defined() const { return values.defined(); }
  int64_t out_features() const { return values.dim(0); }
  int64_t in_features() const { return values.dim(1); }
  int64_t size_bytes() const { return values.size_bytes() + (scales.defined() ? scales.size_bytes() : 0); }
};

// The weight that a plain (unquantised) tensor is. THROWS: Error when its dtype is no weight format.
Weight plain_weight(const Tensor& values);

// Reference decode of row `i` to float32. REQUIRES: out.size() == in_features.
void decode_row(const Weight& weight, int64_t i, std::span<float> out);

}  // namespace minimax::quant
