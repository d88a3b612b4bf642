#include "anthropic/request.h"

#include <algorithm>

#include "anthropic/chat_body.h"
#include "chat/tools.h"

namespace minimax::anthropic {
namespace {

using Json = nlohmann::ordered_json;
using openai::ApiError;

// Tokens of the prompt that an output parser looks at: a token is a byte or more.
constexpr size_t kTailTokens = 64;

std::string tail_of(const std::vector<int32_t>& prompt, const tokenizer::Tokenizer& tokenizer) {
  const size_t count = std::min(prompt.size(), kTailTokens);
  return tokenizer.decode(std::span(prompt).last(count));
}

bool read_stream(const Json& body) {
  const auto stream = body.find("stream");
  if (stream == body.end() || stream->is_null()) return false;
  if (!stream->is_boolean()) throw ApiError("stream", "stream is no boolean; expected true or false");
  return stream->get<bool>();
}

}  // namespace

MessagesRequest parse_messages(const Json& body, const openai::ServedModel& model) {
  const Json chat = chat_body(body);
  if (!chat.contains("max_tokens")) {
    throw ApiError("max_tokens", "max_tokens is missing; expected the most tokens of the answer");
  }
  MessagesRequest result;
  result.is_stream = read_stream(body);
  result.completion = openai::parse_chat_completion(chat, model);
  result.tools = chat::tools_from_json(chat.value("tools", Json(nullptr)));
  result.prompt_tail = tail_of(result.completion.request.prompt, *model.tokenizer);
  // Markers are among a family's special tokens, and the output parser looks for them.
  result.completion.skip_special_tokens = false;
  return result;
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
