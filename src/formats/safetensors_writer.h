// Writes small safetensors files: outputs of tools and tests.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "core/tensor.h"

namespace minimax::formats {

struct NamedTensor {
  std::string name;
  Tensor tensor;  // contiguous, on the CPU
};

// Writes a temporary file beside `path`, then renames it: `path` is either as before or complete.
// THROWS: Error naming the path when it cannot be written (permission, full disk).
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace minimax::formats
