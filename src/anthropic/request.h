// Bodies of /v1/messages and /v1/messages/count_tokens to requests of the engine.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "chat/output_parser.h"
#include "openai/request.h"

namespace minimax::anthropic {

struct MessagesRequest {
  openai::CompletionRequest completion;
  std::vector<chat::Tool> tools;
  std::string prompt_tail;  // for the output parser
  bool is_stream = false;
};

// THROWS: openai::ApiError naming the field, its value and what is expected.
MessagesRequest parse_messages(const nlohmann::ordered_json& body, const openai::ServedModel& model);

// The body of /v1/messages/count_tokens' answer. Prompts longer than the model takes are counted too.
// THROWS: as parse_messages.
nlohmann::ordered_json count_tokens(const nlohmann::ordered_json& body, const openai::ServedModel& model);

}  // namespace minimax::anthropic
