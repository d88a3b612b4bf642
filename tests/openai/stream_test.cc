// Requests' messages and tools, and the chunks of streams, without a model.
#include <gtest/gtest.h>

#include "openai/fields.h"
#include "openai/messages.h"
#include "openai/response.h"
#include "tokenizer/byte_alphabet.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;

// A token for each byte; 256 is special.
tokenizer::Tokenizer byte_tokenizer() {
  tokenizer::TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    spec.vocabulary[tokenizer::byte_to_character(static_cast<uint8_t>(byte))] = byte;
  }
  spec.added_tokens.push_back({256, "<end>", true});
  spec.added_tokens.push_back({257, "</think>", true});
  return tokenizer::Tokenizer(std::move(spec));
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const ApiError& error) {
    return error.what();
  }
  return "accepted";
}

class StreamTest : public ::testing::Test {
 protected:
  StreamTest() {
    model_.name = "demo";
    model_.tokenizer = &tokenizer_;
    model_.make_parser = [](std::vector<chat::Tool> tools, std::string_view tail) {
      return chat::make_output_parser(chat::ChatFormat::kM2, std::move(tools), tail);
    };
    request_.is_chat = true;
    request_.is_stream = true;
    request_.prompt_tail = "]~b]ai\n<think>\n";
    request_.request.prompt = {1, 2, 3};
    request_.tools = {{"get_time", Json::parse(R"({"properties":{"zone":{"type":"string"}}})")}};
  }

  std::vector<int32_t> ids_of(std::string_view text) const { return tokenizer_.encode(text); }
  // All chunks of an answer, and the sample at its end.
  std::vector<Json> stream(std::string_view text, engine::FinishReason reason = engine::FinishReason::kStop) {
    Answer answer(request_, model_);
    ChunkWriter writer(request_, model_, info_, 0);
    std::vector<Json> chunks;
    const auto keep = [&chunks](std::vector<Json> more) {
      for (Json& chunk : more) chunks.push_back(std::move(chunk));
    };
    int64_t count = 0;
    for (const int32_t id : ids_of(text)) {
      ++count;
      const chat::OutputDelta delta = answer.push({id, -0.5F, {}});
      keep(writer.add(delta, answer.sample()));
      if (answer.is_stopped()) break;
    }
    engine::FinishedSample finish;
    finish.reason = reason;
    finish.num_tokens = count;
    const chat::OutputDelta delta = answer.finish(finish);
    keep(writer.finish(delta, answer.sample()));
    sample_ = answer.sample();
    return chunks;
  }
  static std::string joined(const std::vector<Json>& chunks, const char* field) {
    std::string text;
    for (const Json& chunk : chunks) text += chunk.at("choices")[0].at("delta").value(field, "");
    return text;
  }

  tokenizer::Tokenizer tokenizer_ = byte_tokenizer();
  ServedModel model_;
  CompletionRequest request_;
  ResponseInfo info_{"chatcmpl-1", 5};
  TextSample sample_;
};

TEST_F(StreamTest, ChunksPutTogetherAreTheWholeAnswer) {
  const auto chunks = stream(
      "Let me see.\n</think>\n\nIt is:\n<minimax:tool_call>\n<invoke name=\"get_time\">\n"
      "<parameter name=\"zone\">Europe/Zürich</parameter>\n</invoke>\n</minimax:tool_call>");
  EXPECT_EQ(chunks.front().at("choices")[0].at("delta").at("role"), "assistant");
  EXPECT_EQ(chunks.back().at("choices")[0].at("finish_reason"), "tool_calls");
  EXPECT_EQ(joined(chunks, "reasoning_content"), sample_.reasoning);
  EXPECT_EQ(joined(chunks, "reasoning"), sample_.reasoning);
  EXPECT_NE(sample_.reasoning.find("Let me see."), std::string::npos);
  EXPECT_EQ(joined(chunks, "content"), sample_.text);
  EXPECT_NE(sample_.text.find("It is:"), std::string::npos);

  std::string arguments;
  int num_heads = 0;
  for (const Json& chunk : chunks) {
    EXPECT_EQ(chunk.at("object"), "chat.completion.chunk");
    for (const Json& call : chunk.at("choices")[0].at("delta").value("tool_calls", Json::array())) {
      EXPECT_EQ(call.at("index"), 0);
      num_heads += call.contains("id") ? 1 : 0;
      EXPECT_EQ(call.at("function").value("name", ""), call.contains("id") ? "get_time" : "");
      arguments += call.at("function").value("arguments", "");
    }
  }
  EXPECT_EQ(num_heads, 1);
  EXPECT_EQ(Json::parse(arguments), (Json{{"zone", "Europe/Zürich"}}));

  const Json body = completion_body(request_, model_, {sample_}, info_);
  const Json& message = body.at("choices")[0].at("message");
  EXPECT_EQ(message.at("tool_calls")[0].at("function").at("arguments"), arguments);
  EXPECT_EQ(message.at("reasoning_content"), sample_.reasoning);
  const int64_t reasoning_tokens = body.at("usage").at("completion_tokens_details").at("reasoning_tokens");
  EXPECT_GT(reasoning_tokens, 10);
  EXPECT_LT(reasoning_tokens, sample_.finish.num_tokens);
}

TEST_F(StreamTest, SpecialTokensOfTheMarkupReachTheParserAndOthersAreHidden) {
  stream("why</think>be<end>cause");
  EXPECT_EQ(sample_.reasoning, "why");
  EXPECT_EQ(sample_.text, "because");
  request_.skip_special_tokens = false;
  stream("why</think>be<end>cause");
  EXPECT_EQ(sample_.text, "be<end>cause");
}

