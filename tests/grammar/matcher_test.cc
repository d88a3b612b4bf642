// Masks over vocabularies, against trying every token.
#include "grammar/matcher.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/grammar/helpers.h"

namespace minimax::grammar {
namespace {

using minimax::testing::gbnf_grammar;
using minimax::testing::message_of;
using minimax::testing::schema_grammar;

// Every byte, the characters of JSON in pieces of several, and pieces of characters.
std::vector<std::string> small_vocabulary() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* text :
       {"{\"",      "\":",      "\": ",      "\",\"",        "\"}",   "},",     "}]",  "[[",   "]]",
        "null",     "nul",      "true",      ", ",           "10",    "123",    "abc", "\\u",  "\\\"",
        "\xC3\xA9", "\xE2\x82", "\x82\xAC",  "\xF0\x9F\x98", "a\xC3", "\xA9\"", "  ",  "\n  ", "",
        "",         "name",     "\"name\":", "e5",           ".5",    "\"",     "</s>"})
    tokens.emplace_back(text);
  return tokens;
}

bool is_set(const std::vector<uint64_t>& mask, int32_t token) {
  return ((mask[static_cast<size_t>(token) / 64] >> (static_cast<size_t>(token) % 64)) & 1U) != 0;
}

const std::vector<std::string>& schemas() {
  static const std::vector<std::string> kSchemas{
      "{}", R"({"type":"object"})",
      R"({"type":"object","properties":{"name":{"type":"string","maxLength":5},"n":{"type":"integer","minimum":-3,"maximum":1234},"l":{"type":"array","items":{"enum":["abc","é€",null]},"maxItems":4}},"required":["name","l"]})",
      R"({"type":"array","items":{"type":"array","items":{"type":"number"}},"minItems":1})",
      R"({"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["next"],"additionalProperties":{"type":"boolean"}})"};
  return kSchemas;
}

TEST(Matcher, MasksAreWhatTryingEveryTokenGives) {
  const auto trie = std::make_shared<const TokenTrie>(small_vocabulary());
  const auto num_tokens = static_cast<int32_t>(trie->num_tokens());
  const int32_t stop = num_tokens - 1;
  std::vector<uint64_t> mask(static_cast<size_t>(trie->num_words()) + 2, ~uint64_t{0});
  for (const std::string& schema : schemas()) {
    const auto grammar = schema_grammar(schema);
    const auto masks = std::make_shared<GrammarMasks>(grammar, trie);
    std::mt19937 random(7);
    for (int text = 0; text < 6; ++text) {
      GrammarMatcher matcher(masks, {stop});
      std::string written;
      for (int step = 0; step < 60; ++step) {
        matcher.fill_mask(mask);
        Automaton fresh(grammar);
        const int32_t at = fresh.advance(fresh.start(), written);
        std::vector<int32_t> allowed;
        for (int32_t token = 0; token < num_tokens; ++token) {
          const std::string_view bytes = trie->text(token);
          const bool is_allowed = token == stop
                                      ? fresh.is_complete(at)
                                      : !bytes.empty() && fresh.advance(at, bytes) != Automaton::kDead;
          ASSERT_EQ(is_set(mask, token), is_allowed) << schema << " " << written << " " << token;
          if (is_allowed) allowed.push_back(token);
        }
        EXPECT_EQ(mask[mask.size() - 1], 0U);
        EXPECT_EQ(matcher.is_complete(), fresh.is_complete(at));
        const int32_t token = allowed[random() % allowed.size()];
        matcher.accept(token);
        if (token == stop) break;
        written += trie->text(token);
      }
    }
  }
}

