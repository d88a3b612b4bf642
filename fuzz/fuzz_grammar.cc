// Input: a byte that says what follows (JSON schema, grammar text, regular expression, tool for a block of
// calls), the text, and optionally a zero byte and texts to read. A grammar that is accepted must have a way
// on from every place that is reached, and give the masks that trying every token gives.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/error.h"
#include "grammar/call_block.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/matcher.h"
#include "grammar/regex.h"

namespace {

using namespace minimax::grammar;
using Json = nlohmann::ordered_json;

constexpr size_t kLongestWalk = 200;

ExprId add(GrammarBuilder& builder, uint8_t kind, std::string_view text) {
  if (kind % 4 == 1) return add_gbnf(builder, text);
  if (kind % 4 == 2) return add_regex(builder, text);
  const Json schema = Json::parse(text, nullptr, false);
  if (schema.is_discarded()) return builder.empty();
  if (kind % 4 == 3) {
    const auto format = static_cast<CallFormat>(kind / 4 % 3);
    return add_call_block(builder, format, {{"f", schema}}, true);
  }
  JsonText json(builder);
  return add_json_schema(json, schema);
}

const std::shared_ptr<const TokenTrie>& trie() {
  static const auto kTrie = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
    for (const char* text : {"{\"", "\":", "ab", "null", "]]", "\xE2\x82", "12"}) tokens.emplace_back(text);
    tokens.emplace_back();
    return std::make_shared<const TokenTrie>(std::move(tokens));
  }();
  return kTrie;
}

// Each byte of `choices` picks one of the tokens that are allowed.
void walk(const std::shared_ptr<const Grammar>& grammar, std::string_view choices) {
  const auto stop = static_cast<int32_t>(trie()->num_tokens()) - 1;
  GrammarMatcher matcher(std::make_shared<GrammarMasks>(grammar, trie()), {stop});
  Automaton plain(grammar, {.max_depth = 4096, .max_bytes = int64_t{16} << 20});
  plain.set_budget(1'000'000);
  int32_t at = plain.start();
  std::vector<uint64_t> mask(static_cast<size_t>(trie()->num_words()));
  for (const char choice : choices.substr(0, kLongestWalk)) {
    matcher.fill_mask(mask);
    std::vector<int32_t> allowed;
    for (int32_t token = 0; token < trie()->num_tokens(); ++token) {
      const bool is_set =
          ((mask[static_cast<size_t>(token) / 64] >> (static_cast<size_t>(token) % 64)) & 1U) != 0;
      const bool fits =
          token == stop ? plain.is_complete(at) : plain.advance(at, trie()->text(token)) != Automaton::kDead;
      if (is_set != fits) __builtin_trap();
      if (is_set) allowed.push_back(token);
    }
    if (allowed.empty()) __builtin_trap();
    const int32_t token = allowed[static_cast<uint8_t>(choice) % allowed.size()];
    matcher.accept(token);
    if (token == stop) return;
    at = plain.advance(at, trie()->text(token));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t zero = input.find('\0');
  try {
    GrammarBuilder builder;
    const ExprId body = add(builder, data[0], input.substr(0, zero));
    const RuleId root = builder.rule("root of the fuzzer", body);
    const auto grammar = std::move(builder).build(root);
    walk(grammar, zero == std::string_view::npos ? std::string_view("abcdefgh") : input.substr(zero + 1));
  } catch (const minimax::Error&) {
  }
  return 0;
}
