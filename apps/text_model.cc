#include "apps/text_model.h"

#include <charconv>
#include <chrono>
#include <iostream>

#include "formats/checkpoint.h"

namespace minimax::apps {
namespace {

namespace fs = std::filesystem;

// M1's README recommends these; its checkpoint carries no generation_config.json.
constexpr float kDefaultTemperature = 1.0F;
constexpr float kDefaultTopP = 0.95F;

template <typename T>
T pick(const std::optional<T>& option, const nlohmann::json& config, const char* field, T fallback) {
  if (option) return *option;
  const auto value = config.find(field);
  return value != config.end() && value->is_number() ? value->get<T>() : fallback;
}

std::pair<int32_t, float> parse_bias(const std::string& text) {
  int32_t id = 0;
  float value = 0;
  const char* end = text.data() + text.size();
  const auto [after_id, id_error] = std::from_chars(text.data(), end, id);
  if (id_error == std::errc() && after_id != end && *after_id == '=') {
    const auto [rest, error] = std::from_chars(after_id + 1, end, value);
    if (error == std::errc() && rest == end) return {id, value};
  }
  fail("--logit-bias {}: expected ID=VALUE, e.g. 42=-100", text);
}

bool has_tokenizer_files(const fs::path& directory) {
  for (const char* file : {"tokenizer.json", "merges.txt"}) {
    if (fs::exists(directory / file)) return true;
  }
  return false;
}

int64_t random_seed() {
  return static_cast<int64_t>(std::chrono::system_clock::now().time_since_epoch().count() & 0x7fffffff);
}

}  // namespace

void SamplingOptions::add_to(CLI::App& command) {
  command.add_option("--max-tokens", max_tokens, "Longest answer in tokens")->check(CLI::NonNegativeNumber);
  command.add_option("--temperature", temperature, "0 takes the likeliest token; default: the checkpoint's");
  command.add_option("--top-p", top_p,
                     "Smallest set of tokens with this probability; default: the checkpoint's");
  command.add_option("--top-k", top_k, "Most tokens to draw from (0: all)");
  command.add_option("--min-p", min_p, "Least probability, as a part of the likeliest token's");
  command.add_option("--repetition-penalty", repetition_penalty,
                     "Divides the logits of tokens seen (1: off)");
  command.add_option("--presence-penalty", presence_penalty, "Subtracted once from tokens generated before");
  command.add_option("--frequency-penalty", frequency_penalty,
                     "Subtracted for each time a token was generated");
  command.add_option("--logit-bias", logit_bias, "ID=VALUE, added to that token's logit (repeatable)");
  command.add_option("--seed", seed, "Seed of the draws; default: from the clock");
  command.add_flag("--ignore-eos", ignore_eos, "Go on after the end-of-answer token");
}

const tokenizer::Tokenizer& TextModel::required_tokenizer() const {
  if (!tokenizer) {
    fail("{}: no tokenizer.json and no merges.txt; text and chat templates need them, --token-ids does not",
         runtime.source);
  }
  return *tokenizer;
}

std::vector<int32_t> TextModel::stop_token_ids() const {
  std::vector<int32_t> ids;
  for (const nlohmann::json* config : {&generation_config, &runtime.config}) {
    const auto field = config->find("eos_token_id");
    if (field == config->end()) continue;
    for (const auto& id : field->is_array() ? *field : nlohmann::json::array({*field})) {
      if (id.is_number_integer()) ids.push_back(id.get<int32_t>());
    }
    if (!ids.empty()) return ids;
  }
  if (tokenizer && tokenizer->eos_id()) ids.push_back(*tokenizer->eos_id());
  return ids;
}

engine::SamplingParams TextModel::sampling(const SamplingOptions& options) const {
  const auto sample = generation_config.find("do_sample");
  const bool greedy = sample != generation_config.end() && sample->is_boolean() && !sample->get<bool>();
  engine::SamplingParams params;
  params.temperature = greedy && !options.temperature
                           ? 0.0F
                           : pick(options.temperature, generation_config, "temperature", kDefaultTemperature);
  params.top_p = pick(options.top_p, generation_config, "top_p", kDefaultTopP);
  params.top_k = pick(options.top_k, generation_config, "top_k", 0);
  params.min_p = pick(options.min_p, generation_config, "min_p", 0.0F);
  params.repetition_penalty = pick(options.repetition_penalty, generation_config, "repetition_penalty", 1.0F);
  params.presence_penalty = options.presence_penalty.value_or(0.0F);
  params.frequency_penalty = options.frequency_penalty.value_or(0.0F);
  params.seed = options.seed ? *options.seed : random_seed();
  for (const std::string& text : options.logit_bias) params.logit_bias.insert(parse_bias(text));
  params.check();
  return params;
}

engine::GenerationRequest TextModel::request(std::vector<int32_t> prompt, const SamplingOptions& options,
                                             int64_t default_max_tokens) const {
  engine::GenerationRequest request;
  request.prompt = std::move(prompt);
  request.sampling = sampling(options);
  request.max_tokens = options.max_tokens.value_or(default_max_tokens);
  if (!options.ignore_eos) request.stop_token_ids = stop_token_ids();
  if (tokenizer) request.vocab_limit = tokenizer->max_id() + 1;
  return request;
}

std::vector<int32_t> TextModel::chat_prompt(const nlohmann::ordered_json& messages,
                                            const nlohmann::ordered_json& tools) const {
  const tokenizer::Tokenizer& encoder = required_tokenizer();
  if (!chat_template) fail("{}; --raw gives the model the prompt as it is", template_problem);
  const tokenizer::ChatPrompt prompt = chat_template->render(messages, tools, true, nullptr);
  if (!prompt.notice.empty()) std::cerr << "minimax: " << prompt.notice << "\n";
  return encoder.encode(prompt.text);
}

TextModel set_up_text_model(const ModelOptions& options) {
  TextModel text;
  text.generation_config = formats::read_generation_config(options.model);
  if (has_tokenizer_files(options.model)) {
    text.tokenizer = tokenizer::Tokenizer::load(options.model);
    try {
      text.chat_template = tokenizer::ChatTemplate::load(options.model);
    } catch (const Error& error) {
      // A base model has none; commands that need one say why they stop.
      text.template_problem = error.what();
    }
  }
  text.runtime = set_up_model(options);
  return text;
}

}  // namespace minimax::apps
