// /tokenize and /detokenize, as vLLM's.
#pragma once

#include <nlohmann/json.hpp>

#include "openai/request.h"

namespace minimax::server {

// {prompt} or {messages, ...} to {count, max_model_len, tokens, token_strs}. THROWS: ApiError.
nlohmann::ordered_json tokenize(const nlohmann::ordered_json& body, const openai::ServedModel& model);

// {tokens} to {prompt}. THROWS: ApiError.
nlohmann::ordered_json detokenize(const nlohmann::ordered_json& body, const openai::ServedModel& model);

}  // namespace minimax::server
