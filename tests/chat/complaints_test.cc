// What users of other servers reported of tool calls and reasoning with these models, each as a test that
// bears the number of our list; the public reports are named beside them. parser_test.cc has more of 21
// and 24.
#include "tests/chat/answer.h"

namespace minimax::testing {
namespace {

using chat::ChatFormat;

std::vector<chat::Tool> weather_tools() {
  return tools_of(Json::parse(R"([{"name": "get_weather", "parameters": {"type": "object", "properties": {
      "city": {"type": "string"}, "days": {"type": "integer"}}}}])"));
}

// An answer of each family: some reasoning, some content, two calls of the same tool.
struct Sample {
  Prompt prompt;
  std::string text;
};

std::vector<Sample> samples() {
  return {{{ChatFormat::kM1, weather_tools(), "ai\n"},
           "<think>\nTwo cities.\n</think>\n\nLooking.\n<tool_calls>\n"
           "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 1}}\n"
           "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\", \"days\": 2}}\n</tool_calls>"},
          {{ChatFormat::kM2, weather_tools(), "]~b]ai\n<think>\n"},
           "Two cities.\n</think>\n\nLooking.\n<minimax:tool_call>\n"
           "<invoke name=\"get_weather\">\n<parameter name=\"city\">Oslo</parameter>\n<parameter "
           "name=\"days\">1</parameter>\n</invoke>\n"
           "<invoke name=\"get_weather\">\n<parameter name=\"city\">Rome</parameter>\n<parameter "
           "name=\"days\">2</parameter>\n</invoke>\n</minimax:tool_call>"},
          {{ChatFormat::kM3, weather_tools(), "]~b]ai\n<mm:think>"},
           "Two cities.</mm:think>Looking.]<]minimax[>[<tool_call>\n"
           "]<]minimax[>[<invoke "
           "name=\"get_weather\">]<]minimax[>[<city>Oslo]<]minimax[>[</city>]<]minimax[>[<days>1"
           "]<]minimax[>[</days>]<]minimax[>[</invoke>\n"
           "]<]minimax[>[<invoke "
           "name=\"get_weather\">]<]minimax[>[<city>Rome]<]minimax[>[</city>]<]minimax[>[<days>2"
           "]<]minimax[>[</days>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>"}};
}

// The deltas that come for each byte in turn.
std::vector<chat::OutputDelta> deltas_of(const Sample& sample) {
  const auto parser = chat::make_output_parser(sample.prompt.format, sample.prompt.tools, sample.prompt.tail);
  std::vector<chat::OutputDelta> deltas;
  for (const std::string_view byte : bytes_of(sample.text)) deltas.push_back(parser->push(byte));
  deltas.push_back(parser->finish());
  return deltas;
}

// vllm#39649, #40779, #36073, #36116: arguments came only when the call was whole.
TEST(Complaint, Complaint21_ArgumentsArriveBeforeTheInvokeCloses) {
  for (const Sample& sample : samples()) {
    if (sample.prompt.format == ChatFormat::kM1)
      continue;  // whose calls are lines of JSON, told line by line
    const size_t close = sample.text.find("</invoke>");
    const auto deltas = deltas_of(sample);
    std::string early;
    for (size_t i = 0; i < close; ++i) {
      for (const chat::CallDelta& call : deltas[i].calls) early += call.arguments;
    }
    EXPECT_TRUE(early.starts_with(R"({"city": "Oslo", "days": )")) << early;
  }
}

// sglang#23071: a stream gave the second call no name and ran its arguments into the first's.
TEST(Complaint, Complaint22_TheSecondCallHasItsOwnNameAndArguments) {
  for (const Sample& sample : samples()) {
    std::vector<std::string> names;
    std::vector<std::string> arguments;
    for (const chat::OutputDelta& delta : deltas_of(sample)) {
      for (const chat::CallDelta& call : delta.calls) {
        const auto index = static_cast<size_t>(call.index);
        ASSERT_LE(index, names.size());
        ASSERT_EQ(index == names.size(), !call.name.empty());
        if (index == names.size()) {
          names.push_back(call.name);
          arguments.emplace_back();
        }
        arguments[index] += call.arguments;
      }
    }
    EXPECT_EQ(names, (std::vector<std::string>{"get_weather", "get_weather"}));
    ASSERT_EQ(arguments.size(), 2U);
    EXPECT_EQ(Json::parse(arguments[0]), (Json{{"city", "Oslo"}, {"days", 1}}));
    EXPECT_EQ(Json::parse(arguments[1]), (Json{{"city", "Rome"}, {"days", 2}}));
  }
}

