// minimax run: one prompt, the answer streamed as it is generated.
#include <iostream>

#include "apps/commands.h"
#include "apps/input_file.h"
#include "apps/text_model.h"

namespace minimax::apps {
namespace {

struct RunOptions {
  ModelOptions model;
  SamplingOptions sampling;
  std::string prompt;
  std::string prompt_file;
  std::string system;
  std::string tools_file;
  std::string token_ids;
  bool raw = false;
  bool json = false;
};

std::vector<int32_t> parse_token_ids(const std::string& text) {
  const nlohmann::json list = nlohmann::json::parse("[" + text + "]", nullptr, false);
  std::vector<int32_t> ids;
  for (const auto& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      fail("--token-ids: {} is no token id; expected ids joined by commas, e.g. 1,2,3", id.dump());
    }
    ids.push_back(id.get<int32_t>());
  }
  if (ids.empty()) fail("--token-ids \"{}\": expected ids joined by commas, e.g. 1,2,3", text);
  return ids;
}

std::vector<int32_t> prompt_tokens(const RunOptions& options, const TextModel& text) {
  if (!options.token_ids.empty()) return parse_token_ids(options.token_ids);
  const std::string prompt =
      options.prompt_file.empty() ? options.prompt : read_text_file(options.prompt_file, "--prompt-file");
  if (options.raw) return text.required_tokenizer().encode(prompt);
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  if (!options.system.empty()) messages.push_back({{"role", "system"}, {"content", options.system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  return text.chat_prompt(messages, read_json_list(options.tools_file, "--tools", "tools"));
}

void print_json(const engine::GenerationRequest& request, const engine::GenerationResult& result,
                const std::optional<std::string>& answer) {
  nlohmann::json object = {{"token_ids", result.token_ids},
                           {"finish_reason", engine::name(result.finish_reason)},
                           {"prompt_tokens", result.prompt_tokens},
                           {"seed", request.sampling.seed},
                           {"seconds_to_first_token", result.seconds_to_first_token},
                           {"decode_tokens_per_second", result.decode_tokens_per_second()}};
  if (answer) object["text"] = *answer;
  std::cout << object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
}

void print_statistics(const engine::GenerationResult& result) {
  fmt::print(stderr, "[{} prompt tokens, first token after {:.3f} s; {} tokens at {:.1f} tokens/s; {}]\n",
             result.prompt_tokens, result.seconds_to_first_token, result.token_ids.size(),
             result.decode_tokens_per_second(), engine::name(result.finish_reason));
}

void run_run(const RunOptions& options) {
  const TextModel text = set_up_text_model(options.model);
  std::vector<int32_t> prompt = prompt_tokens(options, text);
  const auto prompt_length = static_cast<int64_t>(prompt.size());
  const engine::GenerationRequest request =
      text.request(std::move(prompt), options.sampling, kDefaultMaxTokens);
  const engine::SessionOptions session_options{
      text.runtime.context_length(options.model, prompt_length + request.max_tokens)};
  if (text.runtime.planned) {
    std::cout << describe_plan(text.runtime, session_options);
    return;
  }
  engine::Session session(*text.runtime.model, *text.runtime.backend, session_options);
  std::optional<tokenizer::Detokenizer> detokenizer;
  if (text.tokenizer) detokenizer.emplace(*text.tokenizer);
  std::string answer;
  const auto emit = [&](const std::string& piece) {
    answer += piece;
    if (!options.json) std::cout << piece << std::flush;
  };
  const engine::GenerationResult result = engine::generate(
      session, *text.runtime.model, *text.runtime.backend, request, [&](const engine::SampledToken& t) {
        if (detokenizer) {
          emit(detokenizer->push(t.id));
        } else {
          emit(fmt::format("{} ", t.id));
        }
        return static_cast<bool>(std::cout);
      });
  if (detokenizer) emit(detokenizer->finish());
  if (options.json) {
    print_json(request, result, text.tokenizer ? std::optional(answer) : std::nullopt);
  } else {
    std::cout << std::endl;
    print_statistics(result);
  }
}

}  // namespace

void add_run_command(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = app.add_subcommand("run", "Answer one prompt");
  options->model.add_to(*command);
  options->sampling.add_to(*command);
  CLI::Option_group* input = command->add_option_group("prompt", "What to answer");
  input->add_option("-p,--prompt", options->prompt, "The user's message");
  input->add_option("--prompt-file", options->prompt_file,
                    "File with the user's message (- for standard input)");
  input->add_option("--token-ids", options->token_ids, "The whole prompt as ids joined by commas");
  input->require_option(1);
  command->add_option("--system", options->system, "A system message");
  command->add_option("--tools", options->tools_file, "JSON file with the list of tools the model may call");
  command->add_flag("--raw", options->raw,
                    "Give the prompt to the model as it is, without the chat template");
  command->add_flag("--json", options->json, "Print one JSON object instead of the streamed text");
  command->callback([options] { run_run(*options); });
}

}  // namespace minimax::apps
