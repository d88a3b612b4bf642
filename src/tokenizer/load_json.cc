// tokenizer.json, the format of Hugging Face's `tokenizers`.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tokenizer/load.h"

namespace minimax::tokenizer {
namespace {

using Json = nlohmann::json;

// A member, or null when absent.
const Json& member(const Json& object, const char* key) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

bool flag(const Json& object, const char* key, bool fallback = false) {
  const Json& value = member(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) fail("tokenizer.json: '{}' must be true or false", key);
  return value.get<bool>();
}

std::string text(const Json& object, const char* key) {
  const Json& value = member(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

int32_t id_of(const Json& value, std::string_view token) {
  if (!value.is_number_integer() || value < 0 || value > INT32_MAX)
    fail("tokenizer.json: the id of '{}' is no id", token);
  return value.get<int32_t>();
}

void read_vocabulary(const Json& vocabulary, TokenizerSpec& spec) {
  if (!vocabulary.is_object()) fail("tokenizer.json: model.vocab must be an object");
  spec.vocabulary.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary.items()) spec.vocabulary.emplace(token, id_of(id, token));
}

std::pair<std::string, std::string> read_merge(const Json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto& line = merge.get_ref<const std::string&>();
    const size_t space = line.find(' ');
    if (space != std::string::npos && line.find(' ', space + 1) == std::string::npos) {
      return {line.substr(0, space), line.substr(space + 1)};
    }
  }
  fail("tokenizer.json: a merge must be \"a b\" or [\"a\", \"b\"], found {}",
       merge.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 80));
}

void refuse_if_set(const Json& model, const char* key) {
  const Json& value = member(model, key);
  const bool is_empty_text = value.is_string() && value.get_ref<const std::string&>().empty();
  const bool off = value.is_null() || value == false || is_empty_text || value == 0;
  if (!off) fail("tokenizer.json: model.{} is not supported; MiniMax tokenizers leave it off", key);
}

void read_model(const Json& model, TokenizerSpec& spec) {
  const std::string type = text(model, "type");
  if (type != "BPE" && !(type.empty() && member(model, "merges").is_array())) {
    fail("tokenizer.json: model type '{}' is not supported, only BPE is", type);
  }
  for (const char* key :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "fuse_unk"}) {
    refuse_if_set(model, key);
  }
  spec.ignore_merges = flag(model, "ignore_merges");
  read_vocabulary(member(model, "vocab"), spec);
  const Json& merges = member(model, "merges");
  if (!merges.is_array()) fail("tokenizer.json: model.merges must be a list");
  for (const Json& merge : merges) spec.merges.push_back(read_merge(merge));
}

std::string escaped_literal(const std::string& literal) {
  std::string pattern;
  for (const char c : literal) {
    if (std::string_view("\\^$.|?*+()[]{}#- \t\n").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

void read_split(const Json& step, TokenizerSpec& spec) {
  const Json& pattern = member(step, "pattern");
  const std::string behavior = text(step, "behavior");
  if (behavior != "Isolated" || flag(step, "invert")) {
    fail("tokenizer.json: pre_tokenizer Split with behavior '{}'{} is not supported, only Isolated is",
         behavior, flag(step, "invert") ? " inverted" : "");
  }
  if (member(pattern, "Regex").is_string()) {
    spec.split_patterns.push_back(text(pattern, "Regex"));
  } else if (member(pattern, "String").is_string()) {
    spec.split_patterns.push_back(escaped_literal(text(pattern, "String")));
  } else {
    fail("tokenizer.json: pre_tokenizer Split has neither a Regex nor a String pattern");
  }
}

// RETURNS: whether the step is the ByteLevel one.
bool read_pre_tokenizer_step(const Json& step, TokenizerSpec& spec) {
  const std::string type = text(step, "type");
  if (type == "Split") {
    read_split(step, spec);
    return false;
  }
  if (type != "ByteLevel") fail("tokenizer.json: pre_tokenizer '{}' is not supported", type);
  if (flag(step, "add_prefix_space", true))
    fail("tokenizer.json: pre_tokenizer ByteLevel with add_prefix_space is not supported");
  if (flag(step, "use_regex", true)) spec.split_patterns.emplace_back(kGpt2Pattern);
  return true;
}

void read_pre_tokenizer(const Json& pre_tokenizer, TokenizerSpec& spec) {
  const bool is_sequence = text(pre_tokenizer, "type") == "Sequence";
  const Json& steps = member(pre_tokenizer, "pretokenizers");
  bool byte_level = false;
  if (!is_sequence) {
    byte_level = read_pre_tokenizer_step(pre_tokenizer, spec);
  } else if (steps.is_array()) {
    for (const Json& step : steps) {
      if (byte_level) fail("tokenizer.json: a pre_tokenizer after ByteLevel is not supported");
      byte_level = read_pre_tokenizer_step(step, spec);
    }
  }
  if (!byte_level) fail("tokenizer.json: the pre_tokenizer must end with ByteLevel");
}

void check_post_processor(const Json& processor) {
  const std::string type = text(processor, "type");
  if (processor.is_null() || type == "ByteLevel") return;
  if (type == "Sequence" && member(processor, "processors").is_array()) {
    for (const Json& step : member(processor, "processors")) {
      if (text(step, "type") != "ByteLevel")
        fail("tokenizer.json: post_processor '{}' is not supported", text(step, "type"));
    }
    return;
  }
  fail("tokenizer.json: post_processor '{}' is not supported; MiniMax templates write their own markers",
       type);
}

void read_added_tokens(const Json& tokens, TokenizerSpec& spec) {
  if (tokens.is_null()) return;
  if (!tokens.is_array()) fail("tokenizer.json: added_tokens must be a list");
  for (const Json& token : tokens) {
    AddedToken added;
    added.text = text(token, "content");
    added.id = id_of(member(token, "id"), added.text);
    added.special = flag(token, "special");
    added.lstrip = flag(token, "lstrip");
    added.rstrip = flag(token, "rstrip");
    added.single_word = flag(token, "single_word");
    added.normalized = flag(token, "normalized");
    spec.added_tokens.push_back(std::move(added));
  }
}

}  // namespace

nlohmann::json parse_json(std::string_view content, std::string_view what) {
  Json json = Json::parse(content, nullptr, false);
  if (json.is_discarded()) fail("{} is no valid JSON", what);
  return json;
}

TokenizerSpec spec_from_tokenizer_json(std::string_view content) {
  const Json json = parse_json(content, "tokenizer.json");
  TokenizerSpec spec;
  if (!member(json, "normalizer").is_null()) {
    fail("tokenizer.json: normalizer '{}' is not supported", text(member(json, "normalizer"), "type"));
  }
  const std::string decoder = text(member(json, "decoder"), "type");
  if (decoder != "ByteLevel")
    fail("tokenizer.json: decoder '{}' is not supported, only ByteLevel is", decoder);
  check_post_processor(member(json, "post_processor"));
  read_pre_tokenizer(member(json, "pre_tokenizer"), spec);
  read_model(member(json, "model"), spec);
  read_added_tokens(member(json, "added_tokens"), spec);
  return spec;
}

}  // namespace minimax::tokenizer
