#include "anthropic/chat_body.h"

#include <string>

#include "openai/error.h"
#include "openai/fields.h"

namespace minimax::anthropic {
namespace {

using Json = nlohmann::ordered_json;
using openai::ApiError;

using openai::find;
using openai::refuse;

const std::string& text_field(const Json& object, const std::string& name, const std::string& field) {
  const Json* value = find(object, name);
  if (value == nullptr || !value->is_string())
    refuse(field, object, fmt::format("a {} that is a string", name));
  return value->get_ref<const std::string&>();
}

// Content as a list of blocks, each with a type.
Json blocks_of(const Json* content, const std::string& field) {
  if (content == nullptr) return Json::array();
  if (content->is_string()) return Json::array({{{"type", "text"}, {"text", *content}}});
  if (!content->is_array()) refuse(field, *content, "a string or a list of blocks");
  for (const Json& block : *content) {
    if (!block.is_object()) refuse(field, block, "blocks with a type");
    text_field(block, "type", field);
  }
  return *content;
}

[[noreturn]] void refuse_block(const Json& block, const std::string& field) {
  throw ApiError(field,
                 fmt::format("{} has a block of type {}, which is not supported here; this server takes "
                             "text, thinking, tool_use and tool_result",
                             field, openai::dump_json(block.at("type"))));
}

void append_line(std::string& text, const std::string& more) {
  if (!text.empty() && !more.empty()) text += '\n';
  text += more;
}

// Blocks that can only be text.
std::string text_of(const Json* content, const std::string& field) {
  std::string text;
  for (const Json& block : blocks_of(content, field)) {
    if (block.at("type") != "text") refuse_block(block, field);
    append_line(text, text_field(block, "text", field));
  }
  return text;
}

// Results come first: they belong to the calls before them.
void add_user_message(const Json& message, Json& messages) {
  std::string text;
  bool has_text = false;
  for (const Json& block : blocks_of(find(message, "content"), "messages")) {
    const std::string& type = block.at("type").get_ref<const std::string&>();
    if (type == "text") {
      append_line(text, text_field(block, "text", "messages"));
      has_text = true;
    } else if (type == "tool_result") {
      messages.push_back({{"role", "tool"},
                          {"tool_call_id", text_field(block, "tool_use_id", "messages")},
                          {"content", text_of(find(block, "content"), "messages")}});
    } else {
      refuse_block(block, "messages");
    }
  }
  if (has_text) messages.push_back({{"role", "user"}, {"content", text}});
}

void add_assistant_message(const Json& message, Json& messages) {
  std::string text;
  std::string reasoning;
  Json calls = Json::array();
  for (const Json& block : blocks_of(find(message, "content"), "messages")) {
    const std::string& type = block.at("type").get_ref<const std::string&>();
    if (type == "text") {
      append_line(text, text_field(block, "text", "messages"));
    } else if (type == "thinking") {
      append_line(reasoning, text_field(block, "thinking", "messages"));
    } else if (type == "tool_use") {
      const Json* input = find(block, "input");
      calls.push_back({{"id", text_field(block, "id", "messages")},
                       {"type", "function"},
                       {"function",
                        {{"name", text_field(block, "name", "messages")},
                         {"arguments", input == nullptr ? Json::object() : *input}}}});
    } else if (type != "redacted_thinking") {
      refuse_block(block, "messages");
    }
  }
  Json result = {{"role", "assistant"}, {"content", text}};
  if (!reasoning.empty()) result["reasoning_content"] = reasoning;
  if (!calls.empty()) result["tool_calls"] = calls;
  messages.push_back(std::move(result));
}

Json messages_of(const Json& body) {
  const Json* given = find(body, "messages");
  if (given == nullptr || !given->is_array() || given->empty()) {
    refuse("messages", given == nullptr ? Json(nullptr) : *given, "a list of messages");
  }
  Json messages = Json::array();
  const std::string system = text_of(find(body, "system"), "system");
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  for (const Json& message : *given) {
    if (!message.is_object()) refuse("messages", message, "objects with a role");
    const std::string& role = text_field(message, "role", "messages");
    if (role == "user") {
      add_user_message(message, messages);
    } else if (role == "assistant") {
      add_assistant_message(message, messages);
    } else {
      refuse("messages", message, "the role user or assistant");
    }
  }
  if (given->back().at("role") == "assistant") {
    throw ApiError("messages",
                   "the last message is the assistant's; answers that the caller begins are not "
                   "supported, end with a message of the user");
  }
  return messages;
}

Json tools_of(const Json& list) {
  if (!list.is_array()) refuse("tools", list, "a list of tools");
  Json tools = Json::array();
  for (const Json& tool : list) {
    if (!tool.is_object()) refuse("tools", tool, "objects with a name and an input_schema");
    const Json* type = find(tool, "type");
    if (type != nullptr && *type != "custom") {
      refuse("tools", tool, "tools that the caller runs, of type custom; this server runs none itself");
    }
    Json function = {{"name", text_field(tool, "name", "tools")}};
    if (const Json* description = find(tool, "description")) function["description"] = *description;
    const Json* schema = find(tool, "input_schema");
    if (schema == nullptr || !schema->is_object()) refuse("tools", tool, "an input_schema that is an object");
    function["parameters"] = *schema;
    tools.push_back({{"type", "function"}, {"function", function}});
  }
  return tools;
}

// Whether and what the model is to call, in OpenAI's words.
Json tool_choice_of(const Json& choice) {
  const Json* type = choice.is_object() ? find(choice, "type") : nullptr;
  if (type != nullptr && (*type == "auto" || *type == "none")) return *type;
  if (type != nullptr && *type == "any") return "required";
  if (type != nullptr && *type == "tool")
    return {{"type", "function"}, {"function", {{"name", text_field(choice, "name", "tool_choice")}}}};
  refuse("tool_choice", choice, "an object of type auto, none, any or tool");
}

// M3's template is told by a variable; the others think as they do.
void add_thinking(const Json& body, Json& result) {
  const Json* thinking = find(body, "thinking");
  if (thinking == nullptr) return;
  const Json* type = thinking->is_object() ? find(*thinking, "type") : nullptr;
  if (type == nullptr || (*type != "enabled" && *type != "disabled" && *type != "adaptive")) {
    refuse("thinking", *thinking, "the type enabled, disabled or adaptive");
  }
  Json& variables = result["chat_template_kwargs"];
  if (!variables.is_object()) variables = Json::object();
  if (!variables.contains("thinking_mode")) variables["thinking_mode"] = *type;
}

}  // namespace

Json chat_body(const Json& body) {
  if (!body.is_object()) refuse("body", body, "an object");
  Json result = {{"messages", messages_of(body)}};
  if (const Json* tools = find(body, "tools")) result["tools"] = tools_of(*tools);
  if (const Json* choice = find(body, "tool_choice")) {
    result["tool_choice"] = tool_choice_of(*choice);
    const Json* alone = choice->is_object() ? find(*choice, "disable_parallel_tool_use") : nullptr;
    if (alone != nullptr && *alone == true) result["parallel_tool_calls"] = false;
  }
  if (const Json* stop = find(body, "stop_sequences")) {
    if (!stop->is_array()) refuse("stop_sequences", *stop, "a list of strings");
    result["stop"] = *stop;
  }
  // The API's own, then what this server adds to it.
  for (const char* field :
       {"model", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "min_tokens",
        "repetition_penalty", "stream", "ignore_eos", "priority", "chat_template_kwargs"}) {
    if (const Json* value = find(body, field)) result[field] = *value;
  }
  if (const Json* variables = find(result, "chat_template_kwargs");
      variables != nullptr && !variables->is_object()) {
    refuse("chat_template_kwargs", *variables, "an object");
  }
  add_thinking(body, result);
  return result;
}

}  // namespace minimax::anthropic
