// Filters on text and numbers.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "core/error.h"
#include "jinja/filters.h"
#include "jinja/json_text.h"
#include "jinja/lexer_literals.h"
#include "jinja/number_format.h"
#include "jinja/operators.h"
#include "jinja/text_format.h"
#include "jinja/text_methods.h"
#include "jinja/unicode.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

template <std::string (*kMap)(std::string_view)>
Value map_text(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("a case filter", std::move(args), {});
  const std::string text = runtime.text_of(input);
  runtime.meter().allocate(static_cast<int64_t>(text.size()) * 3);
  return Value(kMap(text));
}

// The title filter: words start after white space, hyphens and opening brackets.
std::string title_words(std::string_view text) {
  std::string out;
  bool first = true;
  size_t word = 0;
  const auto finish = [&](size_t end) {
    if (end > word) out += to_lower(text.substr(word, end - word));
    word = end;
  };
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    const bool separator =
        is_space(c.code_point) ||
        (c.code_point < 0x80 &&
         std::string_view("-({[<").find(static_cast<char>(c.code_point)) != std::string_view::npos);
    if (separator) {
      finish(pos);
      out += text.substr(pos, c.size);
      word = pos + c.size;
      first = true;
    } else if (first) {
      out += to_upper(text.substr(pos, c.size));
      word = pos + c.size;
      first = false;
    }
    pos += c.size;
  }
  finish(text.size());
  return out;
}

Value trim_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("trim", std::move(args), {"chars"});
  const std::string text = runtime.text_of(input);
  return runtime.string(
      std::string(strip(text, p.is_none_or_absent(0) ? nullptr : &p.string(0), true, true)));
}

Value string_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("string", std::move(args), {});
  return input.is_string() ? input : Value(runtime.text_of(input));
}

Value safe_filter(Runtime& runtime, const Value& input, Args args) {
  return string_filter(runtime, input, std::move(args));
}

Value escape_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("escape", std::move(args), {});
  const std::string text = runtime.text_of(input);
  runtime.meter().allocate(static_cast<int64_t>(text.size()) * 5);
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return Value(std::move(out));
}

Value replace_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("replace", std::move(args), {"old", "new", "count"});
  return replace_text(runtime, runtime.text_of(input), runtime.text_of(p.required(0)),
                      runtime.text_of(p.required(1)), p.is_none_or_absent(2) ? -1 : p.integer_or(2, -1));
}

Value indent_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("indent", std::move(args), {"width", "first", "blank"});
  const Value width = p.value_or(0, Value(4));
  std::string indention;
  if (width.is_string()) {
    indention = width.string();
  } else {
    indention = pad(runtime, "", to_integer(width, "the width of indent"), '<', " ");
  }
  const std::string& text = to_text(input, "the input of indent").utf8;
  runtime.meter().allocate(static_cast<int64_t>(text.size()));
  const std::vector<std::string> lines = split_lines(text + "\n", false);
  std::string out = p.truth_or(1, false) ? indention : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    runtime.meter().allocate(static_cast<int64_t>(indention.size() + lines[i].size()) + 1);
    if (i != 0) out += '\n';
    if (i != 0 && (p.truth_or(2, false) || !lines[i].empty())) out += indention;
    out += lines[i];
  }
  return Value(std::move(out));
}

Value wordcount_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("wordcount", std::move(args), {});
  const std::string text = runtime.text_of(input);
  int64_t count = 0;
  bool in_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    pos += c.size;
    const bool is_word = c.code_point == '_' || is_alnum(c.code_point);
    count += is_word && !in_word;
    in_word = is_word;
  }
  return count;
}

Value truncate_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("truncate", std::move(args), {"length", "killwords", "end", "leeway"});
  const Text& text = to_text(input, "the input of truncate");
  const int64_t length = p.integer_or(0, 255);
  const Text end(p.has(2) ? p.string(2) : "...");
  const int64_t leeway = p.is_none_or_absent(3) ? 5 : p.integer_or(3, 5);
  if (length < end.length || leeway < 0) fail("truncate() needs a length of at least {}", end.length);
  if (text.length <= std::min(length, kMaxValueWeight) + std::min(leeway, kMaxValueWeight)) return input;
  std::string_view kept = substring(text, 0, length - end.length);
  if (!p.truth_or(1, false)) kept = kept.substr(0, std::min(kept.rfind(' '), kept.size()));
  return runtime.string(std::string(kept) + end.utf8);
}

Value center_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("center", std::move(args), {"width"});
  return find_text_method("center")(runtime, Text(runtime.text_of(input)), {{p.value_or(0, Value(80))}, {}});
}

