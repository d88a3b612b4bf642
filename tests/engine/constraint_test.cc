// Constrained samples in the engine: what they give always fits, beside others that notice nothing.
#include "engine/constraint.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <random>

#include "core/error.h"
#include "engine/engine.h"
#include "grammar/matcher.h"
#include "tests/engine/family_models.h"
#include "tests/grammar/helpers.h"

namespace minimax::engine {
namespace {

using minimax::testing::LoadedModel;
using minimax::testing::small_families;

// The small models have no tokenizer: ids stand for bytes and some pieces of JSON, the last one ends a text.
class JsonConstraint final : public TokenConstraint {
 public:
  JsonConstraint(std::shared_ptr<grammar::GrammarMasks> masks, int32_t stop)
      : matcher_(std::move(masks), {stop}) {}
  void fill_mask(std::span<uint64_t> mask) override { matcher_.fill_mask(mask); }
  void accept(int32_t token) override { matcher_.accept(token); }

 private:
  grammar::GrammarMatcher matcher_;
};

class BrokenConstraint final : public TokenConstraint {
 public:
  void fill_mask(std::span<uint64_t> mask) override {
    if (num_accepted_ == 3) fail("nothing fits behind three tokens");
    std::fill(mask.begin(), mask.end(), ~uint64_t{0});
  }
  void accept(int32_t) override { ++num_accepted_; }

 private:
  int num_accepted_ = 0;
};

constexpr const char* kSchema =
    R"({"type":"object","properties":{"a":{"type":"integer","minimum":-99,"maximum":99},"s":{"type":"string","maxLength":8},"l":{"type":"array","items":{"enum":["x",null,true]},"maxItems":5}},"required":["a","s","l"],"additionalProperties":false})";

class ConstrainedOfFamily : public ::testing::TestWithParam<testing::Family> {
 protected:
  ConstrainedOfFamily() {
    stop_ = static_cast<int32_t>(vocab_) - 1;
    masks_ = masks_of(kSchema);
  }

  std::shared_ptr<grammar::GrammarMasks> masks_of(const char* schema) const {
    std::vector<std::string> tokens;
    for (int64_t id = 0; id < vocab_; ++id) tokens.push_back(text_of(static_cast<int32_t>(id)));
    return std::make_shared<grammar::GrammarMasks>(
        testing::schema_grammar(schema), std::make_shared<const grammar::TokenTrie>(std::move(tokens)));
  }

  // The letters that JSON is made of, so that a small vocabulary can write it.
  std::string text_of(int32_t id) const {
    static const std::string kLetters = "{}[]\":,-0123456789aslxntrue \n";
    static const std::vector<std::string> kPieces{"{\"",  "\":", "null", "true", "\xC3",
                                                  "\xA9", "],",  "\\n",  "é€"};
    if (id == vocab_ - 1) return "";
    const auto i = static_cast<size_t>(id);
    if (i < kLetters.size()) return kLetters.substr(i, 1);
    return i - kLetters.size() < kPieces.size() ? kPieces[i - kLetters.size()] : "";
  }

  Request request_of(int64_t seed, int64_t max_tokens = 120) const {
    Request request;
    std::mt19937 random(static_cast<uint32_t>(seed));
    for (int64_t i = 0; i < 20 + seed % 50; ++i)
      request.prompt.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_)));
    request.max_tokens = max_tokens;
    request.sampling.seed = seed;
    request.sampling.temperature = 1.5F;
    return request;
  }
  Request constrained(int64_t seed) const {
    Request request = request_of(seed);
    request.stop_token_ids = {stop_};
    request.constraint = [this] { return std::make_unique<JsonConstraint>(masks_, stop_); };
    return request;
  }

  EngineOptions options() const {
    EngineOptions options;
    options.max_model_len = 256;
    options.max_sequences = 8;
    options.max_batched_tokens = 256;
    options.cache_tokens = 8 * 256;
    options.prompt_grid = 128;
    return options;
  }

  std::string text_of(const Completion& completion) const {
    std::string text;
    for (const int32_t id : completion.token_ids()) text += text_of(id);
    return text;
  }
  void expect_valid(const Completion& completion) const {
    const std::string text = text_of(completion);
    if (completion.finish.reason == FinishReason::kLength) return;
    ASSERT_EQ(completion.finish.reason, FinishReason::kStop);
    const auto value = nlohmann::json::parse(text, nullptr, false);
    ASSERT_TRUE(value.is_object()) << text;
    EXPECT_TRUE(value.at("a").is_number_integer() && std::abs(value.at("a").get<int>()) <= 99) << text;
    EXPECT_TRUE(value.at("s").is_string()) << text;
    EXPECT_LE(value.at("l").size(), 5U) << text;
    EXPECT_EQ(value.size(), 3U) << text;
  }

  LoadedModel model_{minimax::testing::path_of(GetParam()), {DType::kF32}};
  int64_t vocab_ = model_.model->vocab_size();
  int32_t stop_ = 0;
  std::shared_ptr<grammar::GrammarMasks> masks_;
};

