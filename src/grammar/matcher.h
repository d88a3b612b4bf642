// Which tokens may follow in a text that a grammar describes.
//
//   const auto masks = std::make_shared<GrammarMasks>(grammar, trie);      // shared by all who use the
//   grammar GrammarMatcher matcher(masks, stop_tokens);                            // one for each text
//   matcher.fill_mask(mask); token = draw(mask); matcher.accept(token);
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/token_trie.h"

namespace minimax::grammar {

// A grammar over a vocabulary: what matchers have found out so far, masks included. Safe from any thread.
class GrammarMasks {
 public:
  static constexpr int64_t kMaxMaskBytes = int64_t{32} << 20;

  GrammarMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie);

  const TokenTrie& trie() const { return *trie_; }
  int32_t start() const { return start_; }
  // RETURNS: the configuration after `text`, or Automaton::kDead.
  int32_t advance(int32_t configuration, std::string_view text);
  bool is_complete(int32_t configuration);
  // Writes the tokens that may come at `configuration`. THROWS: Error as the automaton does.
  void fill(int32_t configuration, std::span<uint64_t> mask);
  // Bytes of what was found out.
  int64_t bytes();

 private:
  struct Mask {
    int32_t configuration = 0;
    std::vector<uint64_t> words;
  };

  std::shared_ptr<const TokenTrie> trie_;
  std::mutex mutex_;  // of the following
  Automaton automaton_;
  int32_t start_;
  std::list<Mask> masks_;  // last used first
  std::unordered_map<int32_t, std::list<Mask>::iterator> mask_of_;
};

// Not safe from several threads at once.
class GrammarMatcher {
 public:
  // `stop_tokens` end the text and may come only where the grammar lets it end.
  GrammarMatcher(std::shared_ptr<GrammarMasks> masks, std::vector<int32_t> stop_tokens);

  // Overwrites `mask`: a bit for each token that may come next; ids beyond the vocabulary may not. A mask
  // with room for fewer tokens gets those. THROWS: Error when none may come: the vocabulary cannot spell what
  // must follow, or the text is complete and there is no stop token.
  void fill_mask(std::span<uint64_t> mask);
  // THROWS: Error when the grammar does not allow `token` here.
  void accept(int32_t token);
  // Whether the text may end here.
  bool is_complete();

 private:
  std::shared_ptr<GrammarMasks> masks_;
  std::vector<int32_t> stop_tokens_;
  int32_t configuration_;
  bool has_ended_ = false;
};

}  // namespace minimax::grammar
