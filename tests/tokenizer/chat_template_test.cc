#include "tokenizer/chat_template.h"

#include <gtest/gtest.h>

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

TEST(ChatTemplate, M1TakesTextByConversion) {
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
