// Grammars as text, regular expressions, and what the automaton makes of hard ones.
#include <gtest/gtest.h>

#include <regex>

#include "tests/grammar/helpers.h"

namespace minimax::grammar {
namespace {

using minimax::testing::gbnf_grammar;
using minimax::testing::matches;
using minimax::testing::message_of;
using minimax::testing::regex_grammar;

TEST(Gbnf, ReadsWhatItDescribes) {
  const auto grammar = gbnf_grammar(R"GBNF(
# A sum of products.
root   ::= sum "\n"
sum    ::= product (("+" | "-") product)*
product ::= factor
          | factor "*" product
factor ::= [0-9]+ | "(" sum ")" | name   # brackets nest
name   ::= [a-zäöü_] [^ \n()+*\-]{0,3} "!"?
)GBNF");
  for (const char* text : {"1\n", "(1+2)*33-x\n", "((((ä))))*öé€!\n", "a1!+b\n"})
    EXPECT_TRUE(matches(grammar, text)) << text;
  for (const char* text : {"", "1", "1+\n", "(1\n", "(1))\n", "abcde\n", "1 +2\n"})
    EXPECT_FALSE(matches(grammar, text)) << text;
}

TEST(Gbnf, MessagesNameTheLine) {
  const auto message = [](const char* text) { return message_of([&] { gbnf_grammar(text); }); };
  EXPECT_EQ(message("root ::= \"a\nb ::= c"), "grammar, line 1: a literal has no closing quote");
  EXPECT_EQ(message("root ::= a\na ::= [b-a]"), "grammar, line 2: a range of a class goes backwards");
  EXPECT_EQ(message("root ::= a"), "grammar: rule \"a\" is used and not defined");
  EXPECT_EQ(message("a ::= \"b\""), "grammar: there is no rule \"root\"; the text begins with it");
  EXPECT_EQ(message("root ::= ("), "grammar, line 1: expected )");
  EXPECT_NE(message("root ::= root \"a\" | \"b\"").find("left recursion"), std::string::npos);
  EXPECT_NE(message("root ::= a root | \"y\"\na ::= \"x\"?").find("left recursion"), std::string::npos);
  EXPECT_NE(message("root ::= \"a\" root").find("no text matches"), std::string::npos);
  EXPECT_NE(message("root ::= [a-z]{1000000}").find("repetition count"), std::string::npos);
  EXPECT_NE(message("root ::= (((a{9999}){9}){9}){9}\na ::= [é-€]{99999} [x-z]{399999}").find("states"),
            std::string::npos);
}

TEST(Grammar, EmptyRulesMayStandAnywhere) {
  const auto grammar = gbnf_grammar(
      "root ::= e a e \"x\" e root2 e\ne ::= \"\" | e2\ne2 ::= \"-\"*\na ::= e e\nroot2 ::= \"\" | \"y\" "
      "root2 e");
  for (const char* text : {"x", "-x-", "---xyy", "xyy-", "x--y--"})
    EXPECT_TRUE(matches(grammar, text)) << text;
  for (const char* text : {"", "-", "xx", "yx", "xy-y"}) EXPECT_FALSE(matches(grammar, text)) << text;
  EXPECT_TRUE(matches(gbnf_grammar("root ::= \"a\"*"), ""));
}

// Against the library's own matcher, over all short texts.
TEST(Regex, ReadsWhatStdRegexReads) {
  const std::vector<std::string> patterns{
      "a*b",    "(ab|a)(bc|c)?", "[^a]{1,3}", "(?:a|b)+c?", "a{2}b{0,2}",        "a{2,}",
      "\\d\\w", "(a*)*b?",       "[a-c]\\.",  "a|bc|",      "((a|b)(a|c)){1,2}", "\\x61\\u0062",
      ".b.",    "[\\d.]+",       "a??b",      "[-a]b"};
  const std::string letters = "abc.1-";
  std::vector<std::string> texts{""};
  for (size_t i = 0; i < texts.size() && texts[i].size() < 4; ++i) {
    for (const char c : letters) texts.push_back(texts[i] + c);
  }
  for (const std::string& pattern : patterns) {
    const std::regex expected(pattern);
    const auto grammar = regex_grammar(pattern);
    for (const std::string& text : texts)
      ASSERT_EQ(matches(grammar, text), std::regex_match(text, expected)) << pattern << " " << text;
  }
}

TEST(Regex, WhatIsNotSupportedIsNamed) {
  const auto message = [](const char* text) { return message_of([&] { regex_grammar(text); }); };
  EXPECT_NE(message("(?=a)b").find("look-around"), std::string::npos);
  EXPECT_NE(message("(a)\\1").find("\\1, which is not supported, at character 4"), std::string::npos);
  EXPECT_NE(message("\\bword").find("\\b"), std::string::npos);
  EXPECT_NE(message("a(b").find("missing )"), std::string::npos);
  EXPECT_NE(message("[a").find("missing ]"), std::string::npos);
  EXPECT_NE(message("*a").find("repetition of nothing"), std::string::npos);
  EXPECT_NE(message("(^a|b)").find("^ is supported at the beginning"), std::string::npos);
  EXPECT_NE(message("a)").find("unexpected"), std::string::npos);
  EXPECT_EQ(message("^(?P<name>a)(?<other>b)$"), "");
}

TEST(Grammar, CharactersBeyondAscii) {
  const auto grammar = regex_grammar("[^a]é.[α-ω]{2}");
  EXPECT_TRUE(matches(grammar, "€é😀αω"));
  EXPECT_FALSE(matches(grammar, "€é😀αΩ"));
  EXPECT_FALSE(matches(grammar, "\x80é😀αω"));
}

TEST(Grammar, TextWithoutAMarkerEndsAtItsFirstOccurrence) {
  const auto grammar = minimax::testing::grammar_of([](GrammarBuilder& b) {
    return b.sequence({b.text_without("<<>"), b.literal("<<>"), b.literal("end")});
  });
  for (const char* text : {"<<>end", "a<b<<<>end", "\xFF<< ><<>end", "<<<>end"})
    EXPECT_TRUE(matches(grammar, text)) << text;
  for (const char* text : {"", "<<>", "<<>a<<>end", "<<end"}) EXPECT_FALSE(matches(grammar, text)) << text;
}

// Work and memory stay bounded by a power of the text, whatever the grammar.
TEST(Grammar, AmbiguousGrammarsDoNotBlowUp) {
  struct Case {
    const char* grammar;
    std::string text;
  };
  const std::string as(200, 'a');
  const std::vector<Case> cases{
      {"root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"d\"", as + "d"},
      {"root ::= \"a\" | \"a\" root | \"a\" root root | \"a\" root root root", as},
      {"root ::= (\"a\" | \"aa\" | \"aaa\" | x)*\nx ::= \"a\" x? y?\ny ::= \"a\" y? x?", as},
      {"root ::= ((((\"a\"*)*)*)*)* \"b\"?", as},
      {"root ::= [a-z]* \"a\" [a-z]{200} \"!\"", as},
      {"root ::= a a a a a a a a \"b\"\na ::= \"a\"*", as},
  };
  for (const Case& c : cases) {
    Automaton automaton(gbnf_grammar(c.grammar));
    automaton.set_budget(20'000'000);
    EXPECT_NE(automaton.advance(automaton.start(), c.text), Automaton::kDead) << c.grammar;
    EXPECT_LT(automaton.bytes(), 64 << 20) << c.grammar;
  }
}

TEST(Grammar, ListsDoNotGrowWithTheirLength) {
  Automaton automaton(
      gbnf_grammar("root ::= item root | item\nitem ::= \"[\" inner \"]\"\ninner ::= [a-z] inner | \"\""));
  int32_t at = automaton.advance(automaton.start(), "[ab][c][]");
  const int32_t known = automaton.num_configurations();
  for (int i = 0; i < 1000; ++i) at = automaton.advance(at, "[ab][c][]");
  EXPECT_TRUE(automaton.is_complete(at));
  EXPECT_LE(automaton.num_configurations(), known + 4);
}

TEST(Grammar, DepthAndMemoryAreBounded) {
  const auto nested = gbnf_grammar("root ::= \"(\" root \")\" | \"\"");
  Automaton shallow(nested, {.max_depth = 10});
  EXPECT_NE(shallow.advance(shallow.start(), "(((((((((("), Automaton::kDead);
  const int32_t deepest = shallow.advance(shallow.start(), "((((((((((");
  // One more may be opened and closed at once, since what is inside may be empty.
  EXPECT_NE(shallow.advance(deepest, "()"), Automaton::kDead);
  EXPECT_EQ(shallow.advance(deepest, "(("), Automaton::kDead);
  Automaton small(nested, {.max_depth = 1 << 20, .max_bytes = 1 << 20});
  const std::string message = message_of([&] { small.advance(small.start(), std::string(100000, '(')); });
  EXPECT_NE(message.find("more than 1 MiB of states"), std::string::npos);
}

}  // namespace
}  // namespace minimax::grammar