// vllm#46042: reasoning and its markers in the content of a stream. Here with every cut, with reasoning that
// the model opens again, and after content.
TEST(Complaint, Complaint23_NoReasoningInContentOfAStream) {
  for (Sample sample : samples()) {
    const bool is_m3 = sample.prompt.format == ChatFormat::kM3;
    for (const std::string opened : {"", is_m3 ? "<mm:think>" : "<think>\n"}) {
      if (sample.prompt.format == ChatFormat::kM1 && !opened.empty()) continue;
      const std::string text = opened + sample.text;
      for (size_t cut = 0; cut <= text.size(); ++cut) {
        const Answer answer = parse(sample.prompt, pieces_of(text, {cut}));
        ASSERT_EQ(answer.content.find("think"), std::string::npos) << shown(answer);
        ASSERT_EQ(answer.content.find("Two cities"), std::string::npos) << shown(answer);
        ASSERT_NE(answer.content.find("Looking."), std::string::npos) << shown(answer);
      }
    }
  }
  const Prompt closed = {ChatFormat::kM3, {}, "</mm:think>"};
  const Answer again = parse(closed, bytes_of("One.<mm:think>hidden</mm:think>Two."));
  EXPECT_EQ(again.content, "One.Two.");
  EXPECT_EQ(again.reasoning, "hidden");
}

// vllm#51075: M3 leaves out the first parameter's opening tag, and every later call was lost.
TEST(Complaint, Complaint24_ACallWithoutItsFirstOpeningTagHidesNoLaterCall) {
  const Prompt prompt = {ChatFormat::kM3, weather_tools(), "</mm:think>"};
  const std::string text =
      "]<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name=\"get_weather\">Oslo]<]minimax[>[</city>"
      "]<]minimax[>[<days>1]<]minimax[>[</days>]<]minimax[>[</invoke>\n"
      "]<]minimax[>[<invoke "
      "name=\"get_weather\">]<]minimax[>[<city>Rome]<]minimax[>[</city>]<]minimax[>[</invoke>\n"
      "]<]minimax[>[</tool_call>";
  for (const Answer& answer : {parse(prompt, text), parse(prompt, bytes_of(text))}) {
    ASSERT_FALSE(answer.calls.empty());
    EXPECT_EQ(answer.calls.back(), (Answer::Call{"get_weather", R"({"city": "Rome"})"})) << shown(answer);
    EXPECT_EQ(answer.content, "");
    for (const auto& call : answer.calls) EXPECT_TRUE(Json::accept(call.arguments)) << shown(answer);
  }
}

// sglang#22637, cubist38/mlx-openai-server#179: nothing in reasoning_content unless asked for by a flag.
TEST(Complaint, Complaint25_ReasoningIsSplitByDefault) {
  for (const Sample& sample : samples()) {
    for (const Answer& answer :
         {parse(sample.prompt, sample.text), parse(sample.prompt, bytes_of(sample.text))}) {
      EXPECT_NE(answer.reasoning.find("Two cities."), std::string::npos) << shown(answer);
      EXPECT_NE(answer.content.find("Looking."), std::string::npos) << shown(answer);
    }
  }
}

// vllm#30555: an IndexError in the middle of a stream.
TEST(Complaint, Complaint25_AStreamMayEndAnywhere) {
  for (const Sample& sample : samples()) {
    for (size_t end = 0; end <= sample.text.size(); ++end) {
      const Answer answer = parse(sample.prompt, bytes_of(std::string_view(sample.text).substr(0, end)));
      for (const auto& call : answer.calls) ASSERT_TRUE(Json::accept(call.arguments)) << shown(answer);
    }
  }
}

}  // namespace
}  // namespace minimax::testing
