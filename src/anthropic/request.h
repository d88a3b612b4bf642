// Bodies of /v1/messages and /v1/messages/count_tokens to requests of the engine.
#pragma once

#include <nlohmann/json.hpp>

#include "openai/request.h"

namespace minimax::anthropic {

// THROWS: openai::ApiError naming the field, its value and what is expected.
openai::CompletionRequest parse_messages(const nlohmann::ordered_json& body,
                                         const openai::ServedModel& model);

// The body of /v1/messages/count_tokens' answer. Prompts longer than the model takes are counted too.
// THROWS: as parse_messages.
nlohmann::ordered_json count_tokens(const nlohmann::ordered_json& body, const openai::ServedModel& model);

}  // namespace minimax::anthropic
