#include "jinja/text_format.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "jinja/number_format.h"
#include "jinja/operators.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

constexpr int kMaxFieldNesting = 2;  // a format field inside a format specification

// Python's ascii(): repr with every non-ASCII character escaped.
std::string ascii_repr(std::string_view repr) {
  std::string out;
  for (size_t pos = 0; pos < repr.size();) {
    const DecodedChar c = decode_utf8(repr, pos);
    pos += c.size;
    if (c.code_point < 0x80) {
      out += static_cast<char>(c.code_point);
    } else if (c.code_point < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c.code_point));
    } else if (c.code_point < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c.code_point));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c.code_point));
    }
  }
  return out;
}

std::string converted(Runtime& runtime, const Value& value, char conversion) {
  runtime.meter().allocate(value.weight() * 4);
  if (conversion == 's') return to_str(value);
  return conversion == 'a' ? ascii_repr(to_repr(value)) : to_repr(value);
}

std::string truncated(const std::string& text, int64_t precision) {
  if (precision < 0) return text;
  const Text counted(text);
  return std::string(substring(counted, 0, std::min(precision, counted.length)));
}

// Reads digits at `pos`. RETURNS: -1 when there are none.
int64_t read_number(std::string_view text, size_t& pos) {
  int64_t value = -1;
  while (pos < text.size() && text[pos] >= '0' && text[pos] <= '9') {
    value = std::max<int64_t>(value, 0) * 10 + (text[pos++] - '0');
    if (value > kMaxFormatWidth) fail("a width or precision above {} in a format", kMaxFormatWidth);
  }
  return value;
}

// One '%' formatting: walks the format and hands out the values.
class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, std::string_view format, const Value& value)
      : runtime_(runtime), format_(format), value_(value) {
    if (value.is_sequence(SequenceKind::kTuple)) {
      values_ = value.sequence().items;
    } else {
      values_.push_back(value);
    }
  }

  std::string run() {
    std::string out;
    while (pos_ < format_.size()) {
      const size_t percent = std::min(format_.find('%', pos_), format_.size());
      out += format_.substr(pos_, percent - pos_);
      pos_ = percent;
      if (pos_ < format_.size()) out += field();
      if (static_cast<int64_t>(out.size()) > runtime_.meter().limits().max_value_bytes)
        fail("a formatted text is too long");
    }
    const bool all_used =
        used_ == values_.size() || value_.is_mapping() || value_.is_sequence(SequenceKind::kList);
    if (!all_used && !named_) fail("not all arguments were used by the format string");
    return out;
  }

 private:
  char take() {
    if (pos_ >= format_.size()) fail("incomplete format at the end of '{}'", format_);
    return format_[pos_++];
  }

  Value next_value() {
    if (named_value_) return *named_value_;
    if (used_ >= values_.size()) fail("not enough arguments for the format string");
    return values_[used_++];
  }

  void read_name() {
    named_value_ = nullptr;
    if (pos_ >= format_.size() || format_[pos_] != '(') return;
    const size_t close = format_.find(')', pos_);
    if (close == std::string_view::npos) fail("incomplete format key");
    if (!value_.is_mapping()) fail("a named format needs a mapping");
    named_value_ = value_.mapping().find(format_.substr(pos_ + 1, close - pos_ - 1));
    if (named_value_ == nullptr)
      fail("the format's key '{}' is missing", format_.substr(pos_ + 1, close - pos_ - 1));
    named_ = true;
    pos_ = close + 1;
  }

  int64_t read_width() {
    if (pos_ < format_.size() && format_[pos_] == '*') {
      ++pos_;
      const int64_t width = to_integer(next_value(), "a '*' width");
      if (width > kMaxFormatWidth || width < -kMaxFormatWidth)
        fail("a width above {} in a format", kMaxFormatWidth);
      return width;
    }
    return read_number(format_, pos_);
  }

  std::string field() {
    ++pos_;
    read_name();
    bool left = false;
    bool zero = false;
    NumberFormat number;
    for (; pos_ < format_.size(); ++pos_) {
      const char flag = format_[pos_];
      if (flag == '-')
        left = true;
      else if (flag == '0')
        zero = true;
      else if (flag == '+')
        number.sign = '+';
      else if (flag == ' ')
        number.sign = number.sign == '+' ? '+' : ' ';
      else if (flag == '#')
        number.alternate = true;
      else
        break;
    }
    int64_t width = read_width();
    if (width < -1) {
      left = true;
      width = -width;
    }
    if (pos_ < format_.size() && format_[pos_] == '.') {
      ++pos_;
      number.precision = std::max<int64_t>(read_width(), 0);
    }
    while (pos_ < format_.size() && std::string_view("hlL").find(format_[pos_]) != std::string_view::npos)
      ++pos_;
    number.type = take();
    if (number.type == '%') return "%";
    bool numeric = false;
    std::string text = convert(number, &numeric);
    const char align = left ? '<' : zero && numeric ? '=' : '>';
    return pad(runtime_, std::move(text), width, align, align == '=' ? "0" : " ");
  }

  std::string convert(NumberFormat& number, bool* numeric) {
    const Value value = next_value();
    switch (number.type) {
      case 's':
      case 'r':
      case 'a':
        return truncated(converted(runtime_, value, number.type), number.precision);
      case 'c':
        if (value.is_string() && value.text().length == 1) return value.string();
        if (!value.is_integral()) fail("%c needs a character or an integer");
        return format_number(value, number);
      case 'd':
      case 'i':
      case 'u':
        return decimal(value, number, numeric);
      case 'x':
      case 'X':
      case 'o':
        *numeric = true;
        if (!value.is_integral()) fail("%{} needs an integer, not '{}'", number.type, type_name(value));
        return with_precision(value, number);
      default:
        break;
    }
    if (std::string_view("eEfFgG").find(number.type) == std::string_view::npos) {
      fail("unsupported format character '{}'", number.type);
    }
    require_number(value, number.type);
    *numeric = true;
    return format_number(Value(value.number()), number);
  }

  void require_number(const Value& value, char type) const {
    require_defined(value);
    if (!value.is_number()) fail("%{} needs a number, not '{}'", type, type_name(value));
  }

  std::string decimal(const Value& value, NumberFormat& number, bool* numeric) {
    require_number(value, number.type);
    *numeric = true;
    number.type = 'd';
    if (!value.is_float()) return with_precision(value, number);
    constexpr double kTwo63 = 9223372036854775808.0;
    const double f = value.floating();
    if (!(f >= -kTwo63 && f < kTwo63)) fail("%d of a float outside 64 bits");
    return with_precision(Value(static_cast<int64_t>(f)), number);
  }

  // The precision of an integer is its least number of digits.
  std::string with_precision(const Value& value, const NumberFormat& number) {
    NumberFormat plain = number;
    plain.precision = -1;
    std::string text = format_number(value, plain);
    size_t sign = text[0] == '-' || text[0] == '+' || text[0] == ' ' ? 1 : 0;
    if (number.alternate && number.type != 'd') sign += 2;
    const int64_t missing = number.precision - static_cast<int64_t>(text.size() - sign);
    if (missing <= 0) return text;
    return text.substr(0, sign) + std::string(static_cast<size_t>(missing), '0') + text.substr(sign);
  }

  Runtime& runtime_;
  std::string_view format_;
  const Value& value_;
  std::vector<Value> values_;
  size_t pos_ = 0;
  size_t used_ = 0;
  bool named_ = false;
  const Value* named_value_ = nullptr;
};

