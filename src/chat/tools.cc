#include "chat/tools.h"

#include "core/error.h"

namespace minimax::chat {
namespace {

using Json = nlohmann::ordered_json;

std::string shown(const Json& value) {
  constexpr size_t kLongest = 80;
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

Tool tool_from_json(const Json& entry) {
  const Json* function = &entry;
  if (entry.is_object() && entry.contains("function")) function = &entry.at("function");
  if (!function->is_object() || !function->contains("name") || !function->at("name").is_string()) {
    fail(
        "the tool {} has no name; expected {{\"name\": ..., \"parameters\": {{...}}}} or the same as a "
        "tool's "
        "\"function\"",
        shown(entry));
  }
  return {function->at("name").get<std::string>(), function->value("parameters", Json(nullptr))};
}

}  // namespace

std::vector<Tool> tools_from_json(const Json& list) {
  if (list.is_null()) return {};
  if (!list.is_array()) fail("the tools are {}; expected a JSON list", shown(list));
  std::vector<Tool> tools;
  tools.reserve(list.size());
  for (const Json& entry : list) tools.push_back(tool_from_json(entry));
  return tools;
}

}  // namespace minimax::chat
