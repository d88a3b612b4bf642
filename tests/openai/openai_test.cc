// OpenAI's requests and batch files on the bundled M1 model.
#include <gtest/gtest.h>

#include <fstream>

#include "engine/text_stream.h"
#include "openai/batch.h"
#include "openai/response.h"
#include "tests/engine/family_models.h"
#include "tests/formats/temp_dir.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

class OpenAiTest : public ::testing::Test {
 protected:
  OpenAiTest() {
    options_.max_model_len = 1024;
    options_.max_sequences = 4;
    options_.is_deterministic = true;
    served_.name = "demo";
    served_.tokenizer = &tokenizer_;
    served_.chat_template = &template_;
    served_.sampling.temperature = 0;
    served_.stop_token_ids = {tokenizer_.eos_id().value()};
    served_.max_model_len = 1024;
  }

  static Json chat(const std::string& text, const Json& more = {}) {
    Json body = {{"model", "demo"}, {"messages", {{{"role", "user"}, {"content", text}}}}};
    if (more.is_object()) body.update(more);
    return body;
  }
  std::string refusal(const Json& body) {
    try {
      parse_chat_completion(body, served_);
    } catch (const ApiError& error) {
      return error.field() + ": " + error.what();
    }
    return "accepted";
  }

  fs::path folder_ = fs::path(MINIMAX_SOURCE_DIR) / "models/demo-m1";
  testing::LoadedModel loaded_{folder_, {DType::kBF16}};
  tokenizer::Tokenizer tokenizer_ = tokenizer::Tokenizer::load(folder_);
  tokenizer::ChatTemplate template_ = tokenizer::ChatTemplate::load(folder_);
  engine::EngineOptions options_;
  ServedModel served_;
};

TEST_F(OpenAiTest, StopStringsAreFoundAcrossTokensAndNeverShown) {
  const std::string text = "one two three STOP four";
  const std::vector<int32_t> ids = tokenizer_.encode(text);
  engine::TextStream stream(tokenizer_, {"e STOP", "zzz"});
  std::string shown;
  for (const int32_t id : ids) shown += stream.push(id);
  shown += stream.finish();
  EXPECT_EQ(shown, "one two thre");
  EXPECT_TRUE(stream.is_stopped());

  engine::TextStream unstopped(tokenizer_, {"four more"});
  shown.clear();
  for (const int32_t id : ids) shown += unstopped.push(id);
  EXPECT_EQ(shown, "one two three STOP ");
  EXPECT_EQ(shown + unstopped.finish(), text);
  EXPECT_FALSE(unstopped.is_stopped());
}

