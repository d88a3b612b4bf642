// Sampling of one sequence: the user's parameters turned into the sampling op's buffers.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "core/arena.h"
#include "ops/backend.h"

namespace minimax::engine {

// As the OpenAI API and Hugging Face's generation_config.json name them.
struct SamplingParams {
  float temperature = 1.0F;
  float top_p = 1.0F;
  int32_t top_k = 0;  // 0: off
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  float presence_penalty = 0.0F;
  float frequency_penalty = 0.0F;
  int64_t seed = 0;
  std::map<int32_t, float> logit_bias;
  int32_t top_logprobs = 0;

  // THROWS: Error naming the parameter, its value and its range.
  void check() const;
};

struct SampledToken {
  int32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // descending
};

class Sampler {
 public:
  // Ids at or beyond `vocab_limit` (padding rows of the head) are never chosen.
  Sampler(ops::Backend& backend, const SamplingParams& params, std::span<const int32_t> prompt,
          int64_t vocab_size, int64_t vocab_limit);

  // Draws the next token from logits [vocab] and remembers it.
  SampledToken sample(std::span<const float> logits);

 private:
  ops::Sample arguments(const Tensor& logits);

  ops::Backend& backend_;
  SamplingParams params_;
  int64_t vocab_limit_;
  std::vector<int32_t> history_;
  int64_t prompt_length_;
  int64_t counter_ = 0;
  std::vector<int32_t> bias_ids_;
  std::vector<float> bias_values_;
  int64_t starts_[2] = {0, 0};
  int64_t bias_starts_[2] = {0, 0};
  int32_t token_ = 0;
  float logprob_ = 0;
  std::vector<int32_t> top_ids_;
  std::vector<float> top_logprobs_;
  Arena arena_;
};

}  // namespace minimax::engine