TEST_P(ConstrainedOfFamily, EveryAnswerFits) {
  for (const bool deterministic : {false, true}) {
    EngineOptions chosen = options();
    chosen.is_deterministic = deterministic;
    Engine engine(*model_.model, *model_.backend, chosen);
    std::vector<std::future<std::vector<Completion>>> running;
    for (int64_t seed = 0; seed < 40; ++seed) {
      running.push_back(
          std::async(std::launch::async, [&, seed] { return complete(engine, constrained(seed)); }));
    }
    int num_whole = 0;
    for (auto& answer : running) {
      const Completion completion = std::move(answer.get().front());
      expect_valid(completion);
      num_whole += completion.finish.reason == FinishReason::kStop ? 1 : 0;
    }
    EXPECT_GT(num_whole, 30);
  }
}

// With and without overlapped planning, with logprobs, and n samples at once.
TEST_P(ConstrainedOfFamily, AnswersDoNotDependOnHowStepsArePlanned) {
  std::vector<std::vector<int32_t>> answers;
  for (const bool overlaps : {false, true}) {
    EngineOptions chosen = options();
    chosen.overlaps_planning = overlaps;
    Engine engine(*model_.model, *model_.backend, chosen);
    Request request = constrained(3);
    request.n = 3;
    request.sampling.top_logprobs = 2;
    for (const Completion& completion : complete(engine, request)) {
      expect_valid(completion);
      answers.push_back(completion.token_ids());
      EXPECT_EQ(completion.tokens.front().top.size(), 2U);
      EXPECT_EQ(text_of(completion).front(), '{');
    }
    request.n = 1;
    request.sampling.seed = 4;
    EXPECT_EQ(complete(engine, request).front().token_ids(), answers[answers.size() - 2]);
  }
  ASSERT_EQ(answers.size(), 6U);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(answers[i], answers[i + 3]);
}

TEST_P(ConstrainedOfFamily, OthersBesideAreUnchanged) {
  EngineOptions chosen = options();
  chosen.is_deterministic = true;
  std::vector<std::vector<int32_t>> alone;
  {
    Engine engine(*model_.model, *model_.backend, chosen);
    for (int64_t seed = 0; seed < 4; ++seed)
      alone.push_back(complete(engine, request_of(seed)).front().token_ids());
  }
  Engine engine(*model_.model, *model_.backend, chosen);
  std::vector<std::future<std::vector<Completion>>> free;
  std::vector<std::future<std::vector<Completion>>> bound;
  for (int64_t seed = 0; seed < 4; ++seed) {
    bound.push_back(
        std::async(std::launch::async, [&, seed] { return complete(engine, constrained(seed)); }));
    free.push_back(std::async(std::launch::async, [&, seed] { return complete(engine, request_of(seed)); }));
  }
  for (auto& answer : bound) expect_valid(answer.get().front());
  for (size_t i = 0; i < free.size(); ++i) EXPECT_EQ(free[i].get().front().token_ids(), alone[i]);
}

