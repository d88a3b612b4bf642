// Splits text into the pieces that are merged one by one.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace minimax::tokenizer {

class Splitter {
 public:
  // THROWS: Error when a pattern is no regular expression.
  explicit Splitter(const std::vector<std::string>& patterns);
  ~Splitter();
  Splitter(Splitter&&) noexcept;
  Splitter& operator=(Splitter&&) noexcept;

  // RETURNS: views into `text` that cover it without gaps. REQUIRES: valid UTF-8.
  // THROWS: Error when a pattern backtracks beyond its limit. Safe from several threads.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct Pattern;
  std::vector<std::unique_ptr<Pattern>> patterns_;
};

}  // namespace minimax::tokenizer
