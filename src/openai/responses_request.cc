#include "openai/responses_request.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "openai/fields.h"
#include "openai/responses_input.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kAnyCount = int64_t{1} << 40;

// Fields that ask for what this server does not do, and what to do instead.
constexpr std::array<std::pair<const char*, const char*>, 5> kRefused = {{
    {"conversation", "send the conversation as input, or name its last answer as previous_response_id"},
    {"prompt", "send instructions and input themselves"},
    {"context_management", "send the part of the conversation that is to be read as input"},
    {"moderation", "leave it out"},
    {"top_logprobs", "use /v1/chat/completions for logprobs"},
}};

void refuse_what_is_not_done(const Json& body) {
  for (const auto& [field, remedy] : kRefused) {
    const Json* value = find(body, field);
    if (value != nullptr && *value != 0)
      throw ApiError(field, fmt::format("{} is not supported here; {}", field, remedy));
  }
  if (boolean(body, "background", false))
    throw ApiError("background",
                   "background is true; expected false: answers are given while the client waits");
}

bool carries_reasoning(const Json& body) {
  const Json* include = find(body, "include");
  if (include == nullptr) return false;
  if (!include->is_array()) refuse("include", *include, "a list of names");
  bool carries = false;
  for (const Json& name : *include) {
    if (name == "message.output_text.logprobs")
      throw ApiError("include", "include asks for logprobs; use /v1/chat/completions for them");
    carries = carries || name == "reasoning.encrypted_content";
  }
  return carries;
}

// The tools that the model may call. A search of the web is the provider's own offer, which clients make
// unasked; the model does without.
Json usable_tools(const Json& body) {
  const Json* given = find(body, "tools");
  Json tools = Json::array();
  if (given == nullptr) return tools;
  if (!given->is_array()) refuse("tools", *given, "a list of tools");
  for (const Json& tool : *given) {
    const std::string type = tool.is_object() ? text(tool, "type").value_or("function") : "";
    if (type.starts_with("web_search")) continue;
    if (type != "function" || !text(tool, "name"))
      refuse("tools", tool, "tools of type function with a name; this server runs none itself");
    tools.push_back(tool);
  }
  return tools;
}

Json nested(const Json& tool) {
  Json function = {{"name", tool.at("name")}};
  for (const char* field : {"description", "parameters", "strict"}) {
    if (const Json* value = find(tool, field)) function[field] = *value;
  }
  return {{"type", "function"}, {"function", function}};
}

// Takes from `tools` what an allowed_tools choice does not name. RETURNS: its mode.
Json keep_allowed(const Json& choice, Json& tools) {
  const Json* allowed = find(choice, "tools");
  const Json* mode = find(choice, "mode");
  if (allowed == nullptr || !allowed->is_array() || mode == nullptr ||
      (*mode != "auto" && *mode != "required"))
    refuse("tool_choice", choice, "a mode, auto or required, and a list of tools");
  const auto is_allowed = [&](const Json& tool) {
    return std::any_of(allowed->begin(), allowed->end(), [&](const Json& entry) {
      return entry.is_object() && entry.value("name", Json()) == tool.at("name");
    });
  };
  Json kept = Json::array();
  for (const Json& tool : tools) {
    if (is_allowed(tool)) kept.push_back(tool);
  }
  tools = std::move(kept);
  return *mode;
}

// In the words of chats.
Json chat_choice(const Json& choice, Json& tools) {
  if (choice.is_string()) return choice;
  const std::string type = choice.is_object() ? text(choice, "type").value_or("") : "";
  if (type == "allowed_tools") return keep_allowed(choice, tools);
  if (type != "function" || !text(choice, "name"))
    refuse("tool_choice", choice, R"("auto", "none", "required" or {"type": "function", "name": ...})");
  return {{"type", "function"}, {"function", {{"name", choice.at("name")}}}};
}

// {type, name, schema, ...} to {type, json_schema: {name, schema, ...}}.
Json chat_format(const Json& format) {
  if (!format.is_object()) refuse("text.format", format, "an object with a type");
  if (text(format, "type").value_or("") != "json_schema") return format;
  Json schema = format;
  schema.erase("type");
  return {{"type", "json_schema"}, {"json_schema", schema}};
}

const Json* object(const Json& body, const char* field) {
  const Json* value = find(body, field);
  if (value != nullptr && !value->is_object()) refuse(field, *value, "an object");
  return value;
}

Json chat_body(const Json& body, const Json& items, const Json& tools, const Json& choice) {
  Json chat = {{"messages", messages_of_items(items, text(body, "instructions").value_or(""))}};
  if (!tools.empty()) {
    chat["tools"] = Json::array();
    for (const Json& tool : tools) chat["tools"].push_back(nested(tool));
  }
  chat["tool_choice"] = choice;
  if (const auto most = integer(body, "max_output_tokens", 1, kAnyCount)) chat["max_tokens"] = *most;
  if (const Json* form = object(body, "text")) {
    if (const Json* format = find(*form, "format")) chat["response_format"] = chat_format(*format);
  }
  if (const Json* reasoning = object(body, "reasoning")) {
    if (const Json* effort = find(*reasoning, "effort")) chat["reasoning_effort"] = *effort;
  }
  // The API's own, then what this server adds to it.
  for (const char* field : {"model", "temperature", "top_p", "parallel_tool_calls", "stream", "top_k",
                            "min_p", "seed", "stop", "min_tokens", "repetition_penalty", "presence_penalty",
                            "frequency_penalty", "ignore_eos", "priority", "chat_template_kwargs"}) {
    if (const Json* value = find(body, field)) chat[field] = *value;
  }
  return chat;
}

