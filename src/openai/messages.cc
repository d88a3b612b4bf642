#include "openai/messages.h"

#include <algorithm>

#include "openai/fields.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;

void check_content(const Json& message) {
  const Json* content = find(message, "content");
  if (content == nullptr || content->is_string()) return;
  if (!content->is_array()) refuse("messages", message, "content that is a string, a list of parts or null");
  for (const Json& part : *content) {
    if (!part.is_object() || text(part, "type").value_or("") != "text" || !text(part, "text")) {
      refuse("messages", part, "parts of type text with a text: the model reads nothing else");
    }
  }
}

// Clients send the arguments of a call as text; templates look into them.
void open_arguments(Json& call) {
  if (!call.is_object()) refuse("messages", call, "tool_calls with a function");
  const auto function = call.find("function");
  if (function == call.end() || !function->is_object() || !text(*function, "name")) {
    refuse("messages", call, "tool_calls with a function that has a name");
  }
  const Json* arguments = find(*function, "arguments");
  Json opened = Json::object();
  if (arguments != nullptr && arguments->is_string()) {
    const auto& written = arguments->get_ref<const std::string&>();
    if (written.find_first_not_of(" \t\r\n") != std::string::npos) {
      try {
        opened = parse_json(written);
      } catch (const ApiError&) {
        refuse("messages", *arguments, "arguments of a call that are JSON");
      }
    }
  } else if (arguments != nullptr) {
    opened = *arguments;
  }
  if (!opened.is_object()) refuse("messages", opened, "arguments of a call that are an object");
  (*function)["arguments"] = std::move(opened);
}

void normalize(Json& message, bool knows_developer) {
  if (!message.is_object() || !message.contains("role") || !message.at("role").is_string()) {
    refuse("messages", message, "objects with a role");
  }
  if (message.at("role") == "developer" && !knows_developer) message["role"] = "system";
  check_content(message);
  if (find(message, "content") == nullptr) {
    if (message.at("role") != "assistant") refuse("messages", message, "a message with content");
    message["content"] = "";
  }
  if (const auto reasoning = text(message, "reasoning"); reasoning && !find(message, "reasoning_content")) {
    message["reasoning_content"] = *reasoning;
  }
  text(message, "reasoning_content");
  if (const auto calls = message.find("tool_calls"); calls != message.end() && !calls->is_null()) {
    if (!calls->is_array()) refuse("messages", *calls, "tool_calls that are a list");
    for (Json& call : *calls) open_arguments(call);
  }
}

}  // namespace

ToolChoice read_tool_choice(const Json& body) {
  using Kind = ToolChoice::Kind;
  ToolChoice choice;
  choice.may_be_several = boolean(body, "parallel_tool_calls", true);
  const Json* given = find(body, "tool_choice");
  if (given == nullptr || *given == "auto") return choice;
  if (*given == "none") {
    choice.kind = Kind::kNone;
  } else if (*given == "required") {
    choice.kind = Kind::kRequired;
  } else {
    const Json* function = given->is_object() ? find(*given, "function") : nullptr;
    if (function == nullptr || !function->is_object() || !text(*function, "name")) {
      refuse("tool_choice", *given,
             R"("auto", "none", "required" or {"type": "function", "function": {"name": ...}})");
    }
    choice.kind = Kind::kNamed;
    choice.name = *text(*function, "name");
    choice.may_be_several = false;
  }
  return choice;
}

Json read_messages(const Json& body, const tokenizer::ChatTemplate& format) {
  const Json* given = find(body, "messages");
  if (given == nullptr || !given->is_array() || given->empty()) {
    refuse("messages", given == nullptr ? Json(nullptr) : *given, "a list of messages");
  }
  const bool knows_developer = format.source().find("developer") != std::string::npos;
  Json messages = *given;
  for (Json& message : messages) normalize(message, knows_developer);
  return messages;
}

Json read_tools(const Json& body, const ToolChoice& choice) {
  const Json* tools = find(body, "tools");
  if (tools == nullptr || (tools->is_array() && tools->empty())) {
    if (choice.is_forced())
      throw ApiError("tool_choice", "tool_choice asks for a call, but there are no tools");
    return nullptr;
  }
  if (!tools->is_array()) refuse("tools", *tools, "a list of tools");
  for (const Json& tool : *tools) {
    const Json* function = tool.is_object() ? find(tool, "function") : nullptr;
    if (function == nullptr || !function->is_object() || !text(*function, "name")) {
      refuse("tools", tool, "tools of type function with a function that has a name");
    }
    const Json* parameters = find(*function, "parameters");
    if (parameters != nullptr && !parameters->is_object())
      refuse("tools", *parameters, "parameters that are a schema");
  }
  if (choice.kind == ToolChoice::Kind::kNamed &&
      std::none_of(tools->begin(), tools->end(),
                   [&](const Json& tool) { return tool["function"]["name"] == choice.name; })) {
    refuse("tool_choice", choice.name, "the name of one of the tools");
  }
  return choice.kind == ToolChoice::Kind::kNone ? Json(nullptr) : *tools;
}

std::vector<chat::Tool> tools_of(const Json& tools) {
  std::vector<chat::Tool> result;
  for (const Json& tool : tools) {
    const Json& function = tool.at("function");
    const Json* parameters = find(function, "parameters");
    result.push_back(
        {function.at("name").get<std::string>(), parameters == nullptr ? Json(nullptr) : *parameters});
  }
  return result;
}

}  // namespace minimax::openai
