// Readers of tokenizer files. Everything read here is foreign: it is checked, and what is not supported is
// named.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/spec.h"

namespace minimax::tokenizer {

// A tokenizer.json. THROWS: Error naming the component that is not supported.
TokenizerSpec spec_from_tokenizer_json(std::string_view text);

// merges.txt, and vocab.json when not empty. Without it the vocabulary is MiniMax's: ids 0..255 are the
// bytes, id 256 + r is the result of merge r.
TokenizerSpec spec_from_merges(std::string_view merges, std::string_view vocabulary);

// Adds what tokenizer_config.json says: the names of bos, eos, unk and pad, and, when `with_added_tokens`,
// its added_tokens_decoder.
void apply_config(TokenizerSpec& spec, std::string_view config, bool with_added_tokens);

// Adds an added_tokens.json: token -> id.
void apply_added_tokens(TokenizerSpec& spec, std::string_view text);

// Gives M1's four markers their ids when the files name the tokens but no ids: M1 publishes none outside its
// tokenizer.json.
void apply_known_markers(TokenizerSpec& spec);

// THROWS: Error naming `what` when the text is no JSON.
nlohmann::json parse_json(std::string_view text, std::string_view what);

// RETURNS: the file's bytes, or "" when there is no such file. THROWS: Error when it cannot be read.
std::string read_if_exists(const std::filesystem::path& file);

}  // namespace minimax::tokenizer
