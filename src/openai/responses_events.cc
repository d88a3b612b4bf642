#include "openai/responses_events.h"

#include <utility>

#include "openai/responses_input.h"

namespace minimax::openai {

using Json = nlohmann::ordered_json;
using Events = ResponsesStream::Events;

ResponsesStream::ResponsesStream(ResponsesInfo info, Json settings)
    : info_(std::move(info)),
      response_({{"id", "resp_" + info_.name},
                 {"object", "response"},
                 {"created_at", info_.created},
                 {"status", "in_progress"},
                 {"error", nullptr},
                 {"incomplete_details", nullptr},
                 {"output", Json::array()},
                 {"usage", nullptr}}) {
  response_.update(settings);
}

void ResponsesStream::emit(const char* type, Json fields, Events& events) {
  Json event = {{"type", type}, {"sequence_number", sequence_++}};
  event.update(fields);
  events.push_back(std::move(event));
}

void ResponsesStream::emit_in_item(const char* type, Json fields, Events& events) {
  Json all = {{"item_id", item_.at("id")}, {"output_index", num_items_}};
  all.update(fields);
  emit(type, std::move(all), events);
}

Events ResponsesStream::start() {
  Events events;
  emit("response.created", {{"response", response_}}, events);
  emit("response.in_progress", {{"response", response_}}, events);
  return events;
}

// The content of the open item.
Json ResponsesStream::part() const {
  if (kind_ == Item::kReasoning) return {{"type", "reasoning_text"}, {"text", text_}};
  return {
      {"type", "output_text"}, {"text", text_}, {"annotations", Json::array()}, {"logprobs", Json::array()}};
}

void ResponsesStream::open(Item kind, Json item, Events& events) {
  close("completed", events);
  kind_ = kind;
  item_ = std::move(item);
  item_["status"] = "in_progress";
  text_.clear();
  emit("response.output_item.added", {{"output_index", num_items_}, {"item", item_}}, events);
  if (kind != Item::kCall)
    emit_in_item("response.content_part.added", {{"content_index", 0}, {"part", part()}}, events);
}

void ResponsesStream::close_text(Events& events) {
  Json fields = {{"content_index", 0}, {"text", text_}};
  if (kind_ == Item::kMessage) fields["logprobs"] = Json::array();
  const bool is_reasoning = kind_ == Item::kReasoning;
  emit_in_item(is_reasoning ? "response.reasoning_text.done" : "response.output_text.done", fields, events);
  emit_in_item("response.content_part.done", {{"content_index", 0}, {"part", part()}}, events);
  item_["content"].push_back(part());
  if (is_reasoning && info_.carries_reasoning)
    item_["encrypted_content"] = std::string(kCarriedReasoning) + text_;
}

void ResponsesStream::close(const char* status, Events& events) {
  if (kind_ == Item::kNone) return;
  if (kind_ != Item::kCall) {
    close_text(events);
  } else {
    item_["arguments"] = text_;
    emit_in_item("response.function_call_arguments.done", {{"name", item_.at("name")}, {"arguments", text_}},
                 events);
  }
  item_["status"] = status;
  emit("response.output_item.done", {{"output_index", num_items_}, {"item", item_}}, events);
  response_["output"].push_back(std::exchange(item_, nullptr));
  kind_ = Item::kNone;
  ++num_items_;
}

void ResponsesStream::add_text(Item kind, const std::string& text, Events& events) {
  if (text.empty()) return;
  std::string delta = text;
  if (kind_ != kind) {
    const std::string place = fmt::format("{}_{}", info_.name, num_items_ + (kind_ == Item::kNone ? 0 : 1));
    if (kind == Item::kReasoning) {
      open(kind,
           {{"id", "rs_" + place},
            {"type", "reasoning"},
            {"summary", Json::array()},
            {"content", Json::array()}},
           events);
    } else {
      spaces_ += text;
      if (spaces_.find_first_not_of(" \n\r\t") == std::string::npos) return;
      delta = std::exchange(spaces_, "");
      open(kind,
           {{"id", "msg_" + place}, {"type", "message"}, {"role", "assistant"}, {"content", Json::array()}},
           events);
    }
  }
  text_ += delta;
  Json fields = {{"content_index", 0}, {"delta", delta}};
  if (kind == Item::kMessage) fields["logprobs"] = Json::array();
  emit_in_item(kind == Item::kReasoning ? "response.reasoning_text.delta" : "response.output_text.delta",
               fields, events);
}

void ResponsesStream::add_call(const chat::CallDelta& call, Events& events) {
  if (!call.name.empty()) {
    const std::string place = fmt::format("{}_{}", info_.name, call.index);
    open(Item::kCall,
         {{"id", "fc_" + place},
          {"type", "function_call"},
          {"call_id", "call_" + place},
          {"name", call.name},
          {"arguments", ""}},
         events);
  }
  if (!call.arguments.empty()) {
    text_ += call.arguments;
    emit_in_item("response.function_call_arguments.delta", {{"delta", call.arguments}}, events);
  }
  if (call.is_last) close("completed", events);
}

Events ResponsesStream::add(const chat::OutputDelta& delta) {
  Events events;
  add_text(Item::kReasoning, delta.reasoning, events);
  add_text(Item::kMessage, delta.content, events);
  for (const chat::CallDelta& call : delta.calls) add_call(call, events);
  return events;
}

Events ResponsesStream::finish(const TextSample& sample) {
  Events events;
  const bool is_cut = sample.finish_reason() == "length";
  const bool is_call_cut = kind_ == Item::kCall;
  close(is_cut || is_call_cut ? "incomplete" : "completed", events);
  if (is_call_cut) response_["output"].erase(response_["output"].size() - 1);
  const int64_t generated = sample.finish.num_tokens;
  response_["status"] = is_cut ? "incomplete" : "completed";
  if (is_cut) response_["incomplete_details"] = {{"reason", "max_output_tokens"}};
  response_["usage"] = {
      {"input_tokens", info_.prompt_tokens},
      {"input_tokens_details", {{"cached_tokens", sample.finish.cached_tokens}, {"cache_write_tokens", 0}}},
      {"output_tokens", generated},
      {"output_tokens_details", {{"reasoning_tokens", sample.reasoning_tokens}}},
      {"total_tokens", info_.prompt_tokens + generated}};
  emit(is_cut ? "response.incomplete" : "response.completed", {{"response", response_}}, events);
  return events;
}

Events ResponsesStream::fail(const std::string& message) {
  Events events;
  response_["status"] = "failed";
  response_["error"] = {{"code", "server_error"}, {"message", message}};
  emit("response.failed", {{"response", response_}}, events);
  return events;
}

}  // namespace minimax::openai
