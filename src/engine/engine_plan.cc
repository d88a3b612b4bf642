#include "engine/engine_plan.h"

#include <algorithm>

namespace minimax::engine {
namespace {

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

int64_t context_limit(const models::Model& model, const EngineOptions& options) {
  const int64_t limit = model.max_position_embeddings();
  if (options.max_model_len < 0 || options.max_model_len > limit) {
    fail("max_model_len is {}; this model takes 1 to {} (0: all of it)", options.max_model_len, limit);
  }
  return options.max_model_len == 0 ? limit : options.max_model_len;
}

int64_t token_bytes(const models::CacheLayout& layout) {
  return std::max<int64_t>(1, layout.kv_bytes_per_token() + layout.index_bytes_per_token());
}

// The longest sequence that the cache holds, or half of the backend's memory left.
int64_t fitting_context(const models::CacheLayout& layout, const EngineOptions& options,
                        int64_t available_bytes) {
  const int64_t tokens =
      options.cache_tokens > 0 ? options.cache_tokens : available_bytes / 2 / token_bytes(layout);
  return std::max<int64_t>(tokens / layout.page_size, 1) * layout.page_size;
}

// All sequences at full length if half of the backend's memory left holds that, but one at least.
int64_t count_pages(const models::CacheLayout& layout, const EngineOptions& options, int64_t max_model_len,
                    int64_t available_bytes) {
  const int64_t one = round_up(max_model_len, layout.page_size);
  if (options.cache_tokens > 0) {
    if (options.cache_tokens < one) {
      fail("cache_tokens is {}, less than one sequence of max_model_len {}; raise it or lower max_model_len",
           options.cache_tokens, max_model_len);
    }
    return options.cache_tokens / layout.page_size;
  }
  const int64_t fitting = available_bytes / 2 / token_bytes(layout);
  return std::clamp(fitting, one, one * options.max_sequences) / layout.page_size;
}

// Two slots a sequence and the snapshots wanted, if a quarter of the memory left holds them; a sequence can
// do with one.
int64_t count_slots(const models::CacheLayout& layout, const EngineOptions& options,
                    int64_t available_bytes) {
  if (layout.num_state_layers == 0) return 0;
  const int64_t wanted = 2 * options.max_sequences + options.state_snapshots;
  const int64_t fitting = available_bytes / 4 / layout.state_bytes(1);
  return std::clamp(fitting, std::min(wanted, options.max_sequences + 1), wanted);
}

void check_options(const EngineOptions& options) {
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    if (value < least) fail("{} is {}; expected at least {}", name, value, least);
  };
  at_least("max_batched_tokens", options.max_batched_tokens, 1);
  at_least("max_sequences", options.max_sequences, 1);
  at_least("cache_tokens", options.cache_tokens, 0);
  at_least("state_snapshots", options.state_snapshots, 0);
  at_least("host_snapshots", options.host_snapshots, 0);
  at_least("snapshot_interval", options.snapshot_interval, 1);
  at_least("aging_steps", options.aging_steps, 1);
  at_least("prompt_grid", options.prompt_grid, 1);
}

}  // namespace

EngineSetup set_up(const models::Model& model, const ops::Backend& backend, const EngineOptions& options) {
  check_options(options);
  const models::CacheLayout layout = model.cache_layout();
  const int64_t available_bytes = backend.available_bytes();
  EngineSetup setup;
  setup.max_model_len = context_limit(model, options);
  if (options.fits_memory)
    setup.max_model_len = std::min(setup.max_model_len, fitting_context(layout, options, available_bytes));

  cache::HybridCacheOptions& cache = setup.cache;
  cache.page_size = layout.page_size;
  cache.num_pages = count_pages(layout, options, setup.max_model_len, available_bytes);
  cache.num_slots = count_slots(layout, options, available_bytes);
  cache.num_host_slots = cache.num_slots > 0 ? options.host_snapshots : 0;
  cache.share_prefixes = options.share_prefixes;
  cache.prompt_grid = options.is_deterministic ? round_up(options.prompt_grid, layout.page_size) : 0;
  cache.snapshot_interval =
      round_up(options.snapshot_interval, std::max(cache.prompt_grid, layout.page_size));

  SchedulerOptions& scheduler = setup.scheduler;
  scheduler.max_sequences = options.max_sequences;
  scheduler.max_batched_tokens = std::max(
      options.max_batched_tokens, options.is_deterministic ? options.max_sequences + cache.prompt_grid : 1);
  // Beside a row for each sequence there is room for prompts whose logits are wanted.
  scheduler.max_logits_rows =
      options.max_sequences +
      std::max<int64_t>(cache.prompt_grid, std::min<int64_t>(128, options.max_batched_tokens));
  scheduler.aging_steps = options.aging_steps;
  scheduler.is_deterministic = options.is_deterministic;

  RunnerOptions& runner = setup.runner;
  runner.max_model_len = setup.max_model_len;
  runner.max_batched_tokens = scheduler.max_batched_tokens;
  runner.max_sequences = scheduler.max_sequences;
  runner.max_logits_rows = scheduler.max_logits_rows;
  runner.num_pages = cache.num_pages;
  runner.num_slots = cache.num_slots;
  runner.num_host_slots = cache.num_host_slots;
  runner.vocab_limit =
      options.vocab_limit > 0 ? std::min(options.vocab_limit, model.vocab_size()) : model.vocab_size();
  runner.is_deterministic = options.is_deterministic;
  return setup;
}

EnginePlan describe(const EngineSetup& setup, const MemoryPlan& memory) {
  return {setup.max_model_len, setup.cache.page_size, setup.cache.num_pages, setup.cache.num_slots, memory};
}

}  // namespace minimax::engine
