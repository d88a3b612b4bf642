// Bodies of /v1/chat/completions and /v1/completions to requests of the engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "chat/output_parser.h"
#include "engine/engine.h"
#include "openai/constraint.h"
#include "openai/error.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace minimax::openai {

// What a request means depends on it: the model behind the API, with its checkpoint's defaults.
struct ServedModel {
  std::string name;
  const tokenizer::Tokenizer* tokenizer = nullptr;
  const tokenizer::ChatTemplate* chat_template = nullptr;  // null: chat is refused
  engine::SamplingParams sampling;                         // where a request says nothing
  std::vector<int32_t> stop_token_ids;
  int64_t max_model_len = 0;
  // Makes the parser of an answer, from the tools and the end of the prompt. None: answers are all content.
  std::function<std::unique_ptr<chat::OutputParser>(std::vector<chat::Tool>, std::string_view)> make_parser;
  std::shared_ptr<Constraints> constraints{};        // null: formats of answers are refused
  std::optional<grammar::CallFormat> call_format{};  // none: calls cannot be forced
};

struct CompletionRequest {
  engine::Request request;
  std::vector<engine::Request> further{};  // of /v1/completions: one for each prompt behind the first
  std::vector<std::string> stop;
  bool is_chat = false;
  bool wants_logprobs = false;
  bool wants_prompt_logprobs = false;
  bool echo = false;
  bool is_prompt_only = false;    // max_tokens is 0: the one token that an engine draws is not shown
  bool is_context_bound = false;  // the context ends the answer before max_tokens could
  bool skip_special_tokens = true;
  std::string model;  // as the request names it, empty when it does not
  bool has_seed = false;
  bool is_stream = false;
  bool includes_usage = false;  // in a stream, after the last choice
  std::string prompt_tail;      // of chats: the end of the prompt's text
  std::vector<chat::Tool> tools;

  // Choices count the samples of all prompts.
  int64_t num_choices() const { return request.n * (std::ssize(further) + 1); }
  const engine::Request& request_of(int32_t choice) const {
    const int32_t index = choice / request.n;
    return index == 0 ? request : further[static_cast<size_t>(index - 1)];
  }
};

// THROWS: ApiError naming the field, its value and what is expected.
CompletionRequest parse_chat_completion(const nlohmann::ordered_json& body, const ServedModel& model);
CompletionRequest parse_completion(const nlohmann::ordered_json& body, const ServedModel& model);

}  // namespace minimax::openai
