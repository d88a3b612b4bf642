// minimax logits: the logits of every token of a given sequence, for comparison with other implementations.
#include <cstring>
#include <fstream>
#include <iostream>
#include <vector>

#include "apps/commands.h"
#include "apps/model_setup.h"
#include "formats/safetensors_writer.h"

namespace minimax::apps {
namespace {

struct LogitsOptions {
  ModelOptions model;
  std::string tokens_file;
  std::string output;
  int64_t prefill_chunk = 256;
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

void run_logits(const LogitsOptions& options) {
  const std::vector<int32_t> tokens = read_tokens(options.tokens_file);
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
  const std::vector<formats::NamedTensor> tensors = {{"logits", logits}};
  formats::write_safetensors(options.output, tensors);
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
  command->callback([options] { run_logits(*options); });
}

}  // namespace minimax::apps