struct FormatSpec {
  std::string fill = " ";
  char align = '\0';
  int64_t width = -1;
  NumberFormat number;
};

FormatSpec parse_spec(std::string_view text) {
  FormatSpec spec;
  size_t pos = 0;
  const auto is_align = [&](size_t i) {
    return i < text.size() && std::string_view("<>^=").find(text[i]) != std::string_view::npos;
  };
  const size_t first = text.empty() ? 0 : decode_utf8(text, 0).size;
  if (first != 0 && is_align(first)) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    pos = first + 1;
  } else if (is_align(0)) {
    spec.align = text[0];
    pos = 1;
  }
  const auto take = [&](std::string_view any) {
    return pos < text.size() && any.find(text[pos]) != std::string_view::npos ? text[pos++] : '\0';
  };
  if (const char sign = take("+- ")) spec.number.sign = sign;
  spec.number.alternate = take("#") != '\0';
  if (take("0") != '\0' && spec.align == '\0') {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = read_number(text, pos);
  spec.number.grouping = take(",_");
  if (take(".") != '\0') {
    spec.number.precision = read_number(text, pos);
    if (spec.number.precision < 0) fail("a format specification lacks its precision");
  }
  if (pos < text.size()) spec.number.type = text[pos++];
  if (pos != text.size()) fail("invalid format specification '{}'", text);
  return spec;
}

