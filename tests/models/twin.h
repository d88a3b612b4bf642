// A checkpoint with every BF16 tensor in another plain format.
#pragma once

#include <deque>
#include <filesystem>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/safetensors_writer.h"

namespace minimax::testing {

template <typename T>
void write_twin(const std::filesystem::path& from, const std::filesystem::path& to, DType dtype) {
  formats::Checkpoint original = formats::Checkpoint::open(from);
  std::deque<std::vector<T>> memory;
  std::vector<formats::NamedTensor> tensors;
  for (const auto& info : original.tensors()) {
    Tensor tensor = original.tensor(info);
    if (info.dtype == DType::kBF16) {
      auto& values = memory.emplace_back(static_cast<size_t>(tensor.numel()));
      for (size_t i = 0; i < values.size(); ++i) values[i] = from_float<T>(to_float(tensor.data<bf16>()[i]));
      tensor = Tensor(values.data(), dtype, info.shape);
    }
    tensors.push_back({info.name, tensor});
  }
  formats::write_safetensors(to / formats::kWeightsFile, tensors);
}

}  // namespace minimax::testing
