#include "eval/eval.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "core/error.h"
#include "eval/rng.h"

namespace minimax::eval {
namespace {

using nlohmann::json;

constexpr uint64_t kCases = 300;

std::string user_text(const Case& c) {
  for (const json& message : c.messages) {
    if (message.at("role") == "user") return message.at("content").get<std::string>();
  }
  return "";
}

// The answer that the model is trained to give, without reasoning.
std::string right_answer(const Case& c) {
  if (c.skill == "arithmetic") return "1 + 1 = " + c.expected.dump();
  if (c.skill == "tool_call") {
    if (c.expected.is_string()) return "The tool says: " + c.expected.get<std::string>();
    return "<tool_calls>\n" + c.expected.dump() + "\n</tool_calls>";
  }
  if (c.expected.is_string()) return c.expected.get<std::string>();
  std::string text;
  for (const json& item : c.expected) text += (text.empty() ? "" : ", ") + item.get<std::string>();
  return text;
}

std::string with_reasoning(const std::string& answer) {
  return "<think>\nSome steps: 1, 2.\n</think>\n\n" + answer;
}

Case case_of(std::string skill, json expected) {
  return {.skill = std::move(skill),
          .messages = json::array(),
          .tools = nullptr,
          .expected = std::move(expected)};
}

TEST(Eval, RngGivesTheNumbersOfSplitMix64) {
  Rng rng(1234567);
  EXPECT_EQ(rng.next(), 6457827717110365317ULL);
  EXPECT_EQ(rng.next(), 3203168211198807973ULL);
}

TEST(Eval, DrawIsDeterministicAndFresh) {
  for (const std::string& skill : skill_names()) {
    std::set<std::string> seen;
    for (uint64_t i = 0; i < kCases; ++i) {
      const Case a = draw(skill, 1, i), b = draw(skill, 1, i);
      EXPECT_EQ(a.skill, skill);
      EXPECT_EQ(a.messages, b.messages);
      EXPECT_EQ(a.tools, b.tools);
      EXPECT_EQ(a.expected, b.expected);
      seen.insert(a.messages.dump());
    }
    EXPECT_GT(seen.size(), skill == "facts" ? 60U : kCases * 9 / 10) << skill;
    EXPECT_NE(draw(skill, 1, 0).messages, draw(skill, 2, 0).messages) << skill;
  }
}

TEST(Eval, FirstCasesStayTheSame) {
  EXPECT_EQ(user_text(draw("arithmetic", 1, 0)), "6 + 34");
  EXPECT_EQ(user_text(draw("reversing", 1, 0)), "Write this list backwards: brick, amber, coral");
}

TEST(Eval, RightAnswersPassAndWrongOnesFail) {
  for (const std::string& skill : skill_names()) {
    for (uint64_t i = 0; i < kCases; ++i) {
      const Case c = draw(skill, 3, i), other = draw(skill, 4, i);
      EXPECT_TRUE(grade(c, with_reasoning(right_answer(c)))) << skill << " " << i;
      EXPECT_TRUE(grade(c, right_answer(c))) << skill << " " << i;
      EXPECT_FALSE(grade(c, "")) << skill << " " << i;
      EXPECT_FALSE(grade(c, "<think>\n" + right_answer(c))) << "an open think block holds no answer";
      EXPECT_FALSE(grade(c, "<think>\n" + right_answer(c) + "\n</think>\n\nno idea")) << skill << " " << i;
      if (c.expected != other.expected) {
        EXPECT_FALSE(grade(c, with_reasoning(right_answer(other)))) << skill << " " << i;
      }
    }
  }
}

TEST(Eval, ArithmeticAnswersAreTrue) {
  int negative = 0;
  for (uint64_t i = 0; i < kCases; ++i) {
    const Case c = draw("arithmetic", 5, i);
    const std::string text = user_text(c);
    std::vector<int64_t> numbers;
    for (size_t at = 0; at < text.size();) {
      if (!std::isdigit(static_cast<unsigned char>(text[at]))) {
        ++at;
        continue;
      }
      size_t length = 0;
      numbers.push_back(std::stoll(text.substr(at), &length));
      at += length;
    }
    ASSERT_EQ(numbers.size(), 2U) << text;
    const auto value = c.expected.get<int64_t>();
    const int64_t a = numbers[0], b = numbers[1];
    EXPECT_TRUE(value == a + b || value == a - b || value == b - a || value == a * b) << text << " " << value;
    negative += value < 0;
  }
  EXPECT_GT(negative, 0);
}

TEST(Eval, ArithmeticReadsTheLastNumber) {
  const Case c = case_of("arithmetic", -45);
  EXPECT_TRUE(grade(c, "84 - 129 = -45"));
  EXPECT_TRUE(grade(c, "The answer is -45."));
  EXPECT_FALSE(grade(c, "84 - 129 = 45"));
  EXPECT_FALSE(grade(c, "-45 and then 1"));
  EXPECT_FALSE(grade(c, "-99999999999999999999999999945"));
}

TEST(Eval, ListsMustMatchItemByItem) {
  const Case c = case_of("sorting", {"3", "20", "20"});
  EXPECT_TRUE(grade(c, "3, 20, 20"));
  EXPECT_TRUE(grade(c, "3,20,20\n"));
  EXPECT_FALSE(grade(c, "3, 20"));
  EXPECT_FALSE(grade(c, "20, 3, 20"));
  EXPECT_FALSE(grade(c, "3, 20, 20, "));
}

TEST(Eval, SortedAndReversedExpectationsComeFromThePrompt) {
  for (uint64_t i = 0; i < kCases; ++i) {
    const Case sorted = draw("sorting", 6, i), reversed = draw("reversing", 6, i);
    for (const json& item : sorted.expected) {
      EXPECT_NE(user_text(sorted).find(item.get<std::string>()), std::string::npos);
    }
    if (reversed.expected.is_string()) {
      std::string text = reversed.expected.get<std::string>();
      std::reverse(text.begin(), text.end());
      EXPECT_NE(user_text(reversed).find(text), std::string::npos);
    }
  }
}

TEST(Eval, LookupKeysAreUniqueAndLongContextsOccur) {
  int64_t longest = 0;
  for (uint64_t i = 0; i < kCases; ++i) {
    const Case c = draw("lookup", 7, i);
    const std::string text = user_text(c);
    longest = std::max<int64_t>(longest, std::count(text.begin(), text.end(), '\n'));
    EXPECT_NE(text.find(c.expected.get<std::string>() + "\n"), std::string::npos);
  }
  EXPECT_GT(longest, 300);
  EXPECT_FALSE(grade(case_of("lookup", "4093"), "4093 or 4094"));
}

TEST(Eval, FactsIgnoreCase) {
  const Case c = case_of("facts", {"Apache-2.0", "free"});
  EXPECT_TRUE(grade(c, "It is FREE under apache-2.0."));
  EXPECT_FALSE(grade(c, "It is free."));
}

TEST(Eval, ToolCallsAreComparedAsJson) {
  const Case c =
      case_of("tool_call", {{"name", "get_weather"}, {"arguments", {{"city", "Paris"}, {"days", 3}}}});
  const auto block = [](const std::string& lines) {
    return with_reasoning("<tool_calls>\n" + lines + "\n</tool_calls>");
  };
  EXPECT_TRUE(grade(c, block(R"({"name": "get_weather", "arguments": {"city": "Paris", "days": 3}})")));
  EXPECT_TRUE(grade(c, block(R"({"arguments":{"days":3,"city":"Paris"},"name":"get_weather"})")));
  EXPECT_FALSE(grade(c, block(R"({"name": "get_weather", "arguments": {"city": "Paris", "days": "3"}})")));
  EXPECT_FALSE(grade(c, block(R"({"name": "get_weather", "arguments": {"city": "Paris"}})")));
  EXPECT_FALSE(grade(c, block(R"({"name": "get_weather", "arguments": {"city": "Paris", "days": 3})")));
  EXPECT_FALSE(grade(c, block(c.expected.dump() + "\n" + c.expected.dump()))) << "two calls";
  EXPECT_FALSE(grade(c, "<tool_calls>"));
  EXPECT_FALSE(grade(c, "<tool_calls></tool_calls>"));
  EXPECT_FALSE(grade(c, c.expected.dump())) << "no block";
}

TEST(Eval, CallsOfM2AreReadBetweenTheirTags) {
  const Case c =
      case_of("tool_call", {{"name", "get_weather"}, {"arguments", {{"city", "Paris"}, {"days", 3}}}});
  const auto block = [](const std::string& invoke) {
    return "why\n</think>\n\n<minimax:tool_call>\n" + invoke + "\n</minimax:tool_call>";
  };
  const std::string city = "<parameter name=\"city\">Paris</parameter>\n";
  const std::string days = "<parameter name=\"days\">3</parameter>\n";
  const std::string open = "<invoke name=\"get_weather\">\n";
  EXPECT_TRUE(grade(c, block(open + city + days + "</invoke>")));
  EXPECT_TRUE(grade(c, block(open + days + city + "</invoke>")));
  EXPECT_FALSE(grade(c, block(open + city + "</invoke>")));
  EXPECT_FALSE(grade(c, block(open + city + days + days + "</invoke>")));
  EXPECT_FALSE(grade(c, block("<invoke name=\"other\">\n" + city + days + "</invoke>")));
  EXPECT_FALSE(grade(c, block(open + city + "<parameter name=\"days\">4</parameter>\n</invoke>")));
  EXPECT_FALSE(grade(c, block(open + city + days)));
  const Case told = case_of("tool_call", "12");
  EXPECT_FALSE(grade(told, block(open + "<parameter name=\"days\">12</parameter>\n</invoke>")));
  EXPECT_TRUE(grade(told, "</think>\n\nIt is 12."));
}

TEST(Eval, CallsOfM3AreReadBetweenTheirTags) {
  const std::string n = "]<]minimax[>[";
  const Case c =
      case_of("tool_call", {{"name", "get_weather"}, {"arguments", {{"city", "Paris"}, {"days", 3}}}});
  const auto block = [&n](const std::string& arguments) {
    return "<mm:think>why</mm:think>" + n + "<tool_call>\n" + n + "<invoke name=\"get_weather\">" +
           arguments + n + "</invoke>\n" + n + "</tool_call>";
  };
  const std::string city = n + "<city>Paris" + n + "</city>";
  EXPECT_TRUE(grade(c, block(city + n + "<days>3" + n + "</days>")));
  EXPECT_FALSE(grade(c, block(city)));
  EXPECT_FALSE(grade(c, block(city + n + "<days>3</days>")));
  EXPECT_FALSE(grade(c, block(city + n + "<days>30" + n + "</days>")));
  EXPECT_FALSE(grade(case_of("tool_call", "3"), block(city + n + "<days>3" + n + "</days>")));
}

TEST(Eval, ADemoModelIsAskedAboutItself) {
  const auto sizes = [](DemoModel model) {
    std::set<std::string> keys;
    for (uint64_t i = 0; i < 300; ++i) {
      for (const json& key : draw("facts", 1, i, model).expected) keys.insert(key.get<std::string>());
    }
    return keys;
  };
  EXPECT_TRUE(sizes(DemoModel::kM1).contains("3.8 million"));
  EXPECT_TRUE(sizes(DemoModel::kM2).contains("7.2 million"));
  EXPECT_TRUE(sizes(DemoModel::kM3).contains("6.7 million"));
  EXPECT_EQ(skill_names(DemoModel::kM2), skill_names());
  EXPECT_EQ(skill_names(DemoModel::kM3).back(), "lookup_sparse");
  const std::string text = user_text(draw("lookup_sparse", 1, 0, DemoModel::kM3));
  EXPECT_GE(std::count(text.begin(), text.end(), '\n'), 360);
}

TEST(Eval, ToolsComeAsTheApiHasThem) {
  bool told = false;
  for (uint64_t i = 0; i < kCases; ++i) {
    const Case c = draw("tool_call", 8, i);
    ASSERT_TRUE(c.tools.is_array());
    std::set<std::string> names;
    for (const json& tool : c.tools) names.insert(tool.at("function").at("name").get<std::string>());
    EXPECT_EQ(names.size(), c.tools.size());
    if (c.expected.is_string()) {
      told = true;
      EXPECT_EQ(c.messages.back().at("role"), "tool");
      EXPECT_EQ(c.messages.back().at("content"), c.expected);
    } else {
      EXPECT_TRUE(names.contains(c.expected.at("name").get<std::string>()));
    }
    EXPECT_EQ(user_text(c).find('{'), std::string::npos) << "an unfilled slot: " << user_text(c);
  }
  EXPECT_TRUE(told);
}

TEST(Eval, UnknownSkillsAreNamed) {
  EXPECT_THROW(draw("poetry", 1, 0), Error);
  EXPECT_THROW(max_tokens("poetry"), Error);
  EXPECT_GT(max_tokens("arithmetic"), 100);
}

}  // namespace
}  // namespace minimax::eval
