// Bodies and events of the Messages API, on the tokenizer and template of the bundled M2 model.
#include <gtest/gtest.h>

#include "anthropic/chat_body.h"
#include "anthropic/events.h"
#include "anthropic/request.h"

namespace minimax::anthropic {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

Json body(const std::string& text, const Json& more = {}) {
  Json result = {{"model", "demo"}, {"max_tokens", 9}, {"messages", {{{"role", "user"}, {"content", text}}}}};
  if (more.is_object()) result.update(more);
  return result;
}

const Json kTools = Json::parse(R"([{"name": "get_weather", "description": "d", "input_schema":
    {"type": "object", "properties": {"days": {"type": "integer"}}}}])");

class AnthropicTest : public ::testing::Test {
 protected:
  AnthropicTest() {
    served_.name = "demo";
    served_.tokenizer = &tokenizer_;
    served_.chat_template = &template_;
    served_.stop_token_ids = {7};
    served_.max_model_len = 1024;
  }

  std::string refusal(const Json& json) const {
    try {
      parse_messages(json, served_);
    } catch (const openai::ApiError& error) {
      return error.field() + ": " + error.what();
    }
    return "accepted";
  }

  fs::path folder_ = fs::path(MINIMAX_SOURCE_DIR) / "models/demo-m2";
  tokenizer::Tokenizer tokenizer_ = tokenizer::Tokenizer::load(folder_);
  tokenizer::ChatTemplate template_ = tokenizer::ChatTemplate::load(folder_);
  openai::ServedModel served_;
};

TEST(ChatBody, AConversationWithToolsInTheOtherWords) {
  const Json given = Json::parse(R"({
      "model": "m", "max_tokens": 5, "stop_sequences": ["X"], "temperature": 0.5, "top_k": 4, "metadata": {"user_id": "u"},
      "system": [{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "B"}],
      "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
      "tool_choice": {"type": "auto"}, "thinking": {"type": "enabled", "budget_tokens": 2000},
      "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [
          {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"},
          {"type": "text", "text": "Calling."},
          {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1]}},
          {"type": "tool_use", "id": "t2", "name": "f"}]},
        {"role": "user", "content": [
          {"type": "text", "text": "And"},
          {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
          {"type": "tool_result", "tool_use_id": "t2", "is_error": true,
           "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "2"}]},
          {"type": "text", "text": "now?"}]}]})");
  const Json expected = Json::parse(R"({
      "messages": [
        {"role": "system", "content": "A\nB"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Calling.", "reasoning_content": "hm", "tool_calls": [
          {"id": "t1", "type": "function", "function": {"name": "f", "arguments": {"a": [1]}}},
          {"id": "t2", "type": "function", "function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "tool", "tool_call_id": "t2", "content": "two\n2"},
        {"role": "user", "content": "And\nnow?"}],
      "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
      "tool_choice": "auto", "stop": ["X"], "model": "m", "max_tokens": 5, "temperature": 0.5, "top_k": 4,
      "chat_template_kwargs": {"thinking_mode": "enabled"}})");
  EXPECT_EQ(chat_body(given), expected) << chat_body(given).dump(1);
}

TEST(ChatBody, SaysWhatIsToBeCalled) {
  const auto choice = [](const Json& given) {
    return chat_body(body("x", {{"tools", kTools}, {"tool_choice", given}})).at("tool_choice");
  };
  EXPECT_EQ(choice({{"type", "none"}}), "none");
  EXPECT_EQ(choice({{"type", "auto"}}), "auto");
  EXPECT_EQ(choice({{"type", "any"}}), "required");
  EXPECT_EQ(choice({{"type", "tool"}, {"name", "get_weather"}}).at("function").at("name"), "get_weather");
}

TEST_F(AnthropicTest, ARequestSaysWhatItMeans) {
  const openai::CompletionRequest parsed = parse_messages(
      body("hi", {{"stream", true}, {"stop_sequences", {"END"}}, {"tools", kTools}, {"temperature", 0.25}}),
      served_);
  EXPECT_TRUE(parsed.is_stream);
  EXPECT_EQ(parsed.request.max_tokens, 9);
  EXPECT_FLOAT_EQ(parsed.request.sampling.temperature, 0.25F);
  EXPECT_EQ(parsed.stop, std::vector<std::string>{"END"});
  EXPECT_EQ(parsed.request.stop_token_ids, std::vector<int32_t>{7});
  ASSERT_EQ(parsed.tools.size(), 1U);
  EXPECT_EQ(parsed.tools[0].name, "get_weather");
  EXPECT_EQ(parsed.tools[0].parameters, kTools[0].at("input_schema"));
  EXPECT_TRUE(parsed.prompt_tail.ends_with("]~b]ai\n<think>\n")) << parsed.prompt_tail;
  const std::string prompt = tokenizer_.decode(parsed.request.prompt);
  EXPECT_NE(prompt.find("]~b]user\nhi[e~["), std::string::npos) << prompt;
  EXPECT_NE(prompt.find("get_weather"), std::string::npos) << prompt;
  EXPECT_FALSE(parse_messages(body("hi"), served_).is_stream);
}