Value format_filter(Runtime& runtime, const Value& input, Args args) {
  const std::string text = runtime.text_of(input);
  if (args.named.empty()) return format_percent(runtime, text, runtime.tuple(std::move(args.positional)));
  if (!args.positional.empty()) fail("format takes positional or named arguments, not both");
  Mapping mapping;
  for (auto& [name, value] : args.named) mapping.set(Value(name), std::move(value));
  return format_percent(runtime, text, Value(std::move(mapping)));
}

JsonStyle json_style(const Parameters& p) {
  JsonStyle style;
  style.ensure_ascii = p.truth_or(0, false);
  style.sort_keys = p.truth_or(3, false);
  if (!p.is_none_or_absent(1)) {
    const int64_t width = p[1].is_string() ? 0 : to_integer(p[1], "indent");
    if (width > kMaxFormatWidth) fail("an indent above {}", kMaxFormatWidth);
    style.indent =
        p[1].is_string() ? p[1].string() : std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    style.item_separator = ",";
  }
  if (!p.is_none_or_absent(2)) {
    if (!p[2].is_sequence() || p[2].sequence().items.size() != 2) fail("separators must be two strings");
    style.item_separator = to_text(p[2].sequence().items[0], "a separator").utf8;
    style.key_separator = to_text(p[2].sequence().items[1], "a separator").utf8;
  }
  return style;
}

Value tojson_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("tojson", std::move(args), {"ensure_ascii", "indent", "separators", "sort_keys"});
  return Value(to_json_text(runtime, input, json_style(p)));
}

// Underscores may stand between digits only.
std::optional<std::string> digits_without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto is_digit = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
    };
    if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return std::nullopt;
  }
  return out;
}

std::optional<double> parse_float(std::string_view text) {
  std::optional<std::string> clean = digits_without_underscores(strip(text, nullptr, true, true));
  if (!clean || clean->empty()) return std::nullopt;
  std::string_view rest = *clean;
  const bool negative = rest[0] == '-';
  if (rest[0] == '-' || rest[0] == '+') rest.remove_prefix(1);
  const std::string lower = to_lower(rest);
  double value = 0;
  if (lower == "inf" || lower == "infinity") {
    value = std::numeric_limits<double>::infinity();
  } else if (lower == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (rest.empty() || (rest[0] != '.' && (rest[0] < '0' || rest[0] > '9'))) return std::nullopt;
    const auto result = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    if (result.ptr != rest.data() + rest.size() || result.ec == std::errc::invalid_argument)
      return std::nullopt;
    if (result.ec == std::errc::result_out_of_range) value = parse_float_literal(rest);
  }
  return negative ? -value : value;
}

// int(text, base). RETURNS: nothing when the text is no integer. THROWS: Error above 64 bits.
std::optional<int64_t> parse_int(std::string_view text, int64_t base) {
  std::optional<std::string> clean = digits_without_underscores(strip(text, nullptr, true, true));
  if (!clean || clean->empty() || (base != 0 && (base < 2 || base > 36))) return std::nullopt;
  std::string digits = *clean;
  const bool negative = digits[0] == '-';
  if (digits[0] == '-' || digits[0] == '+') digits.erase(0, 1);
  if (digits.size() > 2 && digits[0] == '0') {
    const char mark = static_cast<char>(digits[1] | 0x20);
    const int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == 0 || base == marked)) {
      base = marked;
      digits.erase(0, 2);
    }
  }
  if (base == 0) {
    const bool octal_looking =
        digits.size() > 1 && digits[0] == '0' && digits.find_first_not_of('0') != std::string::npos;
    if (octal_looking) return std::nullopt;
    base = 10;
  }
  if (digits.empty() || digits[0] == '-' || digits[0] == '+') return std::nullopt;
  int64_t value = 0;
  digits.insert(0, negative ? "-" : "");
  const auto result =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
  if (result.ptr != digits.data() + digits.size() || result.ec == std::errc::invalid_argument)
    return std::nullopt;
  if (result.ec == std::errc::result_out_of_range)
    fail("the integer {} does not fit in 64 bits", text.substr(0, 40));
  return value;
}

Value truncate_to_int(double value) {
  constexpr double kTwo63 = 9223372036854775808.0;
  if (!(value >= -kTwo63 && value < kTwo63)) fail("the float {} does not fit in 64 bits", repr_float(value));
  return static_cast<int64_t>(value);
}

