#include "server/api.h"

#include <algorithm>
#include <ctime>

#include "anthropic/events.h"
#include "anthropic/request.h"
#include "openai/fields.h"
#include "server/generation.h"
#include "server/message_generation.h"
#include "server/page.h"
#include "server/response_generation.h"
#include "server/token_endpoints.h"

namespace minimax::server {
namespace {

using Json = nlohmann::ordered_json;
using openai::ApiError;

// Of kept answers of /v1/responses, together.
constexpr int64_t kMostStoredBytes = int64_t{64} << 20;

http::Response json_response(const Json& body, int status = 200) {
  return {status, openai::dump_json(body), "application/json", {}};
}

http::Response error_response(int status, const std::string& message) {
  return json_response(openai::error_body(status, message), status);
}

// In the words of the API that the path belongs to.
http::Response worded_error(std::string_view path, int status, const std::string& message) {
  if (path.starts_with("/v1/messages")) return json_response(anthropic::error_body(status, message), status);
  return error_response(status, message);
}

Json openai_error(const ApiError& error) { return error.body(); }
Json anthropic_error(const ApiError& error) { return anthropic::error_body(error.status(), error.what()); }

http::Response response_of(const ApiError& error, const Json& body) {
  http::Response response = json_response(body, error.status());
  if (error.status() == 429 || error.status() == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

}  // namespace

Api::Api(ApiOptions options, const observe::Metrics* metrics, std::function<Json()> load_progress)
    : options_(std::move(options)),
      metrics_(metrics),
      load_progress_(std::move(load_progress)),
      router_(worded_error, options_.api_keys),
      start_time_(std::time(nullptr)),
      seed_(static_cast<uint64_t>(options_.seed)),
      responses_(std::make_shared<openai::ResponseStore>(options_.max_stored_responses, kMostStoredBytes)) {
  add_state_routes();
  add_model_routes();
  add_completion_routes();
  add_response_routes();
}

void Api::add_state_routes() {
  using Access = http::Router::Access;
  router_.get("/health", Access::kAnyone, [this](const http::Request&) { return health(); });
  router_.get("/ready", Access::kAnyone, [this](const http::Request&) { return health(); });
  router_.get("/ping", Access::kAnyone, [this](const http::Request&) { return health(); });
  router_.get("/is_sleeping", Access::kAnyone, [](const http::Request&) {
    return json_response({{"is_sleeping", false}});
  });
  for (const char* path : {"/sleep", "/wake_up"}) {
    router_.post(path, Access::kKey, [](const http::Request&, const std::shared_ptr<http::Reply>& reply) {
      reply->send(error_response(
          501,
          "this server does not sleep: weights are pages of the mapped files, which the system takes back by "
          "itself; stop the server to free the caches, it is ready again in seconds"));
    });
  }
  router_.get("/version", Access::kAnyone, [this](const http::Request&) {
    return json_response({{"version", options_.version}});
  });
  router_.get("/metrics", Access::kAnyone, [this](const http::Request&) {
    const std::string text = metrics_ == nullptr ? "" : metrics_->text();
    return http::Response{200, text, "text/plain; version=0.0.4; charset=utf-8", {}};
  });
  const auto page = [](const http::Request& request) { return page_file(request, error_response); };
  router_.get("/", Access::kAnyone, page);
  router_.get("/ui/*", Access::kAnyone, page);
  router_.get("/v1/models", Access::kKey, [this](const http::Request&) { return models(); });
  router_.get("/v1/models/*", Access::kKey, [this](const http::Request& request) { return model(request); });
}

void Api::add_model_routes() {
  using Reply = std::shared_ptr<http::Reply>;
  post(
      "/tokenize",
      [](const Service& service, const Json& body, const Reply& reply) {
        reply->send(json_response(tokenize(body, service.model)));
      },
      openai_error);
  post(
      "/detokenize",
      [](const Service& service, const Json& body, const Reply& reply) {
        reply->send(json_response(detokenize(body, service.model)));
      },
      openai_error);
  router_.post("/reset_prefix_cache", http::Router::Access::kKey,
               [this](const http::Request&, const Reply& reply) {
                 const Service* ready = service();
                 if (ready == nullptr) return reply->send(error_response(503, "the model is loading"));
                 ready->engine.reset_prefix_cache();
                 reply->send({200, "", "", {}});
               });
  post(
      "/v1/messages/count_tokens",
      [](const Service& service, const Json& body, const Reply& reply) {
        reply->send(json_response(anthropic::count_tokens(body, service.model)));
      },
      anthropic_error);
}

void Api::add_completion_routes() {
  using Reply = std::shared_ptr<http::Reply>;
  post(
      "/v1/chat/completions",
      [this](const Service& service, const Json& body, const Reply& reply) {
        openai::CompletionRequest request = openai::parse_chat_completion(body, service.model);
        complete(request);
        const auto seats = admit(request.num_choices());
        start_generation(service, std::move(request), reply, seats);
      },
      openai_error);
  post(
      "/v1/completions",
      [this](const Service& service, const Json& body, const Reply& reply) {
        openai::CompletionRequest request = openai::parse_completion(body, service.model);
        complete(request);
        const auto seats = admit(request.num_choices());
        start_generation(service, std::move(request), reply, seats);
      },
      openai_error);
  post(
      "/v1/messages",
      [this](const Service& service, const Json& body, const Reply& reply) {
        openai::CompletionRequest request = anthropic::parse_messages(body, service.model);
        complete(request);
        start_message(service, std::move(request), reply, admit(1));
      },
      anthropic_error);
  post(
      "/v1/responses",
      [this](const Service& service, const Json& body, const Reply& reply) {
        openai::ResponsesRequest request = openai::parse_responses(body, service.model, *responses_);
        complete(request.completion);
        start_response(service, std::move(request), responses_, reply, admit(1));
      },
      openai_error);
}

void Api::add_response_routes() {
  post(
      "/v1/responses/input_tokens",
      [this](const Service& service, const Json& body, const std::shared_ptr<http::Reply>& reply) {
        reply->send(json_response(openai::count_input_tokens(body, service.model, *responses_)));
      },
      openai_error);
  const auto id_of = [](const http::Request& request) {
    return request.path.substr(std::string_view("/v1/responses/").size());
  };
  const auto missing = [] { return error_response(404, "there is no such stored answer, or not any more"); };
  using Access = http::Router::Access;
  router_.get("/v1/responses/*", Access::kKey, [this, id_of, missing](const http::Request& request) {
    const auto kept = responses_->get(id_of(request));
    return kept ? http::Response{200, kept->body, "application/json", {}} : missing();
  });
  router_.remove("/v1/responses/*", [this, id_of, missing](const http::Request& request) {
    const std::string id = id_of(request);
    if (!responses_->erase(id)) return missing();
    return json_response({{"id", id}, {"object", "response"}, {"deleted", true}});
  });
}

void Api::post(const std::string& path, Endpoint endpoint, ErrorBody error_body) {
  const auto work = [this, endpoint = std::move(endpoint), error_body](
                        const http::Request& request, const std::shared_ptr<http::Reply>& reply) {
    try {
      const Service* ready = service();
      if (is_draining_) throw ApiError("", "the server is stopping", 503);
      if (ready == nullptr) throw ApiError("", "the model is loading; GET /health says how far", 503);
      const Json body = openai::parse_json(request.body);
      if (!body.is_object()) openai::refuse("body", body, "an object");
      check_model(body);
      endpoint(*ready, body, reply);
    } catch (const ApiError& error) {
      reply->send(response_of(error, error_body(error)));
    }
  };
  router_.post(path, http::Router::Access::kKey, work);
}

void Api::set_ready(const Service& service) {
  const std::lock_guard lock(mutex_);
  service_.emplace(service);
}

void Api::set_draining() { is_draining_ = true; }

const Service* Api::service() const {
  const std::lock_guard lock(mutex_);
  return service_ ? &*service_ : nullptr;
}

http::Response Api::health() const {
  if (is_draining_) return json_response({{"status", "stopping"}}, 503);
  if (service() != nullptr) return json_response({{"status", "ok"}});
  return json_response({{"status", "loading"}, {"progress", load_progress_()}}, 503);
}

Json Api::model_card(const std::string& name) const {
  Json card = {{"id", name},
               {"object", "model"},
               {"created", start_time_},
               {"owned_by", "minimax.cpp"},
               {"root", options_.names.front()}};
  if (const Service* ready = service()) card["max_model_len"] = ready->model.max_model_len;
  return card;
}

http::Response Api::models() const {
  Json list = Json::array();
  for (const std::string& name : options_.names) list.push_back(model_card(name));
  return json_response({{"object", "list"}, {"data", list}});
}

http::Response Api::model(const http::Request& request) const {
  const std::string name = request.path.substr(std::string_view("/v1/models/").size());
  const auto& names = options_.names;
  if (std::find(names.begin(), names.end(), name) != names.end()) return json_response(model_card(name));
  return error_response(404, "there is no such model; GET /v1/models lists those that are served");
}

void Api::check_model(const Json& body) const {
  const auto name = openai::text(body, "model");
  const auto& names = options_.names;
  if (!name || name->empty() || std::find(names.begin(), names.end(), *name) != names.end()) return;
  throw ApiError("model",
                 fmt::format("there is no model {}; this server has {}", openai::dump_json(*name),
                             fmt::join(names, ", ")),
                 404, "model_not_found");
}

// Spread over the seeds that are at least 0, so that n samples of neighbours do not draw alike.
int64_t Api::next_seed() {
  constexpr uint64_t kStride = 0x9e3779b97f4a7c15ULL;
  return static_cast<int64_t>((seed_ += kStride) >> 2);
}

std::shared_ptr<Seats> Api::admit(int64_t count) {
  const int64_t most = options_.max_running + options_.max_queue;
  if ((*num_open_ += count) > most) {
    *num_open_ -= count;
    throw ApiError(
        "", fmt::format("{} answers are running and waiting, the most there may be; try again later", most),
        429);
  }
  return std::make_shared<Seats>(num_open_, count);
}

void Api::complete(openai::CompletionRequest& request) {
  if (request.has_seed) return;
  request.request.sampling.seed = next_seed();
  for (engine::Request& further : request.further) further.sampling.seed = next_seed();
}

}  // namespace minimax::server
