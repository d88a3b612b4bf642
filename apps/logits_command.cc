// minimax logits: the logits of every token of a given sequence, for comparison with other implementations.
#include <cstring>
#include <fstream>
#include <iostream>
#include <vector>

#include "apps/commands.h"
#include "apps/model_setup.h"
#include "formats/safetensors_writer.h"
#include "parallel/in_process.h"

namespace minimax::apps {
namespace {

struct LogitsOptions {
  ModelOptions model;
  std::string tokens_file;
  std::string output;
  int64_t prefill_chunk = 256;
  int64_t tensor_parallel = 1;
  int64_t expert_parallel = 1;
};

std::vector<int32_t> read_tokens(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail("{}: cannot be read; it must be a JSON list of token ids", path);
  const nlohmann::json list = nlohmann::json::parse(file, nullptr, false);
  if (!list.is_array() || list.empty()) fail("{}: expected a JSON list of token ids, e.g. [1, 2, 3]", path);
  std::vector<int32_t> tokens;
  for (const auto& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      fail("{}: element {} is {}, not a token id", path, tokens.size(), id.dump());
    }
    tokens.push_back(id.get<int32_t>());
  }
  return tokens;
}

// One rank's run; rank 0 writes the logits, which all ranks have.
void run_rank(const LogitsOptions& options, std::span<const int32_t> tokens) {
  const ModelRuntime runtime = set_up_model(options.model);
  const auto count = static_cast<int64_t>(tokens.size());
  const engine::SessionOptions session_options{runtime.context_length(options.model, count),
                                               options.prefill_chunk, options.prefill_chunk};
  if (runtime.planned) {
    std::cout << describe_plan(runtime, session_options);
    return;
  }
  engine::Session session(*runtime.model, *runtime.backend, session_options);
  std::vector<float> all(static_cast<size_t>(count * runtime.model->vocab_size()));
  const Tensor logits(all.data(), DType::kF32, {count, runtime.model->vocab_size()}, "logits");
  session.append_visiting(tokens, [&](int64_t first, const Tensor& rows) {
    std::memcpy(logits.row<float>(first), rows.raw(), static_cast<size_t>(rows.size_bytes()));
  });
  if (options.model.parallel.grid.rank > 0) return;
  const std::vector<formats::NamedTensor> tensors = {{"logits", logits}};
  formats::write_safetensors(options.output, tensors);
}

void run_logits(const LogitsOptions& options) {
  const std::vector<int32_t> tokens = read_tokens(options.tokens_file);
  const int64_t ranks = options.tensor_parallel * options.expert_parallel;
  if (ranks == 1) return run_rank(options, tokens);
  if (options.model.dry_run)
    fail(
        "--dry-run plans a single rank; minimax inspect --tensor-parallel N says what each of several holds");
  parallel::run_ranks(ranks, [&](parallel::Comm& comm) {
    LogitsOptions mine = options;
    mine.model.parallel = {{comm.rank(), options.tensor_parallel, options.expert_parallel}, &comm};
    // Ranks of one process share its processors.
    if (mine.model.threads == 0) mine.model.threads = 1;
    run_rank(mine, tokens);
  });
}

}  // namespace

void add_logits_command(CLI::App& app) {
  auto options = std::make_shared<LogitsOptions>();
  CLI::App* command = app.add_subcommand("logits", "Write the logits of every token of a sequence");
  options->model.add_to(*command);
  command->add_option("--tokens-file", options->tokens_file, "JSON list of token ids")->required();
  command->add_option("--output", options->output, "safetensors file; gets float32 logits [n, vocab]")
      ->required();
  command->add_option("--prefill-chunk", options->prefill_chunk, "Most tokens of one step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--tensor-parallel", options->tensor_parallel,
                   "Ranks, threads of this process, over which heads, vocabulary and widths are cut")
      ->check(CLI::Range(1, 64));
  command
      ->add_option("--expert-parallel", options->expert_parallel,
                   "Ranges of experts, each on as many ranks as --tensor-parallel says")
      ->check(CLI::Range(1, 64));
  command->callback([options] { run_logits(*options); });
}

}  // namespace minimax::apps