TEST_F(AnthropicTest, CallsAndTheirResultsReachTheTemplate) {
  const Json messages = Json::parse(R"([{"role": "user", "content": "Weather?"},
      {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"},
        {"type": "tool_use", "id": "t", "name": "get_weather", "input": {"days": 3}}]},
      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "rain"}]}])");
  const auto parsed = parse_messages(body("", {{"messages", messages}, {"tools", kTools}}), served_);
  const std::string prompt = tokenizer_.decode(parsed.request.prompt);
  for (const char* part : {"<think>\nhm\n</think>", "<invoke name=\"get_weather\">",
                           "<parameter name=\"days\">3</parameter>", "<response>rain</response>"}) {
    EXPECT_NE(prompt.find(part), std::string::npos) << prompt;
  }
}

TEST_F(AnthropicTest, CountsTheTokensOfThePrompt) {
  const Json request = body("hi", {{"tools", kTools}, {"system", "Be brief."}});
  const auto prompt = parse_messages(request, served_).request.prompt;
  Json without_max = request;
  without_max.erase("max_tokens");
  EXPECT_EQ(count_tokens(without_max, served_), Json({{"input_tokens", prompt.size()}}));
  const Json longer = count_tokens(body(std::string(5000, 'x') + " y"), served_);
  EXPECT_GT(longer.at("input_tokens").get<int64_t>(), 100);
}

TEST_F(AnthropicTest, WhatIsWrongIsNamed) {
  const auto expect = [&](const std::string& part, const Json& json) {
    const std::string text = refusal(json);
    EXPECT_NE(text.find(part), std::string::npos) << text << " has no " << part;
  };
  const auto content = [](const Json& block) {
    return body("x", {{"messages", {{{"role", "user"}, {"content", Json::array({block})}}}}});
  };
  expect("body", Json::array());
  expect("messages: ", {{"max_tokens", 3}});
  expect("messages: ", body("x", {{"messages", Json::array({3})}}));
  expect("role user or assistant", body("x", {{"messages", {{{"role", "system"}, {"content", "x"}}}}}));
  expect("block of type \"image\"", content({{"type", "image"}, {"source", {}}}));
  expect("block of type \"document\"", content({{"type", "document"}}));
  expect("tool_use_id", content({{"type", "tool_result"}}));
  expect("messages: ", content({{"text", "x"}}));
  expect("messages: ", content({{"type", "text"}, {"text", 3}}));
  expect("messages: ", content(3));
  expect("the last message is the assistant's",
         body("x", {{"messages",
                     {{{"role", "user"}, {"content", "x"}}, {{"role", "assistant"}, {"content", "y"}}}}}));
  expect("system: ", body("x", {{"system", 3}}));
  expect("runs none itself", body("x", {{"tools", {{{"type", "web_search_20250305"}, {"name", "w"}}}}}));
  expect("input_schema", body("x", {{"tools", {{{"name", "w"}}}}}));
  expect("tool_choice is {\"type\":\"some\"}",
         body("x", {{"tools", kTools}, {"tool_choice", {{"type", "some"}}}}));
  expect("thinking: ", body("x", {{"thinking", {{"type", "sometimes"}}}}));
  expect("stop_sequences: ", body("x", {{"stop_sequences", "x"}}));
  expect("chat_template_kwargs: ",
         body("x", {{"chat_template_kwargs", 3}, {"thinking", {{"type", "enabled"}}}}));
  expect("temperature: ", body("x", {{"temperature", 3}}));
  expect("max_tokens: ", body("x", {{"max_tokens", 5000}}));
  expect("max_tokens is missing", {{"messages", {{{"role", "user"}, {"content", "x"}}}}});
  expect("stream: ", body("x", {{"stream", 1}}));
  EXPECT_EQ(refusal(body("x")), "accepted");
}

Events all_events(MessageStream& stream, const std::vector<chat::OutputDelta>& deltas,
                  const MessageEnd& end) {
  Events events = stream.start();
  for (const chat::OutputDelta& delta : deltas) {
    for (Json& event : stream.add(delta)) events.push_back(std::move(event));
  }
  for (Json& event : stream.finish(end)) events.push_back(std::move(event));
  return events;
}

