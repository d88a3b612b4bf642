// Formats of answers in requests, on the bundled models: what is asked for is what comes.
#include "openai/constraint.h"

#include <gtest/gtest.h>

#include <regex>

#include "engine/engine.h"
#include "openai/request.h"
#include "tests/engine/family_models.h"

namespace minimax::openai {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

class StructuredAnswers : public ::testing::TestWithParam<std::string> {
 protected:
  StructuredAnswers() {
    served_.name = "demo";
    served_.tokenizer = &tokenizer_;
    served_.chat_template = &template_;
    served_.stop_token_ids = {tokenizer_.eos_id().value()};
    served_.max_model_len = 1024;
    served_.constraints = std::make_shared<Constraints>(tokenizer_);
    engine::EngineOptions options;
    options.max_model_len = 1024;
    options.max_sequences = 4;
    engine_ = std::make_unique<engine::Engine>(*loaded_.model, *loaded_.backend, options);
  }

  static Json chat(const Json& more, const std::string& text = "What is 12 + 30?") {
    Json body = {{"messages", {{{"role", "user"}, {"content", text}}}}, {"max_tokens", 500}};
    body.update(more);
    return body;
  }
  // The whole text, reasoning included; empty when the length cut it.
  std::string raw_answer(const engine::Request& request) {
    const engine::Completion completion = engine::complete(*engine_, request).front();
    if (completion.finish.reason != engine::FinishReason::kStop) return "";
    return tokenizer_.decode(completion.token_ids());
  }
  std::string answer(const Json& body) {
    const std::string text = raw_answer(parse_chat_completion(body, served_).request);
    const std::string end = GetParam() == "demo-m3" ? "</mm:think>" : "</think>";
    const size_t at = text.find(end);
    if (at == std::string::npos) return text;
    return text.substr(text.find_first_not_of('\n', at + end.size()));
  }
  std::string refusal(const Json& more) {
    try {
      parse_chat_completion(chat(more), served_);
    } catch (const ApiError& error) {
      return error.field() + ": " + error.what();
    }
    return "accepted";
  }

