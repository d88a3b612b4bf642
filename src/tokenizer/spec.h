// What the files of a tokenizer say, before it is built.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace minimax::tokenizer {

struct AddedToken {
  int32_t id = -1;
  std::string text;
  bool special = false;
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space after it along
  bool single_word = false;  // only where no word character touches it
  bool normalized = false;   // matched after the others; there is no normaliser to run first
};

struct TokenizerSpec {
  // Tokens in the byte alphabet, with their ids.
  std::unordered_map<std::string, int32_t> vocabulary;
  // Pairs in order of rank.
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<AddedToken> added_tokens;
  // Regular expressions; each splits what the ones before it left, keeping matches and gaps as pieces.
  std::vector<std::string> split_patterns;
  // A piece that is a token as a whole is not merged.
  bool ignore_merges = false;
  // Token texts named by tokenizer_config.json, empty when absent.
  std::string bos_token;
  std::string eos_token;
  std::string unk_token;
  std::string pad_token;
};

// The split of GPT-2, which a ByteLevel pre-tokenizer with use_regex applies.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// The split of all MiniMax families, used where no tokenizer.json says otherwise.
inline constexpr std::string_view kMinimaxPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace minimax::tokenizer
