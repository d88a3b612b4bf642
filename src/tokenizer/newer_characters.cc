#include "tokenizer/newer_characters.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "jinja/utf8.h"

namespace minimax::tokenizer {
namespace {

enum class NewerClass : uint8_t { kUpper, kLower, kOther, kMark, kNumber, kFormat };

struct NewerRange {
  uint32_t first, last;
  NewerClass kind;
};

#include "tokenizer/unicode_newer.inc"

// White space to PCRE2, a format character to Unicode since 6.3.
constexpr char32_t kMongolianVowelSeparator = 0x180E;

constexpr size_t kBlocks = 0x110000 / 256;

std::array<bool, kBlocks> make_blocks() {
  std::array<bool, kBlocks> blocks{};
  blocks[kMongolianVowelSeparator / 256] = true;
  for (const NewerRange& range : kNewerRanges) {
    for (uint32_t block = range.first / 256; block <= range.last / 256; ++block) blocks[block] = true;
  }
  return blocks;
}

// Stand-ins of three and of four bytes.
constexpr char32_t stand_in(NewerClass kind, bool four_bytes) {
  switch (kind) {
    case NewerClass::kUpper:
      return four_bytes ? 0x10400 : 0x1E00;
    case NewerClass::kLower:
      return four_bytes ? 0x10428 : 0x1E01;
    case NewerClass::kOther:
      return four_bytes ? 0x20000 : 0x4E00;
    case NewerClass::kMark:
      return four_bytes ? 0x1D165 : 0x0E31;
    case NewerClass::kNumber:
      return four_bytes ? 0x104A0 : 0x2460;
    case NewerClass::kFormat:
      return four_bytes ? 0xE0001 : 0x200B;
  }
  return jinja::kReplacement;
}

// RETURNS: the character itself when it needs no stand-in.
char32_t replacement_of(char32_t c) {
  if (c == kMongolianVowelSeparator) return stand_in(NewerClass::kFormat, false);
  const auto* range = std::upper_bound(std::begin(kNewerRanges), std::end(kNewerRanges), c,
                                       [](char32_t v, const NewerRange& r) { return v < r.first; });
  if (range == std::begin(kNewerRanges)) return c;
  --range;
  return c <= range->last ? stand_in(range->kind, c >= 0x10000) : c;
}

}  // namespace

bool replace_newer_characters(std::string_view text, std::string* out) {
  static const std::array<bool, kBlocks> kHasNewer = make_blocks();
  bool changed = false;
  for (size_t pos = 0; pos < text.size();) {
    if (static_cast<uint8_t>(text[pos]) < 0xE0) {
      ++pos;
      continue;
    }
    const jinja::DecodedChar c = jinja::decode_utf8(text, pos);
    if (kHasNewer[c.code_point / 256]) {
      const char32_t replacement = replacement_of(c.code_point);
      if (replacement != c.code_point) {
        if (!changed) *out = text;
        changed = true;
        std::string bytes;
        jinja::append_utf8(bytes, replacement);
        out->replace(pos, c.size, bytes);
      }
    }
    pos += c.size;
  }
  return changed;
}

}  // namespace minimax::tokenizer
