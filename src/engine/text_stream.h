// Tokens of one answer to text, up to the first stop string.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/detokenizer.h"

namespace minimax::engine {

class TextStream {
 public:
  // Empty stop strings are ignored. REQUIRES: `tokenizer` outlives this.
  TextStream(const tokenizer::Tokenizer& tokenizer, std::vector<std::string> stop,
             const tokenizer::DecodeOptions& options = {});

  // RETURNS: text that no stop string can begin in any more; whole characters.
  std::string push(int32_t id);
  // RETURNS: what is left, when no more tokens come.
  std::string finish();
  // A stop string was found: it and what follows are left out.
  bool is_stopped() const { return !found_.empty(); }
  // The stop string that was found.
  const std::string& found() const { return found_; }

 private:
  std::string release(bool is_end);

  tokenizer::Detokenizer detokenizer_;
  std::vector<std::string> stop_;
  std::string held_;  // may be the beginning of a stop string
  std::string found_;
};

}  // namespace minimax::engine
