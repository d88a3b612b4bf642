// Options of commands that run many requests at a time.
#pragma once

#include <memory>
#include <string>

#include "apps/text_model.h"
#include "engine/engine.h"
#include "openai/request.h"

namespace minimax::apps {

struct EngineFlags {
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 2048;
  std::string cache_tokens = "auto";
  int64_t state_snapshots = 64;
  int64_t host_state_snapshots = 0;
  bool enable_prefix_caching = true;
  bool deterministic = false;
  std::string trace;
  std::string log_format = "none";  // none, text, json

  void add_to(CLI::App& command);
  engine::EngineOptions options(const ModelRuntime& runtime, const ModelOptions& model) const;
};

// What watches an engine, as the flags ask; must outlive it.
struct EngineObservers {
  std::optional<observe::Trace> trace;
  std::optional<observe::Log> log;

  EngineObservers(const EngineFlags& flags, engine::EngineOptions& options);
};

// The model as an API sees it, with its checkpoint's defaults. REQUIRES: `text` outlives it.
openai::ServedModel served_model(const TextModel& text, const std::string& name, int64_t max_model_len);

// From now on answers of chats are split into reasoning, content and calls as the model's family writes them.
void parse_answers(openai::ServedModel& served, const nlohmann::json& config);

// The byte-exact plan of an engine, as text for people.
std::string describe_plan(const engine::EnginePlan& plan, const ModelRuntime& runtime);

// How it is computed, as one line of text for people.
std::string describe_paths(const ModelRuntime& runtime);

}  // namespace minimax::apps