  fs::path folder_ = fs::path(MINIMAX_SOURCE_DIR) / "models" / GetParam();
  testing::LoadedModel loaded_{folder_, {DType::kBF16}};
  tokenizer::Tokenizer tokenizer_ = tokenizer::Tokenizer::load(folder_);
  tokenizer::ChatTemplate template_ = tokenizer::ChatTemplate::load(folder_);
  ServedModel served_;
  std::unique_ptr<engine::Engine> engine_;
};

constexpr const char* kSchema =
    R"({"type":"object","properties":{"sum":{"type":"integer"},"kind":{"enum":["addition","other"]}},"required":["sum","kind"],"additionalProperties":false})";

TEST_P(StructuredAnswers, AnswersAreOfTheFormatAskedFor) {
  for (int seed = 0; seed < 5; ++seed) {
    const Json common = {{"seed", seed}};
    const auto with = [&](Json more) {
      more.update(common);
      return chat(more);
    };
    const Json format = {
        {"type", "json_schema"},
        {"json_schema", {{"name", "x"}, {"strict", true}, {"schema", Json::parse(kSchema)}}}};
    for (const Json& body : {with({{"response_format", format}}),
                             with({{"guided_json", Json::parse(kSchema)}}), with({{"guided_json", kSchema}}),
                             with({{"structured_outputs", {{"json", Json::parse(kSchema)}}}})}) {
      const std::string text = answer(body);
      const Json value = Json::parse(text, nullptr, false);
      ASSERT_TRUE(value.is_object()) << text;
      EXPECT_TRUE(value.at("sum").is_number_integer()) << text;
      EXPECT_TRUE(value.at("kind") == "addition" || value.at("kind") == "other") << text;
    }
    const std::string free = answer(with({{"response_format", {{"type", "json_object"}}}}));
    EXPECT_TRUE(free.empty() || Json::parse(free, nullptr, false).is_object()) << free;
    EXPECT_TRUE(
        std::regex_match(answer(with({{"guided_regex", "[a-c]{3}-\\d{2}"}})), std::regex("[a-c]{3}-\\d{2}")));
    const std::string chosen = answer(with({{"guided_choice", {"yes", "no, \"never\""}}}));
    EXPECT_TRUE(chosen == "yes" || chosen == "no, \"never\"") << chosen;
    const std::string parsed =
        answer(with({{"guided_grammar", "root ::= \"<\" [x-z]+ \">\""}, {"logit_bias", Json::object()}}));
    EXPECT_TRUE(parsed.empty() || std::regex_match(parsed, std::regex("<[x-z]+>"))) << parsed;
  }
}

TEST_P(StructuredAnswers, TheModelStillReasonsFirst) {
  Json body = chat({{"temperature", 0}, {"guided_regex", "12 \\+ 30 = \\d+"}});
  const CompletionRequest parsed = parse_chat_completion(body, served_);
  const std::string text = raw_answer(parsed.request);
  EXPECT_EQ(answer(body), "12 + 30 = 42") << text;
  const std::string marker = GetParam() == "demo-m3" ? "mm:think>" : "think>";
  EXPECT_NE(text.find(marker), std::string::npos) << text;
}

TEST_P(StructuredAnswers, CompletionsAreConstrainedFromTheFirstToken) {
  const Json body = {
      {"prompt", "1 + 1 ="}, {"max_tokens", 20}, {"guided_regex", " [0-9]"}, {"temperature", 2}};
  const std::string text = raw_answer(parse_completion(body, served_).request);
  EXPECT_TRUE(std::regex_match(text, std::regex(" [0-9]"))) << text;
}

TEST_P(StructuredAnswers, CallsFollowTheToolsSchemas) {
  const Json parameters = Json::parse(R"({"type":"object","properties":{
      "city":{"type":"string"},"days":{"type":"integer","minimum":1,"maximum":9},"unit":{"enum":["C","F"]},
      "tags":{"type":"array","items":{"type":"integer","minimum":0,"maximum":9},"maxItems":3}},"required":["city","days"]})");
  const std::vector<grammar::CallTool> tools{{"get_weather", parameters}, {"now", nullptr}};
  const std::map<std::string, std::pair<grammar::CallFormat, std::string>> expected{
      {"demo-m1",
       {grammar::CallFormat::kM1,
        R"(<tool_calls>\n\{"name": ?"(get_weather", ?"arguments": ?\{ ?"city": ?"([^"\\]|\\.)*", ?"days": ?[1-9](, ?"unit": ?"[CF]")?(, ?"tags": ?\[[0-9, ]*\])? ?\}|now", ?"arguments": ?\{ ?\})\}\n</tool_calls>)"}},
      {"demo-m2",
       {grammar::CallFormat::kM2,
        R"(<minimax:tool_call>\n<invoke name="(get_weather">\n<parameter name="city">[^]*</parameter>\n<parameter name="days">[1-9]</parameter>\n(<parameter name="unit">[CF]</parameter>\n)?(<parameter name="tags">\[[0-9, \n\t]*\]</parameter>\n)?|now">\n)</invoke>\n</minimax:tool_call>)"}},
      {"demo-m3",
       {grammar::CallFormat::kM3,
        R"(N<tool_call>\nN<invoke name="(get_weather">N<city>[^]*N</city>N<days>[1-9]N</days>(N<unit>[CF]N</unit>)?(N<tags>(N<item>[0-9]N</item>)*N</tags>)?|now">)N</invoke>\nN</tool_call>)"}}};
  const auto& [format, pattern] = expected.at(GetParam());
  int num_whole = 0;
  for (int seed = 0; seed < 8; ++seed) {
    engine::Request request =
        parse_chat_completion(chat({{"seed", seed}, {"max_tokens", 300}}), served_).request;
    request.constraint = served_.constraints->of_calls(format, tools, false, {}, request.stop_token_ids);
    std::string text = raw_answer(request);
    if (text.empty()) continue;  // a city that does not end
    ++num_whole;
    for (size_t at = 0; (at = text.find("]<]minimax[>[")) != std::string::npos;) text.replace(at, 13, "N");
    EXPECT_TRUE(std::regex_match(text, std::regex(pattern))) << text;
  }
  EXPECT_GT(num_whole, 3);
}

TEST_P(StructuredAnswers, WhatIsWrongIsNamed) {
  const auto expect = [&](const Json& more, const std::string& part) {
    const std::string message = refusal(more);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect({{"response_format", {{"type", "text"}}}}, "accepted");
  expect({{"response_format", {{"type", "xml"}}}}, "response_format: response_format: expected type text");
  expect({{"response_format", {{"type", "json_schema"}}}}, "response_format.json_schema: ");
  expect({{"response_format",
           {{"type", "json_schema"}, {"json_schema", {{"schema", {{"not", Json::object()}}}}}}}},
         "response_format.json_schema.schema: JSON schema at /: \"not\"");
  expect({{"guided_json", "{"}}, "guided_json: expected a JSON schema");
  expect({{"guided_regex", "("}}, "guided_regex: regular expression: a missing )");
  expect({{"guided_regex", 5}}, "guided_regex: expected a text");
  expect({{"guided_choice", Json::array()}}, "guided_choice: expected a list of texts");
  expect({{"guided_grammar", "root ::= a"}}, "rule \"a\" is used and not defined");
  expect({{"guided_regex", "a"}, {"guided_choice", {"a"}}}, "cannot be given together");
  expect({{"structured_outputs", {{"regex", "a["}}}}, "structured_outputs.regex: ");
  expect({{"guided_regex", "a"}, {"ignore_eos", true}}, "leave out ignore_eos");
  served_.constraints = nullptr;
  expect({{"guided_choice", {"a"}}}, "not supported");
}

INSTANTIATE_TEST_SUITE_P(Bundled, StructuredAnswers, ::testing::Values("demo-m1", "demo-m2", "demo-m3"),
                         [](const auto& test) { return test.param.substr(5); });

}  // namespace
}  // namespace minimax::openai
