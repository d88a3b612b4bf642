#include "server/generation.h"

#include <chrono>

#include "openai/fields.h"
#include "openai/response.h"
#include "server/submit_generation.h"

namespace minimax::server {
namespace {

using Json = nlohmann::ordered_json;

std::string event(const Json& data) { return "data: " + openai::dump_json(data) + "\n\n"; }

openai::ResponseInfo new_info(bool is_chat) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {(is_chat ? "chatcmpl-" : "cmpl-") + random_name(),
          std::chrono::duration_cast<std::chrono::seconds>(now).count()};
}

// Lives as long as the engine's callbacks hold it; they come one at a time.
class Generation {
 public:
  Generation(const Service& service, openai::CompletionRequest request, std::shared_ptr<http::Reply> reply)
      : model_(service.model),
        request_(std::move(request)),
        reply_(std::move(reply)),
        info_(new_info(request_.is_chat)) {
    const auto count = static_cast<int32_t>(request_.num_choices());
    answers_.reserve(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) {
      answers_.emplace_back(request_, model_);
      writers_.emplace_back(request_, model_, info_, i);
    }
  }
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // One for each prompt.
  std::vector<engine::Request> requests() const {
    std::vector<engine::Request> requests = {request_.request};
    requests.insert(requests.end(), request_.further.begin(), request_.further.end());
    return requests;
  }

  void add_prompt(int32_t request, const std::vector<engine::SampledToken>& logprobs) {
    const auto count = static_cast<size_t>(request_.request.n);
    const size_t first = static_cast<size_t>(request) * count;
    for (size_t i = 0; i < count; ++i) answers_[first + i].set_prompt(logprobs);
  }

  // RETURNS: whether more tokens are wanted.
  bool add(int32_t choice, const engine::SampledToken& token) {
    const auto i = static_cast<size_t>(choice);
    openai::Answer& answer = answers_[i];
    const chat::OutputDelta delta = answer.push(token);
    if (request_.is_stream && !write(writers_[i].add(delta, answer.sample()))) return false;
    return !answer.is_stopped();
  }

  void finish(const engine::FinishedSample& finish) {
    const auto i = static_cast<size_t>(finish.sample);
    const chat::OutputDelta delta = answers_[i].finish(finish);
    note_failure(finish);
    if (request_.is_stream && failure_.empty()) write(writers_[i].finish(delta, answers_[i].sample()));
    if (++num_finished_ < answers_.size()) return;
    if (request_.is_stream && (is_begun_ || failure_.empty())) {
      end_stream();
    } else {
      send_whole();
    }
  }

 private:
  void note_failure(const engine::FinishedSample& finish) {
    using Reason = engine::FinishReason;
    if (finish.reason == Reason::kError) failure_ = "the model failed: " + finish.error;
    if (finish.reason == Reason::kCancelled && failure_.empty())
      failure_ = "the request was cancelled: the server stops";
    if (finish.reason == Reason::kTimeout && failure_.empty())
      failure_ = "the request took longer than it may";
    if (finish.reason == Reason::kError) failure_status_ = 500;
  }

  void begin() {
    is_begun_ = true;
    reply_->begin({200, "", "text/event-stream; charset=utf-8", {{"Cache-Control", "no-cache"}}});
  }

  bool write(const std::vector<Json>& chunks) {
    if (!is_begun_) begin();
    std::string events;
    for (const Json& chunk : chunks) events += event(chunk);
    return reply_->write(events);
  }

  std::vector<openai::TextSample> samples() const {
    std::vector<openai::TextSample> samples;
    for (const openai::Answer& answer : answers_) samples.push_back(answer.sample());
    return samples;
  }

  void end_stream() {
    if (!failure_.empty()) {
      write({openai::error_body(failure_status_, failure_)});
    } else if (request_.includes_usage) {
      write({openai::usage_chunk(request_, model_, samples(), info_)});
    }
    reply_->write("data: [DONE]\n\n");
    reply_->end();
  }

  void send_whole() {
    const bool is_good = failure_.empty();
    const Json body = is_good ? openai::completion_body(request_, model_, samples(), info_)
                              : openai::error_body(failure_status_, failure_);
    reply_->send({is_good ? 200 : failure_status_, openai::dump_json(body), "application/json", {}});
  }

  const openai::ServedModel& model_;
  const openai::CompletionRequest request_;
  const std::shared_ptr<http::Reply> reply_;
  const openai::ResponseInfo info_;
  std::vector<openai::Answer> answers_;
  std::vector<openai::ChunkWriter> writers_;
  size_t num_finished_ = 0;
  bool is_begun_ = false;
  std::string failure_;  // of any sample
  int failure_status_ = 503;
};

}  // namespace

void start_generation(const Service& service, openai::CompletionRequest request,
                      const std::shared_ptr<http::Reply>& reply, const std::shared_ptr<Seats>& seats) {
  const auto generation = std::make_shared<Generation>(service, std::move(request), reply);
  submit_generation(service, generation, generation->requests(), reply, seats);
}

}  // namespace minimax::server
