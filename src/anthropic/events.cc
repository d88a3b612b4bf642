#include "anthropic/events.h"

#include <string_view>

namespace minimax::anthropic {
namespace {

using Json = nlohmann::ordered_json;

std::string_view stop_reason(const MessageEnd& end, bool has_calls) {
  const std::string_view limit = end.is_context_bound ? "model_context_window_exceeded" : "max_tokens";
  if (end.is_call_cut) return limit;
  if (has_calls) return "tool_use";
  if (end.stop_sequence) return "stop_sequence";
  return end.reason == engine::FinishReason::kStop ? "end_turn" : limit;
}

std::string_view error_type(int status) {
  switch (status) {
    case 400:
      return "invalid_request_error";
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
    case 529:
      return "overloaded_error";
    default:
      return status >= 400 && status < 500 ? "invalid_request_error" : "api_error";
  }
}

void apply_delta(const Json& delta, Json& block, std::string& input) {
  if (delta.at("type") == "input_json_delta") {
    input += delta.at("partial_json").get_ref<const std::string&>();
    return;
  }
  const char* field = delta.at("type") == "text_delta" ? "text" : "thinking";
  block[field].get_ref<std::string&>() += delta.at(field).get_ref<const std::string&>();
}

}  // namespace

Events MessageStream::start() const {
  return {{{"type", "message_start"},
           {"message",
            {{"id", info_.id},
             {"type", "message"},
             {"role", "assistant"},
             {"model", info_.model},
             {"content", Json::array()},
             {"stop_reason", nullptr},
             {"stop_sequence", nullptr},
             {"usage", {{"input_tokens", info_.prompt_tokens}, {"output_tokens", 0}}}}}}};
}

void MessageStream::open(Block block, Json start, Events& events) {
  close(events);
  block_ = block;
  ++index_;
  events.push_back({{"type", "content_block_start"}, {"index", index_}, {"content_block", std::move(start)}});
}

void MessageStream::close(Events& events) {
  if (block_ == Block::kNone) return;
  events.push_back({{"type", "content_block_stop"}, {"index", index_}});
  block_ = Block::kNone;
}

void MessageStream::add_text(Block block, const std::string& text, Events& events) {
  if (text.empty()) return;
  const bool is_thinking = block == Block::kThinking;
  if (block_ != block) {
    open(block,
         is_thinking ? Json{{"type", "thinking"}, {"thinking", ""}, {"signature", ""}}
                     : Json{{"type", "text"}, {"text", ""}},
         events);
  }
  const Json delta = is_thinking ? Json{{"type", "thinking_delta"}, {"thinking", text}}
                                 : Json{{"type", "text_delta"}, {"text", text}};
  events.push_back({{"type", "content_block_delta"}, {"index", index_}, {"delta", delta}});
}

void MessageStream::add_call(const chat::CallDelta& call, Events& events) {
  if (!call.name.empty()) {
    open(Block::kCall,
         {{"type", "tool_use"},
          {"id", "toolu_" + info_.id + "_" + std::to_string(call.index)},
          {"name", call.name},
          {"input", Json::object()}},
         events);
  }
  if (!call.arguments.empty()) {
    events.push_back({{"type", "content_block_delta"},
                      {"index", index_},
                      {"delta", {{"type", "input_json_delta"}, {"partial_json", call.arguments}}}});
  }
  if (call.is_last) {
    close(events);
    has_calls_ = true;
  }
}

Events MessageStream::add(const chat::OutputDelta& delta) {
  Events events;
  add_text(Block::kThinking, delta.reasoning, events);
  add_text(Block::kText, delta.content, events);
  for (const chat::CallDelta& call : delta.calls) add_call(call, events);
  return events;
}

Events MessageStream::finish(const MessageEnd& end) {
  Events events;
  close(events);
  events.push_back({{"type", "message_delta"},
                    {"delta",
                     {{"stop_reason", stop_reason(end, has_calls_)},
                      {"stop_sequence", end.stop_sequence ? Json(*end.stop_sequence) : Json(nullptr)}}},
                    {"usage",
                     {{"input_tokens", info_.prompt_tokens - end.cached_tokens},
                      {"cache_creation_input_tokens", 0},
                      {"cache_read_input_tokens", end.cached_tokens},
                      {"output_tokens", end.generated_tokens}}}});
  events.push_back({{"type", "message_stop"}});
  return events;
}

Json message_body(const Events& events) {
  Json message;
  Json block;
  std::string input;  // of a call's block
  for (const Json& event : events) {
    const std::string& type = event.at("type").get_ref<const std::string&>();
    if (type == "message_start") {
      message = event.at("message");
    } else if (type == "content_block_start") {
      block = event.at("content_block");
      input.clear();
    } else if (type == "content_block_delta") {
      apply_delta(event.at("delta"), block, input);
    } else if (type == "content_block_stop") {
      const bool is_call = block.at("type") == "tool_use";
      if (is_call) block["input"] = Json::parse(input, nullptr, false);
      // The arguments of a call that was cut are no JSON.
      if (!is_call || block["input"].is_object()) message["content"].push_back(block);
    } else if (type == "message_delta") {
      message.update(event.at("delta"));
      message["usage"] = event.at("usage");
    }
  }
  return message;
}

Json error_body(int status, const std::string& message) {
  return {{"type", "error"}, {"error", {{"type", error_type(status)}, {"message", message}}}};
}

}  // namespace minimax::anthropic
