#include "jinja/json_text.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  std::string run(const Value& value) {
    runtime_.meter().allocate(value.weight());
    write(value, 0);
    runtime_.meter().allocate(static_cast<int64_t>(out_.size()));
    return std::move(out_);
  }

 private:
  void write(const Value& value, int level) {
    if (value.is_none()) {
      out_ += "null";
    } else if (value.is_bool()) {
      out_ += value.boolean() ? "true" : "false";
    } else if (value.is_int()) {
      out_ += std::to_string(value.integer());
    } else if (value.is_float()) {
      write_float(value.floating());
    } else if (value.is_string()) {
      write_string(value.string());
    } else if (value.is_mapping()) {
      write_mapping(value.mapping(), level);
    } else if (value.is_sequence(SequenceKind::kList) || value.is_sequence(SequenceKind::kTuple)) {
      write_list(value.sequence(), level);
    } else {
      fail("an object of type {} cannot be written as JSON", type_name(value));
    }
  }

  void write_float(double value) {
    if (std::isfinite(value)) {
      out_ += repr_float(value);
    } else {
      out_ += std::isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity";
    }
  }

  void write_unit(uint32_t unit) { out_ += fmt::format("\\u{:04x}", unit); }

  void write_string(std::string_view text) {
    out_ += '"';
    for (size_t pos = 0; pos < text.size();) {
      const DecodedChar c = decode_utf8(text, pos);
      write_char(c.code_point, text.substr(pos, c.size));
      pos += c.size;
    }
    out_ += '"';
  }

  void write_char(char32_t c, std::string_view bytes) {
    constexpr std::string_view kNamed = "\"\\\n\r\t\f\b";
    constexpr std::string_view kNames = "\"\\nrtfb";
    const size_t named = c < 0x80 ? kNamed.find(static_cast<char>(c)) : std::string_view::npos;
    if (named != std::string_view::npos) {
      out_ += '\\';
      out_ += kNames[named];
    } else if (c < 0x20 || (c > 0x7E && style_.ensure_ascii && c < 0x10000)) {
      write_unit(static_cast<uint32_t>(c));
    } else if (c >= 0x10000 && style_.ensure_ascii) {
      const uint32_t offset = static_cast<uint32_t>(c) - 0x10000;
      write_unit(0xD800 + (offset >> 10));
      write_unit(0xDC00 + (offset & 0x3FF));
    } else {
      out_ += bytes;
    }
  }

  void new_line(int level) {
    if (!style_.indent) return;
    runtime_.meter().allocate(level + 1, static_cast<int64_t>(style_.indent->size()) + 1);
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += *style_.indent;
  }

  void write_list(const Sequence& list, int level) {
    if (list.items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i != 0) out_ += style_.item_separator;
      new_line(level + 1);
      write(list.items[i], level + 1);
    }
    new_line(level);
    out_ += ']';
  }

  std::string key_text(const Value& key) const {
    if (key.is_string()) return key.string();
    if (key.is_none()) return "null";
    if (key.is_bool()) return key.boolean() ? "true" : "false";
    if (key.is_int() || key.is_float()) return to_str(key);
    fail("a mapping key of type {} cannot be written as JSON", type_name(key));
  }

  void write_mapping(const Mapping& mapping, int level) {
    if (mapping.size() == 0) {
      out_ += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : mapping.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto* a, const auto* b) { return less(a->first, b->first); });
    }
    out_ += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i != 0) out_ += style_.item_separator;
      new_line(level + 1);
      write_string(key_text(entries[i]->first));
      out_ += style_.key_separator;
      write(entries[i]->second, level + 1);
    }
    new_line(level);
    out_ += '}';
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
};

Value from_json_at(const nlohmann::ordered_json& json, int depth) {
  if (depth > kMaxValueDepth) fail("a JSON document nests deeper than {} levels", kMaxValueDepth);
  switch (json.type()) {
    case nlohmann::json::value_t::boolean:
      return json.get<bool>();
    case nlohmann::json::value_t::number_integer:
      return json.get<int64_t>();
    case nlohmann::json::value_t::number_unsigned: {
      const auto value = json.get<uint64_t>();
      if (value <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(value);
      return static_cast<double>(value);
    }
    case nlohmann::json::value_t::number_float:
      return json.get<double>();
    case nlohmann::json::value_t::string:
      return sanitize_utf8(json.get_ref<const std::string&>());
    case nlohmann::json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json_at(item, depth + 1));
      return Value::list(std::move(items));
    }
    case nlohmann::json::value_t::object: {
      Mapping mapping;
      for (const auto& [key, value] : json.items()) {
        mapping.set(Value(sanitize_utf8(key)), from_json_at(value, depth + 1));
      }
      return mapping;
    }
    default:
      return Value();
  }
}

}  // namespace

std::string to_json_text(Runtime& runtime, const Value& value, const JsonStyle& style) {
  return JsonWriter(runtime, style).run(value);
}

Value from_json(const nlohmann::ordered_json& json) { return from_json_at(json, 0); }

}  // namespace minimax::jinja
