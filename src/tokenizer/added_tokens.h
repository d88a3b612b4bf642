// Finds added tokens in text before it is split.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "tokenizer/spec.h"

namespace minimax::tokenizer {

// A stretch of text: an added token, or plain text when `token` is null.
struct Stretch {
  const AddedToken* token = nullptr;
  std::string_view text;
};

class AddedTokenMatcher {
 public:
  // Keeps pointers into `tokens`. `normalized` chooses which of them this matcher looks for.
  AddedTokenMatcher(const std::vector<AddedToken>& tokens, bool normalized);

  // Appends the stretches of `text`: at each place the longest token wins. Special tokens are left as text
  // unless `parse_special`. REQUIRES: valid UTF-8.
  void split(std::string_view text, bool parse_special, std::vector<Stretch>& out) const;

 private:
  struct Node {
    std::map<uint8_t, int32_t> children;
    const AddedToken* token = nullptr;
  };

  const AddedToken* longest_at(std::string_view text, size_t pos) const;

  std::vector<Node> nodes_;
  std::array<bool, 256> starts_{};
};

}  // namespace minimax::tokenizer
