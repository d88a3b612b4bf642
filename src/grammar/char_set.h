// Sets of Unicode characters, and their spelling in UTF-8 bytes.
#pragma once

#include <cstdint>
#include <vector>

namespace minimax::grammar {

inline constexpr uint32_t kLastCharacter = 0x10FFFF;

// Both ends belong to it.
struct CharRange {
  uint32_t first = 0;
  uint32_t last = 0;
  bool operator==(const CharRange&) const = default;
};

// Code points without surrogates: sorted ranges that do not touch.
class CharSet {
 public:
  CharSet() = default;
  CharSet(std::initializer_list<CharRange> ranges);

  static CharSet all() { return CharSet().complement(); }

  void add(uint32_t first, uint32_t last);
  void add(const CharSet& other);
  bool contains(uint32_t character) const;
  bool empty() const { return ranges_.empty(); }
  CharSet complement() const;
  CharSet intersection(const CharSet& other) const;
  const std::vector<CharRange>& ranges() const { return ranges_; }

 private:
  std::vector<CharRange> ranges_;
};

struct ByteRange {
  uint8_t first = 0;
  uint8_t last = 0;
  bool operator==(const ByteRange&) const = default;
};

// The byte sequences of 1 to 4 ranges whose products are exactly the characters of `set` in UTF-8.
std::vector<std::vector<ByteRange>> utf8_sequences(const CharSet& set);

}  // namespace minimax::grammar
