// Generation: prompt in, tokens out, one sequence at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/finish_reason.h"
#include "engine/sampling.h"
#include "engine/session.h"

namespace minimax::engine {

struct GenerationRequest {
  std::vector<int32_t> prompt;  // appended to what the session holds
  SamplingParams sampling;
  int64_t max_tokens = 0;
  std::vector<int32_t> stop_token_ids;  // not reported as tokens of the answer
  int64_t vocab_limit = 0;              // ids at or beyond are never drawn; 0: the whole head
};

struct GenerationResult {
  std::vector<int32_t> token_ids;
  FinishReason finish_reason = FinishReason::kLength;
  int64_t prompt_tokens = 0;
  double seconds_to_first_token = 0;
  double decode_seconds = 0;  // of the tokens after the first

  double decode_tokens_per_second() const;
  double prefill_tokens_per_second() const;
};

// Called with each token as it is drawn; false ends the generation.
using TokenCallback = std::function<bool(const SampledToken&)>;

// THROWS: Error when the prompt does not fit or a parameter is out of range.
GenerationResult generate(Session& session, const models::Model& model, ops::Backend& backend,
                          const GenerationRequest& request, const TokenCallback& on_token);

}  // namespace minimax::engine
