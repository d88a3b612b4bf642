#include "openai/request.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "openai/fields.h"
#include "openai/messages.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;

// Of the prompt, for the parser of the answer.
constexpr size_t kTailBytes = 256;
constexpr int64_t kMostTopLogprobs = 20;
constexpr int64_t kMostSamples = 128;
constexpr int64_t kAnyCount = int64_t{1} << 40;

void read_float(const Json& body, const std::string& field, double low, double high, float& target) {
  if (const auto value = number(body, field, low, high)) target = static_cast<float>(*value);
}

std::map<int32_t, float> read_bias(const Json& body) {
  std::map<int32_t, float> bias;
  const Json* value = find(body, "logit_bias");
  if (value == nullptr) return bias;
  if (!value->is_object()) refuse("logit_bias", *value, "an object of token ids and numbers");
  for (const auto& [key, entry] : value->items()) {
    int32_t id = -1;
    const auto [rest, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || rest != key.data() + key.size() || id < 0 || !entry.is_number() ||
        std::abs(entry.get<double>()) > 100) {
      refuse("logit_bias", Json{{key, entry}}, "token ids with numbers from -100 to 100");
    }
    bias[id] = entry.get<float>();
  }
  return bias;
}

engine::SamplingParams read_sampling(const Json& body, const ServedModel& model) {
  engine::SamplingParams params = model.sampling;
  read_float(body, "temperature", 0, 2, params.temperature);
  read_float(body, "top_p", 0, 1, params.top_p);
  read_float(body, "min_p", 0, 1, params.min_p);
  read_float(body, "presence_penalty", -2, 2, params.presence_penalty);
  read_float(body, "frequency_penalty", -2, 2, params.frequency_penalty);
  read_float(body, "repetition_penalty", 0.01, 100, params.repetition_penalty);
  if (const auto k = integer(body, "top_k", -1, kAnyCount)) {
    params.top_k = static_cast<int32_t>(std::min<int64_t>(*k, INT32_MAX));
  }
  if (const auto seed = integer(body, "seed", INT64_MIN, INT64_MAX)) params.seed = *seed;
  params.logit_bias = read_bias(body);
  return params;
}

std::vector<std::string> read_stop(const Json& body) {
  std::vector<std::string> stop;
  const Json* value = find(body, "stop");
  if (value == nullptr) return stop;
  for (const Json& entry : value->is_array() ? *value : Json::array({*value})) {
    if (!entry.is_string()) refuse("stop", *value, "a string or a list of strings");
    stop.push_back(entry.get<std::string>());
  }
  return stop;
}

// Refuses fields that ask for an answer of a given form, for a reason.
void refuse_formats(const Json& body, std::string_view reason) {
  for (const char* field : {"response_format", "guided_json", "guided_regex", "guided_grammar",
                            "guided_choice", "structured_outputs"}) {
    const Json* value = find(body, field);
    const bool is_text = value != nullptr && *value == Json{{"type", "text"}};
    if (value != nullptr && !is_text) throw ApiError(field, fmt::format("{} {}", field, reason));
  }
}

// The most tokens of an answer: those asked for, as far as the context has room behind the prompt.
int64_t most_tokens(int64_t length, std::optional<int64_t> max_tokens, const ServedModel& model,
                    CompletionRequest& result) {
  if (length == 0) throw ApiError("prompt", "the prompt is empty; give at least one token");
  if (length >= model.max_model_len) {
    throw ApiError("messages", fmt::format("the prompt has {} tokens; this model takes {} with the answer",
                                           length, model.max_model_len));
  }
  if (max_tokens && *max_tokens > model.max_model_len) {
    throw ApiError("max_tokens", fmt::format("max_tokens is {}; the context of this model has {}, prompt "
                                             "included",
                                             *max_tokens, model.max_model_len));
  }
  const int64_t room = model.max_model_len - length;
  result.is_context_bound = !max_tokens || *max_tokens > room;
  return std::clamp<int64_t>(max_tokens.value_or(room), 1, room);
}

