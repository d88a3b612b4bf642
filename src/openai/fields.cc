#include "openai/fields.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;

// Copying and printing JSON recurses.
constexpr int kDeepest = 100;

void check_depth(std::string_view text) {
  int depth = 0;
  bool is_text = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (is_text) {
      if (c == '\\') ++i;
      is_text = c != '"';
    } else if (c == '"') {
      is_text = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepest) {
        throw ApiError("", fmt::format("the body nests deeper than {} levels at byte {}", kDeepest, i));
      }
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

// Numbers beyond 64 bits would wrap around when they are read.
bool is_integer_within(const Json& value, int64_t low, int64_t high) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return false;
  return value.is_number_integer() && value.get<int64_t>() >= low && value.get<int64_t>() <= high;
}

std::string shown(const Json& value) {
  std::string shown = dump_json(value);
  constexpr size_t kLongest = 80;
  if (shown.size() <= kLongest) return shown;
  size_t end = kLongest;
  while (end > 0 && (static_cast<unsigned char>(shown[end]) & 0xc0U) == 0x80) --end;
  return shown.substr(0, end) + "...";
}

}  // namespace

Json parse_json(std::string_view text) {
  check_depth(text);
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    throw ApiError("",
                   error.byte > text.size()
                       ? fmt::format("the body is no JSON: it ends after {} bytes, too early", text.size())
                       : fmt::format("the body is no JSON: byte {} cannot stand there", error.byte));
  } catch (const Json::exception&) {
    throw ApiError("", "the body is no JSON: a number is out of range");
  }
}

std::string dump_json(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

void refuse(const std::string& field, const Json& value, const std::string& expected) {
  throw ApiError(field, fmt::format("{} is {}; expected {}", field, shown(value), expected));
}

const Json* find(const Json& body, const std::string& field) {
  const auto found = body.find(field);
  return found == body.end() || found->is_null() ? nullptr : &*found;
}

std::optional<double> number(const Json& body, const std::string& field, double low, double high) {
  const Json* value = find(body, field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high)) {
    refuse(field, *value, fmt::format("a number from {} to {}", low, high));
  }
  return value->get<double>();
}

std::optional<int64_t> integer(const Json& body, const std::string& field, int64_t low, int64_t high) {
  const Json* value = find(body, field);
  if (value == nullptr) return std::nullopt;
  if (!is_integer_within(*value, low, high)) {
    refuse(field, *value, fmt::format("an integer from {} to {}", low, high));
  }
  return value->get<int64_t>();
}

bool boolean(const Json& body, const std::string& field, bool fallback) {
  const Json* value = find(body, field);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) refuse(field, *value, "true or false");
  return value->get<bool>();
}

std::optional<std::string> text(const Json& body, const std::string& field) {
  const Json* value = find(body, field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(field, *value, "a string");
  return value->get<std::string>();
}

std::vector<int32_t> token_ids(const Json& value, const std::string& field) {
  if (!value.is_array()) refuse(field, value, "a list of token ids");
  std::vector<int32_t> ids;
  for (const Json& entry : value) {
    if (!is_integer_within(entry, 0, INT32_MAX)) refuse(field, entry, "a token id");
    ids.push_back(entry.get<int32_t>());
  }
  return ids;
}

}  // namespace minimax::openai
