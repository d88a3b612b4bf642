#include "grammar/token_trie.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::grammar {

TokenTrie::TokenTrie(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {
  for (int32_t id = 0; id < std::ssize(tokens_); ++id) {
    const std::string_view token = text(id);
    if (std::ssize(token) > kMaxTokenBytes) {
      fail("token {} has {} bytes; expected at most {}", id, token.size(), kMaxTokenBytes);
    }
    if (!token.empty()) ids_.push_back(id);
  }
  // Bytes compare as unsigned.
  std::sort(ids_.begin(), ids_.end(), [this](int32_t a, int32_t b) {
    const int order = text(a).compare(text(b));
    return order != 0 ? order < 0 : a < b;
  });
  std::vector<int32_t> open;  // nodes from the root to the last one
  std::string_view last;
  const auto close_to = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back()) {
      nodes_[static_cast<size_t>(open.back())].end = static_cast<int32_t>(nodes_.size());
    }
  };
  for (size_t i = 0; i < ids_.size(); ++i) {
    const std::string_view token = text(ids_[i]);
    const auto [end, _] = std::mismatch(token.begin(), token.end(), last.begin(), last.end());
    const auto shared = static_cast<size_t>(end - token.begin());
    close_to(shared);
    for (size_t depth = shared; depth < token.size(); ++depth) {
      open.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back(
          {0, static_cast<int32_t>(i), 0, static_cast<uint16_t>(depth), static_cast<uint8_t>(token[depth])});
    }
    ++nodes_[static_cast<size_t>(open.back())].num_tokens;
    max_depth_ = std::max(max_depth_, std::ssize(token));
    last = token;
  }
  close_to(0);
}

void TokenTrie::allow(Automaton& automaton, int32_t configuration, std::span<uint64_t> mask) const {
  MM_CHECK(std::ssize(mask) == num_words(), "mask of {} words for {} tokens", mask.size(), num_tokens());
  const auto& class_of = automaton.grammar().class_of;
  std::vector<int32_t> reached(static_cast<size_t>(max_depth_) + 1);
  reached[0] = configuration;
  for (int32_t n = 0; n < std::ssize(nodes_);) {
    const Node& node = nodes_[static_cast<size_t>(n)];
    const int32_t next = automaton.next(reached[node.depth], class_of[node.byte]);
    if (next == Automaton::kDead) {
      n = node.end;
      continue;
    }
    reached[static_cast<size_t>(node.depth) + 1] = next;
    for (int32_t t = node.first_token; t < node.first_token + node.num_tokens; ++t) {
      const auto id = static_cast<size_t>(ids_[static_cast<size_t>(t)]);
      mask[id / 64] |= uint64_t{1} << (id % 64);
    }
    ++n;
  }
}

}  // namespace minimax::grammar
