// Deltas put together again, with what must hold for every stream checked on the way.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "chat/chat_format.h"
#include "chat/output_parser.h"

namespace minimax::testing {

using Json = nlohmann::ordered_json;

struct Answer {
  struct Call {
    std::string name;
    std::string arguments;
    bool operator==(const Call&) const = default;
  };
  std::string reasoning;
  std::string content;
  std::vector<Call> calls;  // whole ones
  bool is_call_cut = false;
  size_t num_deltas_with_calls = 0;

  bool same_as(const Answer& other) const {
    return reasoning == other.reasoning && content == other.content && calls == other.calls &&
           is_call_cut == other.is_call_cut;
  }
};

class AnswerBuilder {
 public:
  void add(const chat::OutputDelta& delta) {
    answer_.reasoning += delta.reasoning;
    answer_.content += delta.content;
    answer_.num_deltas_with_calls += delta.calls.empty() ? 0 : 1;
    for (const chat::CallDelta& call : delta.calls) add(call);
  }

  Answer take(bool is_call_cut) {
    if (is_open_) answer_.calls.pop_back();
    EXPECT_TRUE(!is_open_ || is_call_cut) << "a call has no end and the text was not cut";
    answer_.is_call_cut = is_call_cut;
    return std::move(answer_);
  }

 private:
  void add(const chat::CallDelta& call) {
    const auto count = static_cast<int32_t>(answer_.calls.size());
    if (call.index == count) {
      EXPECT_FALSE(is_open_) << "call " << call.index << " began before the one before it ended";
      EXPECT_FALSE(call.name.empty());
      answer_.calls.push_back({call.name, ""});
      is_open_ = true;
    } else {
      EXPECT_EQ(call.index, count - 1);
      EXPECT_TRUE(call.name.empty()) << "a name came twice: " << call.name;
      EXPECT_TRUE(is_open_) << "text after the end of call " << call.index;
    }
    answer_.calls.back().arguments += call.arguments;
    if (call.is_last) is_open_ = false;
  }

  Answer answer_;
  bool is_open_ = false;
};

struct Prompt {
  chat::ChatFormat format;
  std::vector<chat::Tool> tools;
  std::string tail;
};

inline std::vector<chat::Tool> tools_of(const Json& list) {
  std::vector<chat::Tool> tools;
  for (const Json& tool : list) tools.push_back({tool.at("name"), tool.value("parameters", Json(nullptr))});
  return tools;
}

inline Answer parse(const Prompt& prompt, const std::vector<std::string_view>& pieces) {
  const auto parser = chat::make_output_parser(prompt.format, prompt.tools, prompt.tail);
  AnswerBuilder builder;
  for (const std::string_view piece : pieces) builder.add(parser->push(piece));
  builder.add(parser->finish());
  return builder.take(parser->is_call_cut());
}

inline Answer parse(const Prompt& prompt, std::string_view text) {
  return parse(prompt, std::vector<std::string_view>{text});
}

inline std::vector<std::string_view> bytes_of(std::string_view text) {
  std::vector<std::string_view> pieces;
  for (size_t i = 0; i < text.size(); ++i) pieces.push_back(text.substr(i, 1));
  return pieces;
}

// `cuts` ascending.
inline std::vector<std::string_view> pieces_of(std::string_view text, const std::vector<size_t>& cuts) {
  std::vector<std::string_view> pieces;
  size_t begin = 0;
  for (const size_t cut : cuts) {
    pieces.push_back(text.substr(begin, cut - begin));
    begin = cut;
  }
  pieces.push_back(text.substr(begin));
  return pieces;
}

inline std::string shown(const Answer& answer) {
  Json json = {{"reasoning", answer.reasoning}, {"content", answer.content}, {"calls", Json::array()}};
  for (const auto& call : answer.calls) json["calls"].push_back({call.name, call.arguments});
  json["is_call_cut"] = answer.is_call_cut;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace minimax::testing
