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
        demo_model_(demo_model(text.runtime.summary)),
        session_(*text.runtime.model, *text.runtime.backend, text.runtime.longest_session(options.model)) {}

  const std::vector<std::string>& skills() const {
    return options_.skills.empty() ? eval::skill_names(demo_model_) : options_.skills;
  }

  // RETURNS: right answers among options.cases.
  int64_t run(const std::string& skill) {
    int64_t correct = 0;
    for (int64_t i = 0; i < options_.cases; ++i) {
      const eval::Case drawn =
          eval::draw(skill, static_cast<uint64_t>(options_.seed), static_cast<uint64_t>(i), demo_model_);
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
    const std::vector<int32_t> prompt = text_.chat_prompt(drawn.messages, drawn.tools);
    const engine::GenerationRequest request = text_.request(prompt, greedy, eval::max_tokens(drawn.skill));
    const engine::GenerationResult result =
        engine::generate(session_, *text_.runtime.model, *text_.runtime.backend, request,
                         [](const engine::SampledToken&) { return true; });
    return opened_reasoning(prompt) + text_.tokenizer->decode(result.token_ids);
  }

  static eval::DemoModel demo_model(const models::ModelSummary& summary) {
    if (summary.family == "MiniMax-M2") return eval::DemoModel::kM2;
    return summary.family == "MiniMax-M3" ? eval::DemoModel::kM3 : eval::DemoModel::kM1;
  }

  // The marker with which the prompt ends when its template has opened the reasoning.
  std::string opened_reasoning(const std::vector<int32_t>& prompt) const {
    constexpr size_t kTailTokens = 16;
    const size_t tail = std::min(prompt.size(), kTailTokens);
    std::string text = text_.tokenizer->decode(
        std::vector<int32_t>(prompt.end() - static_cast<int64_t>(tail), prompt.end()));
    while (text.ends_with('\n')) text.pop_back();
    for (const std::string_view marker : {"<think>", "<mm:think>"}) {
      if (text.ends_with(marker)) return std::string(marker);
    }
    return "";
  }

  const EvalOptions& options_;
  const TextModel& text_;
  eval::DemoModel demo_model_;
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
  for (const std::string& skill : evaluation.skills()) {
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
      ->check(CLI::IsMember(eval::skill_names(eval::DemoModel::kM3)));
  command->add_flag("--json", options->json, "Print one JSON object");
  command->add_flag("--show-failures", options->show_failures, "Print every wrong answer on standard error");
  command->callback([options] { run_eval(*options); });
}

}  // namespace minimax::apps
