#include "observe/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace minimax::observe {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;
using Labels = std::map<std::string, std::string>;

// As vLLM's, so that dashboards line up.
Buckets request_seconds() {
  return {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480};
}
Buckets first_token_seconds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
          0.75,  1,     2.5,  5,    7.5,  10,   20,   40,  80,   160};
}
Buckets token_seconds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10};
}
Buckets token_counts() {
  return {1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6};
}

}  // namespace

struct Metrics::Families {
  explicit Families(const std::string& model_name) : labels{{"model_name", model_name}} {}

  prometheus::Counter& counter(const char* name, const char* help, const Labels& more = {}) {
    Labels all = labels;
    all.insert(more.begin(), more.end());
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(all);
  }
  prometheus::Gauge& gauge(const char* name, const char* help, const Labels& more = {}) {
    Labels all = labels;
    all.insert(more.begin(), more.end());
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(all);
  }
  prometheus::Counter& ended(std::string_view reason) {
    return counter("vllm:request_success_total", "Requests that ended, by reason",
                   {{"finished_reason", std::string(reason)}});
  }
  prometheus::Histogram& histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
  }

  Labels labels;
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};

  prometheus::Gauge& running = gauge("vllm:num_requests_running", "Requests in the model's steps");
  prometheus::Gauge& waiting = gauge("vllm:num_requests_waiting", "Requests waiting to run");
  prometheus::Gauge& usage =
      gauge("vllm:kv_cache_usage_perc", "Share of KV cache pages that requests hold, 0 to 1");
  prometheus::Gauge& pages = gauge("minimax:kv_pages", "Pages of the KV cache");
  prometheus::Gauge& free_pages =
      gauge("minimax:kv_pages_free", "Pages that neither requests nor the prefix cache hold");
  prometheus::Gauge& slots = gauge("minimax:state_slots", "Slots of linear states");
  prometheus::Gauge& free_slots =
      gauge("minimax:state_slots_free", "Slots that neither requests nor the prefix cache hold");

  prometheus::Counter& prompt_tokens = counter("vllm:prompt_tokens_total", "Prompt tokens of requests");
  prometheus::Counter& generated_tokens = counter("vllm:generation_tokens_total", "Tokens generated");
  prometheus::Counter& preemptions =
      counter("vllm:num_preemptions_total", "Requests that gave their memory back and run again");
  prometheus::Counter& query_tokens =
      counter("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache");
  prometheus::Counter& hit_tokens =
      counter("vllm:prefix_cache_hits_total", "Tokens of prompts that needed no computing");
  prometheus::Counter& page_hit_tokens =
      counter("minimax:prefix_cache_page_hits_total", "Tokens of prompts whose keys and values were cached");
  prometheus::Counter& misses_new =
      counter("minimax:prefix_cache_misses_total", "Prompts not taken from the cache in full, by reason",
              {{"reason", "new"}});
  prometheus::Counter& misses_no_snapshot =
      counter("minimax:prefix_cache_misses_total", "Prompts not taken from the cache in full, by reason",
              {{"reason", "no_snapshot"}});

  prometheus::Histogram& step =
      histogram("minimax:step_seconds", "Duration of a step of the model", token_seconds());
  prometheus::Histogram& first_token =
      histogram("vllm:time_to_first_token_seconds", "From arrival to the first token", first_token_seconds());
  prometheus::Histogram& inter_token =
      histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request", token_seconds());
  prometheus::Histogram& time_per_token =
      histogram("vllm:time_per_output_token_seconds", "Between two tokens of a request", token_seconds());
  prometheus::Histogram& queue =
      histogram("vllm:request_queue_time_seconds", "From arrival to the first step", request_seconds());
  prometheus::Histogram& prefill = histogram("vllm:request_prefill_time_seconds",
                                             "From the first step to the first token", request_seconds());
  prometheus::Histogram& decode =
      histogram("vllm:request_decode_time_seconds", "From the first token to the last", request_seconds());
  prometheus::Histogram& total =
      histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token", request_seconds());
  prometheus::Histogram& request_prompt =
      histogram("vllm:request_prompt_tokens", "Prompt tokens of a request", token_counts());
  prometheus::Histogram& request_generated =
      histogram("vllm:request_generation_tokens", "Tokens generated for a request", token_counts());
};

// What there is nothing of is there too, at zero: dashboards and harnesses ask for it.
Metrics::Metrics(const std::string& model_name) : families_(std::make_unique<Families>(model_name)) {
  for (const char* reason : {"stop", "length", "abort", "error"}) families_->ended(reason);
  families_->counter("vllm:spec_decode_num_drafts_total", "Drafts of tokens");
  families_->counter("vllm:spec_decode_num_draft_tokens_total", "Tokens drafted");
  families_->counter("vllm:spec_decode_num_accepted_tokens_total", "Drafted tokens that were accepted");
  families_->gauge("vllm:lora_requests_info", "Adapters in use",
                   {{"max_lora", "0"}, {"running_lora_adapters", ""}, {"waiting_lora_adapters", ""}});
}
Metrics::~Metrics() = default;

void Metrics::set_caches(const Caches& caches) {
  families_->pages.Set(static_cast<double>(caches.num_pages));
  families_->slots.Set(static_cast<double>(caches.num_slots));
  families_
      ->gauge("vllm:cache_config_info", "The KV cache, in its labels",
              {{"block_size", std::to_string(caches.page_tokens)},
               {"num_gpu_blocks", std::to_string(caches.num_pages)},
               {"enable_prefix_caching", caches.shares_prefixes ? "True" : "False"}})
      .Set(1);
}

void Metrics::set_load(const Load& load) {
  families_->running.Set(static_cast<double>(load.running));
  families_->waiting.Set(static_cast<double>(load.waiting));
  families_->usage.Set(load.cache_usage);
  families_->free_pages.Set(static_cast<double>(load.free_pages));
  families_->free_slots.Set(static_cast<double>(load.free_slots));
}

void Metrics::add_step(const Step& step) {
  const auto add = [](prometheus::Counter& counter, int64_t count) {
    if (count > 0) counter.Increment(static_cast<double>(count));
  };
  add(families_->prompt_tokens, step.prompt_tokens);
  add(families_->generated_tokens, step.generated_tokens);
  add(families_->preemptions, step.preemptions);
  add(families_->query_tokens, step.prefix_query_tokens);
  add(families_->hit_tokens, step.prefix_hit_tokens);
  add(families_->page_hit_tokens, step.prefix_page_hit_tokens);
  add(families_->misses_new, step.prefix_misses_new);
  add(families_->misses_no_snapshot, step.prefix_misses_no_snapshot);
  families_->step.Observe(step.seconds);
}

void Metrics::add_first_token(double seconds_since_arrival) {
  families_->first_token.Observe(seconds_since_arrival);
}

void Metrics::add_token(double seconds_since_last_token) {
  families_->inter_token.Observe(seconds_since_last_token);
  families_->time_per_token.Observe(seconds_since_last_token);
}

void Metrics::add_request(const Request& request) {
  families_->ended(request.finish_reason).Increment();
  families_->queue.Observe(request.queue_seconds);
  families_->prefill.Observe(request.prefill_seconds);
  families_->decode.Observe(request.decode_seconds);
  families_->total.Observe(request.total_seconds);
  families_->request_prompt.Observe(static_cast<double>(request.prompt_tokens));
  families_->request_generated.Observe(static_cast<double>(request.generated_tokens));
}

std::string Metrics::text() const {
  return prometheus::TextSerializer().Serialize(families_->registry.Collect());
}

}  // namespace minimax::observe
