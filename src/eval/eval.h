// Skills of the demo model: draw a fresh case by seed, grade the model's answer.
//
// A case is a conversation for the chat template and what a right answer must contain. Drawing is pure and
// gives the same case on every platform; nothing here knows an engine, a tokenizer or a template. All
// functions may be called from any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace minimax::eval {

struct Case {
  std::string skill;
  nlohmann::json messages;  // [{"role": ..., "content": ...}, ...], as in the OpenAI API
  nlohmann::json tools;     // null, or a list of {"type": "function", "function": {...}}
  // What the answer is compared with, by skill:
  //   arithmetic  the value (integer)
  //   sorting, reversing  the items in order (list of strings), or the reversed text (string)
  //   lookup      the value (string)
  //   facts       texts that must occur in the answer (list of strings)
  //   tool_call   {"name": ..., "arguments": {...}}, or after a tool result the result (string)
  nlohmann::json expected;
};

// What the facts skill asks a demo model about itself: which one it is.
enum class DemoModel : uint8_t { kM1, kM2, kM3 };

// RETURNS: the skills in the order in which they are reported; lookup_sparse, whose prompts are longer than
// what sparse attention reads, only for the model that has it.
const std::vector<std::string>& skill_names(DemoModel model = DemoModel::kM1);

// Tokens that suffice for a right answer with its reasoning.
// THROWS: Error when the skill is unknown.
int max_tokens(std::string_view skill);

// Case `index` of a series; the same arguments give the same case.
// THROWS: Error when the skill is unknown.
Case draw(std::string_view skill, uint64_t seed, uint64_t index, DemoModel model = DemoModel::kM1);

// RETURNS: the generated text without its reasoning, trimmed: what follows the first "</think>" (or
// "</mm:think>"), or everything when there is none and no "<think>" was opened. A prompt that has opened one
// belongs before the text.
std::string answer_of(std::string_view generated_text);

// RETURNS: whether the model's text answers the case. `generated_text` is all that the model wrote,
// reasoning included, without the end token.
bool grade(const Case& drawn, std::string_view generated_text);

}  // namespace minimax::eval
