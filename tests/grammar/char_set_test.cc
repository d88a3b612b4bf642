// Characters in UTF-8, against an encoder of the test's own.
#include "grammar/char_set.h"

#include <gtest/gtest.h>

#include <string>

namespace minimax::grammar {
namespace {

std::string encoded(uint32_t c) {
  std::string text;
  const auto put = [&](uint32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 + c / 64);
    put(0x80 + c % 64);
  } else if (c < 0x10000) {
    put(0xE0 + c / 4096);
    put(0x80 + c / 64 % 64);
    put(0x80 + c % 64);
  } else {
    put(0xF0 + c / 262144);
    put(0x80 + c / 4096 % 64);
    put(0x80 + c / 64 % 64);
    put(0x80 + c % 64);
  }
  return text;
}

bool reads(const std::vector<std::vector<ByteRange>>& sequences, const std::string& text) {
  int count = 0;
  for (const auto& sequence : sequences) {
    bool fits = sequence.size() == text.size();
    for (size_t i = 0; fits && i < text.size(); ++i) {
      const auto byte = static_cast<uint8_t>(text[i]);
      fits = sequence[i].first <= byte && byte <= sequence[i].last;
    }
    count += fits ? 1 : 0;
  }
  EXPECT_LE(count, 1) << "two sequences for one character";
  return count > 0;
}

TEST(CharSet, SequencesReadTheSetsCharactersAndNoOthers) {
  const std::vector<CharSet> sets{
      CharSet::all(),
      {{'a', 'z'}},
      {{'"', '"'}, {0xE9, 0x3A9}, {0x7F, 0x80}},
      CharSet({{'"', '"'}, {'\\', '\\'}, {0, 0x1F}}).complement(),
      {{0x7FF, 0x800}, {0xFFFF, 0x10001}, {0x12345, 0x54321}},
      {{0x10FFFF, 0x10FFFF}},
  };
  for (const CharSet& set : sets) {
    const auto sequences = utf8_sequences(set);
    for (uint32_t c = 0; c <= kLastCharacter; c += c < 0x3000 || c > 0x10FF00 ? 1 : 37) {
      if (c >= 0xD800 && c <= 0xDFFF) continue;
      ASSERT_EQ(reads(sequences, encoded(c)), set.contains(c)) << c;
    }
  }
}

TEST(CharSet, SurrogatesAndLongFormsAreNoCharacters) {
  const auto sequences = utf8_sequences(CharSet::all());
  for (const char* text :
       {"\xED\xA0\x80", "\xED\xBF\xBF", "\xC0\x80", "\xE0\x80\x80", "\xF4\x90\x80\x80", "\xF8"})
    EXPECT_FALSE(reads(sequences, text));
  EXPECT_TRUE(CharSet({{0xD800, 0xDFFF}}).empty());
}

TEST(CharSet, RangesThatTouchBecomeOne) {
  CharSet set{{5, 9}, {20, 30}};
  set.add(10, 19);
  EXPECT_EQ(set.ranges(), (std::vector<CharRange>{{5, 30}}));
  EXPECT_EQ(set.complement().complement().ranges(), set.ranges());
  EXPECT_EQ(set.intersection({{8, 12}, {40, 50}}).ranges(), (std::vector<CharRange>{{8, 12}}));
}

}  // namespace
}  // namespace minimax::grammar
