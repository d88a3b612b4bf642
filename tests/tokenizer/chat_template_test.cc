#include "tokenizer/chat_template.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tokenizer/load.h"

namespace minimax::tokenizer {
namespace {

using Json = nlohmann::ordered_json;

const std::string kFixtures = std::string(MINIMAX_SOURCE_DIR) + "/tests/fixtures";

ChatTemplate file_template(const std::string& name) {
  return ChatTemplate(read_if_exists(kFixtures + "/chat-templates/" + name));
}

const Json kTools = {
    {{"type", "function"}, {"function", {{"name", "f"}, {"parameters", {{"type", "object"}}}}}}};

// llama.cpp#27018: the template that comes with M1 does not take plain text.
TEST(ChatTemplate, Complaint26_M1TakesTextByConversion) {
  const ChatTemplate m1 = ChatTemplate::load(kFixtures + "/minimax-m1");
  const Json text = {{{"role", "system"}, {"content", "S"}}, {{"role", "user"}, {"content", "U"}}};
  const Json parts = {{{"role", "system"}, {"content", {{{"type", "text"}, {"text", "S"}}}}},
                      {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "U"}}}}}};
  const ChatPrompt from_text = m1.render(text, nullptr, true, nullptr);
  const ChatPrompt from_parts = m1.render(parts, nullptr, true, nullptr);
  EXPECT_EQ(from_text.text, from_parts.text);
  EXPECT_FALSE(from_text.notice.empty());
  EXPECT_TRUE(from_parts.notice.empty());
  EXPECT_EQ(from_text.text,
            "<begin_of_document><beginning_of_sentence>system ai_setting=assistant\nS<end_of_sentence>\n"
            "<beginning_of_sentence>user name=user\nU<end_of_sentence>\n<beginning_of_sentence>ai "
            "name=assistant\n");
}

TEST(ChatTemplate, M1KeepsAssistantTextAmongParts) {
  const ChatTemplate m1 = ChatTemplate::load(kFixtures + "/minimax-m1");
  const Json messages = {{{"role", "user"}, {"content", {{{"type", "text"}, {"text", "U"}}}}},
                         {{"role", "assistant"}, {"content", "A"}}};
  EXPECT_NE(m1.render(messages, nullptr, true, nullptr).text.find("assistant\nA<"), std::string::npos);
}

TEST(ChatTemplate, EmptyToolCallsAreDropped) {
  const ChatTemplate vllm = file_template("minimax-m1-vllm.jinja");
  const Json plain = {{{"role", "user"}, {"content", "U"}}, {{"role", "assistant"}, {"content", "A"}}};
  for (const Json& empty : {Json(nullptr), Json::array()}) {
    Json messages = plain;
    messages[1]["tool_calls"] = empty;
    EXPECT_EQ(vllm.render(messages, nullptr, false, nullptr).text,
              vllm.render(plain, nullptr, false, nullptr).text);
  }
}

TEST(ChatTemplate, BuiltinEqualsVllmOnPlainConversations) {
  const ChatTemplate builtin(builtin_m1_template());
  const ChatTemplate vllm = file_template("minimax-m1-vllm.jinja");
  const Json call = {{"type", "function"}, {"function", {{"name", "f"}, {"arguments", {{"x", "é"}}}}}};
  const std::vector<Json> conversations = {
      {{{"role", "user"}, {"content", " hi \n"}}},
      {{{"role", "system"}, {"content", "S"}}, {{"role", "user"}, {"content", "U"}}},
      {{{"role", "user"}, {"content", "U"}},
       {{"role", "assistant"}, {"content", ""}, {"tool_calls", {call, call}}},
       {{"role", "tool"}, {"content", "R"}},
       {{"role", "tool"}, {"content", {{{"type", "text"}, {"text", "P"}}}}},
       {{"role", "assistant"}, {"content", "A"}},
       {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "Q"}}, {{"type", "image"}}}}}}};
  for (const Json& messages : conversations) {
    for (const bool prompt : {false, true}) {
      EXPECT_EQ(builtin.render(messages, kTools, prompt, nullptr).text,
                vllm.render(messages, kTools, prompt, nullptr).text);
      EXPECT_EQ(builtin.render(messages, nullptr, prompt, nullptr).text,
                vllm.render(messages, nullptr, prompt, nullptr).text);
    }
  }
}

