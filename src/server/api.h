// OpenAI's endpoints over an engine: paths, states and errors. Sockets are http's, JSON is openai's.
//
// It serves from its construction on: until set_ready what needs the model answers 503, and /health says how
// far the load is.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "http/router.h"
#include "observe/metrics.h"
#include "openai/request.h"
#include "openai/response_store.h"

namespace minimax::server {

struct ApiOptions {
  std::vector<std::string> names;     // of the model, one at least; answers carry the one that was asked for
  std::vector<std::string> api_keys;  // none: anyone may ask
  std::string version;
  int64_t max_running = 64;             // samples that the engine runs at a time
  int64_t seed = 0;                     // of the seeds of requests that bring none
  int64_t max_queue = 1024;             // samples that may wait besides; further requests get 429
  int64_t max_stored_responses = 1000;  // answers of /v1/responses that later requests may name; 0: none
};

// Places of one request's samples among those that may run and wait; what is left goes back at the end.
class Seats {
 public:
  // Takes `count` places. REQUIRES: there is room.
  Seats(std::shared_ptr<std::atomic<int64_t>> taken, int64_t count)
      : taken_(std::move(taken)), left_(count) {}
  ~Seats() { *taken_ -= left_; }
  Seats(const Seats&) = delete;
  Seats& operator=(const Seats&) = delete;

  // A sample has ended.
  void leave() {
    --left_;
    --*taken_;
  }

 private:
  std::shared_ptr<std::atomic<int64_t>> taken_;
  std::atomic<int64_t> left_;
};

// A model that answers. Everything outlives the requests under way.
struct Service {
  engine::Engine& engine;
  const openai::ServedModel& model;
};

class Api {
 public:
  // `load_progress` gives the state of a load as an object. `metrics` may be null. REQUIRES: both stay valid.
  Api(ApiOptions options, const observe::Metrics* metrics,
      std::function<nlohmann::ordered_json()> load_progress);

  http::Router& router() { return router_; }
  // From now on requests are answered. Called once.
  void set_ready(const Service& service);
  // From now on new requests get 503; those under way go on.
  void set_draining();
  // Samples submitted that have not finished.
  int64_t num_open() const { return *num_open_; }

 private:
  using Json = nlohmann::ordered_json;
  // Answers a body, or throws an ApiError.
  using Endpoint = std::function<void(const Service&, const Json&, const std::shared_ptr<http::Reply>&)>;

  void add_state_routes();
  void add_model_routes();
  void add_completion_routes();
  void add_response_routes();
  // How an API words an error.
  using ErrorBody = Json (*)(const openai::ApiError&);
  void post(const std::string& path, Endpoint endpoint, ErrorBody error_body);
  const Service* service() const;
  http::Response health() const;
  http::Response models() const;
  http::Response model(const http::Request& request) const;
  Json model_card(const std::string& name) const;
  void check_model(const Json& body) const;
  int64_t next_seed();
  // Room for a request's samples. THROWS: ApiError when there is none.
  std::shared_ptr<Seats> admit(int64_t count);
  // What the request leaves to the server.
  void complete(openai::CompletionRequest& request);

  ApiOptions options_;
  const observe::Metrics* metrics_;
  std::function<Json()> load_progress_;
  http::Router router_;
  int64_t start_time_;
  std::shared_ptr<std::atomic<int64_t>> num_open_ = std::make_shared<std::atomic<int64_t>>(0);
  std::atomic<bool> is_draining_{false};
  std::atomic<uint64_t> seed_;
  std::shared_ptr<openai::ResponseStore> responses_;
  mutable std::mutex mutex_;  // of the following
  std::optional<Service> service_;
};

}  // namespace minimax::server
