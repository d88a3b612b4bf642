// Finished samples to bodies of OpenAI's answers.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "openai/request.h"

namespace minimax::openai {

// A finished sample with its text.
struct TextSample {
  std::string text;
  std::vector<engine::SampledToken> tokens;  // of the text, if logprobs are wanted
  engine::FinishedSample finish;
};

struct ResponseInfo {
  std::string id;
  int64_t created = 0;  // seconds since 1970
  bool reports_cached_tokens = true;
};

// As chat.completion or text_completion, by the request's kind.
nlohmann::ordered_json completion_body(const CompletionRequest& request, const ServedModel& model,
                                       const std::vector<TextSample>& samples, const ResponseInfo& info);

}  // namespace minimax::openai
