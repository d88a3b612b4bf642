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
  std::vector<std::string> stop;
  bool is_chat = false;
  bool wants_logprobs = false;
  bool echo = false;
  bool skip_special_tokens = true;
  std::string model;  // as the request names it, empty when it does not
  bool has_seed = false;
  bool is_stream = false;
  bool includes_usage = false;  // in a stream, after the last choice
  std::string prompt_tail;      // of chats: the end of the prompt's text
  std::vector<chat::Tool> tools;
};

// THROWS: ApiError naming the field, its value and what is expected.
CompletionRequest parse_chat_completion(const nlohmann::ordered_json& body, const ServedModel& model);
CompletionRequest parse_completion(const nlohmann::ordered_json& body, const ServedModel& model);

}  // namespace minimax::openai
