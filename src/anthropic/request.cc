#include "anthropic/request.h"

#include <cstdint>

#include "anthropic/chat_body.h"

namespace minimax::anthropic {

using Json = nlohmann::ordered_json;

openai::CompletionRequest parse_messages(const Json& body, const openai::ServedModel& model) {
  const Json chat = chat_body(body);
  if (!chat.contains("max_tokens")) {
    throw openai::ApiError("max_tokens", "max_tokens is missing; expected the most tokens of the answer");
  }
  return openai::parse_chat_completion(chat, model);
}

Json count_tokens(const Json& body, const openai::ServedModel& model) {
  Json chat = chat_body(body);
  chat.erase("max_tokens");
  openai::ServedModel unbounded = model;
  unbounded.max_model_len = INT64_MAX;
  const openai::CompletionRequest request = openai::parse_chat_completion(chat, unbounded);
  return {{"input_tokens", request.request.prompt.size()}};
}

}  // namespace minimax::anthropic
