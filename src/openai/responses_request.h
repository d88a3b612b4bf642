// Bodies of /v1/responses to requests of the engine.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "openai/request.h"
#include "openai/response_store.h"

namespace minimax::openai {

struct ResponsesRequest {
  CompletionRequest completion;
  std::string items;                // the conversation with the new input, a list, if it is stored
  nlohmann::ordered_json settings;  // what the response object repeats of the request
  bool is_stored = false;           // the answer is to be kept
  bool carries_reasoning = false;   // reasoning items have encrypted_content
};

// Goes on from the stored answer that the body names, if it does.
// THROWS: ApiError naming the field, its value and what is expected, or what this server does not do.
ResponsesRequest parse_responses(const nlohmann::ordered_json& body, const ServedModel& model,
                                 ResponseStore& store);

// The body of /v1/responses/input_tokens' answer. Prompts longer than the model takes are counted too.
// THROWS: as parse_responses.
nlohmann::ordered_json count_input_tokens(const nlohmann::ordered_json& body, const ServedModel& model,
                                          ResponseStore& store);

}  // namespace minimax::openai
