// Text to token ids and back, with the results of Hugging Face's `tokenizers`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/spec.h"

namespace minimax::tokenizer {

struct EncodeOptions {
  // Whether text that spells a special token becomes that token. Set it for text a chat template wrote; clear
  // it for text a user wrote. Added tokens that are not special are found either way.
  bool parse_special = true;
};

struct DecodeOptions {
  // Leaves out tokens flagged special. Added tokens without that flag (M2's <think>) stay.
  bool skip_special = false;
};

// Immutable after construction; every method is safe from several threads.
class Tokenizer {
 public:
  // Reads tokenizer.json, or vocab.json with merges.txt, or merges.txt alone, and
  // tokenizer_config.json. THROWS: Error naming the file and the unsupported part.
  static Tokenizer load(const std::filesystem::path& directory);

  // THROWS: Error when the parts do not fit together.
  explicit Tokenizer(TokenizerSpec spec);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Ill-formed UTF-8 is read as U+FFFD, one for each maximal part (Python's errors="replace").
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // RETURNS: valid UTF-8; bytes that form no character come out as U+FFFD. Ids without a token give nothing.
  std::string decode(std::span<const int32_t> ids, const DecodeOptions& options = {}) const;

  // False for ids outside the tokenizer, such as padding rows of an embedding: never sample them.
  bool is_defined(int32_t id) const;
  bool is_special(int32_t id) const;

  // Tokens as vocabulary files spell them: added tokens as they are, others in the byte alphabet.
  std::optional<int32_t> token_to_id(std::string_view token) const;
  std::optional<std::string> id_to_token(int32_t id) const;
  // The bytes that decoding `id` adds; empty for an undefined id.
  std::string_view id_to_bytes(int32_t id) const;

  // Number of defined ids, and the largest of them.
  int64_t size() const;
  int32_t max_id() const;

  // Ids of the tokens tokenizer_config.json names.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> unk_id() const;
  std::optional<int32_t> pad_id() const;
  const TokenizerSpec& spec() const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace minimax::tokenizer
