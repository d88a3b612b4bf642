// The bundled demo models on our engine: the greedy tokens that transformers gives, and right answers to
// fresh cases, with caches as wide as the activations and with FP8 caches.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu_backend.h"
#include "engine/generate.h"
#include "eval/eval.h"
#include "formats/checkpoint.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace minimax {
namespace {

namespace fs = std::filesystem;

struct Demo {
  std::string_view name;  // the folder below models/
  std::string_view reference;
  eval::DemoModel model;
  size_t reference_cases;
};

std::ostream& operator<<(std::ostream& out, const Demo& demo) { return out << demo.name; }

class DemoModel : public testing::TestWithParam<Demo> {
 protected:
  fs::path folder_ = fs::path(MINIMAX_SOURCE_DIR) / "models" / GetParam().name;
  formats::Checkpoint checkpoint_ = formats::Checkpoint::open(folder_);
  tokenizer::Tokenizer tokenizer_ = tokenizer::Tokenizer::load(folder_);
  tokenizer::ChatTemplate template_ = tokenizer::ChatTemplate::load(folder_);
  ThreadPool pool_{2};
  std::unique_ptr<ops::Backend> backend_ = cpu::make_cpu_backend(pool_);
  std::unique_ptr<models::Model> model_;

  void load(const models::ComputeOptions& compute) {
    formats::Progress silent;
    model_ = models::load_model(formats::read_config(folder_), compute, checkpoint_, silent);
  }

  std::vector<int32_t> greedy(const std::vector<int32_t>& prompt, int64_t max_tokens) {
    engine::Session session(*model_, *backend_, {static_cast<int64_t>(prompt.size()) + max_tokens});
    engine::GenerationRequest request;
    request.prompt = prompt;
    request.sampling.temperature = 0;
    request.max_tokens = max_tokens;
    request.stop_token_ids = {*tokenizer_.eos_id()};
    return engine::generate(session, *model_, *backend_, request,
                            [](const engine::SampledToken&) { return true; })
        .token_ids;
  }

  // RETURNS: right answers among `cases`.
  int right_answers(const std::string& skill, int cases) {
    int correct = 0;
    for (int i = 0; i < cases; ++i) {
      const eval::Case drawn = eval::draw(skill, 31, static_cast<uint64_t>(i), GetParam().model);
      const std::string prompt = template_.render(drawn.messages, drawn.tools, true, nullptr).text;
      const std::vector<int32_t> answer = greedy(tokenizer_.encode(prompt), eval::max_tokens(skill));
      correct += eval::grade(drawn, tokenizer_.decode(answer)) ? 1 : 0;
    }
    return correct;
  }

  void expect_every_skill() {
    constexpr int kCases = 5;
    for (const std::string& skill : eval::skill_names(GetParam().model)) {
      EXPECT_GE(right_answers(skill, kCases), kCases - 1) << skill;
    }
  }
};

TEST_P(DemoModel, GreedyTokensAreThoseOfTransformers) {
  load({DType::kF32});
  std::ifstream file(fs::path(MINIMAX_SOURCE_DIR) / "tests/eval" / GetParam().reference);
  const nlohmann::json references = nlohmann::json::parse(file);
  ASSERT_EQ(references.at("cases").size(), GetParam().reference_cases);
  for (const nlohmann::json& reference : references.at("cases")) {
    const auto prompt = reference.at("prompt_ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_.encode(reference.at("prompt").get<std::string>()), prompt);
    auto expected = reference.at("greedy").get<std::vector<int32_t>>();
    std::vector<int32_t> got = greedy(prompt, static_cast<int64_t>(expected.size()));
    if (!expected.empty() && expected.back() == tokenizer_.eos_id()) expected.pop_back();
    EXPECT_EQ(got, expected) << reference.at("prompt");
  }
}

TEST_P(DemoModel, AnswersFreshCasesOfEverySkill) {
  load({DType::kBF16});
  expect_every_skill();
}

TEST_P(DemoModel, AnswersFreshCasesWithFp8Caches) {
  load({DType::kBF16, DType::kF8E4M3, DType::kF8E4M3});
  expect_every_skill();
}

INSTANTIATE_TEST_SUITE_P(Bundled, DemoModel,
                         testing::Values(Demo{"demo-m1", "demo_reference.json", eval::DemoModel::kM1, 12},
                                         Demo{"demo-m2", "demo_m2_reference.json", eval::DemoModel::kM2, 12},
                                         Demo{"demo-m3", "demo_m3_reference.json", eval::DemoModel::kM3, 13}),
                         [](const auto& test) {
                           return "M" + std::to_string(1 + static_cast<int>(test.param.model));
                         });

}  // namespace
}  // namespace minimax
