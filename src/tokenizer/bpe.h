// Byte-pair merging of one piece of text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace minimax::tokenizer {

class Bpe {
 public:
  using Vocabulary = std::unordered_map<std::string, int32_t>;

  // `merges` are pairs of tokens in the order of rank; every token is written in the byte alphabet.
  // THROWS: Error when a merge names a token that is not in the vocabulary.
  Bpe(const Vocabulary& vocabulary, const std::vector<std::pair<std::string, std::string>>& merges,
      bool ignore_merges);

  // Appends the ids of `piece` (bytes) to `out`. O(n log n) in its length. Bytes without a token are dropped.
  void encode(std::string_view piece, std::vector<int32_t>& out) const;

 private:
  struct Merge {
    uint64_t pair = kNoPair;
    int32_t rank = 0;
    int32_t id = 0;
  };
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  void insert(const Merge& merge);
  const Merge* find(int32_t left, int32_t right) const;
  void merge_short(std::vector<int32_t>& ids) const;
  void merge_long(std::vector<int32_t>& ids) const;

  std::array<int32_t, 256> byte_ids_{};
  std::vector<Merge> table_;  // open addressing, a power of two
  bool ignore_merges_;
  std::unordered_map<std::string, int32_t> whole_;  // by bytes, only with ignore_merges
};

}  // namespace minimax::tokenizer
