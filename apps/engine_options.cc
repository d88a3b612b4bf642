#include "apps/engine_options.h"

#include "apps/model_location.h"
#include "chat/chat_format.h"

namespace minimax::apps {
namespace {

chat::ChatFormat chat_format(const nlohmann::json& config) {
  const auto names = config.find("architectures");
  const bool has_name =
      names != config.end() && names->is_array() && !names->empty() && names->front().is_string();
  return chat::chat_format_of(has_name ? names->front().get<std::string>() : config.value("model_type", ""));
}

}  // namespace

void EngineFlags::add_to(CLI::App& command) {
  command.add_option("--max-num-seqs", max_num_seqs, "Most requests running at a time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--max-num-batched-tokens", max_num_batched_tokens, "Most tokens of one step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--kv-cache-tokens", cache_tokens, "Tokens that the KV cache holds, e.g. 128k")
      ->capture_default_str();
  command
      .add_option("--state-snapshots", state_snapshots,
                  "Linear states kept for shared prefixes, besides two a request")
      ->capture_default_str();
  command.add_option("--host-state-snapshots", host_state_snapshots, "More of them in host memory")
      ->capture_default_str();
  command.add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", enable_prefix_caching,
                   "Compute shared beginnings of prompts once (on by default)");
  command.add_flag("--deterministic,!--no-deterministic", deterministic,
                   "A request's tokens do not depend on what else runs or is cached");
  command.add_option("--trace", trace, "Write a trace of steps, for chrome://tracing, to this file");
  command.add_option("--log-format", log_format, "Log each request that ends, on standard error")
      ->check(CLI::IsMember({"none", "text", "json"}))
      ->capture_default_str();
}

EngineObservers::EngineObservers(const EngineFlags& flags, engine::EngineOptions& options) {
  if (!flags.trace.empty()) options.trace = &trace.emplace(flags.trace);
  if (flags.log_format == "none") return;
  const bool is_json = flags.log_format == "json";
  options.log = &log.emplace(is_json ? observe::LogFormat::kJson : observe::LogFormat::kText);
}

engine::EngineOptions EngineFlags::options(const ModelRuntime& runtime, const ModelOptions& model) const {
  engine::EngineOptions options;
  options.max_model_len = runtime.context_length(model, runtime.model->max_position_embeddings());
  options.fits_memory = !parse_token_count(model.max_model_len, "--max-model-len");
  options.max_sequences = max_num_seqs;
  options.max_batched_tokens = max_num_batched_tokens;
  options.cache_tokens = parse_token_count(cache_tokens, "--kv-cache-tokens").value_or(0);
  options.state_snapshots = state_snapshots;
  options.host_snapshots = host_state_snapshots;
  options.share_prefixes = enable_prefix_caching;
  options.is_deterministic = deterministic;
  return options;
}

openai::ServedModel served_model(const TextModel& text, const std::string& name, int64_t max_model_len) {
  openai::ServedModel served;
  served.name = name.empty() ? default_model_name(text.runtime.source) : name;
  served.tokenizer = &text.required_tokenizer();
  served.chat_template = text.chat_template ? &*text.chat_template : nullptr;
  served.sampling = text.sampling({});
  served.stop_token_ids = text.stop_token_ids();
  served.max_model_len = max_model_len;
  served.constraints = std::make_shared<openai::Constraints>(*served.tokenizer);
  return served;
}

namespace {

grammar::CallFormat call_format(chat::ChatFormat format) {
  switch (format) {
    case chat::ChatFormat::kM1:
      return grammar::CallFormat::kM1;
    case chat::ChatFormat::kM2:
      return grammar::CallFormat::kM2;
    default:
      return grammar::CallFormat::kM3;
  }
}

}  // namespace

void parse_answers(openai::ServedModel& served, const nlohmann::json& config) {
  const chat::ChatFormat format = chat_format(config);
  served.call_format = call_format(format);
  served.make_parser = [format](std::vector<chat::Tool> tools, std::string_view prompt_tail) {
    return chat::make_output_parser(format, std::move(tools), prompt_tail);
  };
}

std::string describe_plan(const engine::EnginePlan& plan, const ModelRuntime& runtime) {
  return fmt::format(
             "memory plan: {} pages of {} tokens = {} tokens of KV cache, {} state slots, context up to {}\n",
             plan.num_pages, plan.page_size, plan.num_pages * plan.page_size, plan.num_slots,
             plan.max_model_len) +
         describe_memory(runtime, plan.memory);
}

std::string describe_paths(const ModelRuntime& runtime) {
  const models::ComputeOptions& compute = runtime.compute;
  std::string text = fmt::format("paths: {}; activations {}, KV cache {}{}\n", runtime.device->description(),
                                 name(compute.activation_dtype), name(compute.kv_dtype()),
                                 compute.fp8_activations ? ", activations of 8-bit weights in FP8" : "");
  if (const auto shape = runtime.model->sparse_shape()) {
    if (const std::string how = runtime.backend->describe(*shape); !how.empty())
      text += fmt::format("sparse attention: {}\n", how);
  }
  return text;
}

}  // namespace minimax::apps
