// Values to JSON text, byte for byte as Python's json.dumps writes it; and JSON documents to values.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "jinja/runtime.h"

namespace minimax::jinja {

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // one level of indentation; absent: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

// THROWS: Error for values JSON cannot hold (undefined, functions, iterators).
std::string to_json_text(Runtime& runtime, const Value& value, const JsonStyle& style);

// Strings that are not UTF-8 get U+FFFD for the ill-formed parts; integers above 2^63 become floats.
// THROWS: Error when the document nests deeper than kMaxValueDepth.
Value from_json(const nlohmann::ordered_json& json);

}  // namespace minimax::jinja
