// Answers of /v1/messages: the events of a stream, and the message that they add up to.
//
//   MessageStream stream(info);
//   send(stream.start());
//   for (delta : deltas) send(stream.add(delta));
//   send(stream.finish(end));                    or, as one body: message_body(all events)
//
// Each event's name is its "type". Content blocks open and close as reasoning, text and calls alternate.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "chat/output_parser.h"
#include "engine/finish_reason.h"

namespace minimax::anthropic {

using Events = std::vector<nlohmann::ordered_json>;

struct MessageInfo {
  std::string id;  // of the message; ids of its calls begin with it
  std::string model;
  int64_t prompt_tokens = 0;
};

// How an answer ended. Tokens of the prompt that came from the cache are reported apart.
struct MessageEnd {
  engine::FinishReason reason = engine::FinishReason::kStop;
  std::optional<std::string> stop_sequence;  // the one that was found
  bool is_call_cut = false;
  int64_t cached_tokens = 0;
  int64_t generated_tokens = 0;
  bool is_context_bound = false;  // the most tokens were those that the context had room for
};

class MessageStream {
 public:
  explicit MessageStream(MessageInfo info) : info_(std::move(info)) {}

  // message_start.
  Events start() const;
  // What a delta adds: content_block_start, content_block_delta and content_block_stop.
  Events add(const chat::OutputDelta& delta);
  // message_delta and message_stop, after the end of an open block.
  Events finish(const MessageEnd& end);

 private:
  enum class Block { kNone, kThinking, kText, kCall };

  void open(Block block, nlohmann::ordered_json start, Events& events);
  void close(Events& events);
  void add_text(Block block, const std::string& text, Events& events);
  void add_call(const chat::CallDelta& call, Events& events);

  MessageInfo info_;
  Block block_ = Block::kNone;
  int64_t index_ = -1;  // of the block
  bool has_calls_ = false;
};

// The body of an answer that is no stream. A call that was cut is left out.
// REQUIRES: all events of one stream.
nlohmann::ordered_json message_body(const Events& events);

// {"type": "error", ...} for an HTTP status: a body, or an event of a stream that fails.
nlohmann::ordered_json error_body(int status, const std::string& message);

}  // namespace minimax::anthropic