TEST(ChatTemplate, M2) {
  const ChatTemplate m2 = file_template("minimax-m2.jinja");
  const Json messages = {{{"role", "user"}, {"content", "Hi"}}};
  EXPECT_EQ(m2.render(messages, nullptr, true, nullptr).text,
            "]~!b[]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\nHi[e~[\n]~b]ai\n<think>\n");
  EXPECT_NE(
      m2.render(messages, nullptr, true, {{"model_identity", "You are Mini."}}).text.find("You are Mini."),
      std::string::npos);
  EXPECT_THROW(m2.render({{{"role", "tool"}, {"content", "x"}}}, nullptr, true, nullptr), jinja::RaisedError);
}

// MiniMax-AI/MiniMax-M2#14, llama.cpp#16904: M2 with M1's template calls in markup that nothing reads.
TEST(ChatTemplate, Complaint27_EachFamilyIsToldItsOwnMarkup) {
  const Json messages = {{{"role", "user"}, {"content", "Hi"}}};
  const auto prompt = [&](const std::string& model) {
    return ChatTemplate::load(std::string(MINIMAX_SOURCE_DIR) + "/models/" + model)
        .render(messages, kTools, true, nullptr)
        .text;
  };
  const std::string m1 = prompt("demo-m1");
  EXPECT_NE(m1.find("<tool_calls>"), std::string::npos) << m1;
  EXPECT_EQ(m1.find("minimax:tool_call"), std::string::npos) << m1;
  const std::string m2 = prompt("demo-m2");
  EXPECT_NE(m2.find("<minimax:tool_call>"), std::string::npos) << m2;
  EXPECT_EQ(m2.find("<tool_calls>"), std::string::npos) << m2;
  const std::string m3 = prompt("demo-m3");
  EXPECT_NE(m3.find("]<]minimax[>[<tool_call>"), std::string::npos) << m3;
  EXPECT_EQ(m3.find("<tool_calls>"), std::string::npos) << m3;
}

TEST(ChatTemplate, Complaint27_NoOtherFamilyGetsM1sTemplate) {
  const auto folder =
      std::filesystem::temp_directory_path() / fmt::format("minimax_no_template_{}", getpid());
  std::filesystem::create_directories(folder);
  for (const auto& [bos, is_m1] : {std::pair("<beginning_of_sentence>", true), {"]~!b[", false}}) {
    std::ofstream(folder / "tokenizer_config.json") << Json{{"bos_token", bos}};
    if (is_m1) {
      EXPECT_NO_THROW(ChatTemplate::load(folder));
    } else {
      EXPECT_THROW(ChatTemplate::load(folder), Error);
    }
  }
  std::filesystem::remove_all(folder);
}

TEST(ChatTemplate, SpecialTokensAndVariables) {
  const ChatTemplate t("{{ bos_token }}{{ thinking_mode }}{{ tools is none }}", {{"bos_token", "<b>"}});
  EXPECT_EQ(t.render(Json::array(), nullptr, true, {{"thinking_mode", "x"}}).text, "<b>xTrue");
  EXPECT_THROW(t.render("no list", nullptr, true, nullptr), Error);
}

TEST(ChatTemplate, FailuresNameTheCallersMessages) {
  const ChatTemplate t("{{ messages[0].content.x.y }}");
  EXPECT_THROW(t.render({{{"role", "user"}, {"content", "U"}}}, nullptr, true, nullptr), Error);
}

}  // namespace
}  // namespace minimax::tokenizer
