// Bodies of /v1/messages in the words of /v1/chat/completions, which the openai room reads.
#pragma once

#include <nlohmann/json.hpp>

namespace minimax::anthropic {

// Text, thinking, tool calls and their results become messages as chat templates know them; tools and
// sampling options get their other names. What is not checked here is checked where the result is read.
// THROWS: openai::ApiError naming the field, what was found and what is taken instead: content that is no
// text, tools that run on the provider's side, an answer begun by the caller.
nlohmann::ordered_json chat_body(const nlohmann::ordered_json& body);

}  // namespace minimax::anthropic
