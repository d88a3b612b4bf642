// Random texts under the masks of schemas, for a validator to judge.
//
//   grammar_walks COUNT < schemas, one a line      prints a line {"schema": line, "text": ...} for each walk
//
// A schema that is refused gives one line with "error". Walks prefer what closes, so that they end.
#include <iostream>
#include <random>

#include "grammar/matcher.h"
#include "tests/grammar/helpers.h"

namespace minimax {
namespace {

using Json = nlohmann::ordered_json;
using grammar::GrammarMasks;
using grammar::TokenTrie;

std::shared_ptr<const TokenTrie> vocabulary() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* text :
       {"{\"", "\":", "\",\"", "\"}", "},",   "}]",   "]]",     "null",     "true", ", ", "10",  "25",
        "abc", "\\u", "é",     "€\"", "\n  ", "a\":", "\"b\":", "\xF0\x9F", ".5",   "-1", "</s>"})
    tokens.emplace_back(text);
  return std::make_shared<const TokenTrie>(std::move(tokens));
}

// Empty when the walk did not end.
std::string walk(const std::shared_ptr<GrammarMasks>& masks, int32_t stop, std::mt19937& random) {
  grammar::GrammarMatcher matcher(masks, {stop});
  std::vector<uint64_t> mask(static_cast<size_t>(masks->trie().num_words()));
  std::string text;
  for (int step = 0; step < 3000; ++step) {
    matcher.fill_mask(mask);
    std::vector<int32_t> allowed;
    std::vector<int32_t> closing;
    for (int32_t token = 0; token < masks->trie().num_tokens(); ++token) {
      if (((mask[static_cast<size_t>(token) / 64] >> (static_cast<size_t>(token) % 64)) & 1U) == 0) continue;
      allowed.push_back(token);
      const std::string_view bytes = masks->trie().text(token);
      if (token == stop || bytes == "\"" || bytes == "}" || bytes == "]") closing.push_back(token);
    }
    const bool closes = !closing.empty() && (step > 60 || random() % 4 == 0);
    const std::vector<int32_t>& from = closes ? closing : allowed;
    const int32_t token = from[random() % from.size()];
    matcher.accept(token);
    if (token == stop) return text;
    text += masks->trie().text(token);
  }
  return {};
}

void run(int count) {
  const auto trie = vocabulary();
  const auto stop = static_cast<int32_t>(trie->num_tokens()) - 1;
  std::mt19937 random(17);
  std::string line;
  for (int64_t n = 0; std::getline(std::cin, line); ++n) {
    try {
      const auto masks = std::make_shared<GrammarMasks>(testing::schema_grammar(line), trie);
      for (int i = 0; i < count; ++i) {
        const std::string text = walk(masks, stop, random);
        std::cout << Json{{"schema", n}, {"text", text}}.dump() << "\n";
      }
    } catch (const Error& error) {
      std::cout << Json{{"schema", n}, {"error", error.what()}}.dump() << "\n";
    }
  }
}

}  // namespace
}  // namespace minimax

int main(int argc, char** argv) {
  try {
    minimax::run(argc > 1 ? std::stoi(argv[1]) : 5);
  } catch (const std::exception& error) {
    std::cerr << "grammar_walks: " << error.what() << "\n";
    return 1;
  }
}
