// Any bytes as a safetensors file: refused with one line, or a header whose tensors lie inside the file.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/error.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  try {
    const auto header = minimax::formats::parse_safetensors_header(file, "fuzz");
    for (const auto& entry : header.tensors) {
      const auto bytes = file.subspan(static_cast<size_t>(header.data_offset + entry.begin),
                                      static_cast<size_t>(entry.end - entry.begin));
      MM_CHECK(bytes.data() + bytes.size() <= file.data() + file.size(), "tensor outside of the file");
    }
  } catch (const minimax::Error& e) {
    MM_CHECK(std::string_view(e.what()).find('\n') == std::string_view::npos, "message of several lines");
  }
  return 0;
}