// What both kinds of request have.
CompletionRequest read_common(const Json& body, const ServedModel& model, std::vector<int32_t> prompt,
                              std::optional<int64_t> max_tokens) {
  CompletionRequest result;
  engine::Request& request = result.request;
  request.sampling = read_sampling(body, model);
  request.max_tokens = most_tokens(std::ssize(prompt), max_tokens, model, result);
  request.prompt = std::move(prompt);
  request.min_tokens =
      std::min(integer(body, "min_tokens", 0, max_tokens.value_or(request.max_tokens)).value_or(0),
               request.max_tokens);
  request.n = static_cast<int32_t>(integer(body, "n", 1, kMostSamples).value_or(1));
  request.priority = integer(body, "priority", -1000, 1000).value_or(0);
  if (!boolean(body, "ignore_eos", false)) request.stop_token_ids = model.stop_token_ids;
  if (const Json* ids = find(body, "stop_token_ids")) {
    for (const int32_t id : token_ids(*ids, "stop_token_ids")) request.stop_token_ids.push_back(id);
  }
  result.stop = read_stop(body);
  result.skip_special_tokens = boolean(body, "skip_special_tokens", true);
  result.model = text(body, "model").value_or("");
  result.has_seed = find(body, "seed") != nullptr;
  result.is_stream = boolean(body, "stream", false);
  if (const Json* options = find(body, "stream_options")) {
    if (!options->is_object()) refuse("stream_options", *options, "an object");
    if (!result.is_stream) throw ApiError("stream_options", "stream_options needs stream to be true");
    result.includes_usage = boolean(*options, "include_usage", false);
  }
  if (const auto of_prompt = integer(body, "prompt_logprobs", 0, kMostTopLogprobs)) {
    if (result.is_stream)
      throw ApiError("prompt_logprobs", "prompt_logprobs come with whole answers only; leave stream out");
    request.prompt_logprobs = static_cast<int32_t>(*of_prompt);
    result.wants_prompt_logprobs = true;
  }
  return result;
}

// What the answer must look like, for a prompt that is final.
void constrain(const Json& body, const ServedModel& model, CompletionRequest& result) {
  if (model.constraints == nullptr)
    return refuse_formats(body, "is not supported by this version; leave it out");
  engine::Request& request = result.request;
  const ReasoningPart reasoning =
      result.is_chat ? reasoning_part(*model.tokenizer, request.prompt) : ReasoningPart{};
  request.constraint = model.constraints->of_body(body, reasoning, request.stop_token_ids);
}

// An answer that is a call and nothing else, after the reasoning.
void force_call(const Json& body, const ToolChoice& choice, const ServedModel& model,
                CompletionRequest& result) {
  if (model.constraints == nullptr || !model.call_format)
    throw ApiError("tool_choice", "this model cannot be made to call a tool; use auto");
  refuse_formats(body, "and a forced call exclude each other; leave one out");
  std::vector<grammar::CallTool> tools;
  for (const chat::Tool& tool : result.tools) {
    if (choice.name.empty() || tool.name == choice.name) tools.push_back({tool.name, tool.parameters});
  }
  engine::Request& request = result.request;
  const ReasoningPart reasoning = reasoning_part(*model.tokenizer, request.prompt);
  try {
    request.constraint = model.constraints->of_calls(*model.call_format, tools, choice.may_be_several,
                                                     reasoning, request.stop_token_ids);
  } catch (const Error& error) {
    throw ApiError("tools", error.what());
  }
}

// Variables of the template. An effort also decides M3's thinking where it leaves no doubt; what is in
// between stays with the model.
Json template_variables(const Json& body) {
  const Json* given = find(body, "chat_template_kwargs");
  if (given != nullptr && !given->is_object()) refuse("chat_template_kwargs", *given, "an object");
  Json variables = given == nullptr ? Json(nullptr) : *given;
  const auto effort = text(body, "reasoning_effort");
  if (!effort) return variables;
  constexpr std::array kEfforts = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
  if (std::find(kEfforts.begin(), kEfforts.end(), *effort) == kEfforts.end())
    refuse("reasoning_effort", *effort, fmt::format("one of {}", fmt::join(kEfforts, ", ")));
  if (variables.is_null()) variables = Json::object();
  const bool is_none = *effort == "none";
  const bool is_high = *effort == "high" || *effort == "xhigh" || *effort == "max";
  if ((is_none || is_high) && !variables.contains("thinking_mode"))
    variables["thinking_mode"] = is_none ? "disabled" : "enabled";
  if (!variables.contains("reasoning_effort")) variables["reasoning_effort"] = *effort;
  return variables;
}

std::string render(const Json& messages, const Json& tools, const Json& variables, const ServedModel& model) {
  return model.chat_template->render(messages, tools, true, variables).text;
}

// Where the text that comes before the first user's message ends: the system's message and the tools, which
// other conversations share.
std::vector<int64_t> static_prefix(const Json& messages, const Json& tools, const Json& variables,
                                   const std::vector<int32_t>& prompt, const ServedModel& model) {
  Json probe = Json::array();
  for (const Json& message : messages) {
    if (message.value("role", "") == "user") break;
    probe.push_back(message);
  }
  if (probe.empty() && tools.is_null()) return {};
  probe.push_back({{"role", "user"}, {"content", "\x7f"}});
  try {
    const std::vector<int32_t> other = model.tokenizer->encode(render(probe, tools, variables, model));
    const auto [end, _] = std::mismatch(prompt.begin(), prompt.end(), other.begin(), other.end());
    return {end - prompt.begin()};
  } catch (const Error&) {
    return {};  // a template may refuse the probe and take the messages: the hint is lost, not the request
  }
}

}  // namespace