std::string apply_spec(Runtime& runtime, const Value& value, std::string_view text) {
  if (text.empty()) return runtime.text_of(value);
  const FormatSpec spec = parse_spec(text);
  if (value.is_number() && !(value.is_bool() && spec.number.type == '\0')) {
    return pad(runtime, format_number(value, spec.number), spec.width, spec.align == '\0' ? '>' : spec.align,
               spec.fill);
  }
  if (value.is_bool())
    return pad(runtime, format_number(Value(value.integer()), spec.number), spec.width,
               spec.align == '\0' ? '>' : spec.align, spec.fill);
  if (!value.is_string()) fail("'{}' takes no format specification", type_name(value));
  if (spec.number.type != '\0' && spec.number.type != 's')
    fail("format type '{}' does not fit a string", spec.number.type);
  if (spec.align == '=' && spec.fill != "0") fail("'=' alignment does not fit a string");
  const char align = spec.align == '\0' || spec.align == '=' ? '<' : spec.align;
  return pad(runtime, truncated(value.string(), spec.number.precision), spec.width, align, spec.fill);
}

// One str.format call.
class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Args& args) : runtime_(runtime), args_(args) {}

  std::string run(std::string_view format, int nesting) {
    if (nesting > kMaxFieldNesting) fail("format fields nest too deep");
    std::string out;
    for (size_t pos = 0; pos < format.size();) {
      const char c = format[pos];
      if (c != '{' && c != '}') {
        out += c;
        ++pos;
      } else if (pos + 1 < format.size() && format[pos + 1] == c) {
        out += c;
        pos += 2;
      } else if (c == '}') {
        fail("single '}}' in a format string");
      } else {
        const size_t end = field_end(format, pos + 1);
        out += field(format.substr(pos + 1, end - pos - 1), nesting);
        pos = end + 1;
      }
      runtime_.meter().step();
    }
    return out;
  }

 private:
  static size_t field_end(std::string_view format, size_t pos) {
    int depth = 1;
    for (; pos < format.size(); ++pos) {
      depth += format[pos] == '{' ? 1 : format[pos] == '}' ? -1 : 0;
      if (depth == 0) return pos;
    }
    fail("expected '}}' before the end of a format string");
  }

  std::string field(std::string_view text, int nesting) {
    const size_t colon = std::min(text.find(':'), text.size());
    std::string_view name = text.substr(0, colon);
    char conversion = '\0';
    if (const size_t bang = name.find('!'); bang != std::string_view::npos) {
      if (bang + 2 != name.size() || std::string_view("sra").find(name[bang + 1]) == std::string_view::npos) {
        fail("invalid conversion in format field '{}'", text);
      }
      conversion = name[bang + 1];
      name = name.substr(0, bang);
    }
    Value value = lookup(name);
    if (conversion != '\0') value = Value(converted(runtime_, value, conversion));
    const std::string spec = colon < text.size() ? run(text.substr(colon + 1), nesting + 1) : "";
    return apply_spec(runtime_, value, spec);
  }

  Value lookup(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, first_end));
    for (size_t pos = first_end; pos < name.size();) {
      if (name[pos] == '.') {
        const size_t end = std::min(name.find_first_of(".[", pos + 1), name.size());
        value = runtime_.get_attribute(value, name.substr(pos + 1, end - pos - 1));
        pos = end;
      } else {
        const size_t end = name.find(']', pos);
        if (name[pos] != '[' || end == std::string_view::npos) fail("invalid format field '{}'", name);
        value = runtime_.get_item(value, key_of(name.substr(pos + 1, end - pos - 1)));
        pos = end + 1;
      }
    }
    return value;
  }

  static bool is_index(std::string_view text) {
    return !text.empty() && text.size() < 10 &&
           text.find_first_not_of("0123456789") == std::string_view::npos;
  }

  static Value key_of(std::string_view text) {
    if (!is_index(text)) return Value(text);
    int64_t index = 0;
    std::from_chars(text.data(), text.data() + text.size(), index);
    return Value(index);
  }

  Value argument(std::string_view name) {
    if (name.empty() || is_index(name)) {
      const bool automatic = name.empty();
      if (automatic ? manual_ : next_ != 0) fail("automatic and explicit format numbering cannot be mixed");
      manual_ |= !automatic;
      const size_t index = automatic ? next_++ : static_cast<size_t>(key_of(name).integer());
      if (index >= args_.positional.size()) fail("format field {} has no argument", index);
      return args_.positional[index];
    }
    for (const auto& [key, value] : args_.named) {
      if (key == name) return value;
    }
    fail("format field '{}' has no argument", name);
  }

  Runtime& runtime_;
  const Args& args_;
  size_t next_ = 0;
  bool manual_ = false;
};

}  // namespace

Value format_percent(Runtime& runtime, std::string_view format, const Value& value) {
  return runtime.string(PercentFormatter(runtime, format, value).run());
}

Value format_braces(Runtime& runtime, std::string_view format, const Args& args) {
  return runtime.string(BraceFormatter(runtime, args).run(format, 0));
}

}  // namespace minimax::jinja
