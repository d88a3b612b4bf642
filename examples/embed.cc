// The engine inside another program: load a checkpoint, submit conversations, stream the answers.
//
//   minimax_example_embed models/demo-m1 "What is 47 * 36?" "Sort these numbers: 5, 3, 9"
//
// Every argument after the model is a conversation of its own; all are answered at the same time.
#include <fmt/format.h>

#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "engine/engine.h"
#include "engine/text_stream.h"
#include "formats/checkpoint.h"
#include "models/model.h"
#include "tokenizer/chat_template.h"

namespace {

using minimax::engine::Engine;

// One conversation under way. Callbacks come one at a time, from a thread of the engine.
struct Answer {
  explicit Answer(const minimax::tokenizer::Tokenizer& tokenizer) : stream(tokenizer, {}) {}
  minimax::engine::TextStream stream;
  std::string text;
};

int run(const std::string& folder, const std::vector<std::string>& questions) {
  // What must outlive the engine: threads, backend, checkpoint, model.
  minimax::ThreadPool pool;
  const auto backend = minimax::cpu::make_cpu_backend(pool);
  auto checkpoint = minimax::formats::Checkpoint::open(folder);
  minimax::formats::Progress silent;
  const auto model =
      minimax::models::load_model(minimax::formats::read_config(folder), {}, checkpoint, silent);
  const auto tokenizer = minimax::tokenizer::Tokenizer::load(folder);
  const auto chat_template = minimax::tokenizer::ChatTemplate::load(folder);

  minimax::engine::EngineOptions options;
  options.max_model_len = 2048;
  options.max_sequences = 16;
  options.vocab_limit = tokenizer.max_id() + 1;
  Engine engine(*model, *backend, options);

  std::vector<Answer> answers(questions.size(), Answer(tokenizer));
  for (size_t i = 0; i < questions.size(); ++i) {
    minimax::engine::Request request;
    const nlohmann::ordered_json messages = {{{"role", "user"}, {"content", questions[i]}}};
    request.prompt = tokenizer.encode(chat_template.render(messages, nullptr, true, nullptr).text);
    request.max_tokens = 256;
    request.sampling.temperature = 0;
    if (tokenizer.eos_id()) request.stop_token_ids = {*tokenizer.eos_id()};

    minimax::engine::Callbacks callbacks;
    callbacks.on_token = [&answer = answers[i]](const minimax::engine::TokenOutput& output) {
      answer.text += answer.stream.push(output.token.id);
      return true;  // false would end the answer here
    };
    callbacks.on_finish = [&answer = answers[i], i](const minimax::engine::FinishedSample& finish) {
      answer.text += answer.stream.finish();
      fmt::print("--- {} ({} tokens, {}, first after {:.3f} s)\n{}\n", i + 1, finish.num_tokens,
                 minimax::engine::name(finish.reason), finish.timings.first_token, answer.text);
    };
    engine.submit(std::move(request), std::move(callbacks));
  }
  engine.drain();
  const minimax::engine::EngineStats stats = engine.stats();
  fmt::print("{} steps for {} tokens, {} preemptions\n", stats.num_steps, stats.generated_tokens,
             stats.num_preemptions);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: minimax_example_embed MODEL_FOLDER QUESTION...\n";
    return 2;
  }
  try {
    return run(argv[1], {argv + 2, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