TEST_F(StreamTest, ACallThatIsCutIsLeftOutAndTheReasonIsTheLength) {
  stream("</think>\n<minimax:tool_call>\n<invoke name=\"get_time\">\n<parameter name=\"zone\">Eu",
         engine::FinishReason::kLength);
  EXPECT_EQ(sample_.finish_reason(), "length");
  const Json body = completion_body(request_, model_, {sample_}, info_);
  EXPECT_FALSE(body.at("choices")[0].at("message").contains("tool_calls"));
}

TEST_F(StreamTest, StopStringsEndAnswersBeforeTheyAreParsed) {
  request_.stop = {"STOP"};
  stream("a</think>one STOP two");
  EXPECT_EQ(sample_.text, "one ");
  EXPECT_EQ(sample_.finish_reason(), "stop");
}

TEST_F(StreamTest, EachTokensLogprobComesOnce) {
  request_.wants_logprobs = true;
  request_.stop = {"never"};
  const std::string text = "r</think>neve, über";
  size_t count = 0;
  for (const Json& chunk : stream(text)) {
    const Json& logprobs = chunk.at("choices")[0].at("logprobs");
    if (logprobs.is_object()) count += logprobs.at("content").size();
  }
  EXPECT_EQ(count, ids_of(text).size());
}

TEST_F(StreamTest, TextStreamsEchoAndUsage) {
  request_.is_chat = false;
  request_.echo = true;
  request_.includes_usage = true;
  request_.request.prompt = ids_of("Once");
  std::string text;
  for (const Json& chunk : stream(" upon")) {
    EXPECT_EQ(chunk.at("object"), "text_completion");
    EXPECT_TRUE(chunk.at("usage").is_null());
    text += chunk.at("choices")[0].at("text").get<std::string>();
  }
  EXPECT_EQ(text, "Once upon");
  const Json last = usage_chunk(request_, model_, {&sample_, 1}, info_);
  EXPECT_TRUE(last.at("choices").empty());
  EXPECT_EQ(last.at("usage").at("completion_tokens"), 5);
}

TEST(MessagesTest, AreBroughtIntoTheFormOfTemplates) {
  const tokenizer::ChatTemplate format("{{ messages }}");
  const Json body = Json::parse(R"({"messages": [
    {"role": "developer", "content": "d"},
    {"role": "assistant", "content": null, "reasoning": "r",
     "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": [1]}"}},
                    {"id": "2", "type": "function", "function": {"name": "g", "arguments": ""}}]}]})");
  const Json messages = read_messages(body, format);
  EXPECT_EQ(messages[0].at("role"), "system");
  EXPECT_EQ(messages[1].at("content"), "");
  EXPECT_EQ(messages[1].at("reasoning_content"), "r");
  EXPECT_EQ(messages[1].at("tool_calls")[0].at("function").at("arguments"), (Json{{"a", {1}}}));
  EXPECT_EQ(messages[1].at("tool_calls")[1].at("function").at("arguments"), Json::object());
  EXPECT_EQ(read_messages(body, tokenizer::ChatTemplate("{{ 'developer' }}"))[0].at("role"), "developer");
}

// A stream cannot take back what it sent; a whole answer can.
TEST_F(StreamTest, AWholeAnswerIsReadAsAWhole) {
  model_.make_parser = [](std::vector<chat::Tool> tools, std::string_view tail) {
    return chat::make_output_parser(chat::ChatFormat::kM1, std::move(tools), tail);
  };
  request_.prompt_tail = "ai name=MiniMax AI\n";
  const char* text = "Two plus two.\n</think>\n\nIt is 4.";
  request_.is_stream = false;
  stream(text);
  EXPECT_EQ(sample_.reasoning, "Two plus two.");
  EXPECT_EQ(sample_.text, "It is 4.");
  request_.is_stream = true;
  EXPECT_EQ(joined(stream(text), "content"), sample_.text);
  EXPECT_EQ(sample_.reasoning, "");
}

TEST(MessagesTest, ToolsAreNamedOnlyWhereTheModelMayCall) {
  Json body = {{"tools", {{{"type", "function"}, {"function", {{"name", "f"}}}}}}};
  EXPECT_EQ(tools_of(read_tools(body, read_tool_choice(body))).size(), 1U);
  body["tool_choice"] = "none";
  EXPECT_TRUE(read_tools(body, read_tool_choice(body)).is_null());
  body["tool_choice"] = "required";
  EXPECT_TRUE(read_tool_choice(body).is_forced());
  EXPECT_EQ(read_tools(body, read_tool_choice(body)).size(), 1U);
  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "g"}}}};
  EXPECT_NE(refusal([&] { read_tools(body, read_tool_choice(body)); }).find("one of the tools"),
            std::string::npos);
  body["tools"] = Json::array();
  EXPECT_NE(refusal([&] { read_tools(body, read_tool_choice(body)); }).find("there are no tools"),
            std::string::npos);
}

TEST(FieldsTest, JsonThatIsNoneSaysWhere) {
  EXPECT_EQ(parse_json(R"({"a": [1, "x]"]})").at("a")[1], "x]");
  EXPECT_NE(refusal([] { parse_json("{\"a\": tru}"); }).find("byte 10"), std::string::npos);
  EXPECT_NE(refusal([] { parse_json("{\"a\": "); }).find("ends after 6 bytes"), std::string::npos);
  EXPECT_NE(refusal([] { parse_json(std::string(101, '[')); }).find("deeper than 100 levels at byte 100"),
            std::string::npos);
  EXPECT_NE(refusal([] { parse_json(std::string(100, '[')); }).find("too early"), std::string::npos);
  EXPECT_NE(refusal([] { parse_json("\"\xff\""); }).find("no JSON"), std::string::npos);
}

}  // namespace
}  // namespace minimax::openai