// A lone configuration for the whole of a text, wherever tokens cut it.
TEST(Matcher, TokensMayCutCharactersAnywhere) {
  const auto grammar = schema_grammar(R"({"type":"array","items":{"type":"string"}})");
  const std::string text = R"(["é€😀","a"])";
  Automaton automaton(grammar);
  const int32_t whole = automaton.advance(automaton.start(), text);
  for (size_t cut = 1; cut < text.size(); ++cut) {
    for (size_t other = cut; other < text.size(); ++other) {
      int32_t at = automaton.advance(automaton.start(), text.substr(0, cut));
      at = automaton.advance(at, text.substr(cut, other - cut));
      EXPECT_EQ(automaton.advance(at, text.substr(other)), whole);
    }
  }
}

TEST(Matcher, StopTokensComeOnlyWhereTheTextIsComplete) {
  const auto trie = std::make_shared<const TokenTrie>(std::vector<std::string>{"a", "b", "</s>"});
  const auto masks = std::make_shared<GrammarMasks>(gbnf_grammar("root ::= \"ab\" \"a\"?"), trie);
  GrammarMatcher matcher(masks, {2});
  std::vector<uint64_t> mask(1);
  const auto next = [&] {
    matcher.fill_mask(mask);
    return mask[0];
  };
  EXPECT_EQ(next(), 1U);
  EXPECT_NE(message_of([&] { matcher.accept(2); }).find("before it is complete"), std::string::npos);
  EXPECT_NE(message_of([&] { matcher.accept(1); }).find("does not allow token 1"), std::string::npos);
  EXPECT_NE(message_of([&] { matcher.accept(99); }).find("does not allow token 99"), std::string::npos);
  matcher.accept(0);
  EXPECT_EQ(next(), 2U);
  matcher.accept(1);
  EXPECT_EQ(next(), 5U);
  GrammarMatcher copy = matcher;
  matcher.accept(0);
  EXPECT_EQ(next(), 4U);
  matcher.accept(2);
  EXPECT_EQ(next(), 4U);
  copy.accept(2);
  EXPECT_TRUE(copy.is_complete());
}

TEST(Matcher, AVocabularyThatCannotSpellTheTextIsAnError) {
  const auto trie = std::make_shared<const TokenTrie>(std::vector<std::string>{"a", "b"});
  std::vector<uint64_t> mask(1);
  GrammarMatcher stuck(std::make_shared<GrammarMasks>(gbnf_grammar("root ::= \"ac\""), trie), {});
  stuck.fill_mask(mask);
  stuck.accept(0);
  EXPECT_NE(message_of([&] { stuck.fill_mask(mask); }).find("cannot spell"), std::string::npos);
  GrammarMatcher endless(std::make_shared<GrammarMasks>(gbnf_grammar("root ::= \"a\""), trie), {});
  endless.accept(0);
  EXPECT_NE(message_of([&] { endless.fill_mask(mask); }).find("no stop token"), std::string::npos);
  EXPECT_NE(message_of([] { TokenTrie({std::string(5000, 'a')}); }).find("5000 bytes"), std::string::npos);
}

// The tree of tokens times a set for every pattern of letters: refused, not waited for.
TEST(Matcher, WorkForAMaskIsBounded) {
  std::vector<std::string> tokens;
  for (int i = 0; i < 1 << 12; ++i) {
    std::string token;
    for (int bit = 0; bit < 12; ++bit) token += ((i >> bit) & 1) != 0 ? 'a' : 'b';
    tokens.push_back(token + token + token);
  }
  const auto trie = std::make_shared<const TokenTrie>(std::move(tokens));
  const auto masks =
      std::make_shared<GrammarMasks>(gbnf_grammar("root ::= [ab]* \"a\" [ab]{3000} \"!\""), trie);
  std::vector<uint64_t> mask(static_cast<size_t>(trie->num_words()));
  const std::string message = message_of([&] {
    GrammarMatcher matcher(masks, {});
    for (int i = 0; i < 100; ++i) {
      matcher.fill_mask(mask);
      matcher.accept((i * 7919) % (1 << 12));
    }
  });
  const bool is_refused = message.find("too ambiguous") != std::string::npos ||
                          message.find("MiB of states") != std::string::npos;
  EXPECT_TRUE(is_refused) << message;
}

}  // namespace
}  // namespace minimax::grammar
