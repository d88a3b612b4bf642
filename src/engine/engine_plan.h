// What an engine's options come to on a model.
#pragma once

#include "engine/engine.h"
#include "engine/model_runner.h"

namespace minimax::engine {

struct EngineSetup {
  SchedulerOptions scheduler;
  cache::HybridCacheOptions cache;
  RunnerOptions runner;
  int64_t max_model_len = 0;
};

// THROWS: Error naming the option that does not fit the model or the memory.
EngineSetup set_up(const models::Model& model, const ops::Backend& backend, const EngineOptions& options);

EnginePlan describe(const EngineSetup& setup, const MemoryPlan& memory);

}  // namespace minimax::engine
