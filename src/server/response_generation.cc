#include "server/response_generation.h"

#include <ctime>
#include <utility>

#include "openai/answer.h"
#include "openai/fields.h"
#include "openai/responses_events.h"
#include "server/submit_generation.h"

namespace minimax::server {
namespace {

using Json = nlohmann::ordered_json;

// Lives as long as the engine's callbacks hold it; they come one at a time.
class ResponseGeneration {
 public:
  ResponseGeneration(const Service& service, openai::ResponsesRequest request,
                     std::shared_ptr<openai::ResponseStore> store, std::shared_ptr<http::Reply> reply)
      : request_(std::move(request)),
        store_(std::move(store)),
        reply_(std::move(reply)),
        answer_(request_.completion, service.model),
        stream_({random_name(), std::time(nullptr),
                 static_cast<int64_t>(request_.completion.request.prompt.size()), request_.carries_reasoning},
                request_.settings) {}
  ResponseGeneration(const ResponseGeneration&) = delete;
  ResponseGeneration& operator=(const ResponseGeneration&) = delete;

  const engine::Request& request() const { return request_.completion.request; }

  // RETURNS: whether more tokens are wanted.
  bool add(int32_t /*choice*/, const engine::SampledToken& token) {
    begin();
    return give(stream_.add(answer_.push(token))) && !answer_.is_stopped();
  }

  void finish(const engine::FinishedSample& finish) {
    using Reason = engine::FinishReason;
    const chat::OutputDelta rest = answer_.finish(finish);
    if (finish.reason == Reason::kError) return fail(500, "the model failed: " + finish.error);
    if (finish.reason == Reason::kCancelled) return fail(503, "the request was cancelled: the server stops");
    if (finish.reason == Reason::kTimeout) return fail(503, "the request took longer than it may");
    begin();
    give(stream_.add(rest));
    // Kept before the client knows its name.
    const openai::ResponsesStream::Events last = stream_.finish(answer_.sample());
    const std::string body = openai::dump_json(stream_.response());
    if (request_.is_stored) keep(body);
    give(last);
    if (request_.completion.is_stream) return reply_->end();
    reply_->send({200, body, "application/json", {}});
  }

 private:
  void begin() {
    if (is_begun_ || !request_.completion.is_stream) return;
    is_begun_ = true;
    reply_->begin({200, "", "text/event-stream; charset=utf-8", {{"Cache-Control", "no-cache"}}});
    give(stream_.start());
  }

  // Sends the events of a stream. RETURNS: false when nobody reads.
  bool give(const openai::ResponsesStream::Events& events) {
    if (!request_.completion.is_stream) return true;
    std::string text;
    for (const Json& event : events)
      text += fmt::format("event: {}\ndata: {}\n\n", event.at("type").get_ref<const std::string&>(),
                          openai::dump_json(event));
    return text.empty() || reply_->write(text);
  }

  // Appends to text: the conversation may be long, and this thread is all requests'.
  void keep(const std::string& body) {
    std::string items = request_.items;
    items.pop_back();
    for (const Json& item : stream_.response().at("output")) items += "," + openai::dump_json(item);
    store_->put(stream_.response().at("id"), {body, items + "]"});
  }

  void fail(int status, const std::string& message) {
    if (!is_begun_)
      return reply_->send(
          {status, openai::dump_json(openai::error_body(status, message)), "application/json", {}});
    give(stream_.fail(message));
    reply_->end();
  }

  const openai::ResponsesRequest request_;
  const std::shared_ptr<openai::ResponseStore> store_;
  const std::shared_ptr<http::Reply> reply_;
  openai::Answer answer_;
  openai::ResponsesStream stream_;
  bool is_begun_ = false;
};

}  // namespace

void start_response(const Service& service, openai::ResponsesRequest request,
                    const std::shared_ptr<openai::ResponseStore>& store,
                    const std::shared_ptr<http::Reply>& reply, const std::shared_ptr<Seats>& seats) {
  const auto generation = std::make_shared<ResponseGeneration>(service, std::move(request), store, reply);
  submit_generation(service, generation, {generation->request()}, reply, seats);
}

}  // namespace minimax::server
