// Counters and histograms of an engine in one registry, under the names of vLLM's metrics, which dashboards
// and benchmark harnesses read; what vLLM has no name for starts with `minimax:`.
//
// Every method is safe from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace minimax::observe {

class Metrics {
 public:
  explicit Metrics(const std::string& model_name);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // What an engine has of caches; said once.
  struct Caches {
    int64_t num_pages = 0;
    int64_t page_tokens = 0;
    int64_t num_slots = 0;  // of linear states
    bool shares_prefixes = true;
  };
  void set_caches(const Caches& caches);

  struct Load {
    int64_t running = 0;
    int64_t waiting = 0;
    double cache_usage = 0;  // share of the KV pages that requests hold
    int64_t free_pages = 0;  // neither held nor cached
    int64_t free_slots = 0;
  };
  void set_load(const Load& load);

  // Counts since the last call.
  struct Step {
    int64_t prompt_tokens = 0;
    int64_t generated_tokens = 0;
    int64_t preemptions = 0;
    int64_t prefix_query_tokens = 0;
    int64_t prefix_page_hit_tokens = 0;  // keys and values were there
    int64_t prefix_hit_tokens = 0;       // needed no computing
    int64_t prefix_misses_new = 0;       // queries whose pages were never seen or are evicted
    int64_t prefix_misses_no_snapshot = 0;
    double seconds = 0;
  };
  void add_step(const Step& step);

  void add_first_token(double seconds_since_arrival);
  void add_token(double seconds_since_last_token);

  struct Request {
    std::string_view finish_reason;
    int64_t prompt_tokens = 0;
    int64_t generated_tokens = 0;
    double queue_seconds = 0;
    double prefill_seconds = 0;
    double decode_seconds = 0;
    double total_seconds = 0;
  };
  void add_request(const Request& request);

  // In Prometheus' text format.
  std::string text() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace minimax::observe