CompletionRequest parse_chat_completion(const Json& body, const ServedModel& model) {
  if (!body.is_object()) refuse("body", body, "an object");
  if (model.chat_template == nullptr)
    throw ApiError("", "this model has no chat template; use /v1/completions");
  const Json messages = read_messages(body, *model.chat_template);
  const ToolChoice choice = read_tool_choice(body);
  const Json tools = read_tools(body, choice);
  const Json variables = template_variables(body);
  std::string prompt_text;
  try {
    prompt_text = render(messages, tools, variables, model);
  } catch (const Error& error) {
    throw ApiError("messages", fmt::format("the chat template refuses the messages: {}", error.what()));
  }
  std::vector<int32_t> prompt = model.tokenizer->encode(prompt_text);
  std::vector<int64_t> boundaries = static_prefix(messages, tools, variables, prompt, model);
  auto max_tokens = integer(body, "max_completion_tokens", 1, kAnyCount);
  if (!max_tokens) max_tokens = integer(body, "max_tokens", 1, kAnyCount);
  CompletionRequest result = read_common(body, model, std::move(prompt), max_tokens);
  result.request.boundaries = std::move(boundaries);
  result.is_chat = true;
  result.prompt_tail = prompt_text.substr(prompt_text.size() - std::min(prompt_text.size(), kTailBytes));
  result.tools = tools_of(tools);
  choice.is_forced() ? force_call(body, choice, model, result) : constrain(body, model, result);
  result.wants_logprobs = boolean(body, "logprobs", false);
  const auto top = integer(body, "top_logprobs", 0, kMostTopLogprobs);
  if (top && !result.wants_logprobs) throw ApiError("top_logprobs", "top_logprobs needs logprobs to be true");
  result.request.sampling.top_logprobs = static_cast<int32_t>(top.value_or(0));
  return result;
}

namespace {

// A string, a list of token ids, or a list of either.
std::vector<std::vector<int32_t>> read_prompts(const Json& body, const ServedModel& model) {
  const Json* given = find(body, "prompt");
  constexpr const char* kExpected = "a string, a list of token ids, or a list of either";
  if (given == nullptr) refuse("prompt", nullptr, kExpected);
  const bool is_one =
      given->is_string() || (given->is_array() && !given->empty() && given->front().is_number());
  const Json list = is_one ? Json::array({*given}) : *given;
  if (!list.is_array() || list.empty()) refuse("prompt", *given, kExpected);
  std::vector<std::vector<int32_t>> prompts;
  for (const Json& prompt : list) {
    if (!prompt.is_string() && !prompt.is_array()) refuse("prompt", prompt, kExpected);
    prompts.push_back(prompt.is_string() ? model.tokenizer->encode(prompt.get_ref<const std::string&>())
                                         : token_ids(prompt, "prompt"));
  }
  return prompts;
}

void refuse_old_fields(const Json& body) {
  if (!text(body, "suffix").value_or("").empty())
    throw ApiError("suffix", "suffix is not supported: the models do not fill in; leave it out");
  if (const auto best = integer(body, "best_of", 1, kMostSamples); best && *best != body.value("n", Json(1)))
    throw ApiError("best_of", fmt::format("best_of is {}; expected n: ask for n answers and choose", *best));
}

}  // namespace

CompletionRequest parse_completion(const Json& body, const ServedModel& model) {
  if (!body.is_object()) refuse("body", body, "an object");
  refuse_old_fields(body);
  constexpr int64_t kDefaultTokens = 16;  // OpenAI's
  const int64_t max_tokens = integer(body, "max_tokens", 0, kAnyCount).value_or(kDefaultTokens);
  std::vector<std::vector<int32_t>> prompts = read_prompts(body, model);
  CompletionRequest result = read_common(body, model, std::move(prompts.front()), max_tokens);
  constrain(body, model, result);
  result.echo = boolean(body, "echo", false);
  result.is_prompt_only = max_tokens == 0;
  if (result.is_prompt_only && !result.echo && !result.wants_prompt_logprobs)
    throw ApiError("max_tokens", "max_tokens is 0; expected at least 1, or echo, or prompt_logprobs");
  const auto top = integer(body, "logprobs", 0, kMostTopLogprobs);
  result.wants_logprobs = top.has_value();
  engine::Request& first = result.request;
  first.sampling.top_logprobs = static_cast<int32_t>(top.value_or(0));
  if (result.echo && top)
    first.prompt_logprobs = std::max(first.prompt_logprobs.value_or(0), first.sampling.top_logprobs);
  for (size_t i = 1; i < prompts.size(); ++i) {
    engine::Request request = first;
    request.max_tokens = most_tokens(std::ssize(prompts[i]), max_tokens, model, result);
    request.min_tokens = std::min(request.min_tokens, request.max_tokens);
    request.prompt = std::move(prompts[i]);
    result.further.push_back(std::move(request));
  }
  return result;
}

}  // namespace minimax::openai
