// Items in and out of conversations, events, and the store of answers, without a model.
#include <gtest/gtest.h>

#include "openai/fields.h"
#include "openai/response_store.h"
#include "openai/responses_events.h"
#include "openai/responses_input.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;

Json messages(const char* items, const std::string& instructions = "") {
  return messages_of_items(Json::parse(items), instructions);
}

TEST(ResponsesInput, OneTurnIsOneMessage) {
  const Json result = messages(R"([
    {"role": "user", "content": "a"},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "r"}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "x"},
    {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "y"}]},
    {"type": "function_call", "call_id": "c3", "name": "f", "arguments": "{}"}])");
  ASSERT_EQ(result.size(), 5U);
  EXPECT_EQ(result[1].at("content"), "b");
  EXPECT_EQ(result[1].at("reasoning_content"), "r");
  EXPECT_EQ(result[1].at("tool_calls").size(), 2U);
  EXPECT_EQ(result[2], (Json{{"role", "tool"}, {"tool_call_id", "c1"}, {"content", "x"}}));
  EXPECT_EQ(result[3].at("content"), "y");
  EXPECT_EQ(result[4].at("tool_calls")[0].at("id"), "c3");
}

TEST(ResponsesInput, ReasoningBehindAnAnswerBeginsATurn) {
  const Json result = messages(R"([
    {"role": "assistant", "content": "a"},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]},
    {"role": "assistant", "content": "b"}])");
  ASSERT_EQ(result.size(), 2U);
  EXPECT_FALSE(result[0].contains("reasoning_content"));
  EXPECT_EQ(result[1].at("reasoning_content"), "s");
  EXPECT_EQ(result[1].at("content"), "b");
}

TEST(ResponsesInput, SystemMessagesInFrontAreOne) {
  const Json result = messages(R"([{"role": "developer", "content": "b"}, {"role": "user", "content": "c"},
                                   {"role": "system", "content": "d"}])",
                               "a");
  EXPECT_EQ(result, Json::parse(R"([{"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "c"},
                                    {"role": "user", "content": "d"}])"));
}

TEST(ResponsesInput, ForeignOpaqueReasoningIsLeftOut) {
  const Json result = messages(R"([{"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"},
                                   {"type": "reasoning", "summary": [], "encrypted_content": "minimax:r"},
                                   {"role": "assistant", "content": "b"}])");
  ASSERT_EQ(result.size(), 1U);
  EXPECT_EQ(result[0].at("reasoning_content"), "r");
}

chat::OutputDelta text(const std::string& content) { return {"", content, {}}; }
chat::OutputDelta call(const std::string& name, const std::string& arguments, bool is_last) {
  return {"", "", {{0, name, arguments, is_last}}};
}

std::vector<std::string> types(const ResponsesStream::Events& events) {
  std::vector<std::string> result;
  for (const Json& event : events) result.push_back(event.at("type"));
  return result;
}

TEST(ResponsesStream, SpacesBeforeACallAreNoMessage) {
  ResponsesStream stream({"n", 1, 2, false}, Json::object());
  EXPECT_EQ(stream.start().size(), 2U);
  EXPECT_TRUE(stream.add(text("\n")).empty());
  EXPECT_EQ(types(stream.add(call("f", "{}", true))),
            (std::vector<std::string>{"response.output_item.added", "response.function_call_arguments.delta",
                                      "response.function_call_arguments.done", "response.output_item.done"}));
  stream.finish({});
  EXPECT_EQ(stream.response().at("output").size(), 1U);
}

TEST(ResponsesStream, SpacesInsideTextStay) {
  ResponsesStream stream({"n", 1, 2, false}, Json::object());
  stream.add(text("\n"));
  stream.add(text("a"));
  stream.add(text(" "));
  TextSample sample;
  sample.finish.reason = engine::FinishReason::kStop;
  stream.finish(sample);
  EXPECT_EQ(stream.response().at("output")[0].at("content")[0].at("text"), "\na ");
  EXPECT_EQ(stream.response().at("status"), "completed");
}

TEST(ResponsesStream, ACutCallIsClosedAndNoPartOfTheResponse) {
  ResponsesStream stream({"n", 1, 2, false}, Json::object());
  stream.add(call("f", "{\"a\":", false));
  TextSample sample;
  sample.is_call_cut = true;
  const auto events = stream.finish(sample);
  EXPECT_EQ(types(events), (std::vector<std::string>{"response.function_call_arguments.done",
                                                     "response.output_item.done", "response.incomplete"}));
  EXPECT_EQ(events[1].at("item").at("status"), "incomplete");
  EXPECT_TRUE(stream.response().at("output").empty());
}

TEST(ResponsesStream, AFailureIsTold) {
  ResponsesStream stream({"n", 1, 2, false}, Json::object());
  stream.start();
  const auto events = stream.fail("it broke");
  ASSERT_EQ(types(events), std::vector<std::string>{"response.failed"});
  EXPECT_EQ(events[0].at("response").at("error").at("message"), "it broke");
  EXPECT_EQ(events[0].at("sequence_number"), 2);
}

TEST(ResponseStore, ForgetsWhatWasUsedLongestAgo) {
  ResponseStore store(2, 1000);
  store.put("a", {"1", ""});
  store.put("b", {"2", ""});
  EXPECT_EQ(store.get("a")->body, "1");
  store.put("c", {"3", ""});
  EXPECT_FALSE(store.get("b"));
  EXPECT_TRUE(store.get("a"));
  EXPECT_TRUE(store.erase("a"));
  EXPECT_FALSE(store.erase("a"));
}

TEST(ResponseStore, HoldsNoMoreBytesThanItMay) {
  ResponseStore store(100, 1000);
  store.put("a", {std::string(600, 'x'), ""});
  store.put("b", {std::string(600, 'x'), ""});
  EXPECT_FALSE(store.get("a"));
  EXPECT_TRUE(store.get("b"));
  store.put("c", {std::string(2000, 'x'), ""});
  EXPECT_FALSE(store.get("c"));
  EXPECT_FALSE(ResponseStore(0, 1000).is_on());
}

}  // namespace
}  // namespace minimax::openai
