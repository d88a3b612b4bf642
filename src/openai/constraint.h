// What an answer must look like, by the fields of OpenAI's API (response_format) and vLLM's (guided_json,
// guided_regex, guided_grammar, guided_choice, structured_outputs), as constraints for the engine.
//
// Reasoning stays free: in a chat the answer's text is constrained from the end of the reasoning on, whether
// the prompt has opened it or the model may.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/constraint.h"
#include "grammar/call_block.h"
#include "grammar/matcher.h"
#include "tokenizer/tokenizer.h"

namespace minimax::openai {

// Whether the answer has a part of reasoning in front, and how that is marked.
struct ReasoningPart {
  enum class State : uint8_t { kNone, kMayCome, kOpen };
  State state = State::kNone;
  std::string begin, end;
};

// By the family's markers and the last tokens of a chat's prompt.
ReasoningPart reasoning_part(const tokenizer::Tokenizer& tokenizer, std::span<const int32_t> prompt);

// The constraints of a model's requests. Grammars that were compiled are kept, with the masks found so far,
// for the next requests with the same text. Safe from any thread.
class Constraints {
 public:
  // REQUIRES: `tokenizer` outlives this and what it gives.
  explicit Constraints(const tokenizer::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // What `body` asks for; empty when it asks for nothing. `stop_tokens` end the text.
  // THROWS: ApiError naming the field that is wrong or not supported.
  engine::ConstraintMaker of_body(const nlohmann::ordered_json& body, const ReasoningPart& reasoning,
                                  const std::vector<int32_t>& stop_tokens);
  // A block of calls and nothing else. THROWS: Error naming the tool.
  engine::ConstraintMaker of_calls(grammar::CallFormat format, const std::vector<grammar::CallTool>& tools,
                                   bool is_repeated, const ReasoningPart& reasoning,
                                   const std::vector<int32_t>& stop_tokens);

 private:
  struct Known {
    std::string key;
    std::shared_ptr<grammar::GrammarMasks> masks;
  };

  template <typename Add>
  engine::ConstraintMaker maker(const std::string& key, const ReasoningPart& reasoning, bool with_calls,
                                const std::vector<int32_t>& stop_tokens, Add&& add);
  std::shared_ptr<const grammar::TokenTrie> trie(bool with_calls);

  const tokenizer::Tokenizer& tokenizer_;
  std::mutex mutex_;  // of the following
  std::shared_ptr<const grammar::TokenTrie> plain_trie_, call_trie_;
  std::list<Known> known_;  // last used first
};

}  // namespace minimax::openai