Value int_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("int", std::move(args), {"default", "base"});
  require_defined(input);
  runtime.meter().scan(input.weight());
  Value fallback = p.value_or(0, Value(0));
  if (input.is_integral()) return input.integer();
  if (input.is_float()) return std::isfinite(input.floating()) ? truncate_to_int(input.floating()) : fallback;
  if (!input.is_string()) return fallback;
  if (const auto value = parse_int(input.string(), p.integer_or(1, 10))) return *value;
  const auto value = parse_float(input.string());
  return value && std::isfinite(*value) ? truncate_to_int(*value) : fallback;
}

Value float_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("float", std::move(args), {"default"});
  require_defined(input);
  runtime.meter().scan(input.weight());
  if (input.is_number()) return input.number();
  const auto value = input.is_string() ? parse_float(input.string()) : std::nullopt;
  return value ? Value(*value) : p.value_or(0, Value(0.0));
}

Value abs_filter(Runtime&, const Value& input, Args args) {
  const Parameters p("abs", std::move(args), {});
  require_defined(input);
  if (input.is_float()) return std::fabs(input.floating());
  if (!input.is_integral()) fail("abs of a '{}'", type_name(input));
  return input.integer() < 0 ? negate(input) : Value(input.integer());
}

// round(value, digits) of Python: to the nearest decimal, ties by the exact binary value.
double round_decimal(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 323) return value;
  if (digits < -308) return std::copysign(0.0, value);
  if (digits >= 0) {
    const std::string text = fmt::format("{:.{}f}", value, digits);
    double rounded = 0;
    std::from_chars(text.data(), text.data() + text.size(), rounded);
    return rounded;
  }
  const double scale = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / scale) * scale;
}

Value round_integer(int64_t value, int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -18) return 0;
  int64_t scale = 1;
  for (int64_t i = digits; i < 0; ++i) scale *= 10;
  const int64_t rest = value % scale;
  const int64_t down = value - rest;
  const int64_t twice = (rest < 0 ? -rest : rest);
  const bool odd = (value / scale) % 2 != 0;
  const bool away = twice > scale - twice || (twice == scale - twice && odd);
  int64_t result = down;
  if (away && __builtin_add_overflow(down, value < 0 ? -scale : scale, &result))
    fail("the result of round does not fit in 64 bits");
  return result;
}

Value round_filter(Runtime&, const Value& input, Args args) {
  const Parameters p("round", std::move(args), {"precision", "method"});
  require_defined(input);
  const int64_t digits = p.integer_or(0, 0);
  const std::string method = p.has(1) ? p.string(1) : "common";
  if (!input.is_number()) fail("round of a '{}'", type_name(input));
  if (method == "common") {
    return input.is_float() ? Value(round_decimal(input.floating(), digits))
                            : round_integer(input.integer(), digits);
  }
  if (method != "ceil" && method != "floor") fail("the method of round must be common, ceil or floor");
  if (digits < -300 || digits > 300) fail("round to {} digits", digits);
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = input.number() * scale;
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

Value default_filter(Runtime&, const Value& input, Args args) {
  const Parameters p("default", std::move(args), {"default_value", "boolean"});
  const bool missing = input.is_undefined() || (p.truth_or(1, false) && !truthy(input));
  return missing ? p.value_or(0, Value("")) : input;
}

Value attr_filter(Runtime& runtime, const Value& input, Args args) {
  const Parameters p("attr", std::move(args), {"name"});
  require_defined(input);
  const std::string& name = p.string(0);
  if (input.is_mapping()) {
    // Items are not attributes.
    const Value found = runtime.get_attribute(input, name);
    return found.is_object() && input.mapping().find(std::string_view(name)) == nullptr
               ? found
               : Value::undefined("'dict object' has no attribute '" + name + "'");
  }
  return runtime.get_attribute(input, name);
}

}  // namespace

Filter find_scalar_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Filter> kFilters = {
      {"abs", abs_filter},
      {"attr", attr_filter},
      {"capitalize", map_text<capitalize>},
      {"center", center_filter},
      {"d", default_filter},
      {"default", default_filter},
      {"e", escape_filter},
      {"escape", escape_filter},
      {"float", float_filter},
      {"forceescape", escape_filter},
      {"format", format_filter},
      {"indent", indent_filter},
      {"int", int_filter},
      {"lower", map_text<to_lower>},
      {"replace", replace_filter},
      {"round", round_filter},
      {"safe", safe_filter},
      {"string", string_filter},
      {"title", map_text<title_words>},
      {"tojson", tojson_filter},
      {"trim", trim_filter},
      {"truncate", truncate_filter},
      {"upper", map_text<to_upper>},
      {"wordcount", wordcount_filter},
  };
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace minimax::jinja
