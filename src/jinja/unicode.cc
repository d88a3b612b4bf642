#include "jinja/unicode.h"

#include <algorithm>
#include <iterator>

#include "jinja/utf8.h"

namespace minimax::jinja {
namespace {

struct PropertyRange {
  uint32_t first, last;
  uint16_t mask;
};

struct CaseRange {
  uint32_t first, last, step;
  int32_t upper, lower, title;
};

struct CaseSpecial {
  uint32_t code_point;
  const char* upper;
  const char* lower;
  const char* title;
};

#include "jinja/unicode_tables.inc"

enum class Case { kUpper, kLower, kTitle };

constexpr char32_t kCapitalSigma = 0x3A3;
constexpr char32_t kFinalSigma = 0x3C2;

const CaseSpecial* find_special(char32_t c) {
  const auto* row = std::lower_bound(std::begin(kCaseSpecials), std::end(kCaseSpecials), c,
                                     [](const CaseSpecial& s, char32_t v) { return s.code_point < v; });
  return row != std::end(kCaseSpecials) && row->code_point == c ? row : nullptr;
}

// Ranges of step 2 interleave (upper, lower, upper, ...), so the neighbours before the found row count too.
const CaseRange* find_range(char32_t c) {
  const auto* row = std::upper_bound(std::begin(kCaseRanges), std::end(kCaseRanges), c,
                                     [](char32_t v, const CaseRange& r) { return v < r.first; });
  for (int back = 0; back < 3 && row != std::begin(kCaseRanges); ++back) {
    --row;
    if (c <= row->last && (c - row->first) % row->step == 0) return row;
  }
  return nullptr;
}

void append_cased(std::string& out, char32_t c, Case wanted) {
  if (c < 0x80) {
    const bool up = wanted != Case::kLower;
    if (up && c >= 'a' && c <= 'z') c -= 32;
    if (!up && c >= 'A' && c <= 'Z') c += 32;
    out.push_back(static_cast<char>(c));
    return;
  }
  if (const CaseSpecial* s = find_special(c)) {
    out += wanted == Case::kUpper ? s->upper : wanted == Case::kLower ? s->lower : s->title;
    return;
  }
  if (const CaseRange* r = find_range(c)) {
    const int32_t add = wanted == Case::kUpper ? r->upper : wanted == Case::kLower ? r->lower : r->title;
    c = static_cast<char32_t>(static_cast<int32_t>(c) + add);
  }
  append_utf8(out, c);
}

char32_t last_char(std::string_view text, size_t& end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  end = begin;
  return decode_utf8(text, begin).code_point;
}

// A capital sigma is written as a final one when a cased letter precedes it and none follows.
bool is_final_sigma(std::string_view text, size_t pos) {
  size_t before = pos;
  bool cased_before = false;
  while (before > 0) {
    const char32_t c = last_char(text, before);
    if (has_property(c, Property::kCaseIgnorable)) continue;
    cased_before = has_property(c, Property::kCased);
    break;
  }
  if (!cased_before) return false;
  for (size_t after = pos + 2; after < text.size();) {
    const DecodedChar c = decode_utf8(text, after);
    after += c.size;
    if (has_property(c.code_point, Property::kCaseIgnorable)) continue;
    return !has_property(c.code_point, Property::kCased);
  }
  return true;
}

void append_lower(std::string& out, std::string_view text, size_t pos, char32_t c) {
  if (c == kCapitalSigma && is_final_sigma(text, pos)) {
    append_utf8(out, kFinalSigma);
  } else {
    append_cased(out, c, Case::kLower);
  }
}

// Calls f(position, character) for every character.
template <typename F>
void for_each_char(std::string_view text, F&& f) {
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    f(pos, c.code_point);
    pos += c.size;
  }
}

}  // namespace

bool has_property(char32_t c, Property property) {
  const auto* row = std::upper_bound(std::begin(kPropertyRanges), std::end(kPropertyRanges), c,
                                     [](char32_t v, const PropertyRange& r) { return v < r.first; });
  if (row == std::begin(kPropertyRanges)) return false;
  --row;
  return c <= row->last && (row->mask & static_cast<uint16_t>(property)) != 0;
}

bool is_alnum(char32_t c) {
  return has_property(c, Property::kAlpha) || has_property(c, Property::kDecimal) ||
         has_property(c, Property::kDigit) || has_property(c, Property::kNumeric);
}

std::string to_upper(std::string_view text) {
  std::string out;
  for_each_char(text, [&](size_t, char32_t c) { append_cased(out, c, Case::kUpper); });
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  for_each_char(text, [&](size_t pos, char32_t c) { append_lower(out, text, pos, c); });
  return out;
}

std::string to_title(std::string_view text) {
  std::string out;
  bool in_word = false;
  for_each_char(text, [&](size_t pos, char32_t c) {
    if (in_word) {
      append_lower(out, text, pos, c);
    } else {
      append_cased(out, c, Case::kTitle);
    }
    in_word = has_property(c, Property::kCased);
  });
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  for_each_char(text, [&](size_t pos, char32_t c) {
    if (pos == 0) {
      append_cased(out, c, Case::kTitle);
    } else {
      append_lower(out, text, pos, c);
    }
  });
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  for_each_char(text, [&](size_t pos, char32_t c) {
    if (has_property(c, Property::kUpper)) {
      append_lower(out, text, pos, c);
    } else if (has_property(c, Property::kLower)) {
      append_cased(out, c, Case::kUpper);
    } else {
      append_utf8(out, c);
    }
  });
  return out;
}

size_t leading_space(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    const DecodedChar c = decode_utf8(text, pos);
    if (!is_space(c.code_point)) break;
    pos += c.size;
  }
  return pos;
}

size_t trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t begin = end;
    if (!is_space(last_char(text, begin))) break;
    end = begin;
  }
  return text.size() - end;
}

}  // namespace minimax::jinja
