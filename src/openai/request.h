// Bodies of /v1/chat/completions and /v1/completions to requests of the engine.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

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
  std::shared_ptr<Constraints> constraints{};  // null: formats of answers are refused
};

struct CompletionRequest {
  engine::Request request;
  std::vector<std::string> stop;
  bool is_chat = false;
  bool wants_logprobs = false;
  bool echo = false;
  bool skip_special_tokens = true;
};

// THROWS: ApiError naming the field, its value and what is expected.
CompletionRequest parse_chat_completion(const nlohmann::ordered_json& body, const ServedModel& model);
CompletionRequest parse_completion(const nlohmann::ordered_json& body, const ServedModel& model);

}  // namespace minimax::openai
