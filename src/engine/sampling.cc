#include "engine/sampling.h"

#include <cmath>

namespace minimax::engine {
namespace {

void check_range(const char* name, float value, float low, float high) {
  if (!(value >= low && value <= high))
    fail("{} is {}; it must be between {} and {}", name, value, low, high);
}

template <typename T>
Tensor vector_view(const T* data, DType dtype, int64_t count) {
  return Tensor(const_cast<T*>(data), dtype, {count});
}

}  // namespace

void SamplingParams::check() const {
  check_range("temperature", temperature, 0.0F, 100.0F);
  check_range("top_p", top_p, 0.0F, 1.0F);
  check_range("min_p", min_p, 0.0F, 1.0F);
  check_range("repetition_penalty", repetition_penalty, 1e-3F, 100.0F);
  check_range("presence_penalty", presence_penalty, -2.0F, 2.0F);
  check_range("frequency_penalty", frequency_penalty, -2.0F, 2.0F);
  if (top_k < -1) fail("top_k is {}; it must be 0 or -1 (off) or a positive count", top_k);
  if (top_logprobs < 0) fail("top_logprobs is {}; it must not be negative", top_logprobs);
  for (const auto& [id, value] : logit_bias) {
    if (!std::isfinite(value)) fail("logit_bias of token {} is {}; it must be finite", id, value);
  }
}

Sampler::Sampler(ops::Backend& backend, const SamplingParams& params, std::span<const int32_t> prompt,
                 int64_t vocab_size, int64_t vocab_limit)
    : backend_(backend),
      params_(params),
      vocab_limit_(vocab_limit),
      history_(prompt.begin(), prompt.end()),
      prompt_length_(static_cast<int64_t>(prompt.size())),
      top_ids_(static_cast<size_t>(std::min<int64_t>(params.top_logprobs, vocab_limit))),
      top_logprobs_(top_ids_.size()) {
  params.check();
  for (const auto& [id, value] : params.logit_bias) {
    bias_ids_.push_back(id);
    bias_values_.push_back(value);
  }
  bias_starts_[1] = static_cast<int64_t>(bias_ids_.size());

  Arena plan;
  ops::OpContext context{backend_, plan, nullptr};
  ops::sample(context, arguments(Tensor(nullptr, DType::kF32, {1, vocab_size})));
  arena_ = Arena(plan.peak_bytes());
}

ops::Sample Sampler::arguments(const Tensor& logits) {
  starts_[1] = static_cast<int64_t>(history_.size());
  const auto top = static_cast<int64_t>(top_ids_.size());
  ops::Sample args;
  args.logits = logits;
  args.vocab_limit = vocab_limit_;
  args.temperature = vector_view(&params_.temperature, DType::kF32, 1);
  args.top_k = vector_view(&params_.top_k, DType::kI32, 1);
  args.top_p = vector_view(&params_.top_p, DType::kF32, 1);
  args.min_p = vector_view(&params_.min_p, DType::kF32, 1);
  args.repetition_penalty = vector_view(&params_.repetition_penalty, DType::kF32, 1);
  args.presence_penalty = vector_view(&params_.presence_penalty, DType::kF32, 1);
  args.frequency_penalty = vector_view(&params_.frequency_penalty, DType::kF32, 1);
  args.seed = vector_view(&params_.seed, DType::kI64, 1);
  args.counter = vector_view(&counter_, DType::kI64, 1);
  args.history_ids = vector_view(history_.data(), DType::kI32, starts_[1]);
  args.history_starts = vector_view(starts_, DType::kI64, 2);
  args.prompt_lens = vector_view(&prompt_length_, DType::kI64, 1);
  args.bias_ids = vector_view(bias_ids_.data(), DType::kI32, bias_starts_[1]);
  args.bias_values = vector_view(bias_values_.data(), DType::kF32, bias_starts_[1]);
  args.bias_starts = vector_view(bias_starts_, DType::kI64, 2);
  args.tokens = vector_view(&token_, DType::kI32, 1);
  args.logprobs = vector_view(&logprob_, DType::kF32, 1);
  args.top_ids = vector_view(top_ids_.data(), DType::kI32, top).reshape({1, top});
  args.top_logprobs = vector_view(top_logprobs_.data(), DType::kF32, top).reshape({1, top});
  return args;
}

SampledToken Sampler::sample(std::span<const float> logits) {
  ops::OpContext context{backend_, arena_, nullptr};
  const Tensor row(const_cast<float*>(logits.data()), DType::kF32, {1, static_cast<int64_t>(logits.size())},
                   "logits");
  ops::sample(context, arguments(row));
  ++counter_;
  history_.push_back(token_);
  SampledToken result{token_, logprob_, {}};
  for (size_t i = 0; i < top_ids_.size(); ++i) result.top.emplace_back(top_ids_[i], top_logprobs_[i]);
  return result;
}

}  // namespace minimax::engine
