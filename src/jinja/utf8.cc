#include "jinja/utf8.h"

#include <algorithm>

namespace minimax::jinja {
namespace {

struct Lead {
  uint8_t size;
  uint8_t bits;
  uint8_t second_min;
  uint8_t second_max;
};

// The table of well-formed sequences (Unicode standard, table 3-7): the second byte's range depends on the
// lead.
Lead lead_of(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {2, static_cast<uint8_t>(byte & 0x1F), 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0xD, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, static_cast<uint8_t>(byte & 0xF), 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, static_cast<uint8_t>(byte & 0x7), 0x80, 0xBF};
  if (byte == 0xF4) return {4, 4, 0x80, 0x8F};
  return {0, 0, 0, 0};
}

}  // namespace

DecodedChar decode_utf8(std::string_view text, size_t pos) {
  const auto byte_at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte_at(pos);
  if (first < 0x80) return {first, 1, true};
  const Lead lead = lead_of(first);
  if (lead.size == 0) return {kReplacement, 1, false};
  char32_t value = lead.bits;
  for (uint8_t i = 1; i < lead.size; ++i) {
    const uint8_t low = i == 1 ? lead.second_min : uint8_t{0x80};
    const uint8_t high = i == 1 ? lead.second_max : uint8_t{0xBF};
    if (pos + i >= text.size() || byte_at(pos + i) < low || byte_at(pos + i) > high) {
      return {kReplacement, i, false};
    }
    value = (value << 6) | (byte_at(pos + i) & 0x3FU);
  }
  return {value, lead.size, true};
}

bool is_incomplete_utf8(std::string_view text, size_t pos) {
  const DecodedChar c = decode_utf8(text, pos);
  return !c.valid && pos + c.size == text.size() && lead_of(static_cast<uint8_t>(text[pos])).size > c.size;
}

void append_utf8(std::string& out, char32_t code_point) {
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) code_point = kReplacement;
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(static_cast<uint8_t>(byte))); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

bool is_valid_utf8(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    if (static_cast<uint8_t>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const DecodedChar c = decode_utf8(text, pos);
    if (!c.valid) return false;
    pos += c.size;
  }
  return true;
}

std::string sanitize_utf8(std::string_view text) {
  if (is_valid_utf8(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    append_utf8(out, c.code_point);
    pos += c.size;
  }
  return out;
}

int64_t utf8_length(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
}

}  // namespace minimax::jinja
