#include "jinja/text_methods.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "core/error.h"
#include "jinja/number_format.h"
#include "jinja/operators.h"
#include "jinja/text_format.h"
#include "jinja/unicode.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

size_t char_size_before(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return text.size() - begin;
}

const std::string* chars_of(const Parameters& p, size_t i) {
  return p.is_none_or_absent(i) ? nullptr : &p.string(i);
}

template <bool kLeft, bool kRight>
Value strip_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("strip", std::move(args), {"chars"});
  runtime.meter().scan(static_cast<int64_t>(self.utf8.size()));
  return runtime.string(std::string(strip(self.utf8, chars_of(p, 0), kLeft, kRight)));
}

Value to_values(Runtime& runtime, const std::vector<std::string>& parts) {
  std::vector<Value> values;
  values.reserve(parts.size());
  for (const std::string& part : parts) values.push_back(runtime.string(part));
  return runtime.list(std::move(values));
}

std::vector<std::string> split_at(std::string_view text, std::string_view separator, int64_t limit) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (limit != 0) {
    const size_t found = text.find(separator, begin);
    if (found == std::string_view::npos) break;
    parts.emplace_back(text.substr(begin, found - begin));
    begin = found + separator.size();
    --limit;
  }
  parts.emplace_back(text.substr(begin));
  return parts;
}

std::vector<std::string> split_at_from_right(std::string_view text, std::string_view separator,
                                             int64_t limit) {
  std::vector<std::string> parts;
  size_t end = text.size();
  while (limit != 0 && end >= separator.size()) {
    const size_t found = text.rfind(separator, end - separator.size());
    if (found == std::string_view::npos) break;
    parts.emplace_back(text.substr(found + separator.size(), end - found - separator.size()));
    end = found;
    --limit;
  }
  parts.emplace_back(text.substr(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

size_t word_size(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    const DecodedChar c = decode_utf8(text, pos);
    if (is_space(c.code_point)) break;
    pos += c.size;
  }
  return pos;
}

std::vector<std::string> split_words(std::string_view text, int64_t limit) {
  std::vector<std::string> parts;
  text.remove_prefix(leading_space(text));
  while (!text.empty()) {
    if (limit-- == 0) {
      parts.emplace_back(text);
      break;
    }
    const size_t size = word_size(text);
    parts.emplace_back(text.substr(0, size));
    text.remove_prefix(size);
    text.remove_prefix(leading_space(text));
  }
  return parts;
}

std::vector<std::string> split_words_from_right(std::string_view text, int64_t limit) {
  std::vector<std::string> parts;
  text.remove_suffix(trailing_space(text));
  while (!text.empty()) {
    if (limit-- == 0) {
      parts.emplace_back(text);
      break;
    }
    size_t size = 0;
    while (size < text.size()) {
      const size_t c = char_size_before(text.substr(0, text.size() - size));
      if (is_space(decode_utf8(text, text.size() - size - c).code_point)) break;
      size += c;
    }
    parts.emplace_back(text.substr(text.size() - size));
    text.remove_suffix(size);
    text.remove_suffix(trailing_space(text));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

template <bool kFromRight>
Value split_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("split", std::move(args), {"sep", "maxsplit"});
  const int64_t limit = p.integer_or(1, -1);
  runtime.meter().allocate(static_cast<int64_t>(self.utf8.size()));
  if (p.is_none_or_absent(0)) {
    return to_values(runtime,
                     kFromRight ? split_words_from_right(self.utf8, limit) : split_words(self.utf8, limit));
  }
  const std::string& separator = p.string(0);
  if (separator.empty()) fail("split() with an empty separator");
  return to_values(runtime, kFromRight ? split_at_from_right(self.utf8, separator, limit)
                                       : split_at(self.utf8, separator, limit));
}

Value splitlines_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("splitlines", std::move(args), {"keepends"});
  return to_values(runtime, split_lines(self.utf8, p.truth_or(0, false)));
}

// The part of the text that optional start and end arguments select; nothing when start is past the end.
std::optional<std::string_view> window(const Text& self, const Parameters& p, size_t first) {
  const auto bound = [&](size_t i, int64_t fallback) {
    if (p.is_none_or_absent(i)) return fallback;
    int64_t at = to_integer(p[i], "an index");
    if (at < 0) at = std::max<int64_t>(at, -self.length) + self.length;
    return at;
  };
  const int64_t begin = bound(first, 0);
  const int64_t end = std::min(bound(first + 1, self.length), self.length);
  if (begin > self.length || begin > end) return std::nullopt;
  return substring(self, begin, end);
}

template <bool kAtEnd>
Value affix_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p(kAtEnd ? "endswith" : "startswith", std::move(args), {"affix", "start", "end"});
  const std::optional<std::string_view> part = window(self, p, 1);
  const auto matches = [&](const Value& affix) {
    runtime.meter().scan(affix.weight());
    const std::string& text = to_text(affix, "the argument of startswith() or endswith()").utf8;
    if (!part) return false;
    return kAtEnd ? part->ends_with(text) : part->starts_with(text);
  };
  const Value& affix = p.required(0);
  if (!affix.is_sequence(SequenceKind::kTuple)) return matches(affix);
  const auto& items = affix.sequence().items;
  return std::any_of(items.begin(), items.end(), matches);
}

void charge_search(Runtime& runtime, std::string_view text, std::string_view part) {
  runtime.meter().step(1 + static_cast<int64_t>((text.size() / 64) * (1 + part.size() / 64)));
}

// RETURNS: the character index of a match, -1 when there is none.
template <bool kFromRight>
int64_t search(Runtime& runtime, const Text& self, const Parameters& p) {
  const std::string& part = p.string(0);
  const std::optional<std::string_view> text = window(self, p, 1);
  if (!text) return -1;
  charge_search(runtime, *text, part);
  const size_t found = kFromRight ? text->rfind(part) : text->find(part);
  if (found == std::string_view::npos) return -1;
  const auto offset = static_cast<size_t>(text->data() - self.utf8.data());
  return utf8_length(std::string_view(self.utf8).substr(0, offset + found));
}

template <bool kFromRight, bool kMustExist>
Value find_method_of_text(Runtime& runtime, const Text& self, Args args) {
  const Parameters p(kMustExist ? "index" : "find", std::move(args), {"sub", "start", "end"});
  const int64_t at = search<kFromRight>(runtime, self, p);
  if (kMustExist && at < 0) fail("substring not found");
  return at;
}

Value count_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("count", std::move(args), {"sub", "start", "end"});
  const std::string& part = p.string(0);
  const std::optional<std::string_view> text = window(self, p, 1);
  if (!text) return 0;
  if (part.empty()) return utf8_length(*text) + 1;
  charge_search(runtime, *text, part);
  int64_t count = 0;
  for (size_t at = text->find(part); at != std::string_view::npos; at = text->find(part, at + part.size()))
    ++count;
  return count;
}

