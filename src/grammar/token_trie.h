// TokenTrie: the texts of a vocabulary as one tree of bytes, walked together with a grammar. Built once for a
// vocabulary, constant afterwards.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/automaton.h"

namespace minimax::grammar {

inline constexpr int64_t kMaxTokenBytes = 1024;

class TokenTrie {
 public:
  // The text of each token by id; an empty one is never allowed. THROWS: Error when a text is longer than
  // kMaxTokenBytes.
  explicit TokenTrie(std::vector<std::string> tokens);

  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.size()); }
  // Words of a mask with a bit for each token.
  int64_t num_words() const { return (num_tokens() + 63) / 64; }
  std::string_view text(int32_t token) const { return tokens_[static_cast<size_t>(token)]; }

  // Sets the bits of the tokens whose whole text `automaton` can read at `configuration`. REQUIRES: `mask`
  // has num_words() words. THROWS: Error as the automaton does.
  void allow(Automaton& automaton, int32_t configuration, std::span<uint64_t> mask) const;

 private:
  struct Node {               // in the order of a walk, so that what is below a node follows it
    int32_t end = 0;          // of what is below
    int32_t first_token = 0;  // in `ids_`
    int32_t num_tokens = 0;   // that end here
    uint16_t depth = 0;
    uint8_t byte = 0;
  };

  std::vector<std::string> tokens_;
  std::vector<Node> nodes_;
  std::vector<int32_t> ids_;  // sorted by text
  int64_t max_depth_ = 0;
};

}  // namespace minimax::grammar
