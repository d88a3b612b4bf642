// minimax eval: accuracy on the demo models' skills, on cases drawn afresh by seed.
#include <iostream>

#include "apps/commands.h"
#include "apps/text_model.h"
#include "eval/eval.h"

namespace minimax::apps {
namespace {

struct EvalOptions {
  ModelOptions model;
  int64_t seed = 1;
  int64_t cases = 50;
  std::vector<std::string> skills;
  bool json = false;
  bool show_failures = false;
};

class Evaluation {
 public:
  Evaluation(const EvalOptions& options, const TextModel& text)
      : options_(options),
        text_(text),
        session_(*text.runtime.model, *text.runtime.backend, text.runtime.longest_session(options.model)) {}

  // RETURNS: right answers among options.cases.
  int64_t run(const std::string& skill) {
    int64_t correct = 0;
    for (int64_t i = 0; i < options_.cases; ++i) {
      const eval::Case drawn =
          eval::draw(skill, static_cast<uint64_t>(options_.seed), static_cast<uint64_t>(i));
      const std::string answer = answer_to(drawn);
      const bool is_right = eval::grade(drawn, answer);
      correct += is_right ? 1 : 0;
      if (!is_right && options_.show_failures) {
        fmt::print(stderr, "--- {} case {}: expected {}, got\n{}\n", skill, i, drawn.expected.dump(), answer);
      }
    }
    return correct;
  }

 private:
  std::string answer_to(const eval::Case& drawn) {
    session_.reset();
    SamplingOptions greedy;
    greedy.temperature = 0.0F;
    const engine::GenerationRequest request =
        text_.request(text_.chat_prompt(drawn.messages, drawn.tools), greedy, eval::max_tokens(drawn.skill));
    const engine::GenerationResult result =
        engine::generate(session_, *text_.runtime.model, *text_.runtime.backend, request,
                         [](const engine::SampledToken&) { return true; });
    return text_.tokenizer->decode(result.token_ids);
  }

  const EvalOptions& options_;
  const TextModel& text_;
  engine::Session session_;
};

void run_eval(const EvalOptions& options) {
  const TextModel text = set_up_text_model(options.model);
  text.required_tokenizer();
  if (text.runtime.planned) {
    std::cout << describe_plan(text.runtime, text.runtime.longest_session(options.model));
    return;
  }
  Evaluation evaluation(options, text);
  nlohmann::ordered_json skills = nlohmann::ordered_json::object();
  for (const std::string& skill : options.skills.empty() ? eval::skill_names() : options.skills) {
    const int64_t correct = evaluation.run(skill);
    const double accuracy = static_cast<double>(correct) / static_cast<double>(options.cases);
    skills[skill] = {{"correct", correct}, {"cases", options.cases}, {"accuracy", accuracy}};
    if (!options.json)
      fmt::print("{:<12} {:>5} of {:>5}  {:6.2f} %\n", skill, correct, options.cases, 100 * accuracy);
  }
  if (options.json) std::cout << nlohmann::ordered_json{{"skills", skills}}.dump() << "\n";
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  options->model.model = "models/demo-m1";
  CLI::App* command = app.add_subcommand("eval", "Measure the demo model's skills on fresh cases");
  options->model.add_to(*command);
  command->get_option("--model")->required(false)->capture_default_str();
  command->add_option("--seed", options->seed, "Draws another series of cases")->capture_default_str();
  command->add_option("--cases", options->cases, "Cases of each skill")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--skill", options->skills, "Only these skills (repeatable)")
      ->check(CLI::IsMember(eval::skill_names()));
  command->add_flag("--json", options->json, "Print one JSON object");
  command->add_flag("--show-failures", options->show_failures, "Print every wrong answer on standard error");
  command->callback([options] { run_eval(*options); });
}

}  // namespace minimax::apps
