// minimax batch: a file of requests to a file of results, resumable.
#include <unistd.h>

#include <iostream>

#include "apps/commands.h"
#include "apps/engine_options.h"
#include "formats/progress.h"
#include "openai/batch.h"

namespace minimax::apps {
namespace {

struct BatchFlags {
  ModelOptions model;
  EngineFlags engine;
  std::string input;
  std::string output;
  std::string served_model_name;
};

// Everything the results depend on besides the input.
std::string settings_of(const BatchFlags& flags, const openai::ServedModel& served) {
  return fmt::format("{} {} kv={} index={} quantization={} deterministic={} max_model_len={}", served.name,
                     flags.model.dtype, flags.model.kv_cache_dtype, flags.model.index_cache_dtype,
                     flags.model.activation_quantization, flags.engine.deterministic, served.max_model_len);
}

void run_batch(const BatchFlags& flags) {
  const TextModel text = set_up_text_model(flags.model);
  engine::EngineOptions options = flags.engine.options(text.runtime, flags.model);
  options.vocab_limit = text.required_tokenizer().max_id() + 1;
  if (text.runtime.planned) {
    std::cout << describe_plan(engine::Engine::plan(*text.runtime.model, *text.runtime.backend, options),
                               text.runtime);
    return;
  }
  const EngineObservers observers(flags.engine, options);
  engine::Engine engine(*text.runtime.model, *text.runtime.backend, options);
  std::cerr << describe_plan(engine.plan(), text.runtime);
  const openai::ServedModel served = served_model(text, flags.served_model_name, engine.plan().max_model_len);

  openai::BatchOptions batch;
  batch.input = flags.input;
  batch.output = flags.output;
  batch.settings = settings_of(flags, served);
  batch.max_in_flight = 4 * flags.engine.max_num_seqs;
  formats::TextProgress bar(std::cerr, isatty(STDERR_FILENO) != 0, "requests");
  std::optional<int64_t> shown;
  const openai::BatchSummary summary =
      openai::run_batch(engine, served, batch, [&](int64_t done, int64_t total) {
        if (!shown) bar.start("batch", total);
        bar.advance(done - shown.value_or(0));
        shown = done;
      });
  if (shown) bar.finish();
  const engine::EngineStats stats = engine.stats();
  fmt::print(
      stderr,
      "{} requests, {} finished before, {} refused; {} tokens generated, {} of {} prompt tokens cached; {}\n",
      summary.num_requests, summary.num_resumed, summary.num_failed, stats.generated_tokens,
      stats.cache.hit_tokens, stats.cache.query_tokens, flags.output);
}

}  // namespace

void add_batch_command(CLI::App& app) {
  auto flags = std::make_shared<BatchFlags>();
  // A job that is stopped and goes on must end in the same file, whatever runs beside a request.
  flags->engine.deterministic = true;
  CLI::App* command = app.add_subcommand("batch", "Answer a file of requests in OpenAI's batch format");
  flags->model.add_to(*command);
  flags->engine.add_to(*command);
  command->add_option("--input", flags->input, "JSONL file of requests")->required();
  command
      ->add_option("--output", flags->output,
                   "JSONL file of results; OUTPUT.partial holds those of a run that was stopped")
      ->required();
  command->add_option("--served-model-name", flags->served_model_name,
                      "The model's name in results; default: its folder's");
  command->callback([flags] { run_batch(*flags); });
}

}  // namespace minimax::apps
