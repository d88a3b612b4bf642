// The engine: answers equal those of a lone session, every way to end, logprobs, prefix cache, metrics.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/error.h"
#include "engine/generate.h"
#include "tests/engine/family_models.h"

namespace minimax::engine {
namespace {

using minimax::testing::LoadedModel;
using minimax::testing::prompt_of;
using minimax::testing::small_families;

EngineOptions small_options() {
  EngineOptions options;
  options.max_model_len = 700;
  options.max_sequences = 8;
  options.max_batched_tokens = 256;
  options.cache_tokens = 8 * 768;
  options.prompt_grid = 128;
  return options;
}

SamplingParams greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

Request request_of(std::vector<int32_t> prompt, int64_t max_tokens,
                   const SamplingParams& sampling = greedy()) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling = sampling;
  return request;
}

class EngineOfFamily : public ::testing::TestWithParam<testing::Family> {
 protected:
  LoadedModel model_{minimax::testing::path_of(GetParam()), {DType::kF32}};
  int64_t vocab_ = model_.model->vocab_size();

  std::vector<int32_t> alone(const std::vector<int32_t>& prompt, int64_t max_tokens,
                             const SamplingParams& sampling = greedy()) {
    Session session(*model_.model, *model_.backend, {700, 256, 1});
    const GenerationRequest request{prompt, sampling, max_tokens, {}, 0};
    return generate(session, *model_.model, *model_.backend, request,
                    [](const SampledToken&) { return true; })
        .token_ids;
  }
};

TEST_P(EngineOfFamily, AnswersAsASessionDoes) {
  const auto prompt = prompt_of(300, 1, vocab_);
  SamplingParams drawn;
  drawn.seed = 42;
  drawn.top_p = 0.9F;
  drawn.repetition_penalty = 1.2F;
  const auto expected = alone(prompt, 20);
  const auto expected_drawn = alone(prompt, 20, drawn);
  for (const bool deterministic : {false, true}) {
    for (const bool overlaps : {false, true}) {
      EngineOptions options = small_options();
      options.is_deterministic = deterministic;
      options.overlaps_planning = overlaps;
      Engine engine(*model_.model, *model_.backend, options);
      EXPECT_EQ(complete(engine, request_of(prompt, 20)).front().token_ids(), expected);
      EXPECT_EQ(complete(engine, request_of(prompt, 20, drawn)).front().token_ids(), expected_drawn);
    }
  }
}

// Bit for bit: equal logprobs, not only equal tokens.
TEST_P(EngineOfFamily, ManyRequestsAtOnceAnswerAsTheyDoAlone) {
  EngineOptions options = small_options();
  options.is_deterministic = true;
  options.max_sequences = 20;
  options.cache_tokens = 20 * 768;
  const auto facts_of = [](const Completion& completion) {
    std::vector<std::pair<int32_t, float>> facts;
    for (const SampledToken& token : completion.tokens) facts.emplace_back(token.id, token.logprob);
    return facts;
  };
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    LoadedModel model(minimax::testing::path_of(GetParam()), {dtype});
    std::vector<Request> requests;
    for (int32_t i = 0; i < 20; ++i)
      requests.push_back(request_of(prompt_of(1 + 23 * i, i % 7, vocab_), 30 + i));
    std::vector<std::vector<std::pair<int32_t, float>>> expected;
    {
      Engine engine(*model.model, *model.backend, options);
      for (const Request& request : requests) expected.push_back(facts_of(complete(engine, request).front()));
    }
    Engine engine(*model.model, *model.backend, options);
    std::vector<std::future<std::vector<Completion>>> running;
    for (const Request& request : requests) {
      running.push_back(std::async(std::launch::async, [&] { return complete(engine, request); }));
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(facts_of(running[i].get().front()), expected[i]) << name(dtype) << " " << i;
    }
  }
}

TEST_P(EngineOfFamily, ASharedPrefixIsNotComputedAgain) {
  EngineOptions options = small_options();
  options.snapshot_interval = 128;
  std::vector<int32_t> first = prompt_of(500, 1, vocab_);
  std::vector<int32_t> second = first;
  for (size_t i = 460; i < second.size(); ++i) second[i] = (second[i] + 1) % static_cast<int32_t>(vocab_);
  const auto expected = alone(second, 10);
  Engine engine(*model_.model, *model_.backend, options);
  complete(engine, request_of(first, 10));
  const int64_t before = engine.stats().computed_tokens;
  const auto answer = complete(engine, request_of(second, 10));
  EXPECT_EQ(answer.front().token_ids(), expected);
  // What is left of the shared part: at most a page and the snapshot interval; then the new part and the
  // answer.
  EXPECT_LE(engine.stats().computed_tokens - before, 128 + engine.plan().page_size + 40 + 11);
  EXPECT_GE(answer.front().finish.cached_tokens, 460 - 128 - engine.plan().page_size);
  // Exactly repeated, all but the last page is there.
  const auto again = complete(engine, request_of(second, 10));
  EXPECT_EQ(again.front().token_ids(), expected);
  EXPECT_GE(again.front().finish.cached_tokens, 500 - 1 - engine.plan().page_size);
}

