// A small random generator with the same numbers on every platform (SplitMix64).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace minimax::eval {

class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}

  // A stream for case `index` of `skill`: neighbouring seeds and indices give unrelated numbers.
  Rng(std::string_view skill, uint64_t seed, uint64_t index) : state_(seed) {
    for (const char c : skill) state_ = next() ^ static_cast<unsigned char>(c);
    state_ = next() ^ index;
    next();
  }

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15ULL;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

  // A whole number in [low, high].
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }

  // True in `percent` of 100 draws.
  bool chance(int percent) { return between(0, 99) < percent; }

  template <typename Range>
  const auto& pick(const Range& range) {
    return range[static_cast<size_t>(between(0, static_cast<int64_t>(std::size(range)) - 1))];
  }

  template <typename Vector>
  void shuffle(Vector& items) {
    for (size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[static_cast<size_t>(between(0, static_cast<int64_t>(i) - 1))]);
    }
  }

 private:
  uint64_t state_;
};

}  // namespace minimax::eval
