#include "chat/call_reader.h"

#include "chat/argument_text.h"

namespace minimax::chat {

void CallSink::begin(std::string name) {
  ++index_;
  delta_->calls.push_back({index_, std::move(name), "", false});
}

CallDelta& CallSink::current() {
  if (delta_->calls.empty() || delta_->calls.back().index != index_) {
    delta_->calls.push_back({index_, "", "", false});
  }
  return delta_->calls.back();
}

void CallSink::end() { current().is_last = true; }

std::string attribute_value(std::string_view text) {
  text = stripped(text);
  if (text.ends_with('/')) text = stripped(text.substr(0, text.size() - 1));
  if (text.starts_with('"') || text.starts_with('\'')) {
    const char quote = text.front();
    text.remove_prefix(1);
    text = text.substr(0, text.find(quote));
  }
  return std::string(text);
}

Schema arguments_schema(const std::vector<Tool>& tools, std::string_view name) {
  for (const Tool& tool : tools) {
    if (tool.name == name) return Schema(tool.parameters);
  }
  return {};
}

}  // namespace minimax::chat