TEST_P(ConstrainedOfFamily, PreemptedAnswersGoOnWhereTheyWere) {
  EngineOptions roomy = options();
  roomy.is_deterministic = true;
  roomy.max_model_len = 384;
  roomy.cache_tokens = 8 * 384;
  const auto long_lists = masks_of(R"({"type":"array","items":{"enum":["x",null,true]},"minItems":100})");
  const auto answers_of = [&](const EngineOptions& chosen, int64_t& preemptions) {
    Engine engine(*model_.model, *model_.backend, chosen);
    std::vector<std::vector<int32_t>> answers(8);
    for (int64_t i = 0; i < 8; ++i) {
      // The first two start small and outgrow the pages.
      Request request = constrained(i);
      request.prompt.resize(static_cast<size_t>(100 + 4 * i), 3);
      request.max_tokens = 250;
      request.constraint = [&] { return std::make_unique<JsonConstraint>(long_lists, stop_); };
      std::vector<int32_t>& answer = answers[static_cast<size_t>(i)];
      engine.submit(request, {[&answer](const TokenOutput& output) {
                                answer.push_back(output.token.id);
                                return true;
                              },
                              {},
                              {}});
    }
    engine.drain();
    preemptions = engine.stats().num_preemptions;
    return answers;
  };
  int64_t none = 0;
  int64_t some = 0;
  const auto expected = answers_of(roomy, none);
  EngineOptions tight = roomy;
  tight.cache_tokens = 512;
  tight.state_snapshots = 2;
  EXPECT_EQ(answers_of(tight, some), expected);
  EXPECT_EQ(none, 0);
  EXPECT_GT(some, 0);
}

INSTANTIATE_TEST_SUITE_P(Families, ConstrainedOfFamily, ::testing::ValuesIn(small_families()),
                         [](const auto& family) { return family.param.name; });

class ConstraintErrors : public ::testing::Test {
 protected:
  LoadedModel model_{minimax::testing::path_of(small_families()[0]), {DType::kF32}};
  Request request_;
  EngineOptions options_;
  ConstraintErrors() {
    request_.prompt = {1, 2, 3};
    request_.max_tokens = 50;
    request_.constraint = [] { return std::make_unique<BrokenConstraint>(); };
    options_.max_model_len = 256;
    options_.max_sequences = 4;
  }
};

TEST_F(ConstraintErrors, ASampleWithoutATokenToDrawEndsWithTheReason) {
  for (const bool overlaps : {false, true}) {
    options_.overlaps_planning = overlaps;
    Engine engine(*model_.model, *model_.backend, options_);
    std::vector<int32_t> tokens;
    std::promise<FinishedSample> finish;
    engine.submit(request_, {[&](const TokenOutput& output) {
                               tokens.push_back(output.token.id);
                               return true;
                             },
                             [&](const FinishedSample& finished) { finish.set_value(finished); },
                             {}});
    const FinishedSample finished = finish.get_future().get();
    EXPECT_EQ(finished.reason, FinishReason::kError);
    EXPECT_EQ(finished.error, "nothing fits behind three tokens");
    EXPECT_EQ(tokens.size(), 3U);
    // The engine goes on.
    Request other = request_;
    other.constraint = nullptr;
    EXPECT_EQ(complete(engine, other).front().tokens.size(), 50U);
    EXPECT_EQ(engine.stats().pages_in_use, 0);
  }
}

TEST_F(ConstraintErrors, AMakerThatThrowsRefusesTheRequest) {
  Engine engine(*model_.model, *model_.backend, options_);
  request_.constraint = []() -> std::unique_ptr<TokenConstraint> { fail("no such grammar"); };
  EXPECT_THROW(engine.submit(request_, {}), Error);
  engine.drain();
}

TEST_F(ConstraintErrors, CancelledWhileItRuns) {
  Engine engine(*model_.model, *model_.backend, options_);
  request_.max_tokens = 200;
  request_.constraint = [] {
    class Anything final : public TokenConstraint {
      void fill_mask(std::span<uint64_t> mask) override { std::fill(mask.begin(), mask.end(), ~uint64_t{0}); }
      void accept(int32_t) override {}
    };
    return std::make_unique<Anything>();
  };
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> seen = 0;
    std::promise<FinishReason> reason;
    const EngineRequestId id =
        engine.submit(request_, {[&](const TokenOutput&) { return ++seen < round + 1; },
                                 [&](const FinishedSample& f) { reason.set_value(f.reason); },
                                 {}});
    if (round % 2 == 0) engine.cancel(id);
    const FinishReason got = reason.get_future().get();
    EXPECT_TRUE(got == FinishReason::kStop || got == FinishReason::kCancelled);
  }
  engine.drain();
}

}  // namespace
}  // namespace minimax::engine
