// The endpoints in one process with an engine on the bundled M2 model: states, streams, cancellation.
#include "server/api.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "http/server.h"
#include "tests/engine/family_models.h"
#include "tests/http/client.h"

namespace minimax::server {
namespace {

using testing::Client;
using Json = nlohmann::ordered_json;

class ApiTest : public ::testing::Test {
 protected:
  ApiTest() {
    engine::EngineOptions options;
    options.max_model_len = 4096;
    options.max_sequences = 4;
    options.metrics = &metrics_;
    options.vocab_limit = tokenizer_.max_id() + 1;
    engine_.emplace(*loaded_.model, *loaded_.backend, options);
    served_.name = "demo";
    served_.tokenizer = &tokenizer_;
    served_.chat_template = &template_;
    served_.sampling.temperature = 0;
    served_.stop_token_ids = {tokenizer_.eos_id().value()};
    served_.max_model_len = 4096;
    served_.make_parser = [](std::vector<chat::Tool> tools, std::string_view tail) {
      return chat::make_output_parser(chat::ChatFormat::kM2, std::move(tools), tail);
    };
    http_.host = "127.0.0.1";
    http_.port = 0;
    server_.emplace(http_, api_.router(), nullptr);
  }
  ~ApiTest() override { server_.reset(); }

  void set_ready() { api_.set_ready({*engine_, served_}); }
  uint16_t port() const { return server_->port(); }
  // Waits for what other threads do.
  static bool wait_until(const std::function<bool()>& is_true) {
    for (int i = 0; i < 2000; ++i) {
      if (is_true()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  static std::string endless(bool is_stream) {
    return Json{{"prompt", "x"}, {"max_tokens", 3500}, {"ignore_eos", true}, {"stream", is_stream}}.dump();
  }

  std::filesystem::path folder_ = std::filesystem::path(MINIMAX_SOURCE_DIR) / "models/demo-m2";
  testing::LoadedModel loaded_{folder_, {DType::kBF16}};
  tokenizer::Tokenizer tokenizer_ = tokenizer::Tokenizer::load(folder_);
  tokenizer::ChatTemplate template_ = tokenizer::ChatTemplate::load(folder_);
  openai::ServedModel served_;
  observe::Metrics metrics_{"demo"};
  http::ServerOptions http_;
  Api api_{{.names = {"demo"}, .api_keys = {}, .version = "1.2.3", .max_running = 4, .max_queue = 2},
           &metrics_,
           [] {
             return Json{{"step", "loading"}, {"done_bytes", 5}, {"total_bytes", 10}};
           }};
  std::optional<engine::Engine> engine_;
  std::optional<http::Server> server_;
};

Json body_of(const std::string& answer) { return Json::parse(answer.substr(answer.find("\r\n\r\n") + 4)); }

// MiniMax-M2.7#9: stuck at "waiting for engine" with no reason.
TEST_F(ApiTest, Complaint29_SaysHowFarALoadIsAndAnswersAfterwards) {
  Client client(port());
  client.get("/health");
  const std::string loading = client.take_answer();
  EXPECT_TRUE(loading.starts_with("HTTP/1.1 503 ")) << loading;
  EXPECT_EQ(body_of(loading).at("progress").at("done_bytes"), 5);
  client.post("/v1/completions", R"({"prompt":"x"})");
  const std::string early = client.take_answer();
  EXPECT_TRUE(early.starts_with("HTTP/1.1 503 ")) << early;
  EXPECT_NE(early.find("Retry-After: "), std::string::npos);
  client.get("/v1/models");
  EXPECT_EQ(body_of(client.take_answer()).at("data")[0].at("id"), "demo");

  set_ready();
  client.get("/health");
  EXPECT_TRUE(client.take_answer().starts_with("HTTP/1.1 200 "));
  client.post("/v1/completions", R"({"prompt":"x","max_tokens":3})");
  EXPECT_EQ(body_of(client.take_answer()).at("usage").at("completion_tokens"), 3);

  api_.set_draining();
  client.get("/ready");
  EXPECT_TRUE(client.take_answer().starts_with("HTTP/1.1 503 "));
  client.post("/v1/completions", R"({"prompt":"x"})");
  EXPECT_TRUE(client.take_answer().starts_with("HTTP/1.1 503 "));
}

TEST_F(ApiTest, ClientsThatLeaveFreeTheirPlaceAtOnce) {
  set_ready();
  for (const bool is_stream : {true, false}) {
    Client client(port());
    client.post("/v1/completions", endless(is_stream));
    if (is_stream) client.read_until("data: ");
    ASSERT_TRUE(wait_until([this] { return api_.num_open() == 1; }));
    client.close();
    EXPECT_TRUE(wait_until([this] { return api_.num_open() == 0; }));
  }
  EXPECT_LT(engine_->stats().generated_tokens, 7000);
}

TEST_F(ApiTest, AFullQueueIsToldSo) {
  set_ready();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(std::make_unique<Client>(port()));
    clients.back()->post("/v1/completions", endless(false));
    ASSERT_TRUE(wait_until([&] { return api_.num_open() == i + 1; }));
  }
  Client late(port());
  late.post("/v1/completions", endless(false));
  const std::string refused = late.take_answer();
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 429 ")) << refused;
  EXPECT_NE(refused.find("Retry-After: 1"), std::string::npos);
  EXPECT_EQ(body_of(refused).at("error").at("type"), "rate_limit_error");
  clients.clear();
  EXPECT_TRUE(wait_until([this] { return api_.num_open() == 0; }));
}

TEST_F(ApiTest, BadRequestsDisturbNoStream) {
  set_ready();
  Client stream(port());
  stream.post("/v1/completions",
              R"({"prompt":"What is 4?","max_tokens":200,"ignore_eos":true,"stream":true})");
  stream.read_until("data: ");
  for (const char* body : {"", "{", "[]", R"({"prompt":5})", R"({"prompt":"x","n":-1})", "\xff"}) {
    Client bad(port());
    bad.post("/v1/completions", body);
    EXPECT_TRUE(bad.take_answer().starts_with("HTTP/1.1 400 ")) << body;
  }
  const std::string& events = stream.read_until("0\r\n\r\n");
  EXPECT_NE(events.find(R"("finish_reason":"length")"), std::string::npos);
  EXPECT_NE(events.find("data: [DONE]\n\n"), std::string::npos);
}

TEST_F(ApiTest, StreamsAtATimeSayTheSameAsOne) {
  set_ready();
  const auto text_of = [](const std::string& events) {
    std::string text;
    for (size_t at = events.find("data: {"); at != std::string::npos; at = events.find("data: {", at + 1)) {
      const Json chunk = Json::parse(events.substr(at + 6, events.find("\n\n", at) - at - 6));
      const Json& delta = chunk.at("choices")[0].at("delta");
      text += delta.value("reasoning_content", "") + delta.value("content", "");
    }
    return text;
  };
  const auto ask = [this](int i) {
    Client client(port());
    const Json message = {{"role", "user"}, {"content", fmt::format("What is {} * 7?", 12 + i)}};
    client.post("/v1/chat/completions", Json{{"messages", {message}}, {"stream", true}}.dump());
    return client.read_until("0\r\n\r\n");
  };
  std::vector<std::string> events(6);
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) threads.emplace_back([&, i] { events[static_cast<size_t>(i)] = ask(i); });
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 6; ++i) {
    EXPECT_NE(text_of(events[static_cast<size_t>(i)]).find(std::to_string((12 + i) * 7)), std::string::npos)
        << events[static_cast<size_t>(i)];
  }
}

TEST_F(ApiTest, TheServerMayGoWhileAnswersAreUnderWay) {
  set_ready();
  Client stream(port());
  stream.post("/v1/completions", endless(true));
  stream.read_until("data: ");
  Client whole(port());
  whole.post("/v1/completions", endless(false));
  ASSERT_TRUE(wait_until([this] { return api_.num_open() == 2; }));
  EXPECT_EQ(server_->drain(std::chrono::milliseconds(1)), 2);
  server_.reset();
  EXPECT_TRUE(stream.is_closed_by_server());
  EXPECT_TRUE(wait_until([this] { return api_.num_open() == 0; }));
}

TEST_F(ApiTest, TheEngineMayGoWhileAnswersAreUnderWay) {
  set_ready();
  Client whole(port());
  whole.post("/v1/completions", endless(false));
  // The request has its place before the engine has it, and nobody may call an engine that goes.
  ASSERT_TRUE(wait_until([this] { return engine_->stats().generated_tokens > 0; }));
  engine_.reset();
  const std::string answer = whole.take_answer();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 503 ")) << answer;
}

}  // namespace
}  // namespace minimax::server
