// A model with its tokenizer, chat template and generation defaults: what text commands work on.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/model_setup.h"
#include "engine/generate.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer.h"

namespace minimax::apps {

// Sampling options of the command line; what is not given comes from the checkpoint's generation_config.json.
struct SamplingOptions {
  std::optional<float> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int32_t> top_k;
  std::optional<int64_t> seed;
  std::vector<std::string> logit_bias;  // "ID=VALUE"
  std::optional<int64_t> max_tokens;
  bool ignore_eos = false;

  void add_to(CLI::App& command);
};

struct TextModel {
  ModelRuntime runtime;
  nlohmann::json generation_config;
  std::optional<tokenizer::Tokenizer> tokenizer;  // none when the directory has no tokenizer files
  std::optional<tokenizer::ChatTemplate> chat_template;
  std::string template_problem;  // why there is no chat template

  // THROWS: Error naming the missing files.
  const tokenizer::Tokenizer& required_tokenizer() const;

  std::vector<int32_t> stop_token_ids() const;
  engine::SamplingParams sampling(const SamplingOptions& options) const;
  // A request for `prompt`; max_tokens from the options, else `default_max_tokens`.
  engine::GenerationRequest request(std::vector<int32_t> prompt, const SamplingOptions& options,
                                    int64_t default_max_tokens) const;
  // The prompt of a conversation, ready for the model's turn. THROWS: Error when there is no template.
  std::vector<int32_t> chat_prompt(const nlohmann::ordered_json& messages,
                                   const nlohmann::ordered_json& tools) const;
};

TextModel set_up_text_model(const ModelOptions& options);

// Tokens for an answer when nothing else says: enough for reasoning.
inline constexpr int64_t kDefaultMaxTokens = 4096;

}  // namespace minimax::apps
