#include "grammar/matcher.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::grammar {
namespace {

// Items visited for one mask or one token: some seconds at most.
constexpr int64_t kBudget = 100'000'000;

void set(std::span<uint64_t> mask, int32_t token) {
  const auto bit = static_cast<size_t>(token);
  if (token >= 0 && bit / 64 < mask.size()) mask[bit / 64] |= uint64_t{1} << (bit % 64);
}

}  // namespace

GrammarMasks::GrammarMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie)
    : trie_(std::move(trie)), automaton_(std::move(grammar)), start_(automaton_.start()) {}

int32_t GrammarMasks::advance(int32_t configuration, std::string_view text) {
  const std::lock_guard lock(mutex_);
  automaton_.set_budget(kBudget);
  return automaton_.advance(configuration, text);
}

bool GrammarMasks::is_complete(int32_t configuration) {
  const std::lock_guard lock(mutex_);
  return automaton_.is_complete(configuration);
}

void GrammarMasks::fill(int32_t configuration, std::span<uint64_t> mask) {
  const std::lock_guard lock(mutex_);
  const auto known = mask_of_.find(configuration);
  if (known != mask_of_.end()) {
    masks_.splice(masks_.begin(), masks_, known->second);
  } else {
    Mask found{configuration, std::vector<uint64_t>(static_cast<size_t>(trie_->num_words()))};
    automaton_.set_budget(kBudget);
    trie_->allow(automaton_, configuration, found.words);
    masks_.push_front(std::move(found));
    mask_of_[configuration] = masks_.begin();
    if (std::ssize(masks_) > std::max<int64_t>(1, kMaxMaskBytes / (8 * trie_->num_words() + 64))) {
      mask_of_.erase(masks_.back().configuration);
      masks_.pop_back();
    }
  }
  const std::vector<uint64_t>& words = masks_.front().words;
  const auto end = std::copy_n(words.begin(), std::min(words.size(), mask.size()), mask.begin());
  std::fill(end, mask.end(), 0);
}

int64_t GrammarMasks::bytes() {
  const std::lock_guard lock(mutex_);
  return automaton_.bytes() + std::ssize(masks_) * trie_->num_words() * 8;
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<GrammarMasks> masks, std::vector<int32_t> stop_tokens)
    : masks_(std::move(masks)), stop_tokens_(std::move(stop_tokens)), configuration_(masks_->start()) {}

void GrammarMatcher::fill_mask(std::span<uint64_t> mask) {
  if (has_ended_) {
    std::ranges::fill(mask, 0);
  } else {
    masks_->fill(configuration_, mask);
  }
  for (const int32_t token : stop_tokens_) {
    const auto bit = static_cast<size_t>(token);
    if (token >= 0 && bit / 64 < mask.size()) mask[bit / 64] &= ~(uint64_t{1} << (bit % 64));
  }
  if (has_ended_ || masks_->is_complete(configuration_)) {
    for (const int32_t token : stop_tokens_) set(mask, token);
  }
  if (std::ranges::all_of(mask, [](uint64_t word) { return word == 0; })) {
    fail("the grammar allows no token here: {}", is_complete()
                                                     ? "the text is complete and there is no stop token"
                                                     : "the vocabulary cannot spell what must follow");
  }
}

void GrammarMatcher::accept(int32_t token) {
  if (std::ranges::find(stop_tokens_, token) != stop_tokens_.end()) {
    if (!has_ended_ && !is_complete()) fail("token {} ends the text before it is complete", token);
    has_ended_ = true;
    return;
  }
  const bool is_known = token >= 0 && token < masks_->trie().num_tokens();
  const std::string_view text = is_known ? masks_->trie().text(token) : std::string_view();
  const int32_t next = text.empty() || has_ended_ ? Automaton::kDead : masks_->advance(configuration_, text);
  if (next == Automaton::kDead) fail("the grammar does not allow token {} here", token);
  configuration_ = next;
}

bool GrammarMatcher::is_complete() { return has_ended_ || masks_->is_complete(configuration_); }

}  // namespace minimax::grammar
