// The safetensors container, read from untrusted bytes.
//
// Layout: 8 bytes little-endian N; N bytes of JSON; the data. The JSON is one object: tensor name ->
// {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, offsets in bytes from the start of the
// data; the optional key "__metadata__" maps strings to strings. The tensors tile the data: in the order of
// their offsets each begins where the one before ends, and the last ends at the end of the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace minimax::formats {

// The bound of the reference implementation.
inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // [] for a scalar
  int64_t begin = 0;           // offset in the data, bytes
  int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> tensors;  // ordered by offset
  std::map<std::string, std::string> metadata;
  int64_t data_offset = 0;  // of the data in the file, bytes
};

// REQUIRES: `file` is the whole file. THROWS: Error naming `file_name` and the tensor.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, std::string_view file_name);

}  // namespace minimax::formats