Value replace_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("replace", std::move(args), {"old", "new", "count"});
  return replace_text(runtime, self.utf8, p.string(0), p.string(1), p.integer_or(2, -1));
}

Value join_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("join", std::move(args), {"iterable"});
  std::vector<std::string> parts;
  for (const Value& item : runtime.iterate(p.required(0))) {
    runtime.meter().allocate(item.weight());
    parts.push_back(to_text(item, "an item of join()").utf8);
  }
  return join_text(runtime, self.utf8, parts);
}

template <std::string (*kMap)(std::string_view)>
Value case_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("a case method", std::move(args), {});
  runtime.meter().allocate(static_cast<int64_t>(self.utf8.size()) * 3);
  return Value(kMap(self.utf8));
}

template <bool kAtEnd>
Value remove_affix_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("removeprefix", std::move(args), {"affix"});
  const std::string& affix = p.string(0);
  std::string_view text = self.utf8;
  if (!kAtEnd && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (kAtEnd && text.ends_with(affix)) text.remove_suffix(affix.size());
  return runtime.string(std::string(text));
}

template <char kAlign>
Value justify_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("ljust", std::move(args), {"width", "fillchar"});
  const std::string fill = p.has(1) ? p.string(1) : " ";
  if (utf8_length(fill) != 1) fail("the fill character must be one character");
  const int64_t width = to_integer(p.required(0), "a width");
  // Python centres with the odd space on the left when the width is odd.
  const int64_t missing = width - self.length;
  if (kAlign == '^' && missing > 0 && missing % 2 == 1 && width % 2 == 1) {
    return Value(pad(runtime, pad(runtime, self.utf8, width - 1, '^', fill), width, '>', fill));
  }
  return runtime.string(pad(runtime, self.utf8, width, kAlign, fill));
}

Value zfill_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("zfill", std::move(args), {"width"});
  const size_t sign = !self.utf8.empty() && (self.utf8[0] == '-' || self.utf8[0] == '+') ? 1 : 0;
  const int64_t width = to_integer(p.required(0), "a width");
  std::string digits = pad(runtime, self.utf8.substr(sign),
                           std::max<int64_t>(width, 1) - static_cast<int64_t>(sign), '>', "0");
  return runtime.string(self.utf8.substr(0, sign) + (width <= self.length ? self.utf8.substr(sign) : digits));
}

template <bool kFromRight>
Value partition_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("partition", std::move(args), {"sep"});
  const std::string& separator = p.string(0);
  if (separator.empty()) fail("partition() with an empty separator");
  charge_search(runtime, self.utf8, separator);
  const size_t at = kFromRight ? self.utf8.rfind(separator) : self.utf8.find(separator);
  std::vector<Value> parts(3, Value(""));
  if (at == std::string::npos) {
    parts[kFromRight ? 2 : 0] = runtime.string(self.utf8);
  } else {
    parts[0] = runtime.string(self.utf8.substr(0, at));
    parts[1] = Value(separator);
    parts[2] = runtime.string(self.utf8.substr(at + separator.size()));
  }
  return runtime.tuple(std::move(parts));
}

