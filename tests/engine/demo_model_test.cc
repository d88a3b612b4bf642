// The bundled demo model on our engine: the greedy tokens that transformers gives, and right answers to fresh
// cases.
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

const fs::path kDemo = fs::path(MINIMAX_SOURCE_DIR) / "models/demo-m1";

class DemoModel : public testing::Test {
 protected:
  formats::Checkpoint checkpoint_ = formats::Checkpoint::open(kDemo);
  tokenizer::Tokenizer tokenizer_ = tokenizer::Tokenizer::load(kDemo);
  tokenizer::ChatTemplate template_ = tokenizer::ChatTemplate::load(kDemo);
  ThreadPool pool_{2};
  std::unique_ptr<ops::Backend> backend_ = cpu::make_cpu_backend(pool_);
  std::unique_ptr<models::Model> model_;

  void load(DType dtype) {
    formats::Progress silent;
    model_ = models::load_model(formats::read_config(kDemo), {dtype}, checkpoint_, silent);
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
};

TEST_F(DemoModel, GreedyTokensAreThoseOfTransformers) {
  load(DType::kF32);
  std::ifstream file(fs::path(MINIMAX_SOURCE_DIR) / "tests/eval/demo_reference.json");
  const nlohmann::json references = nlohmann::json::parse(file);
  ASSERT_EQ(references.at("cases").size(), 12U);
  for (const nlohmann::json& reference : references.at("cases")) {
    const auto prompt = reference.at("prompt_ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_.encode(reference.at("prompt").get<std::string>()), prompt);
    auto expected = reference.at("greedy").get<std::vector<int32_t>>();
    std::vector<int32_t> got = greedy(prompt, static_cast<int64_t>(expected.size()));
    if (!expected.empty() && expected.back() == tokenizer_.eos_id()) expected.pop_back();
    EXPECT_EQ(got, expected) << reference.at("prompt");
  }
}

TEST_F(DemoModel, AnswersFreshCasesOfEverySkill) {
  load(DType::kBF16);
  constexpr int kCases = 5;
  for (const std::string& skill : eval::skill_names()) {
    int correct = 0;
    for (uint64_t i = 0; i < kCases; ++i) {
      const eval::Case drawn = eval::draw(skill, 31, i);
      const std::string prompt = template_.render(drawn.messages, drawn.tools, true, nullptr).text;
      correct +=
          eval::grade(drawn, tokenizer_.decode(greedy(tokenizer_.encode(prompt), eval::max_tokens(skill))))
              ? 1
              : 0;
    }
    EXPECT_GE(correct, kCases - 1) << skill;
  }
}

}  // namespace
}  // namespace minimax