TEST_F(OpenAiTest, ARequestSaysWhatItMeans) {
  const CompletionRequest parsed = parse_chat_completion(chat("hi", {{"max_tokens", 7},
                                                                     {"temperature", 0.5},
                                                                     {"top_k", 3},
                                                                     {"stop", "x"},
                                                                     {"seed", 9},
                                                                     {"n", 2},
                                                                     {"logit_bias", {{"5", -100}}},
                                                                     {"logprobs", true},
                                                                     {"top_logprobs", 2},
                                                                     {"user", "ignored"}}),
                                                         served_);
  EXPECT_EQ(parsed.request.max_tokens, 7);
  EXPECT_EQ(parsed.request.n, 2);
  EXPECT_FLOAT_EQ(parsed.request.sampling.temperature, 0.5F);
  EXPECT_EQ(parsed.request.sampling.top_k, 3);
  EXPECT_EQ(parsed.request.sampling.seed, 9);
  EXPECT_EQ(parsed.request.sampling.top_logprobs, 2);
  EXPECT_EQ(parsed.request.sampling.logit_bias.at(5), -100);
  EXPECT_EQ(parsed.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(parsed.request.stop_token_ids, served_.stop_token_ids);
  EXPECT_TRUE(
      parse_chat_completion(chat("hi", {{"ignore_eos", true}}), served_).request.stop_token_ids.empty());

  const CompletionRequest plain =
      parse_completion({{"prompt", {1, 2, 3}}, {"echo", true}, {"prompt_logprobs", 1}}, served_);
  EXPECT_EQ(plain.request.prompt, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(plain.request.max_tokens, 16);
}

TEST_F(OpenAiTest, TheSystemMessageIsAPrefixOthersMayShare) {
  Json body = chat("first question");
  body["messages"].insert(body["messages"].begin(),
                          Json{{"role", "system"}, {"content", "You answer in one word and never explain."}});
  Json other = body;
  other["messages"][1]["content"] = "another one";
  const auto a = parse_chat_completion(body, served_).request;
  const auto b = parse_chat_completion(other, served_).request;
  ASSERT_EQ(a.boundaries.size(), 1U);
  EXPECT_EQ(a.boundaries, b.boundaries);
  const auto [end, _] = std::mismatch(a.prompt.begin(), a.prompt.end(), b.prompt.begin(), b.prompt.end());
  EXPECT_LE(a.boundaries[0], end - a.prompt.begin());
  EXPECT_GT(a.boundaries[0], 8);
}

TEST_F(OpenAiTest, WhatIsWrongIsNamed) {
  const auto expect = [&](const std::string& part, const Json& body) {
    const std::string text = refusal(body);
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect("temperature: temperature is 3; expected a number from 0 to 2", chat("hi", {{"temperature", 3}}));
  expect("n: n is 0", chat("hi", {{"n", 0}}));
  expect("top_p: top_p is \"x\"", chat("hi", {{"top_p", "x"}}));
  expect("max_tokens: max_tokens is 2000", chat("hi", {{"max_tokens", 2000}}));
  expect("stop: stop is 5", chat("hi", {{"stop", 5}}));
  expect("messages: messages is null", Json::object());
  expect("messages: messages is {\"content\":\"x\"}", {{"messages", {{{"content", "x"}}}}});
  expect("logit_bias", chat("hi", {{"logit_bias", {{"x", 1}}}}));
  expect("top_logprobs needs logprobs", chat("hi", {{"top_logprobs", 2}}));
  expect("seed: seed is 18446744073709551615", chat("hi", {{"seed", UINT64_MAX}}));
  expect("stop_token_ids", chat("hi", {{"stop_token_ids", {4294967297}}}));
  expect("response_format is not supported", chat("hi", {{"response_format", {{"type", 5}}}}));
  expect("response_format is not supported", chat("hi", {{"response_format", {{"type", "json_object"}}}}));
}

// --- batches ----------------------------------------------------------------------------------------------

class BatchTest : public OpenAiTest {
 protected:
  BatchTest() {
    std::ofstream file(input());
    for (int i = 0; i < 12; ++i) {
      Json body = chat(fmt::format("What is {} * {}?", 12 + i, 7 + i), {{"max_tokens", 40}});
      if (i % 3 == 0) body["temperature"] = 1.0;
      if (i == 5) body["temperature"] = "hot";
      if (i == 7) body["n"] = 2;
      file << Json{{"custom_id", fmt::format("r{}", i)},
                   {"method", "POST"},
                   {"url", "/v1/chat/completions"},
                   {"body", body}}
           << "\n";
    }
  }

  fs::path input() const { return folder.path() / "in.jsonl"; }
  fs::path output() const { return folder.path() / "out.jsonl"; }
  fs::path partial() const { return folder.path() / "out.jsonl.partial"; }
  static std::string read(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  BatchSummary run(const std::string& settings = "s") {
    engine::Engine engine(*loaded_.model, *loaded_.backend, options_);
    return run_batch(engine, served_, {input(), output(), settings}, {});
  }

  testing::TempDir folder;
};

TEST_F(BatchTest, GivesOneResultALineInOrder) {
  const BatchSummary summary = run();
  EXPECT_EQ(summary.num_requests, 12);
  EXPECT_EQ(summary.num_failed, 1);
  EXPECT_FALSE(fs::exists(partial()));
  std::ifstream file(output());
  int i = 0;
  for (std::string line; std::getline(file, line); ++i) {
    const Json result = Json::parse(line);
    EXPECT_EQ(result.at("custom_id"), fmt::format("r{}", i));
    const Json& response = result.at("response");
    EXPECT_EQ(response.at("status_code"), i == 5 ? 400 : 200);
    if (i == 5) {
      EXPECT_EQ(response.at("body").at("error").at("param"), "temperature");
      continue;
    }
    EXPECT_EQ(response.at("body").at("object"), "chat.completion");
    EXPECT_EQ(response.at("body").at("choices").size(), i == 7 ? 2U : 1U);
    EXPECT_FALSE(response.at("body").at("choices")[0].at("message").at("content").get<std::string>().empty());
  }
  EXPECT_EQ(i, 12);
}

TEST_F(BatchTest, AStoppedRunGoesOnToTheSameFile) {
  run();
  const std::string whole = read(output());
  // As if the run had been killed after five results, in the middle of writing the sixth.
  std::vector<std::string> lines;
  std::istringstream stream(whole);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  fs::rename(output(), folder.path() / "kept");
  run("other");
  fs::remove(output());
  {
    engine::Engine engine(*loaded_.model, *loaded_.backend, options_);
    const BatchOptions job{input(), output(), "s"};
    std::string header;
    int64_t done = 0;
    run_batch(engine, served_, job, [&](int64_t, int64_t) {
      if (done++ == 0) header = read(partial());
    });
    std::ofstream torn(partial());
    torn << header;
    for (const size_t i : {3U, 0U, 7U, 1U, 5U}) torn << lines[i] << "\n";
    torn << lines[2].substr(0, lines[2].size() / 2);
  }
  fs::remove(output());
  EXPECT_THROW(run("other"), Error);  // not this job's
  const BatchSummary summary = run();
  EXPECT_EQ(summary.num_resumed, 5);
  EXPECT_EQ(read(output()), whole);
  EXPECT_EQ(run().num_resumed, 12);  // finished already
  EXPECT_EQ(read(output()), whole);
}

TEST_F(BatchTest, RefusesWhatIsNoBatchFile) {
  const auto message = [&](const std::string& text) -> std::string {
    std::ofstream(input()) << text;
    try {
      run();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const std::string good =
      R"({"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x"}})";
  const auto expect = [&](const std::string& part, const std::string& text) {
    const std::string error = message(text);
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  expect("in.jsonl:2: expected one JSON object", good + "\n{\n");
  expect("in.jsonl:2: custom_id a is that of line 1", good + "\n" + good + "\n");
  expect("in.jsonl:1: \"custom_id\" is missing", "{}\n");
  expect("method is 5", R"({"custom_id":"a","method":5,"url":"/v1/completions"})");
  expect("url is /v1/files", R"({"custom_id":"a","url":"/v1/files"})");
}

}  // namespace
}  // namespace minimax::openai
