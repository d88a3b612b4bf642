// Answers of a bundled model under JSON schemas, for a validator to judge.
//
//   structured_draws FOLDER COUNT < schemas, one a line
//
// prints a line {"schema": line, "text": ...} for each draw, with an empty text where the length cut it, and
// {"schema": line, "error": ...} for a schema that is refused.
#include <future>
#include <iostream>

#include "engine/engine.h"
#include "openai/request.h"
#include "tests/engine/family_models.h"

namespace minimax {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kContext = 1024;

std::string answer_of(const std::string& text) {
  for (const std::string end : {"</mm:think>", "</think>"}) {
    const size_t at = text.find(end);
    if (at != std::string::npos) return text.substr(text.find_first_not_of('\n', at + end.size()));
  }
  return text;
}

void run(const std::filesystem::path& folder, int count) {
  const testing::LoadedModel loaded(folder, {DType::kBF16});
  const auto tokenizer = tokenizer::Tokenizer::load(folder);
  const auto chat_template = tokenizer::ChatTemplate::load(folder);
  openai::ServedModel served;
  served.tokenizer = &tokenizer;
  served.chat_template = &chat_template;
  served.stop_token_ids = {tokenizer.eos_id().value()};
  served.max_model_len = kContext;
  served.constraints = std::make_shared<openai::Constraints>(tokenizer);
  engine::EngineOptions options;
  options.max_model_len = kContext;
  options.max_sequences = 16;
  options.vocab_limit = tokenizer.max_id() + 1;
  engine::Engine engine(*loaded.model, *loaded.backend, options);

  const auto draw = [&](const Json& schema, int seed) {
    const Json body = {{"messages", {{{"role", "user"}, {"content", "What is 7 * 8?"}}}},
                       {"temperature", 1.0},
                       {"seed", seed},
                       {"max_tokens", 700},
                       {"guided_json", schema}};
    const auto parsed = openai::parse_chat_completion(body, served);
    const engine::Completion completion = engine::complete(engine, parsed.request).front();
    const bool is_whole = completion.finish.reason == engine::FinishReason::kStop;
    return is_whole ? answer_of(tokenizer.decode(completion.token_ids())) : std::string();
  };
  std::string line;
  for (int64_t n = 0; std::getline(std::cin, line); ++n) {
    const Json schema = Json::parse(line);
    std::vector<std::future<std::string>> draws;
    for (int i = 0; i < count; ++i)
      draws.push_back(
          std::async(std::launch::async, [&, i] { return draw(schema, static_cast<int>(n) * count + i); }));
    for (auto& drawn : draws) {
      Json result = {{"schema", n}};
      try {
        result["text"] = drawn.get();
      } catch (const Error& error) {
        result["error"] = error.what();
      }
      std::cout << result.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
    }
  }
}

}  // namespace
}  // namespace minimax

int main(int argc, char** argv) {
  try {
    if (argc != 3) minimax::fail("usage: structured_draws FOLDER COUNT");
    minimax::run(argv[1], std::stoi(argv[2]));
  } catch (const std::exception& error) {
    std::cerr << "structured_draws: " << error.what() << "\n";
    return 1;
  }
}
