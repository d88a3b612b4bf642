#include "tokenizer/chat_template.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "tokenizer/load.h"

namespace minimax::tokenizer {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kRoles[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                  "sep_token", "cls_token", "mask_token"};

ChatTemplate::SpecialTokens special_tokens_of(const nlohmann::json& config) {
  ChatTemplate::SpecialTokens tokens;
  for (const char* role : kRoles) {
    if (!config.is_object() || !config.contains(role)) continue;
    const nlohmann::json& value = config.at(role);
    const nlohmann::json& text = value.is_object() && value.contains("content") ? value.at("content") : value;
    if (text.is_string()) tokens.emplace_back(role, text.get<std::string>());
  }
  return tokens;
}

// One of a list of {"name": ..., "template": ...}.
std::string named_template(const nlohmann::json& list, std::string_view name) {
  std::string names;
  for (const nlohmann::json& entry : list) {
    if (!entry.is_object() || !entry.contains("name") || !entry.contains("template") ||
        !entry.at("name").is_string() || !entry.at("template").is_string()) {
      fail("tokenizer_config.json: an entry of chat_template lacks a name or a template");
    }
    const auto& entry_name = entry.at("name").get_ref<const std::string&>();
    if (entry_name == name) return entry.at("template").get<std::string>();
    names += (names.empty() ? "" : ", ") + entry_name;
  }
  fail("tokenizer_config.json has no chat_template named '{}'; it has: {}", name, names);
}

std::string configured_template(const nlohmann::json& config, std::string_view name) {
  if (!config.is_object() || !config.contains("chat_template")) return "";
  const nlohmann::json& value = config.at("chat_template");
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) return named_template(value, name);
  if (value.is_null()) return "";
  fail("tokenizer_config.json: chat_template must be a text or a list of named templates");
}

// A template tells empty from absent calls by the key alone.
Json without_empty_calls(Json messages) {
  for (Json& message : messages) {
    if (!message.is_object() || !message.contains("tool_calls")) continue;
    const Json& calls = message.at("tool_calls");
    if (calls.is_null() || (calls.is_array() && calls.empty())) message.erase("tool_calls");
  }
  return messages;
}

// RETURNS: whether any content was a string.
bool use_parts(Json& messages) {
  bool changed = false;
  for (Json& message : messages) {
    if (!message.is_object() || !message.contains("content") || !message.at("content").is_string()) continue;
    Json part = {{"type", "text"}, {"text", message.at("content")}};
    if (message.value("role", Json()) == "tool") part["name"] = message.value("name", Json("tool"));
    message["content"] = Json::array({std::move(part)});
    changed = true;
  }
  return changed;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view source, SpecialTokens tokens, const jinja::Limits& limits)
    : source_(source), tokens_(std::move(tokens)), template_(source, limits) {
  const Json text = {{{"role", "user"}, {"content", "probe"}}};
  Json parts = text;
  use_parts(parts);
  needs_parts_ = !prints_probe(text) && prints_probe(parts);
}

bool ChatTemplate::prints_probe(const Json& messages) const {
  try {
    const Json context = {{"messages", messages}, {"tools", nullptr}, {"add_generation_prompt", true}};
    return template_.render(context).find("probe") != std::string::npos;
  } catch (const Error&) {
    return false;
  }
}

ChatTemplate ChatTemplate::for_checkpoint(std::string_view source, const std::filesystem::path& directory) {
  const std::string config = read_if_exists(directory / "tokenizer_config.json");
  return ChatTemplate(source,
                      special_tokens_of(parse_json(config.empty() ? "{}" : config, "tokenizer_config.json")));
}

ChatTemplate ChatTemplate::load(const std::filesystem::path& directory, std::string_view name) {
  const std::string config_text = read_if_exists(directory / "tokenizer_config.json");
  const nlohmann::json config =
      config_text.empty() ? nlohmann::json() : parse_json(config_text, "tokenizer_config.json");
  SpecialTokens tokens = special_tokens_of(config);
  std::string source = read_if_exists(directory / "chat_template.jinja");
  if (source.empty()) source = configured_template(config, name);
  const bool is_m1 = !tokens.empty() && tokens[0].second == "<beginning_of_sentence>";
  if (source.empty() && is_m1) source = builtin_m1_template();
  if (source.empty()) {
    fail("{} has no chat template; add the checkpoint's chat_template.jinja or tokenizer_config.json",
         directory.string());
  }
  return ChatTemplate(source, std::move(tokens));
}

ChatPrompt ChatTemplate::render(const Json& messages, const Json& tools, bool add_generation_prompt,
                                const Json& variables, const jinja::RenderOptions& options) const {
  if (!messages.is_array()) fail("chat messages must be a list, not {}", messages.type_name());
  Json context = Json::object();
  for (const auto& [role, text] : tokens_) context[role] = text;
  if (variables.is_object()) context.update(variables);
  context["messages"] = without_empty_calls(messages);
  context["tools"] = tools;
  if (!context.contains("documents")) context["documents"] = nullptr;
  context["add_generation_prompt"] = add_generation_prompt;
  const bool changed = needs_parts_ && use_parts(context["messages"]);
  return {template_.render(context, options),
          changed ? "the chat template does not take text contents; they were passed as lists of parts" : ""};
}

}  // namespace minimax::tokenizer
