// The transport over loopback, with handlers that need no model.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "http/access.h"
#include "http/router.h"
#include "http/server.h"
#include "tests/http/client.h"

namespace minimax::http {
namespace {

using std::chrono::milliseconds;
using testing::Client;

// Lets a test wait for what other threads do.
class Signal {
 public:
  void set() {
    const std::lock_guard lock(mutex_);
    is_set_ = true;
    changed_.notify_all();
  }
  bool is_set() {
    const std::lock_guard lock(mutex_);
    return is_set_;
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [this] { return is_set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_set_ = false;
};

class HttpTest : public ::testing::Test {
 protected:
  HttpTest() {
    options_.host = "127.0.0.1";
    options_.port = 0;
    options_.workers = 4;
    using Access = Router::Access;
    router_.get("/hello", Access::kAnyone, [](const Request& r) {
      return Response{200, "hello " + r.query, "text/plain", {}};
    });
    router_.get("/secret/*", Access::kKey, [](const Request&) {
      return Response{200, "s", "text/plain", {}};
    });
    router_.remove("/secret/*", [](const Request& r) {
      return Response{200, "gone " + r.path, "text/plain", {}};
    });
    router_.post("/echo", Access::kAnyone, [](const Request& request, const std::shared_ptr<Reply>& reply) {
      reply->send({200, request.body, "text/plain", {}});
    });
    router_.post("/throw", Access::kAnyone, [](const Request&, const std::shared_ptr<Reply>&) -> void {
      throw std::runtime_error("thrown");
    });
    router_.post("/forget", Access::kAnyone, [](const Request&, const std::shared_ptr<Reply>&) {});
    // Streams until the client leaves or the test says so.
    router_.post("/stream", Access::kAnyone,
                 [this](const Request& request, const std::shared_ptr<Reply>& reply) {
                   reply->on_close([this] { left_.set(); });
                   reply->begin({200, "begin;", "text/plain", {}});
                   const size_t count = request.body.empty() ? 3 : std::stoul(request.body);
                   for (size_t i = 0; i < count && reply->write(fmt::format("piece {};", i)); ++i) {
                   }
                   if (request.query == "hold") {
                     const std::lock_guard lock(mutex_);
                     held_.push_back(reply);
                     holding_.set();
                     return;
                   }
                   reply->end();
                 });
    // Writes without an end until nobody reads.
    router_.post("/flood", Access::kAnyone, [this](const Request&, const std::shared_ptr<Reply>& reply) {
      reply->begin({200, "", "text/plain", {}});
      const std::string piece(100'000, 'x');
      while (reply->write(piece)) std::this_thread::sleep_for(milliseconds(1));
      flooded_.set();
    });
  }
  ~HttpTest() override { held_.clear(); }

  Server& start() { return server_.emplace(options_, router_, nullptr); }

  static Response format_error(std::string_view /*path*/, int status, const std::string& message) {
    return {status, "error: " + message, "text/plain", {}};
  }
  void release(std::string_view last) {
    const std::lock_guard lock(mutex_);
    for (const auto& reply : held_) {
      reply->write(last);
      reply->end();
    }
    held_.clear();
  }

  ServerOptions options_;
  Router router_{format_error, {"key-one", "key-two"}};
  std::mutex mutex_;
  std::vector<std::shared_ptr<Reply>> held_;
  Signal left_, flooded_, holding_;
  std::optional<Server> server_;
};

TEST_F(HttpTest, AnswersManyRequestsOfOneConnection) {
  Client client(start().port());
  for (int i = 0; i < 5; ++i) {
    client.get(fmt::format("/hello?{}", i));
    const std::string answer = client.take_answer();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
    EXPECT_NE(answer.find("Connection: keep-alive"), std::string::npos);
    EXPECT_TRUE(answer.ends_with(fmt::format("hello {}", i))) << answer;
  }
  const std::string body(300'000, 'b');
  client.post("/echo", body);
  EXPECT_TRUE(client.take_answer().ends_with(body));
  EXPECT_EQ(server_->num_connections(), 1);
}

TEST_F(HttpTest, AnswersPipelinedRequestsInOrder) {
  Client client(start().port());
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    requests += fmt::format("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{:04}", i);
    requests += fmt::format("GET /hello?{} HTTP/1.1\r\nHost: x\r\n\r\n", i);
  }
  client.send(requests);
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(client.take_answer().ends_with(fmt::format("\r\n\r\n{:04}", i)));
    EXPECT_TRUE(client.take_answer().ends_with(fmt::format("hello {}", i)));
  }
}

TEST_F(HttpTest, TakesBodiesInChunksAndAsksForThem) {
  Client client(start().port());
  client.send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n");
  EXPECT_TRUE(client.take_answer().ends_with("abcdefg"));
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.take_answer(), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("xyz");
  EXPECT_TRUE(client.take_answer().ends_with("xyz"));
}

TEST_F(HttpTest, ARefusalIsNoAnswerToTheRequestBefore) {
  Client client(start().port());
  client.send("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/9.9\r\n\r\n");
  const std::string& answers = client.read_all();
  EXPECT_NE(answers.find("HTTP/1.1 505"), std::string::npos) << answers;
  EXPECT_NE(answers.find("this server speaks HTTP/1.1"), std::string::npos) << answers;
}

TEST_F(HttpTest, KnowsMethods) {
  const uint16_t port = start().port();
  Client client(port);
  client.send("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.read_until("\r\n\r\n").find("Content-Length: 6\r\n"), std::string::npos);
  client.clear();
  client.send("OPTIONS /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.take_answer().find("Allow: POST, OPTIONS"), std::string::npos);
  client.send("DELETE /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string refused = client.take_answer();
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 405 ")) << refused;
  EXPECT_NE(refused.find("Allow: POST, OPTIONS"), std::string::npos);
  client.send("DELETE /secret/7 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(client.take_answer().starts_with("HTTP/1.1 401 "));
  client.send("DELETE /secret/7 HTTP/1.1\r\nHost: x\r\nx-api-key: key-one\r\n\r\n");
  EXPECT_TRUE(client.take_answer().ends_with("gone /secret/7"));
  client.get("/nothing");
  EXPECT_TRUE(client.take_answer().starts_with("HTTP/1.1 404 "));
  Client old(port);
  old.send("POST /stream HTTP/1.0\r\nContent-Length: 1\r\n\r\n2");
  const std::string answer = old.read_all();
  EXPECT_TRUE(answer.ends_with("\r\n\r\nbegin;piece 0;piece 1;")) << answer;
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
}

TEST_F(HttpTest, StreamsInChunks) {
  Client client(start().port());
  client.post("/stream", "2");
  const std::string answer = client.read_until("0\r\n\r\n");
  EXPECT_NE(answer.find("Transfer-Encoding: chunked"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("6\r\nbegin;\r\n8\r\npiece 0;\r\n8\r\npiece 1;\r\n0\r\n\r\n")) << answer;
}

TEST_F(HttpTest, HandlersThatFailAreAnswered) {
  Client client(start().port());
  client.post("/throw", "");
  EXPECT_TRUE(client.take_answer().ends_with("error: thrown"));
  client.post("/forget", "");
  EXPECT_TRUE(client.take_answer().starts_with("HTTP/1.1 500 "));
}

TEST_F(HttpTest, WantsKeys) {
  Client client(start().port());
  const auto ask = [&client](const std::string& header) {
    client.send("GET /secret/a HTTP/1.1\r\nHost: x\r\n" + header + "\r\n");
    return client.take_answer().substr(9, 3);
  };
  EXPECT_EQ(ask(""), "401");
  EXPECT_EQ(ask("Authorization: Bearer key-one\r\n"), "200");
  EXPECT_EQ(ask("authorization: bearer  key-two\r\n"), "200");
  EXPECT_EQ(ask("X-Api-Key: key-two\r\n"), "200");
  EXPECT_EQ(ask("Authorization: Bearer key-on\r\n"), "401");
  EXPECT_EQ(ask("Authorization: Bearer \r\n"), "401");
  EXPECT_EQ(ask("Authorization: Basic key-one\r\n"), "401");
  EXPECT_FALSE(equals_in_constant_time("aa", "a"));
  EXPECT_FALSE(equals_in_constant_time("", "a"));
  EXPECT_TRUE(equals_in_constant_time("abc", "abc"));
}

TEST_F(HttpTest, LetsNamedOriginsReadAnswers) {
  options_.allowed_origins = {"https://good.example"};
  Client client(start().port());
  const auto ask = [&client](const std::string& origin) {
    client.send("OPTIONS /secret/a HTTP/1.1\r\nHost: x\r\nAccess-Control-Request-Method: GET\r\nOrigin: " +
                origin + "\r\n\r\n");
    return client.take_answer();
  };
  EXPECT_NE(ask("https://good.example").find("Access-Control-Allow-Origin: https://good.example"),
            std::string::npos);
  EXPECT_EQ(ask("https://bad.example").find("Access-Control"), std::string::npos);
}

TEST_F(HttpTest, RefusesWhatIsTooLongOrNoRequest) {
  options_.max_header_bytes = 2000;
  options_.max_body_bytes = 1000;
  const uint16_t port = start().port();
  const auto ask = [port](const std::string& bytes) {
    Client client(port);
    client.send(bytes);
    const std::string answer = client.read_all();
    EXPECT_NE(answer.find("error: "), std::string::npos) << bytes.substr(0, 60) << " gave " << answer;
    return answer.substr(9, 3);
  };
  EXPECT_EQ(ask("GET /hello HTTP/1.1\r\nX: " + std::string(3000, 'x') + "\r\n\r\n"), "431");
  EXPECT_EQ(ask("GET /" + std::string(500'000, 'x')), "431");
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nContent-Length: 1001\r\n\r\n"), "413");
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"), "400");
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), "400");
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + std::string(1001, 'x')),
            "413");
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "400");
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), "400");
  EXPECT_EQ(ask("\x16\x03\x01\x02 TLS\r\n\r\n"), "400");
  EXPECT_EQ(ask("GET /hello\r\n\r\n"), "400");
  EXPECT_EQ(ask("GET /hello HTTP/9.9\r\n\r\n"), "505");
  EXPECT_EQ(ask("GET /hello HTTP/1.1\r\nno colon\r\n\r\n"), "400");
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nContent-Length: 3\r\nExpect: miracles\r\n\r\n"), "417");
  EXPECT_EQ(ask("POST /nothing HTTP/1.1\r\nContent-Length: 900\r\n\r\n" + std::string(900, 'x')), "404");
  Client good(port);
  good.get("/hello");
  EXPECT_TRUE(good.take_answer().starts_with("HTTP/1.1 200 OK"));
}

TEST_F(HttpTest, SlowClientsAreToldAndBlockNobody) {
  options_.header_timeout = milliseconds(100);
  options_.body_timeout = milliseconds(150);
  options_.idle_timeout = milliseconds(200);
  const uint16_t port = start().port();
  Client header(port);
  header.send("GET /hello HTTP/1.1\r\nX:");
  Client body(port);
  body.send("POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
  Client idle(port);
  Client good(port);
  good.get("/hello");
  EXPECT_TRUE(good.take_answer().starts_with("HTTP/1.1 200 OK"));
  EXPECT_TRUE(header.read_all().starts_with("HTTP/1.1 408 "));
  EXPECT_TRUE(body.read_all().starts_with("HTTP/1.1 408 "));
  EXPECT_TRUE(idle.is_closed_by_server());
  EXPECT_EQ(idle.read_all(), "");
}

TEST_F(HttpTest, AClientThatLeavesIsNoticedAtOnce) {
  Client client(start().port());
  client.post("/stream?hold", "1");
  client.read_until("piece 0;");
  client.close();
  EXPECT_TRUE(left_.wait());
  ASSERT_TRUE(holding_.wait());
  const std::lock_guard lock(mutex_);
  EXPECT_FALSE(held_.at(0)->write("late"));
}

TEST_F(HttpTest, AClientThatHasItsAnswerDoesNotLeave) {
  Client client(start().port());
  client.post("/stream", "2");
  client.read_until("0\r\n\r\n");
  client.clear();
  client.get("/hello");
  client.take_answer();
  client.close();
  server_->drain(milliseconds(100));
  EXPECT_FALSE(left_.is_set());
}

TEST_F(HttpTest, AClientThatReadsTooSlowlyIsDroppedWhileOthersGoOn) {
  options_.max_unread_bytes = 1 << 20;
  const uint16_t port = start().port();
  Client slow(port, 4096);
  slow.post("/flood", "");
  Client stream(port);
  stream.post("/stream?hold", "1");
  stream.read_until("piece 0;");
  EXPECT_TRUE(flooded_.wait());
  ASSERT_TRUE(holding_.wait());
  release("last;");
  EXPECT_TRUE(stream.read_until("0\r\n\r\n").ends_with("last;\r\n0\r\n\r\n"));
}

TEST_F(HttpTest, AClientThatTakesNothingIsDropped) {
  options_.max_unread_bytes = int64_t{1} << 30;
  options_.write_timeout = milliseconds(200);
  Client slow(start().port(), 4096);
  slow.post("/flood", "");
  EXPECT_TRUE(flooded_.wait());
}

TEST_F(HttpTest, MalformedRequestsAreAnsweredWhileAStreamGoesOn) {
  const uint16_t port = start().port();
  Client stream(port);
  stream.post("/stream?hold", "1");
  stream.read_until("piece 0;");
  for (int i = 0; i < 50; ++i) {
    Client bad(port);
    bad.send("NONSENSE\r\n\r\n");
    EXPECT_TRUE(bad.read_until("\r\n").starts_with("HTTP/1.1 400 "));
  }
  ASSERT_TRUE(holding_.wait());
  release("last;");
  EXPECT_TRUE(stream.read_until("0\r\n\r\n").ends_with("last;\r\n0\r\n\r\n"));
}

TEST_F(HttpTest, TooManyConnectionsAreToldSo) {
  options_.max_connections = 3;
  const uint16_t port = start().port();
  Client a(port);
  Client b(port);
  Client c(port);
  for (Client* client : {&a, &b, &c}) {
    client->get("/hello");
    client->take_answer();
  }
  Client d(port);
  EXPECT_TRUE(d.read_all().starts_with("HTTP/1.1 503 "));
  a.get("/hello");
  EXPECT_TRUE(a.take_answer().starts_with("HTTP/1.1 200 OK"));
}

TEST_F(HttpTest, DrainsAnswersUnderWay) {
  const uint16_t port = start().port();
  Client idle(port);
  Client stream(port);
  stream.post("/stream?hold", "1");
  stream.read_until("piece 0;");
  ASSERT_TRUE(holding_.wait());
  int64_t num_cut = -1;
  std::thread drain([&] { num_cut = server_->drain(std::chrono::seconds(20)); });
  EXPECT_TRUE(idle.is_closed_by_server());
  EXPECT_FALSE(Client(port).is_connected());
  release("last;");
  drain.join();
  EXPECT_EQ(num_cut, 0);
  EXPECT_TRUE(stream.read_all().ends_with("last;\r\n0\r\n\r\n"));
}

TEST_F(HttpTest, CutsOffWhatOutlastsTheGrace) {
  Client stream(start().port());
  stream.post("/stream?hold", "1");
  stream.read_until("piece 0;");
  ASSERT_TRUE(holding_.wait());
  EXPECT_EQ(server_->drain(milliseconds(10)), 1);
  EXPECT_TRUE(left_.wait());
  EXPECT_TRUE(stream.is_closed_by_server());
}

TEST_F(HttpTest, AnAddressInUseIsAClearError) {
  options_.port = start().port();
  try {
    Server(options_, router_, nullptr);
    FAIL() << "two servers on one port";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("choose another port"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace minimax::http
