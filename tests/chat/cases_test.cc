// Whole answers of the three families with hand-written expectations, cut in every way.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>

#include "tests/chat/answer.h"

namespace minimax::testing {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = MINIMAX_SOURCE_DIR;

struct Case {
  std::string id;
  Prompt prompt;
  std::string text;
  bool is_stream_equal = true;
  std::vector<std::string> chunks;
  Json expected;
};

std::vector<Case> read_cases(const fs::path& file) {
  std::vector<Case> cases;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const Json json = Json::parse(line);
    Case read;
    read.id = json.at("id");
    const std::string family = json.at("family");
    read.prompt = {chat::parse_chat_format(family), tools_of(json.at("tools")), json.at("prompt_tail")};
    read.text = json.at("generated_text");
    read.is_stream_equal = json.value("stream_equal", true);
    read.chunks = json.value("chunks", std::vector<std::string>());
    read.expected = json.at("expected");
    cases.push_back(std::move(read));
  }
  return cases;
}

// Order of keys and 5 or 5.0 make no difference.
bool is_same_value(const std::string& text, const Json& expected) {
  return nlohmann::json::parse(text) == nlohmann::json::parse(expected.dump());
}

void expect_case(const Case& c, const Answer& answer) {
  EXPECT_EQ(answer.reasoning, c.expected.at("reasoning")) << c.id;
  EXPECT_EQ(answer.content, c.expected.at("content")) << c.id;
  const Json& calls = c.expected.at("tool_calls");
  ASSERT_EQ(answer.calls.size(), calls.size()) << c.id << ": " << shown(answer);
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(answer.calls[i].name, calls[i].at("name")) << c.id;
    EXPECT_TRUE(is_same_value(answer.calls[i].arguments, calls[i].at("arguments")))
        << c.id << ": " << answer.calls[i].arguments << " is not " << calls[i].at("arguments");
  }
  if (c.expected.contains("is_call_cut")) {
    EXPECT_EQ(answer.is_call_cut, c.expected.at("is_call_cut").get<bool>()) << c.id;
  }
}

void expect_same(const Case& c, const Answer& whole, const std::vector<std::string_view>& pieces) {
  const Answer cut = parse(c.prompt, pieces);
  if (whole.same_as(cut)) return;
  std::string shape;
  for (const std::string_view piece : pieces) shape += std::to_string(piece.size()) + " ";
  ADD_FAILURE() << c.id << " cut into " << shape << "\n" << shown(whole) << "\n" << shown(cut);
}

// Every pair of cuts, whose number grows with the square of the size; every single cut of longer texts.
void expect_two_cuts(const Case& c, const Answer& whole, size_t longest) {
  const size_t size = c.text.size();
  const bool has_second = size <= longest;
  for (size_t first = 0; first <= size; ++first) {
    for (size_t second = first; second <= (has_second ? size : first); ++second) {
      expect_same(c, whole, pieces_of(c.text, {first, second}));
      if (::testing::Test::HasFailure()) return;
    }
  }
}

void expect_random_cuts(const Case& c, const Answer& whole) {
  std::mt19937 random(static_cast<uint32_t>(c.text.size()));
  for (int round = 0; round < 200; ++round) {
    std::vector<size_t> cuts(2 + random() % 20);
    for (size_t& cut : cuts) cut = random() % (c.text.size() + 1);
    std::sort(cuts.begin(), cuts.end());
    expect_same(c, whole, pieces_of(c.text, cuts));
  }
}

void check_case(const Case& c, size_t longest_for_two_cuts) {
  const Answer whole = parse(c.prompt, c.text);
  expect_case(c, whole);
  if (!c.is_stream_equal) return;
  expect_same(c, whole, bytes_of(c.text));
  if (!c.chunks.empty()) expect_same(c, whole, {c.chunks.begin(), c.chunks.end()});
  expect_random_cuts(c, whole);
  expect_two_cuts(c, whole, longest_for_two_cuts);
}

// `family`.jsonl of the folder of cases that lies beside the repository, if it does.
fs::path find_shared_cases(const std::string& family) {
  const char* named = std::getenv("MINIMAX_SHARED_DATA");
  for (const fs::path& data :
       {fs::path(named == nullptr ? "" : named), kSource / "../shared/data", kSource / "../../shared/data"}) {
    const fs::path file = data / "parser-cases" / (family + ".jsonl");
    if (!data.empty() && fs::exists(file)) return file;
  }
  return {};
}

class Cases : public ::testing::TestWithParam<const char*> {};

TEST_P(Cases, Own) {
  const auto cases =
      read_cases(kSource / "tests/fixtures/parser-cases-own" / (std::string(GetParam()) + ".jsonl"));
  EXPECT_FALSE(cases.empty());
  for (const Case& c : cases) check_case(c, 160);
  std::cout << cases.size() << " cases\n";
}

TEST_P(Cases, Shared) {
  const fs::path file = find_shared_cases(GetParam());
  if (file.empty()) GTEST_SKIP() << "no parser-cases beside the repository: the repository's own are tested";
  const auto cases = read_cases(file);
  EXPECT_FALSE(cases.empty());
  for (const Case& c : cases) check_case(c, std::string::npos);
  std::cout << cases.size() << " cases\n";
}

INSTANTIATE_TEST_SUITE_P(Families, Cases, ::testing::Values("m1", "m2", "m3"),
                         [](const auto& name) { return std::string(name.param); });

}  // namespace
}  // namespace minimax::testing
