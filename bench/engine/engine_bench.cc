// What the engine adds to the model: planning, preparing and finishing steps as a share of running them, with
// many requests at a time, and the tokens per second they get together.
//
//   engine_bench [SHAPE.json] [REQUESTS] [TOKENS]     e.g. engine_bench bench/shapes/m1-like.json 256 32
#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu_backend.h"
#include "engine/engine.h"
#include "formats/progress.h"
#include "formats/weight_source.h"
#include "models/model.h"

namespace minimax {
namespace {

engine::Request request(int64_t index, int64_t vocab, int64_t tokens) {
  engine::Request result;
  for (int64_t i = 0; i < 32; ++i)
    result.prompt.push_back(static_cast<int32_t>((index * 131 + i * 7) % vocab));
  result.max_tokens = tokens;
  result.sampling.temperature = 0;
  return result;
}

void run(const std::string& shape, int64_t requests, int64_t tokens) {
  std::ifstream file(shape);
  if (!file) fail("{}: cannot be read; give a file of bench/shapes", shape);
  const auto config = nlohmann::json::parse(file);
  ThreadPool pool;
  const auto backend = cpu::make_cpu_backend(pool);
  const auto weights = models::make_dummy_weights(config, 1);
  formats::Progress silent;
  const auto model = models::load_model(config, {}, *weights, silent);

  engine::EngineOptions options;
  options.max_model_len = 512;
  options.max_sequences = requests;
  engine::Engine engine(*model, *backend, options);
  for (int64_t i = 0; i < requests; ++i) engine.submit(request(i, model->vocab_size(), tokens), {});
  // Prompts are over and every request generates: from here on a step is a decode step of all of them.
  engine::EngineStats before;
  do {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    before = engine.stats();
  } while (before.generated_tokens < requests);
  engine.drain();
  const engine::EngineStats after = engine.stats();
  const double planning = after.planning_seconds - before.planning_seconds;
  const double executing = after.executing_seconds - before.executing_seconds;
  const auto steps = static_cast<double>(after.num_steps - before.num_steps);
  fmt::print(
      "{}: {} requests, {:.0f} steps; step {:.2f} ms, planning {:.3f} ms = {:.2f} % of it; {:.1f} tokens/s\n",
      shape, requests, steps, 1e3 * executing / steps, 1e3 * planning / steps, 100 * planning / executing,
      static_cast<double>(after.generated_tokens - before.generated_tokens) / executing);
}

}  // namespace
}  // namespace minimax

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> given(argv + 1, argv + argc);
    minimax::run(given.empty() ? "bench/shapes/m1-like.json" : given[0],
                 given.size() > 1 ? std::stoll(given[1]) : 256, given.size() > 2 ? std::stoll(given[2]) : 16);
  } catch (const std::exception& error) {
    std::cerr << "engine_bench: " << error.what() << "\n";
    return 1;
  }
}
