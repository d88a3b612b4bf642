// Answers of /v1/responses: the events of a stream, and the response object that they lead to.
//
//   ResponsesStream stream(info, settings);
//   send(stream.start());
//   for (delta : deltas) send(stream.add(delta));
//   send(stream.finish(sample));                    or, as one body: stream.response()
//
// Each event's name is its "type"; they are numbered. Items of output open and close as reasoning, text and
// calls alternate.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "openai/answer.h"

namespace minimax::openai {

struct ResponsesInfo {
  std::string name;  // of the response, its items and calls, behind their prefixes
  int64_t created = 0;
  int64_t prompt_tokens = 0;
  bool carries_reasoning = false;  // reasoning items have encrypted_content
};

class ResponsesStream {
 public:
  using Json = nlohmann::ordered_json;
  using Events = std::vector<Json>;

  // `settings`: what the response object repeats of the request.
  ResponsesStream(ResponsesInfo info, Json settings);

  // response.created and response.in_progress.
  Events start();
  Events add(const chat::OutputDelta& delta);
  // Closes what is open; then response.completed or response.incomplete. A call that was cut is no part of
  // the response.
  Events finish(const TextSample& sample);
  // response.failed.
  Events fail(const std::string& message);

  // As the last event has it.
  const Json& response() const { return response_; }

 private:
  enum class Item : uint8_t { kNone, kReasoning, kMessage, kCall };

  void emit(const char* type, Json fields, Events& events);
  void emit_in_item(const char* type, Json fields, Events& events);
  void open(Item kind, Json item, Events& events);
  void close(const char* status, Events& events);
  void close_text(Events& events);
  void add_text(Item kind, const std::string& text, Events& events);
  void add_call(const chat::CallDelta& call, Events& events);
  Json part() const;

  ResponsesInfo info_;
  Json response_;
  int64_t sequence_ = 0;
  Item kind_ = Item::kNone;
  Json item_;           // that is open
  std::string text_;    // of it: text or arguments
  std::string spaces_;  // before a message that has not begun; calls may follow instead
  int64_t num_items_ = 0;
};

}  // namespace minimax::openai
