// The other tokenizer files, and the choice among them.
#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace minimax::tokenizer {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr int32_t kBytes = 256;

std::vector<std::pair<std::string, std::string>> read_merges(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> merges;
  size_t line_number = 0;
  for (size_t begin = 0; begin < text.size(); ++line_number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (line_number == 0 && line.starts_with("#version"))) continue;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      fail("merges.txt: line {} is not two tokens with a space between them", line_number + 1);
    }
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return merges;
}

void add_base_vocabulary(TokenizerSpec& spec) {
  for (int32_t byte = 0; byte < kBytes; ++byte)
    spec.vocabulary.emplace(byte_to_character(static_cast<uint8_t>(byte)), byte);
  int32_t id = kBytes;
  for (const auto& [left, right] : spec.merges) spec.vocabulary.emplace(left + right, id++);
}

// MiniMax orders the byte tokens by byte value, GPT-2 does not; that tells whose split applies.
bool has_minimax_order(const TokenizerSpec& spec) {
  for (int32_t byte = 0; byte < kBytes; ++byte) {
    const auto found = spec.vocabulary.find(byte_to_character(static_cast<uint8_t>(byte)));
    if (found == spec.vocabulary.end() || found->second != byte) return false;
  }
  return true;
}

int32_t checked_id(const Json& id, const std::string& token, std::string_view file) {
  if (!id.is_number_integer() || id < 0 || id > INT32_MAX) fail("{}: the id of '{}' is no id", file, token);
  return id.get<int32_t>();
}

// A special token is written as its text or as an object with a "content".
std::string token_text(const Json& config, const char* key) {
  if (!config.is_object() || !config.contains(key)) return "";
  const Json& value = config.at(key);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value.at("content").is_string())
    return value.at("content").get<std::string>();
  return "";
}

bool flag(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) && object.at(key) == true;
}

void add_token(TokenizerSpec& spec, AddedToken token) {
  const auto same = [&](const AddedToken& other) { return other.text == token.text; };
  if (std::none_of(spec.added_tokens.begin(), spec.added_tokens.end(), same))
    spec.added_tokens.push_back(std::move(token));
}

void add_decoder_tokens(TokenizerSpec& spec, const Json& tokens) {
  if (!tokens.is_object()) return;
  for (const auto& [key, token] : tokens.items()) {
    AddedToken added;
    const auto result = std::from_chars(key.data(), key.data() + key.size(), added.id);
    added.text = token_text(tokens, key.c_str());
    if (result.ec != std::errc() || result.ptr != key.data() + key.size() || added.text.empty()) {
      fail("tokenizer_config.json: added_tokens_decoder has an entry '{}' that is no id with a content", key);
    }
    added.special = flag(token, "special");
    added.lstrip = flag(token, "lstrip");
    added.rstrip = flag(token, "rstrip");
    added.single_word = flag(token, "single_word");
    added.normalized = flag(token, "normalized");
    add_token(spec, std::move(added));
  }
}

// A token that is named but has no id anywhere cannot be used.
void check_named_tokens(const TokenizerSpec& spec) {
  for (const std::string& name : {spec.bos_token, spec.eos_token}) {
    const bool added = std::any_of(spec.added_tokens.begin(), spec.added_tokens.end(),
                                   [&](const AddedToken& t) { return t.text == name; });
    if (!name.empty() && !added && !spec.vocabulary.contains(name)) {
      fail(
          "tokenizer: tokenizer_config.json names '{}', but no file gives its id; add the checkpoint's "
          "tokenizer.json",
          name);
    }
  }
}

}  // namespace

std::string read_if_exists(const fs::path& file) {
  if (!fs::exists(file)) return "";
  std::ifstream in(file, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad() || !in.is_open()) fail("cannot read {}", file.string());
  return text;
}

TokenizerSpec spec_from_merges(std::string_view merges, std::string_view vocabulary) {
  TokenizerSpec spec;
  spec.merges = read_merges(merges);
  if (vocabulary.empty()) {
    add_base_vocabulary(spec);
  } else {
    const Json json = parse_json(vocabulary, "vocab.json");
    if (!json.is_object()) fail("vocab.json must be an object of tokens and ids");
    for (const auto& [token, id] : json.items())
      spec.vocabulary.emplace(token, checked_id(id, token, "vocab.json"));
  }
  spec.split_patterns.emplace_back(has_minimax_order(spec) ? kMinimaxPattern : kGpt2Pattern);
  return spec;
}

void apply_config(TokenizerSpec& spec, std::string_view config, bool with_added_tokens) {
  const Json json = parse_json(config, "tokenizer_config.json");
  spec.bos_token = token_text(json, "bos_token");
  spec.eos_token = token_text(json, "eos_token");
  spec.unk_token = token_text(json, "unk_token");
  spec.pad_token = token_text(json, "pad_token");
  if (with_added_tokens && json.is_object() && json.contains("added_tokens_decoder")) {
    add_decoder_tokens(spec, json.at("added_tokens_decoder"));
  }
}

void apply_added_tokens(TokenizerSpec& spec, std::string_view text) {
  const Json json = parse_json(text, "added_tokens.json");
  if (!json.is_object()) fail("added_tokens.json must be an object of tokens and ids");
  for (const auto& [token, id] : json.items()) {
    AddedToken added;
    added.text = token;
    added.id = checked_id(id, token, "added_tokens.json");
    add_token(spec, std::move(added));
  }
}

void apply_known_markers(TokenizerSpec& spec) {
  // MiniMax-01's published script uses 200020 as the end of a sentence; the others are the slots of the same
  // roles in M2's tokenizer.
  static constexpr std::pair<std::string_view, int32_t> kMarkers[] = {{"<beginning_of_sentence>", 200019},
                                                                      {"<end_of_sentence>", 200020},
                                                                      {"<end_of_document>", 200021},
                                                                      {"<begin_of_document>", 200034}};
  if (spec.bos_token != kMarkers[0].first || spec.eos_token != kMarkers[1].first) return;
  for (const auto& [text, id] : kMarkers) {
    AddedToken added;
    added.text = text;
    added.id = id;
    added.special = true;
    add_token(spec, std::move(added));
  }
}

Tokenizer Tokenizer::load(const fs::path& directory) {
  const std::string json = read_if_exists(directory / "tokenizer.json");
  const std::string merges = json.empty() ? read_if_exists(directory / "merges.txt") : "";
  if (json.empty() && merges.empty()) {
    fail("{} has neither tokenizer.json nor merges.txt; copy them from the checkpoint", directory.string());
  }
  TokenizerSpec spec = json.empty() ? spec_from_merges(merges, read_if_exists(directory / "vocab.json"))
                                    : spec_from_tokenizer_json(json);
  const std::string config = read_if_exists(directory / "tokenizer_config.json");
  if (!config.empty()) apply_config(spec, config, json.empty());
  if (json.empty()) {
    const std::string added = read_if_exists(directory / "added_tokens.json");
    if (!added.empty()) apply_added_tokens(spec, added);
    apply_known_markers(spec);
  }
  check_named_tokens(spec);
  return Tokenizer(std::move(spec));
}

}  // namespace minimax::tokenizer
