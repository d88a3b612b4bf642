// A weight of any format with memory of its own, for tests.
#pragma once

#include <cstring>
#include <vector>

#include "quant/encode.h"
#include "quant/fp8.h"

namespace minimax::quant {

class OwnedWeight {
 public:
  // e4m3 codes and scales as given; `T` is float, or uint8_t for E8M0.
  template <typename T>
  OwnedWeight(const std::vector<uint8_t>& codes, const std::vector<int64_t>& shape,
              const std::vector<T>& multipliers, const std::vector<int64_t>& grid)
      : values_(codes.size()), scales_(multipliers.size() * sizeof(T)) {
    std::memcpy(values_.data(), codes.data(), values_.size());
    std::memcpy(scales_.data(), multipliers.data(), scales_.size());
    values = Tensor(values_.data(), DType::kF8E4M3, shape, "layer.weight");
    scales =
        Tensor(scales_.data(), sizeof(T) == 1 ? DType::kU8 : DType::kF32, grid, "layer.weight_scale_inv");
  }
  OwnedWeight(const OwnedWeight&) = delete;
  OwnedWeight& operator=(const OwnedWeight&) = delete;
  OwnedWeight(OwnedWeight&&) = default;
  OwnedWeight& operator=(OwnedWeight&&) = default;

  Tensor values;
  Tensor scales;

 private:
  std::vector<std::byte> values_;
  std::vector<std::byte> scales_;
};

inline std::vector<float> decoded_row(const Weight& weight, int64_t i) {
  std::vector<float> row(static_cast<size_t>(weight.in_features()));
  decode_row(weight, i, row);
  return row;
}

}  // namespace minimax::quant
