#include "engine/generate.h"

#include <algorithm>
#include <chrono>

namespace minimax::engine {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

double GenerationResult::decode_tokens_per_second() const {
  const auto tokens = static_cast<double>(token_ids.size()) - 1;
  return tokens > 0 && decode_seconds > 0 ? tokens / decode_seconds : 0;
}

double GenerationResult::prefill_tokens_per_second() const {
  return seconds_to_first_token > 0 ? static_cast<double>(prompt_tokens) / seconds_to_first_token : 0;
}

GenerationResult generate(Session& session, const models::Model& model, ops::Backend& backend,
                          const GenerationRequest& request, const TokenCallback& on_token) {
  const int64_t vocab_limit =
      request.vocab_limit > 0 ? std::min(request.vocab_limit, model.vocab_size()) : model.vocab_size();
  Sampler sampler(backend, request.sampling, request.prompt, model.vocab_size(), vocab_limit);
  GenerationResult result;
  result.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (request.max_tokens <= 0) return result;

  const auto start = Clock::now();
  std::span<const float> logits = session.append(request.prompt);
  auto first_token = start;
  while (true) {
    const SampledToken token = sampler.sample(logits);
    if (result.token_ids.empty()) first_token = Clock::now();
    const bool stops = std::find(request.stop_token_ids.begin(), request.stop_token_ids.end(), token.id) !=
                       request.stop_token_ids.end();
    if (stops) {
      result.finish_reason = FinishReason::kStop;
      break;
    }
    result.token_ids.push_back(token.id);
    if (!on_token(token)) {
      result.finish_reason = FinishReason::kCancelled;
      break;
    }
    if (static_cast<int64_t>(result.token_ids.size()) >= request.max_tokens ||
        session.length() >= session.max_context()) {
      break;
    }
    logits = session.append({&token.id, 1});
  }
  result.seconds_to_first_token = seconds_between(start, first_token);
  result.decode_seconds = seconds_between(first_token, Clock::now());
  return result;
}

}  // namespace minimax::engine
