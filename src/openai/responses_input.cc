#include "openai/responses_input.h"

#include "openai/fields.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;

const Json& text_field(const Json& item, const char* name) {
  const Json* value = find(item, name);
  if (value == nullptr || !value->is_string())
    refuse("input", item, fmt::format("an item with a {} that is a string", name));
  return *value;
}

// Text, or a list of parts that are text.
std::string text_of(const Json* content, const Json& item) {
  if (content != nullptr && content->is_string()) return content->get<std::string>();
  if (content == nullptr || !content->is_array())
    refuse("input", item, "an item with text, or with a list of parts");
  std::string text;
  for (const Json& part : *content) {
    if (!part.is_object()) refuse("input", part, "parts with a type");
    const auto& type = text_field(part, "type").get_ref<const std::string&>();
    if (type == "refusal") {
      text += text_field(part, "refusal").get_ref<const std::string&>();
    } else if (type == "input_text" || type == "output_text" || type == "text") {
      text += text_field(part, "text").get_ref<const std::string&>();
    } else {
      refuse("input", part, "parts of type input_text or output_text: the model reads nothing else");
    }
  }
  return text;
}

// What a reasoning item has of its text, in whichever form a client has kept it.
std::string reasoning_of(const Json& item) {
  std::string text;
  for (const char* field : {"content", "summary"}) {
    const Json* parts = find(item, field);
    if (parts == nullptr) continue;
    if (!parts->is_array()) refuse("input", item, "a reasoning item whose content is a list");
    for (const Json& part : *parts) {
      if (!part.is_object()) refuse("input", part, "parts with a text");
      text += text_field(part, "text").get_ref<const std::string&>();
    }
    if (!text.empty()) return text;
  }
  const Json* carried = find(item, "encrypted_content");
  if (carried == nullptr || !carried->is_string()) return text;
  const auto& whole = carried->get_ref<const std::string&>();
  return whole.starts_with(kCarriedReasoning) ? whole.substr(kCarriedReasoning.size()) : text;
}

// Messages in the making. Items of an assistant's turn go into one message until something else comes.
class Conversation {
 public:
  explicit Conversation(const std::string& instructions) : system_(instructions) {}

  void add(const Json& item) {
    if (!item.is_object()) refuse("input", item, "items with a type");
    const std::string type = text(item, "type").value_or("message");
    if (type == "message") {
      add_message(item);
    } else if (type == "reasoning") {
      Json& turn = assistant(!has_answer_);
      turn["reasoning_content"] = turn.value("reasoning_content", "") + reasoning_of(item);
    } else if (type == "function_call") {
      add_call(item);
    } else if (type == "function_call_output") {
      push({{"role", "tool"},
            {"tool_call_id", text_field(item, "call_id")},
            {"content", text_of(find(item, "output"), item)}});
    } else {
      throw ApiError("input", fmt::format("input has an item of type {}; expected message, reasoning, "
                                          "function_call or function_call_output",
                                          dump_json(item.at("type"))));
    }
  }

  Json messages() const {
    Json result = Json::array();
    if (!system_.empty()) result.push_back({{"role", "system"}, {"content", system_}});
    for (const Json& message : messages_) result.push_back(message);
    return result;
  }

 private:
  void push(Json message) {
    messages_.push_back(std::move(message));
    has_answer_ = false;
  }

  void add_message(const Json& item) {
    const auto& role = text_field(item, "role").get_ref<const std::string&>();
    std::string content = text_of(find(item, "content"), item);
    if (role == "assistant") {
      assistant(!has_answer_)["content"] = std::move(content);
      has_answer_ = true;
      return;
    }
    const bool is_system = role == "system" || role == "developer";
    if (role != "user" && !is_system)
      refuse("input", item, "a message of user, assistant, system or developer");
    if (is_system && messages_.empty()) {
      system_ += (system_.empty() ? "" : "\n\n") + content;
    } else {
      push({{"role", "user"}, {"content", content}});
    }
  }

  void add_call(const Json& item) {
    Json call = {
        {"id", text_field(item, "call_id")},
        {"type", "function"},
        {"function", {{"name", text_field(item, "name")}, {"arguments", text_field(item, "arguments")}}}};
    Json& turn = assistant(true);
    if (!turn.contains("tool_calls")) turn["tool_calls"] = Json::array();
    turn["tool_calls"].push_back(std::move(call));
    has_answer_ = true;
  }

  // The assistant's message, the last one if the item still belongs to it.
  Json& assistant(bool may_join) {
    if (!may_join || messages_.empty() || messages_.back().at("role") != "assistant")
      push({{"role", "assistant"}, {"content", ""}});
    return messages_.back();
  }

  std::string system_;
  std::vector<Json> messages_;
  bool has_answer_ = false;  // the last message is the assistant's and has more than reasoning
};

}  // namespace

Json items_of_input(const Json& body) {
  const Json* input = find(body, "input");
  if (input != nullptr && input->is_string())
    return Json::array({{{"type", "message"}, {"role", "user"}, {"content", *input}}});
  if (input == nullptr || !input->is_array() || input->empty())
    refuse("input", input == nullptr ? Json(nullptr) : *input, "a string or a list of items");
  return *input;
}

Json messages_of_items(const Json& items, const std::string& instructions) {
  Conversation conversation(instructions);
  for (const Json& item : items) conversation.add(item);
  return conversation.messages();
}

}  // namespace minimax::openai
