// Offline batches in OpenAI's batch file format: one request a line in, one result a line out.
//
// Results are appended to OUTPUT.partial as they finish, a line at a time, and put in the input's order into
// OUTPUT at the end. A job that was killed goes on from OUTPUT.partial: finished lines are kept, a torn last
// line is dropped, nothing is done twice. The partial file names the input and the settings it belongs to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "openai/request.h"

namespace minimax::openai {

struct BatchOptions {
  std::filesystem::path input;
  std::filesystem::path output;
  // What else the results depend on, e.g. the model and the defaults: a partial file of other settings is
  // refused.
  std::string settings;
  int64_t max_in_flight = 256;  // requests given to the engine at a time
};

struct BatchSummary {
  int64_t num_requests = 0;
  int64_t num_resumed = 0;  // finished by an earlier run
  int64_t num_failed = 0;   // refused; their result says why
};

using BatchProgress = std::function<void(int64_t done, int64_t total)>;

// THROWS: Error naming file and line when the input is not a batch file, or a file cannot be written.
BatchSummary run_batch(engine::Engine& engine, const ServedModel& model, const BatchOptions& options,
                       const BatchProgress& progress);

}  // namespace minimax::openai
