// Grammars of every kind for tests, and whole texts read by them.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/error.h"
#include "grammar/automaton.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"

namespace minimax::testing {

template <typename Add>
std::shared_ptr<const grammar::Grammar> grammar_of(Add&& add) {
  grammar::GrammarBuilder builder;
  const grammar::ExprId body = add(builder);
  const grammar::RuleId root = builder.rule("root of the test", body);
  return std::move(builder).build(root);
}

inline std::shared_ptr<const grammar::Grammar> schema_grammar(std::string_view schema) {
  return grammar_of([&](grammar::GrammarBuilder& b) {
    grammar::JsonText json(b);
    return grammar::add_json_schema(json, nlohmann::ordered_json::parse(schema));
  });
}
inline std::shared_ptr<const grammar::Grammar> gbnf_grammar(std::string_view text) {
  return grammar_of([&](grammar::GrammarBuilder& b) { return grammar::add_gbnf(b, text); });
}
inline std::shared_ptr<const grammar::Grammar> regex_grammar(std::string_view pattern) {
  return grammar_of([&](grammar::GrammarBuilder& b) { return grammar::add_regex(b, pattern); });
}

inline bool matches(const std::shared_ptr<const grammar::Grammar>& grammar, std::string_view text) {
  grammar::Automaton automaton(grammar);
  const int32_t end = automaton.advance(automaton.start(), text);
  return end != grammar::Automaton::kDead && automaton.is_complete(end);
}

// What `make` is refused with; empty when it is not.
template <typename Make>
std::string message_of(Make&& make) {
  try {
    make();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace minimax::testing