chat::OutputDelta reasoning(const char* text) { return {text, "", {}}; }
chat::OutputDelta content(const char* text) { return {"", text, {}}; }
chat::OutputDelta call(int32_t index, const char* name, const char* arguments, bool is_last) {
  return {"", "", {{index, name, arguments, is_last}}};
}

TEST(MessageStream, ThinkingTextAndCallsAreBlocks) {
  MessageStream stream({"msg_1", "demo", 10});
  const Events events = all_events(stream,
                                   {reasoning("h"),
                                    {},
                                    reasoning("m"),
                                    content("Hi"),
                                    call(0, "f", "", false),
                                    call(0, "", "{\"a\": ", false),
                                    call(0, "", "1}", true),
                                    call(1, "g", "{}", true)},
                                   {engine::FinishReason::kStop, std::nullopt, false, 4, 21});
  const Json expected = Json::parse(R"([
      {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "demo",
       "content": [], "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 0}}},
      {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
      {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}},
      {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
      {"type": "content_block_stop", "index": 0},
      {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
      {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
      {"type": "content_block_stop", "index": 1},
      {"type": "content_block_start", "index": 2,
       "content_block": {"type": "tool_use", "id": "toolu_msg_1_0", "name": "f", "input": {}}},
      {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"a\": "}},
      {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
      {"type": "content_block_stop", "index": 2},
      {"type": "content_block_start", "index": 3,
       "content_block": {"type": "tool_use", "id": "toolu_msg_1_1", "name": "g", "input": {}}},
      {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
      {"type": "content_block_stop", "index": 3},
      {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
       "usage": {"input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 21}},
      {"type": "message_stop"}])");
  ASSERT_EQ(events.size(), expected.size());
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i], expected[i]) << events[i];

  EXPECT_EQ(message_body(events), Json::parse(R"(
      {"id": "msg_1", "type": "message", "role": "assistant", "model": "demo",
       "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "Hi"},
                   {"type": "tool_use", "id": "toolu_msg_1_0", "name": "f", "input": {"a": 1}},
                   {"type": "tool_use", "id": "toolu_msg_1_1", "name": "g", "input": {}}],
       "stop_reason": "tool_use", "stop_sequence": null,
       "usage": {"input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
                 "output_tokens": 21}})"));
}

MessageEnd end_of(engine::FinishReason reason) {
  MessageEnd end;
  end.reason = reason;
  return end;
}

Json message(const std::vector<chat::OutputDelta>& deltas, const MessageEnd& end) {
  MessageStream stream({"msg_1", "demo", 10});
  return message_body(all_events(stream, deltas, end));
}

TEST(MessageBody, SaysWhyItEnded) {
  using engine::FinishReason;
  EXPECT_EQ(message({content("a")}, end_of(FinishReason::kStop)).at("stop_reason"), "end_turn");
  EXPECT_EQ(message({content("a")}, end_of(FinishReason::kLength)).at("stop_reason"), "max_tokens");
  MessageEnd at_stop = end_of(FinishReason::kStop);
  at_stop.stop_sequence = "END";
  const Json stopped = message({content("a")}, at_stop);
  EXPECT_EQ(stopped.at("stop_reason"), "stop_sequence");
  EXPECT_EQ(stopped.at("stop_sequence"), "END");
  EXPECT_EQ(message({}, end_of(FinishReason::kStop)).at("content"), Json::array());
}

TEST(MessageBody, LeavesOutACallThatWasCut) {
  MessageEnd end = end_of(engine::FinishReason::kLength);
  end.is_call_cut = true;
  const Json cut = message({content("a"), call(0, "f", "{}", true), call(1, "g", "{\"x\": ", false)}, end);
  EXPECT_EQ(cut.at("stop_reason"), "max_tokens");
  ASSERT_EQ(cut.at("content").size(), 2U);
  EXPECT_EQ(cut.at("content")[1].at("name"), "f");
}

TEST(ErrorBody, NamesTheKindOfTheStatus) {
  EXPECT_EQ(error_body(400, "x"),
            Json::parse(R"({"type": "error", "error": {"type": "invalid_request_error", "message": "x"}})"));
  EXPECT_EQ(error_body(429, "").at("error").at("type"), "rate_limit_error");
  EXPECT_EQ(error_body(503, "").at("error").at("type"), "overloaded_error");
  EXPECT_EQ(error_body(500, "").at("error").at("type"), "api_error");
  EXPECT_EQ(error_body(422, "").at("error").at("type"), "invalid_request_error");
}

}  // namespace
}  // namespace minimax::anthropic
