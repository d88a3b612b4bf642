// Python's str() and repr() of values.
#include <charconv>
#include <cmath>

#include "jinja/object.h"
#include "jinja/unicode.h"
#include "jinja/utf8.h"
#include "jinja/value.h"

namespace minimax::jinja {
namespace {

void append_repr(std::string& out, const Value& value);

void append_items(std::string& out, const std::vector<Value>& items) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i != 0) out += ", ";
    append_repr(out, items[i]);
  }
}

void append_sequence(std::string& out, const Sequence& sequence) {
  const auto wrapped = [&](const char* open, const char* close) {
    out += open;
    append_items(out, sequence.items);
    out += close;
  };
  switch (sequence.kind) {
    case SequenceKind::kList:
      return wrapped("[", "]");
    case SequenceKind::kTuple:
      return wrapped("(", sequence.items.size() == 1 ? ",)" : ")");
    case SequenceKind::kKeys:
      return wrapped("dict_keys([", "])");
    case SequenceKind::kValues:
      return wrapped("dict_values([", "])");
    case SequenceKind::kItems:
      return wrapped("dict_items([", "])");
    case SequenceKind::kRange:
      out += sequence.range_repr;
  }
}

void append_mapping(std::string& out, const Mapping& mapping) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : mapping.entries()) {
    if (!first) out += ", ";
    first = false;
    append_repr(out, key);
    out += ": ";
    append_repr(out, value);
  }
  out += '}';
}

void append_repr(std::string& out, const Value& value) {
  if (value.is_none()) {
    out += "None";
  } else if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_bool()) {
    out += value.boolean() ? "True" : "False";
  } else if (value.is_int()) {
    out += std::to_string(value.integer());
  } else if (value.is_float()) {
    out += repr_float(value.floating());
  } else if (value.is_string()) {
    out += repr_string(value.string());
  } else if (value.is_sequence()) {
    append_sequence(out, value.sequence());
  } else if (value.is_mapping()) {
    append_mapping(out, value.mapping());
  } else {
    out += value.object()->repr();
  }
}

void append_escape(std::string& out, char32_t c) {
  constexpr char kHex[] = "0123456789abcdef";
  const int digits = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
  out += c < 0x100 ? "\\x" : c < 0x10000 ? "\\u" : "\\U";
  for (int i = digits - 1; i >= 0; --i) out += kHex[(c >> (4 * i)) & 0xF];
}

}  // namespace

std::string repr_string(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    if (c.code_point == '\\' || c.code_point == static_cast<char32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(c.code_point);
    } else if (c.code_point == '\n') {
      out += "\\n";
    } else if (c.code_point == '\r') {
      out += "\\r";
    } else if (c.code_point == '\t') {
      out += "\\t";
    } else if (has_property(c.code_point, Property::kPrintable)) {
      out += text.substr(pos, c.size);
    } else {
      append_escape(out, c.code_point);
    }
    pos += c.size;
  }
  out += quote;
  return out;
}

// The shortest digits that read back as the same number, with an exponent below 1e-4 and from 1e16 on.
std::string repr_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  const size_t e = shortest.find('e');
  int exponent = 0;
  const size_t exponent_at = e + (shortest[e + 1] == '+' ? 2 : 1);
  std::from_chars(shortest.data() + exponent_at, end, exponent);
  if (exponent < -4 || exponent >= 16) return std::string(shortest);

  std::string sign = value < 0 || std::signbit(value) ? "-" : "";
  std::string digits;
  for (const char c : shortest.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  const std::string fraction = digits.size() > whole ? digits.substr(whole) : "0";
  return sign + digits.substr(0, whole) + "." + fraction;
}

std::string to_repr(const Value& value) {
  std::string out;
  append_repr(out, value);
  return out;
}

std::string to_str(const Value& value) {
  if (value.is_string()) return value.string();
  if (value.is_undefined()) return "";
  return to_repr(value);
}

std::string type_name(const Value& value) {
  if (value.is_none()) return "NoneType";
  if (value.is_undefined()) return "Undefined";
  if (value.is_bool()) return "bool";
  if (value.is_int()) return "int";
  if (value.is_float()) return "float";
  if (value.is_string()) return "str";
  if (value.is_mapping()) return "dict";
  if (value.is_object()) return value.object()->type();
  switch (value.sequence().kind) {
    case SequenceKind::kList:
      return "list";
    case SequenceKind::kTuple:
      return "tuple";
    case SequenceKind::kRange:
      return "range";
    case SequenceKind::kKeys:
      return "dict_keys";
    case SequenceKind::kValues:
      return "dict_values";
    case SequenceKind::kItems:
      return "dict_items";
  }
  return "object";
}

}  // namespace minimax::jinja
