// The commands that turn text into structure and back: parse and render.
#include <nlohmann/json.hpp>

#include "tests/apps/cli.h"
#include "tokenizer/chat_template.h"

namespace minimax {
namespace {

using testing::expect_one_clear_line;
using testing::Folder;
using testing::minimax;
using testing::Outcome;
using testing::write;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

const fs::path kSource = MINIMAX_SOURCE_DIR;

constexpr std::string_view kFunction =
    R"({"name": "get_weather", "parameters": {"type": "object", "properties": {"days": {"type": "integer"}}}})";
constexpr std::string_view kM2Text =
    "Hm.\n</think>\n\nLooking.\n<minimax:tool_call>\n<invoke name=\"get_weather\">\n"
    "<parameter name=\"days\">3</parameter>\n</invoke>\n</minimax:tool_call>";

Json parsed(const std::string& arguments, std::string_view text) {
  const Outcome outcome = minimax("parse " + arguments, std::string(text));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  return Json::parse(outcome.out);
}

TEST(Parse, PrintsOneJsonObject) {
  EXPECT_EQ(parsed("--family m2", kM2Text), Json::parse(R"({"reasoning": "Hm.", "content": "Looking.",
                            "tool_calls": [{"name": "get_weather", "arguments": {"days": "3"}}]})"));
  EXPECT_EQ(parsed("--family m3 --prompt-tail '<mm:think>'", "a</mm:think>b"),
            Json::parse(R"({"reasoning": "a", "content": "b", "tool_calls": []})"));
  EXPECT_EQ(parsed("--family m1",
                   "<think>\nx\n</think>\n<tool_calls>\n{\"name\": \"f\", \"arguments\": {\"a\": [1]}}\n"),
            Json::parse(R"({"reasoning": "x", "content": "",
                            "tool_calls": [{"name": "f", "arguments": {"a": [1]}}]})"));
}

TEST(Parse, TakesToolsInBothShapes) {
  const Folder folder;
  write(folder.path / "functions.json", fmt::format("[{}]", kFunction));
  write(folder.path / "tools.json", fmt::format(R"([{{"type": "function", "function": {}}}])", kFunction));
  for (const char* file : {"functions.json", "tools.json"}) {
    const Json answer = parsed(fmt::format("--family m2 --tools {}", (folder.path / file).string()), kM2Text);
    EXPECT_EQ(answer.at("tool_calls"), Json::parse(R"([{"name": "get_weather", "arguments": {"days": 3}}])"))
        << file;
  }
}

TEST(Parse, LeavesOutACutCall) {
  const Json answer = parsed("--family m2", std::string_view(kM2Text).substr(0, kM2Text.size() - 40));
  EXPECT_EQ(answer, Json::parse(R"({"reasoning": "Hm.", "content": "Looking.", "tool_calls": []})"));
}

TEST(Parse, TheTailOfThePromptDecides) {
  EXPECT_EQ(parsed("--family m2 --prompt-tail x", "a").at("content"), "a");
  EXPECT_EQ(parsed("--family m2", "a").at("reasoning"), "a");
}

TEST(Parse, BadInputIsOneClearLine) {
  const Folder folder;
  write(folder.path / "no_list.json", "{}");
  write(folder.path / "no_name.json", R"([{"type": "function", "function": {}}])");
  EXPECT_EQ(minimax("parse").exit_code, 2);
  expect_one_clear_line(minimax("parse --family m4"), {"m4", "m1, m2 or m3"});
  const std::string tools = "parse --family m2 --tools " + folder.path.string();
  expect_one_clear_line(minimax(tools + "/absent.json"), {"absent.json", "cannot be read"});
  expect_one_clear_line(minimax(tools + "/no_list.json"), {"no_list.json", "JSON list"});
  expect_one_clear_line(minimax(tools + "/no_name.json"), {"function", "no name"});
}

// A folder with M2's template and nothing else.
void write_model(const Folder& folder) {
  fs::copy_file(kSource / "tests/fixtures/chat-templates/minimax-m2.jinja",
                folder.path / "chat_template.jinja");
  write(folder.path / "messages.json", R"([{"role": "user", "content": "Wie spät?\n"}])");
  write(folder.path / "tools.json", fmt::format(R"([{{"type": "function", "function": {}}}])", kFunction));
}

TEST(Render, PrintsWhatTheTemplateGives) {
  const Folder folder;
  write_model(folder);
  const auto chat_template = tokenizer::ChatTemplate::load(folder.path);
  const Json messages = Json::parse(testing::read(folder.path / "messages.json"));
  const Json tools = Json::parse(testing::read(folder.path / "tools.json"));
  const std::string base =
      fmt::format("render --model {0} --messages {0}/messages.json", folder.path.string());
  EXPECT_EQ(
      minimax(base).out,
      "]~!b[]~b]system\nYou are a helpful assistant.[e~[\n]~b]user\nWie spät?\n[e~[\n]~b]ai\n<think>\n");
  EXPECT_EQ(minimax(base + fmt::format(" --tools {}/tools.json", folder.path.string())).out,
            chat_template.render(messages, tools, true, nullptr).text);
  EXPECT_EQ(minimax(base + R"( --chat-template-kwargs '{"model_identity": "You are X."}')").out,
            "]~!b[]~b]system\nYou are X.[e~[\n]~b]user\nWie spät?\n[e~[\n]~b]ai\n<think>\n");
  EXPECT_EQ(minimax(fmt::format("render --model {} --messages -", folder.path.string()), messages.dump()).out,
            minimax(base).out);
}

TEST(Render, BadInputIsOneClearLine) {
  const Folder folder;
  write_model(folder);
  write(folder.path / "bad.json", "[3]");
  const std::string base = fmt::format("render --model {0} --messages {0}/", folder.path.string());
  EXPECT_EQ(minimax("render --model x").exit_code, 2);
  expect_one_clear_line(minimax(base + "absent.json"), {"--messages", "absent.json"});
  expect_one_clear_line(minimax(base + "bad.json"), {"--messages", "3 is no message"});
  expect_one_clear_line(minimax(base + "messages.json --chat-template-kwargs 3"),
                        {"--chat-template-kwargs 3"});
  expect_one_clear_line(
      minimax("render --model /nowhere --messages " + (folder.path / "messages.json").string()),
      {"/nowhere"});
}

}  // namespace
}  // namespace minimax