TEST_P(EngineOfFamily, ShortMemoryPreemptsAndLosesNothing) {
  EngineOptions options = small_options();
  options.max_model_len = 384;
  options.cache_tokens = 512;
  options.state_snapshots = 2;
  options.host_snapshots = 3;
  options.is_deterministic = true;
  std::vector<std::vector<int32_t>> expected;
  std::vector<Request> requests;
  for (int32_t i = 0; i < 8; ++i) requests.push_back(request_of(prompt_of(100 + 10 * i, i, vocab_), 200));
  {
    Engine engine(*model_.model, *model_.backend, options);
    for (const Request& request : requests) expected.push_back(complete(engine, request).front().token_ids());
  }
  // From one thread, so that they wait in this order: the first two start small and outgrow the pages.
  Engine engine(*model_.model, *model_.backend, options);
  std::vector<std::vector<int32_t>> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto keep = [&answers, i](const TokenOutput& output) {
      answers[i].push_back(output.token.id);
      return true;
    };
    engine.submit(requests[i], {keep, {}, {}});
  }
  engine.drain();
  EXPECT_EQ(answers, expected);
  EXPECT_GT(engine.stats().num_preemptions, 0);
  EXPECT_EQ(engine.stats().pages_in_use, 0);
}

TEST_P(EngineOfFamily, LogprobsAreThoseOfTheModel) {
  const auto prompt = prompt_of(200, 3, vocab_);
  Request request = request_of(prompt, 3);
  request.prompt_logprobs = 2;
  request.sampling.top_logprobs = 3;
  Engine engine(*model_.model, *model_.backend, small_options());
  std::vector<SampledToken> reported;
  std::promise<void> done;
  std::vector<SampledToken> tokens;
  Callbacks callbacks;
  callbacks.on_prompt = [&](const std::vector<SampledToken>& logprobs) { reported = logprobs; };
  callbacks.on_token = [&](const TokenOutput& output) {
    tokens.push_back(output.token);
    return true;
  };
  callbacks.on_finish = [&](const FinishedSample&) { done.set_value(); };
  engine.submit(request, callbacks);
  done.get_future().wait();
  ASSERT_EQ(reported.size(), prompt.size() - 1);
  ASSERT_EQ(tokens.size(), 3U);
  EXPECT_EQ(tokens[0].top.size(), 3U);
  EXPECT_EQ(tokens[0].top[0].first, tokens[0].id);

  Session session(*model_.model, *model_.backend, {700, 256, 64});
  session.append_visiting(prompt, [&](int64_t first, const Tensor& logits) {
    for (int64_t r = 0; r < logits.dim(0); ++r) {
      if (first + r + 1 == std::ssize(prompt)) continue;
      const float* row = logits.row<float>(r);
      double sum = 0;
      for (int64_t i = 0; i < vocab_; ++i) sum += std::exp(static_cast<double>(row[i]));
      const int32_t next = prompt[static_cast<size_t>(first + r + 1)];
      const SampledToken& token = reported[static_cast<size_t>(first + r)];
      EXPECT_EQ(token.id, next);
      EXPECT_NEAR(token.logprob, row[next] - std::log(sum), 1e-4);
      EXPECT_EQ(token.top.size(), 2U);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Families, EngineOfFamily, ::testing::ValuesIn(small_families()),
                         [](const auto& family) { return family.param.name; });

class EngineTest : public ::testing::Test {
 protected:
  LoadedModel model_{minimax::testing::path_of(small_families()[0]), {DType::kF32}};
  int64_t vocab_ = model_.model->vocab_size();
  std::vector<int32_t> prompt_ = prompt_of(100, 1, vocab_);
};

TEST_F(EngineTest, SamplesOfOnePromptShareItAndDifferInTheirSeeds) {
  Engine engine(*model_.model, *model_.backend, small_options());
  Request request = request_of(prompt_, 12, {});
  request.sampling.seed = 5;
  request.n = 3;
  const auto samples = complete(engine, request);
  ASSERT_EQ(samples.size(), 3U);
  EXPECT_NE(samples[0].token_ids(), samples[1].token_ids());
  EXPECT_GE(samples[1].finish.cached_tokens, 96);
  request.n = 1;
  request.sampling.seed = 6;
  EXPECT_EQ(complete(engine, request).front().token_ids(), samples[1].token_ids());
}

TEST_F(EngineTest, StopTokensEndAnAnswerAndMinTokensHoldsThemBack) {
  Engine engine(*model_.model, *model_.backend, small_options());
  const auto all = complete(engine, request_of(prompt_, 12)).front();
  EXPECT_EQ(all.finish.reason, FinishReason::kLength);
  const auto ids = all.token_ids();
  Request request = request_of(prompt_, 12);
  request.stop_token_ids = {ids[4]};
  const auto stopped = complete(engine, request).front();
  const auto expected_end = std::find(ids.begin(), ids.end(), ids[4]);
  EXPECT_EQ(stopped.token_ids(), std::vector<int32_t>(ids.begin(), expected_end));
  EXPECT_EQ(stopped.finish.reason, FinishReason::kStop);
  request.min_tokens = 8;
  const auto held = complete(engine, request).front().token_ids();
  ASSERT_GE(held.size(), 8U);
  EXPECT_EQ(std::count(held.begin(), held.begin() + 8, ids[4]), 0);
}

TEST_F(EngineTest, ACallbackThatHasEnoughStopsItsSample) {
  Engine engine(*model_.model, *model_.backend, small_options());
  std::promise<FinishedSample> finish;
  int64_t seen = 0;
  engine.submit(request_of(prompt_, 500),
                {[&](const TokenOutput&) { return ++seen < 4; },
                 [&](const FinishedSample& finished) { finish.set_value(finished); },
                 {}});
  const FinishedSample finished = finish.get_future().get();
  EXPECT_EQ(finished.reason, FinishReason::kStop);
  EXPECT_EQ(finished.num_tokens, 4);
  EXPECT_EQ(seen, 4);
}

TEST_F(EngineTest, CancelAndTimeoutEndARequestAndGiveItsMemoryBack) {
  Engine engine(*model_.model, *model_.backend, small_options());
  std::promise<FinishedSample> cancelled;
  std::promise<void> started;
  bool is_started = false;
  const EngineRequestId id =
      engine.submit(request_of(prompt_, 600), {[&](const TokenOutput&) {
                                                 if (!std::exchange(is_started, true)) started.set_value();
                                                 return true;
                                               },
                                               [&](const FinishedSample& f) { cancelled.set_value(f); },
                                               {}});
  started.get_future().wait();
  engine.cancel(id);
  engine.cancel(id + 100);  // unknown: nothing happens
  EXPECT_EQ(cancelled.get_future().get().reason, FinishReason::kCancelled);
  Request request = request_of(prompt_, 600);
  request.timeout_seconds = 1e-3;
  EXPECT_EQ(complete(engine, request).front().finish.reason, FinishReason::kTimeout);
  complete(engine, request_of(prompt_, 1));
  engine.drain();
  EXPECT_EQ(engine.stats().pages_in_use, 0);
  EXPECT_EQ(engine.stats().num_running, 0);
}

TEST_F(EngineTest, WhatIsLeftIsCancelledWhenTheEngineGoes) {
  FinishReason reason = FinishReason::kLength;
  {
    Engine engine(*model_.model, *model_.backend, small_options());
    engine.submit(request_of(prompt_, 600), {{}, [&](const FinishedSample& f) { reason = f.reason; }, {}});
  }
  EXPECT_EQ(reason, FinishReason::kCancelled);
}

TEST_F(EngineTest, BadRequestsAreRefusedWithTheReason) {
  Engine engine(*model_.model, *model_.backend, small_options());
  const auto message = [&](auto&& change) -> std::string {
    Request request = request_of(prompt_, 5);
    change(request);
    try {
      engine.submit(request, {});
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const auto expect = [&](const std::string& part, auto&& change) {
    const std::string text = message(change);
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect("prompt is empty", [](Request& r) { r.prompt.clear(); });
  expect("token id -1", [](Request& r) { r.prompt[3] = -1; });
  expect("max_tokens is 0", [](Request& r) { r.max_tokens = 0; });
  expect("max_model_len 700", [](Request& r) { r.max_tokens = 601; });
  expect("min_tokens is 6", [](Request& r) { r.min_tokens = 6; });
  expect("n is 0", [](Request& r) { r.n = 0; });
  expect("temperature is -1", [](Request& r) { r.sampling.temperature = -1; });
  expect("timeout_seconds is 0", [](Request& r) { r.timeout_seconds = 0; });
  expect("boundary at 101", [](Request& r) { r.boundaries = {101}; });
  engine.drain();

  EngineOptions options = small_options();
  options.cache_tokens = 100;
  EXPECT_THROW(Engine(*model_.model, *model_.backend, options), Error);
  options = small_options();
  options.max_model_len = 1 << 30;
  EXPECT_THROW(Engine(*model_.model, *model_.backend, options), Error);
}

TEST_F(EngineTest, MetricsCountWhatHappened) {
  observe::Metrics metrics("small");
  EngineOptions options = small_options();
  options.metrics = &metrics;
  {
    Engine engine(*model_.model, *model_.backend, options);
    complete(engine, request_of(prompt_, 12));
    complete(engine, request_of(prompt_, 12));
  }
  const std::string text = metrics.text();
  const auto expect = [&](const std::string& line) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  };
  expect("vllm:prompt_tokens_total{model_name=\"small\"} 200");
  expect("vllm:generation_tokens_total{model_name=\"small\"} 24");
  expect("vllm:prefix_cache_queries_total{model_name=\"small\"} 200");
  expect("vllm:prefix_cache_hits_total{model_name=\"small\"} 96");
  expect("vllm:request_success_total{finished_reason=\"length\",model_name=\"small\"} 2");
  expect("vllm:time_to_first_token_seconds_count{model_name=\"small\"} 2");
  expect("vllm:inter_token_latency_seconds_count{model_name=\"small\"} 22");
  expect("vllm:spec_decode_num_accepted_tokens_total{model_name=\"small\"} 0");
  expect("vllm:cache_config_info{block_size=");
}

TEST_F(EngineTest, AResetCacheHoldsNothing) {
  Engine engine(*model_.model, *model_.backend, small_options());
  complete(engine, request_of(prompt_, 12));
  EXPECT_LT(engine.stats().free_pages, engine.stats().num_pages);
  engine.reset_prefix_cache();
  EXPECT_EQ(complete(engine, request_of(prompt_, 12)).front().finish.cached_tokens, 0);
  engine.reset_prefix_cache();
  const auto is_free = [&] {
    const EngineStats stats = engine.stats();
    return stats.free_pages == stats.num_pages && stats.free_slots == stats.num_slots;
  };
  for (int i = 0; i < 1000 && !is_free(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_TRUE(is_free());
}

TEST_F(EngineTest, TheLogHasALineOfJsonForEveryRequestThatEnds) {
  const auto path = std::filesystem::temp_directory_path() / "minimax_engine_log.json";
  std::filesystem::remove(path);
  {
    observe::Log log(observe::LogFormat::kJson, path);
    EngineOptions options = small_options();
    options.log = &log;
    Engine engine(*model_.model, *model_.backend, options);
    complete(engine, request_of(prompt_, 12));
    complete(engine, request_of(prompt_, 12));
  }
  std::ifstream file(path);
  int64_t lines = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    const auto entry = nlohmann::json::parse(line);
    EXPECT_EQ(entry.at("event"), "request finished");
    EXPECT_EQ(entry.at("level"), "info");
    EXPECT_EQ(entry.at("tokens"), 12);
    EXPECT_EQ(entry.at("cached_tokens"), lines == 0 ? 0 : 96);
    EXPECT_GE(entry.at("total_s").get<double>(), entry.at("first_token_s").get<double>());
  }
  EXPECT_EQ(lines, 2);
  std::filesystem::remove(path);
}

TEST_F(EngineTest, TheTraceIsJsonThatChromeReads) {
  const auto path = std::filesystem::temp_directory_path() / "minimax_engine_trace.json";
  {
    observe::Trace trace(path);
    EngineOptions options = small_options();
    options.trace = &trace;
    Engine engine(*model_.model, *model_.backend, options);
    complete(engine, request_of(prompt_, 12));
  }
  std::ifstream file(path);
  const auto events = nlohmann::json::parse(file);
  int64_t steps = 0;
  for (const auto& event : events) {
    EXPECT_EQ(event.at("ph"), "X");
    EXPECT_GE(event.at("dur").get<double>(), 0);
    steps += event.at("tid") == "model" ? 1 : 0;
  }
  EXPECT_GE(steps, 12);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace minimax::engine