Value expandtabs_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("expandtabs", std::move(args), {"tabsize"});
  const int64_t size = p.integer_or(0, 8);
  std::string out;
  int64_t column = 0;
  for (const char c : self.utf8) {
    if (c == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      runtime.meter().allocate(spaces);
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      out += c;
      if ((static_cast<uint8_t>(c) & 0xC0) != 0x80) ++column;
      if (c == '\n' || c == '\r') column = 0;
    }
  }
  return runtime.string(std::move(out));
}

Value format_method(Runtime& runtime, const Text& self, Args args) {
  return format_braces(runtime, self.utf8, args);
}

Value format_map_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("format_map", std::move(args), {"mapping"});
  if (!p.required(0).is_mapping()) fail("format_map() needs a mapping");
  Args named;
  for (const auto& [key, value] : p[0].mapping().entries()) {
    if (key.is_string()) named.named.emplace_back(key.string(), value);
  }
  return format_braces(runtime, self.utf8, named);
}

}  // namespace

TextMethod find_text_method(std::string_view name) {
  static const std::unordered_map<std::string_view, TextMethod> kMethods = {
      {"capitalize", case_method<capitalize>},
      {"center", justify_method<'^'>},
      {"count", count_method},
      {"endswith", affix_method<true>},
      {"expandtabs", expandtabs_method},
      {"find", find_method_of_text<false, false>},
      {"format", format_method},
      {"format_map", format_map_method},
      {"index", find_method_of_text<false, true>},
      {"join", join_method},
      {"ljust", justify_method<'<'>},
      {"lower", case_method<to_lower>},
      {"lstrip", strip_method<true, false>},
      {"partition", partition_method<false>},
      {"removeprefix", remove_affix_method<false>},
      {"removesuffix", remove_affix_method<true>},
      {"replace", replace_method},
      {"rfind", find_method_of_text<true, false>},
      {"rindex", find_method_of_text<true, true>},
      {"rjust", justify_method<'>'>},
      {"rpartition", partition_method<true>},
      {"rsplit", split_method<true>},
      {"rstrip", strip_method<false, true>},
      {"split", split_method<false>},
      {"splitlines", splitlines_method},
      {"startswith", affix_method<false>},
      {"strip", strip_method<true, true>},
      {"swapcase", case_method<swap_case>},
      {"title", case_method<to_title>},
      {"upper", case_method<to_upper>},
      {"zfill", zfill_method},
  };
  const auto found = kMethods.find(name);
  return found == kMethods.end() ? find_text_predicate(name) : found->second;
}

std::string_view strip(std::string_view text, const std::string* chars, bool left, bool right) {
  if (chars == nullptr) {
    if (left) text.remove_prefix(leading_space(text));
    if (right) text.remove_suffix(trailing_space(text));
    return text;
  }
  // A whole character is looked up, so a match inside another character cannot happen.
  while (left && !text.empty()) {
    const size_t size = decode_utf8(text, 0).size;
    if (chars->find(text.substr(0, size)) == std::string::npos) break;
    text.remove_prefix(size);
  }
  while (right && !text.empty()) {
    const size_t size = char_size_before(text);
    if (chars->find(text.substr(text.size() - size)) == std::string::npos) break;
    text.remove_suffix(size);
  }
  return text;
}

Value replace_text(Runtime& runtime, const std::string& text, const std::string& from, const std::string& to,
                   int64_t count) {
  charge_search(runtime, text, from);
  std::string out;
  size_t pos = 0;
  if (from.empty()) {
    while (count != 0) {
      runtime.meter().allocate(static_cast<int64_t>(to.size()) + 1);
      out += to;
      --count;
      if (pos >= text.size()) break;
      const size_t size = decode_utf8(text, pos).size;
      out.append(text, pos, size);
      pos += size;
    }
  }
  while (!from.empty() && count != 0) {
    const size_t found = text.find(from, pos);
    if (found == std::string::npos) break;
    runtime.meter().allocate(static_cast<int64_t>(found - pos + to.size()) + 1);
    out.append(text, pos, found - pos);
    out += to;
    pos = found + from.size();
    --count;
  }
  out.append(text, std::min(pos, text.size()));
  return runtime.string(std::move(out));
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    const char32_t v = c.code_point;
    const size_t end = pos;
    pos += c.size;
    const bool breaks =
        (v >= 0xA && v <= 0xD) || (v >= 0x1C && v <= 0x1E) || v == 0x85 || v == 0x2028 || v == 0x2029;
    if (!breaks) continue;
    if (v == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    lines.emplace_back(text.substr(begin, (keep_ends ? pos : end) - begin));
    begin = pos;
  }
  if (begin < text.size()) lines.emplace_back(text.substr(begin));
  return lines;
}

Value join_text(Runtime& runtime, const std::string& separator, const std::vector<std::string>& parts) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i != 0) runtime.meter().allocate(static_cast<int64_t>(separator.size()));
    if (i != 0) out += separator;
    out += parts[i];
  }
  return runtime.string(std::move(out));
}

}  // namespace minimax::jinja
