#include "grammar/char_set.h"

#include <algorithm>
#include <array>

namespace minimax::grammar {
namespace {

constexpr CharRange kSurrogates{0xD800, 0xDFFF};

// Bytes of a character's UTF-8 form.
std::vector<uint8_t> encode(uint32_t c) {
  if (c < 0x80) return {static_cast<uint8_t>(c)};
  const auto tail = [c](int shift) { return static_cast<uint8_t>(0x80U | ((c >> shift) & 0x3FU)); };
  if (c < 0x800) return {static_cast<uint8_t>(0xC0U | (c >> 6U)), tail(0)};
  if (c < 0x10000) return {static_cast<uint8_t>(0xE0U | (c >> 12U)), tail(6), tail(0)};
  return {static_cast<uint8_t>(0xF0U | (c >> 18U)), tail(12), tail(6), tail(0)};
}

// `first` and `last` have forms of equal length: cuts the range where the last `bits` bits are not all of
// 0...0 to 1...1 while the bits before differ.
void split(uint32_t first, uint32_t last, int bits, std::vector<std::vector<ByteRange>>& sequences) {
  for (int low = 6; low <= bits; low += 6) {
    const uint32_t mask = (1U << static_cast<uint32_t>(low)) - 1;
    if ((first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      split(first, first | mask, bits, sequences);
      split((first | mask) + 1, last, bits, sequences);
      return;
    }
    if ((last & mask) != mask) {
      split(first, (last & ~mask) - 1, bits, sequences);
      split(last & ~mask, last, bits, sequences);
      return;
    }
  }
  const auto from = encode(first);
  const auto to = encode(last);
  std::vector<ByteRange> sequence;
  for (size_t i = 0; i < from.size(); ++i) sequence.push_back({from[i], to[i]});
  sequences.push_back(std::move(sequence));
}

}  // namespace

CharSet::CharSet(std::initializer_list<CharRange> ranges) {
  for (const CharRange& range : ranges) add(range.first, range.last);
}

void CharSet::add(uint32_t first, uint32_t last) {
  last = std::min(last, kLastCharacter);
  if (first > last) return;
  if (first <= kSurrogates.last && last >= kSurrogates.first) {
    if (first < kSurrogates.first) add(first, kSurrogates.first - 1);
    if (last > kSurrogates.last) add(kSurrogates.last + 1, last);
    return;
  }
  // Everything that touches the new range becomes part of it.
  const auto touches_from =
      std::find_if(ranges_.begin(), ranges_.end(), [&](const CharRange& r) { return r.last + 1 >= first; });
  auto end = touches_from;
  while (end != ranges_.end() && end->first <= last + 1) {
    first = std::min(first, end->first);
    last = std::max(last, end->last);
    ++end;
  }
  ranges_.insert(ranges_.erase(touches_from, end), {first, last});
}

void CharSet::add(const CharSet& other) {
  for (const CharRange& range : other.ranges_) add(range.first, range.last);
}

bool CharSet::contains(uint32_t character) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [=](const CharRange& r) { return r.first <= character && character <= r.last; });
}

CharSet CharSet::complement() const {
  CharSet result;
  uint32_t next = 0;
  for (const CharRange& range : ranges_) {
    if (range.first > next) result.add(next, range.first - 1);
    next = range.last + 1;
  }
  if (next <= kLastCharacter) result.add(next, kLastCharacter);
  return result;
}

CharSet CharSet::intersection(const CharSet& other) const {
  CharSet outside = complement();
  outside.add(other.complement());
  return outside.complement();
}

std::vector<std::vector<ByteRange>> utf8_sequences(const CharSet& set) {
  struct Length {
    CharRange range;
    int tail_bits;
  };
  constexpr std::array<Length, 4> kLengths{
      {{{0, 0x7F}, 0}, {{0x80, 0x7FF}, 6}, {{0x800, 0xFFFF}, 12}, {{0x10000, kLastCharacter}, 18}}};
  std::vector<std::vector<ByteRange>> sequences;
  for (const CharRange& range : set.ranges()) {
    for (const Length& length : kLengths) {
      const uint32_t first = std::max(range.first, length.range.first);
      const uint32_t last = std::min(range.last, length.range.last);
      if (first <= last) split(first, last, length.tail_bits, sequences);
    }
  }
  return sequences;
}

}  // namespace minimax::grammar
