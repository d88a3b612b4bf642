// Decoding token by token, for streams.
#pragma once

#include <string>

#include "tokenizer/tokenizer.h"

namespace minimax::tokenizer {

// The texts from push(), then finish(), joined are what Tokenizer::decode gives for all ids.
class Detokenizer {
 public:
  // REQUIRES: `tokenizer` outlives this.
  explicit Detokenizer(const Tokenizer& tokenizer, const DecodeOptions& options = {})
      : tokenizer_(&tokenizer), options_(options) {}

  // RETURNS: the text that is complete now; never a part of a character, so it may be empty.
  std::string push(int32_t id);
  // RETURNS: what is left, and starts afresh.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  std::string pending_;  // the bytes of a character that is not complete, at most three
};

}  // namespace minimax::tokenizer