// An error of a chat in this API's words.
ApiError renamed(const ApiError& error) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kNames = {
      {{"messages", "input"},
       {"max_tokens", "max_output_tokens"},
       {"response_format", "text.format"},
       {"reasoning_effort", "reasoning.effort"}}};
  for (const auto& [chat, ours] : kNames) {
    if (!error.field().starts_with(chat)) continue;
    std::string message = error.what();
    if (message.starts_with(chat)) message.replace(0, chat.size(), ours);
    return {std::string(ours), message, error.status()};
  }
  return error;
}

// 0.95 of a float that is nearly that.
double shortest(float value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value);
  double result = value;
  std::from_chars(text.data(), end.ptr, result);
  return result;
}

void check_metadata(const Json* metadata) {
  if (metadata == nullptr) return;
  for (const Json& value : *metadata) {
    if (!value.is_string()) refuse("metadata", *metadata, "an object of strings");
  }
}

Json settings_of(const Json& body, const Json& tools, const ResponsesRequest& request,
                 const ServedModel& model) {
  const auto given = [&](const char* field, const Json& fallback) {
    const Json* value = find(body, field);
    return value == nullptr ? fallback : *value;
  };
  check_metadata(object(body, "metadata"));
  Json reasoning = {{"effort", nullptr}, {"summary", nullptr}};
  reasoning.update(given("reasoning", Json::object()));
  Json form = given("text", Json::object());
  if (!form.contains("format")) form["format"] = {{"type", "text"}};
  const engine::SamplingParams& sampling = request.completion.request.sampling;
  return {{"background", false},
          {"instructions", given("instructions", nullptr)},
          {"max_output_tokens", given("max_output_tokens", nullptr)},
          {"max_tool_calls", given("max_tool_calls", nullptr)},
          {"metadata", given("metadata", Json::object())},
          {"model", request.completion.model.empty() ? model.name : request.completion.model},
          {"parallel_tool_calls", given("parallel_tool_calls", true)},
          {"previous_response_id", given("previous_response_id", nullptr)},
          {"prompt_cache_key", given("prompt_cache_key", nullptr)},
          {"reasoning", reasoning},
          {"safety_identifier", given("safety_identifier", nullptr)},
          {"service_tier", "default"},
          {"store", request.is_stored},
          {"temperature", shortest(sampling.temperature)},
          {"text", form},
          {"tool_choice", given("tool_choice", "auto")},
          {"tools", tools},
          {"top_p", shortest(sampling.top_p)},
          {"truncation", "disabled"},
          {"user", given("user", nullptr)}};
}

// The conversation that the body goes on from, then its input.
Json conversation(const Json& body, ResponseStore& store) {
  const auto previous = text(body, "previous_response_id");
  Json items = Json::array();
  if (previous) {
    if (!store.is_on())
      throw ApiError(
          "previous_response_id",
          "this server keeps no answers (--max-stored-responses 0); send the conversation as input");
    const auto kept = store.get(*previous);
    if (!kept)
      throw ApiError(
          "previous_response_id",
          fmt::format("there is no stored answer {}, or not any more; send the conversation as input",
                      dump_json(*previous)),
          404, "previous_response_not_found");
    items = Json::parse(kept->items);
  }
  for (Json& item : items_of_input(body)) items.push_back(std::move(item));
  return items;
}

}  // namespace

ResponsesRequest parse_responses(const Json& body, const ServedModel& model, ResponseStore& store) {
  if (!body.is_object()) refuse("body", body, "an object");
  refuse_what_is_not_done(body);
  ResponsesRequest request;
  const Json items = conversation(body, store);
  request.carries_reasoning = carries_reasoning(body);
  request.is_stored = boolean(body, "store", true) && store.is_on();
  if (request.is_stored) request.items = dump_json(items);
  const Json tools = usable_tools(body);
  Json offered = tools;
  const Json* given = find(body, "tool_choice");
  const Json choice = given == nullptr ? Json("auto") : chat_choice(*given, offered);
  try {
    request.completion = parse_chat_completion(chat_body(body, items, offered, choice), model);
  } catch (const ApiError& error) {
    throw renamed(error);
  }
  request.settings = settings_of(body, tools, request, model);
  return request;
}

Json count_input_tokens(const Json& body, const ServedModel& model, ResponseStore& store) {
  Json counted = body;
  counted.erase("max_output_tokens");
  ServedModel unbounded = model;
  unbounded.max_model_len = INT64_MAX;
  const ResponsesRequest request = parse_responses(counted, unbounded, store);
  return {{"object", "response.input_tokens"}, {"input_tokens", request.completion.request.prompt.size()}};
}

}  // namespace minimax::openai
