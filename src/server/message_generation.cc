#include "server/message_generation.h"

#include "anthropic/events.h"
#include "openai/answer.h"
#include "openai/fields.h"
#include "server/submit_generation.h"

namespace minimax::server {
namespace {

using Json = nlohmann::ordered_json;

// Lives as long as the engine's callbacks hold it; they come one at a time.
class MessageGeneration {
 public:
  MessageGeneration(const Service& service, openai::CompletionRequest request,
                    std::shared_ptr<http::Reply> reply)
      : request_(std::move(request)),
        reply_(std::move(reply)),
        answer_(request_, service.model),
        stream_({"msg_" + random_name(), request_.model.empty() ? service.model.name : request_.model,
                 static_cast<int64_t>(request_.request.prompt.size())}) {}
  MessageGeneration(const MessageGeneration&) = delete;
  MessageGeneration& operator=(const MessageGeneration&) = delete;

  const engine::Request& request() const { return request_.request; }

  // RETURNS: whether more tokens are wanted.
  bool add(int32_t /*choice*/, const engine::SampledToken& token) {
    return give(stream_.add(answer_.push(token))) && !answer_.is_stopped();
  }

  void finish(const engine::FinishedSample& finish) {
    using Reason = engine::FinishReason;
    const chat::OutputDelta rest = answer_.finish(finish);
    if (finish.reason == Reason::kError) return fail(500, "the model failed: " + finish.error);
    if (finish.reason == Reason::kCancelled) return fail(529, "the request was cancelled: the server stops");
    if (finish.reason == Reason::kTimeout) return fail(529, "the request took longer than it may");
    give(stream_.add(rest));
    anthropic::MessageEnd end;
    end.reason = finish.reason;
    if (answer_.is_stopped()) end.stop_sequence = answer_.stop_string();
    end.is_context_bound = request_.is_context_bound;
    end.is_call_cut = answer_.sample().is_call_cut;
    end.cached_tokens = finish.cached_tokens;
    end.generated_tokens = finish.num_tokens;
    give(stream_.finish(end));
    if (request_.is_stream) return reply_->end();
    reply_->send({200, openai::dump_json(anthropic::message_body(events_)), "application/json", {}});
  }

 private:
  // Sends events of a stream, keeps those of a whole answer. RETURNS: false when nobody reads.
  bool give(const anthropic::Events& events) {
    if (!is_begun_) begin();
    if (!request_.is_stream) {
      events_.insert(events_.end(), events.begin(), events.end());
      return true;
    }
    std::string text;
    for (const Json& event : events) text += event_text(event);
    return text.empty() || reply_->write(text);
  }

  void begin() {
    is_begun_ = true;
    if (request_.is_stream)
      reply_->begin({200, "", "text/event-stream; charset=utf-8", {{"Cache-Control", "no-cache"}}});
    give(stream_.start());
  }

  void fail(int status, const std::string& message) {
    const Json body = anthropic::error_body(status, message);
    if (!request_.is_stream || !is_begun_)
      return reply_->send({status, openai::dump_json(body), "application/json", {}});
    reply_->write(event_text(body));
    reply_->end();
  }

  static std::string event_text(const Json& event) {
    return fmt::format("event: {}\ndata: {}\n\n", event.at("type").get<std::string>(),
                       openai::dump_json(event));
  }

  const openai::CompletionRequest request_;
  const std::shared_ptr<http::Reply> reply_;
  openai::Answer answer_;
  anthropic::MessageStream stream_;
  anthropic::Events events_;  // of an answer that is no stream
  bool is_begun_ = false;
};

}  // namespace

void start_message(const Service& service, openai::CompletionRequest request,
                   const std::shared_ptr<http::Reply>& reply, const std::shared_ptr<Seats>& seats) {
  const auto generation = std::make_shared<MessageGeneration>(service, std::move(request), reply);
  submit_generation(service, generation, {generation->request()}, reply, seats);
}

}  // namespace minimax::server
