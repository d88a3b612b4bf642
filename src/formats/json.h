// Strict JSON of untrusted files: duplicate keys, deep nesting and oversized files are refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace minimax::formats {

inline constexpr int kMaxJsonDepth = 64;

// THROWS: Error naming `what` and the place when `text` is not one strict JSON value.
nlohmann::json parse_json(std::string_view text, std::string_view what);

// The object in a file. THROWS: Error naming the file when it is absent, longer than `max_bytes`, no JSON or
// no object.
nlohmann::json read_json_object(const std::filesystem::path& path, int64_t max_bytes);

}  // namespace minimax::formats
