// The str methods that answer yes or no about every character: isdigit, isupper, ...
#include <unordered_map>

#include "jinja/text_methods.h"
#include "jinja/unicode.h"
#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

template <bool (*kTest)(char32_t)>
Value all_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("a str predicate", std::move(args), {});
  runtime.meter().scan(static_cast<int64_t>(self.utf8.size()) * 16);
  if (self.utf8.empty()) return false;
  for (size_t pos = 0; pos < self.utf8.size();) {
    const DecodedChar c = decode_utf8(self.utf8, pos);
    if (!kTest(c.code_point)) return false;
    pos += c.size;
  }
  return true;
}

template <Property kProperty>
bool has(char32_t c) {
  return has_property(c, kProperty);
}

// isupper / islower: at least one cased character, and none of the other case.
template <bool kUpper>
Value all_case_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("a case predicate", std::move(args), {});
  runtime.meter().scan(static_cast<int64_t>(self.utf8.size()) * 16);
  bool found = false;
  for (size_t pos = 0; pos < self.utf8.size();) {
    const DecodedChar c = decode_utf8(self.utf8, pos);
    pos += c.size;
    if (has_property(c.code_point, kUpper ? Property::kLower : Property::kUpper)) return false;
    if (has_property(c.code_point, Property::kTitle)) return false;
    found |= has_property(c.code_point, kUpper ? Property::kUpper : Property::kLower);
  }
  return found;
}

Value istitle_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("istitle", std::move(args), {});
  runtime.meter().scan(static_cast<int64_t>(self.utf8.size()) * 16);
  bool found = false;
  bool in_word = false;
  for (size_t pos = 0; pos < self.utf8.size();) {
    const DecodedChar c = decode_utf8(self.utf8, pos);
    pos += c.size;
    if (has_property(c.code_point, Property::kUpper) || has_property(c.code_point, Property::kTitle)) {
      if (in_word) return false;
      found = in_word = true;
    } else if (has_property(c.code_point, Property::kLower)) {
      if (!in_word) return false;
    } else {
      in_word = false;
    }
  }
  return found;
}

Value isidentifier_method(Runtime& runtime, const Text& self, Args args) {
  const Parameters p("isidentifier", std::move(args), {});
  runtime.meter().scan(static_cast<int64_t>(self.utf8.size()) * 16);
  for (size_t pos = 0; pos < self.utf8.size();) {
    const DecodedChar c = decode_utf8(self.utf8, pos);
    if (!has_property(c.code_point, pos == 0 ? Property::kIdStart : Property::kIdContinue)) return false;
    pos += c.size;
  }
  return !self.utf8.empty();
}

Value isascii_method(Runtime&, const Text& self, Args args) {
  const Parameters p("isascii", std::move(args), {});
  return self.ascii();
}

Value isprintable_method(Runtime& runtime, const Text& self, Args args) {
  if (self.utf8.empty()) return true;
  return all_method<has<Property::kPrintable>>(runtime, self, std::move(args));
}

}  // namespace

TextMethod find_text_predicate(std::string_view name) {
  static const std::unordered_map<std::string_view, TextMethod> kPredicates = {
      {"isalnum", all_method<is_alnum>},
      {"isalpha", all_method<has<Property::kAlpha>>},
      {"isascii", isascii_method},
      {"isdecimal", all_method<has<Property::kDecimal>>},
      {"isdigit", all_method<has<Property::kDigit>>},
      {"isidentifier", isidentifier_method},
      {"islower", all_case_method<false>},
      {"isnumeric", all_method<has<Property::kNumeric>>},
      {"isprintable", isprintable_method},
      {"isspace", all_method<is_space>},
      {"istitle", istitle_method},
      {"isupper", all_case_method<true>},
  };
  const auto found = kPredicates.find(name);
  return found == kPredicates.end() ? nullptr : found->second;
}

}  // namespace minimax::jinja
