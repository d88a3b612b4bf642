// What holds for every answer, and what a stream shows while it comes.
#include <random>

#include "jinja/utf8.h"
#include "tests/chat/answer.h"

namespace minimax::testing {
namespace {

using chat::ChatFormat;

constexpr size_t kLong = 1 << 20;

std::string repeated(std::string_view text, size_t bytes) {
  std::string result;
  while (result.size() < bytes) result += text;
  return result;
}

std::vector<chat::Tool> write_tool() {
  return tools_of(Json::parse(R"([{"name": "write", "parameters": {"type": "object", "properties": {
      "path": {"type": "string"}, "content": {"type": "string"}, "count": {"type": "integer"},
      "list": {"type": "array", "items": {"type": "string"}}, "data": {"type": "object"}}}}])"));
}

Prompt m1() { return {ChatFormat::kM1, write_tool(), "ai\n"}; }
Prompt m2() { return {ChatFormat::kM2, write_tool(), "]~b]ai\n<think>\n</think>\n\n"}; }
Prompt m3() { return {ChatFormat::kM3, write_tool(), "]~b]ai\n</mm:think>"}; }

// `N` stands for M3's namespace token.
std::string m3_text(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == 'N') {
      result += "]<]minimax[>[";
    } else {
      result += c;
    }
  }
  return result;
}

// Feeds text and shows what has come so far.
class Stream {
 public:
  explicit Stream(const Prompt& prompt)
      : parser_(chat::make_output_parser(prompt.format, prompt.tools, prompt.tail)) {}

  void push(std::string_view text) { add(parser_->push(text)); }
  void finish() { add(parser_->finish()); }

  std::string reasoning, content, name, arguments;
  bool is_last = false;
  chat::OutputParser& parser() { return *parser_; }

 private:
  void add(const chat::OutputDelta& delta) {
    reasoning += delta.reasoning;
    content += delta.content;
    for (const chat::CallDelta& call : delta.calls) {
      name += call.name;
      arguments += call.arguments;
      is_last = call.is_last;
    }
  }

  std::unique_ptr<chat::OutputParser> parser_;
};

TEST(Stream, Complaint21_M2ArgumentsArriveBeforeTheInvokeCloses) {
  Stream stream(m2());
  stream.push("Look.\n<minimax:tool_call>\n<invoke name=\"wri");
  EXPECT_EQ(stream.content, "Look.");
  EXPECT_EQ(stream.name, "");
  stream.push("te\">");
  EXPECT_EQ(stream.name, "write");
  stream.push("\n<parameter name=\"content\">\n a\"b");
  EXPECT_EQ(stream.arguments, R"({"content": "a\"b)");
  stream.push(" \n c</param");
  EXPECT_EQ(stream.arguments, R"({"content": "a\"b \n c)");
  stream.push("eter>\n<parameter name=\"count\">1");
  EXPECT_EQ(stream.arguments, R"({"content": "a\"b \n c", "count": )");
  stream.push("2</parameter>\n</invoke>");
  EXPECT_EQ(stream.arguments, R"({"content": "a\"b \n c", "count": 12})");
  EXPECT_TRUE(stream.is_last);
}

TEST(Stream, Complaint21_M3ArgumentsArriveBeforeTheInvokeCloses) {
  Stream stream(m3());
  stream.push(m3_text("Look. N<tool_call>\nN<invoke name=\"write\">N<content> a"));
  EXPECT_EQ(stream.content, "Look. ");
  EXPECT_EQ(stream.name, "write");
  EXPECT_EQ(stream.arguments, R"({"content": " a)");
  stream.push(m3_text("]<] N<"));
  EXPECT_EQ(stream.arguments, R"({"content": " a]<] )");
  stream.push(m3_text("/content>N<list>N<item>x"));
  EXPECT_EQ(stream.arguments, R"({"content": " a]<] ", "list": ["x)");
  stream.push(m3_text("N</item>N</list>N<other>1N</other>"));
  EXPECT_EQ(stream.arguments, R"({"content": " a]<] ", "list": ["x"])");
  stream.push(m3_text("N</invoke>"));
  EXPECT_EQ(stream.arguments, R"({"content": " a]<] ", "list": ["x"], "other": "1"})");
  EXPECT_TRUE(stream.is_last);
}

TEST(Stream, M1CallsComeWithTheirLines) {
  Stream stream(m1());
  stream.push("<tool_calls>\n{\"name\": \"write\", \"arguments\": {\"path\": \"a\"}}");
  EXPECT_EQ(stream.name, "");
  stream.push("\n");
  EXPECT_EQ(stream.name, "write");
  EXPECT_EQ(Json::parse(stream.arguments), Json({{"path", "a"}}));
  EXPECT_TRUE(stream.is_last);
}

TEST(Stream, TextIsHeldBackOnlyWhileItMayBeAMarker) {
  Stream stream(m2());
  stream.push("a <minimax:tool_call>\n <inv");
  EXPECT_EQ(stream.content, "a");
  stream.push("a");
  EXPECT_EQ(stream.content, "a <minimax:tool_call>\n <inva");
}

TEST(Stream, ReasoningIsToldWhileItLasts) {
  for (const auto& [prompt, text, is_reasoning] :
       {std::tuple(Prompt{ChatFormat::kM1, {}, "ai\n"}, "", false),
        {{ChatFormat::kM1, {}, "ai\n"}, "<think>\na", true},
        {{ChatFormat::kM1, {}, "ai\n"}, "<think>\na</think>", false},
        {{ChatFormat::kM2, {}, "<think>\n"}, "", true},
        {{ChatFormat::kM2, {}, "<think>\n"}, "a</thin", true},
        {{ChatFormat::kM2, {}, "<think>\n"}, "a<minimax:tool_call>", true},
        {{ChatFormat::kM2, {}, "<think>\n"}, "a<minimax:tool_call><invoke name=", false},
        {{ChatFormat::kM2, {}, "<think>\n</think>\n\n"}, "a", false},
        {{ChatFormat::kM3, {}, "<mm:think>"}, "", true},
        {{ChatFormat::kM3, {}, "</mm:think>"}, "", false},
        {{ChatFormat::kM3, {}, "ai\n"}, "<mm:think>", true}}) {
    Stream stream(prompt);
    stream.push(text);
    EXPECT_EQ(stream.parser().is_reasoning(), is_reasoning) << prompt.tail << " " << text;
  }
}

// A stream cannot take back what it sent: then the marker alone is left out.
TEST(Stream, M1LateCloseKeepsWhatWasSent) {
  Stream stream(m1());
  stream.push("Two plus two.\n");
  stream.push("</think>\n\nIt is 4.");
  stream.finish();
  EXPECT_EQ(stream.reasoning, "");
  EXPECT_EQ(stream.content, "Two plus two.\n\n\nIt is 4.");
}

TEST(Stream, DeltasAreWholeCharacters) {
  const std::string text = "é東😀\n<minimax:tool_call>\n<invoke name=\"write\"><parameter name=\"path\">東😀é";
  Prompt prompt = m2();
  const auto parser = chat::make_output_parser(prompt.format, prompt.tools, prompt.tail);
  for (const std::string_view byte : bytes_of(text)) {
    const chat::OutputDelta delta = parser->push(byte);
    EXPECT_TRUE(jinja::is_valid_utf8(delta.content));
    for (const chat::CallDelta& call : delta.calls) EXPECT_TRUE(jinja::is_valid_utf8(call.arguments));
  }
}

TEST(Long, AnswersOfOneMegabyteInSingleBytes) {
  const std::string m2_call = "<minimax:tool_call>\n<invoke name=\"write\">\n<parameter name=\"content\">";
  const std::string m2_end = "</parameter>\n</invoke>\n</minimax:tool_call>";
  for (const char* piece :
       {"word ", " ", "<", "</", "\n", "</parameter>", "</parameter> ", "</invoke>", "é", "nul"}) {
    const std::string value = "x" + repeated(piece, kLong) + "y";
    const Answer answer = parse(m2(), bytes_of(m2_call + value + m2_end));
    ASSERT_EQ(answer.calls.size(), 1U) << piece;
    EXPECT_EQ(Json::parse(answer.calls[0].arguments), Json({{"content", value}})) << piece;
    const Answer content = parse(m2(), bytes_of(value));
    EXPECT_EQ(content.content, value) << piece;
  }
  for (const char* piece : {"word ", "]", "]<]minimax[", "N", "N<b\n", "<", "N<x", "N "}) {
    const std::string value = m3_text(repeated(piece, kLong / 8) + " ");
    const Answer answer = parse(m3(), bytes_of(m3_text("N<tool_call>N<invoke name=\"write\">N<content>") +
                                               value + m3_text("N</content>N</invoke>N</tool_call>")));
    ASSERT_EQ(answer.calls.size(), 1U) << piece;
    EXPECT_EQ(Json::parse(answer.calls[0].arguments), Json({{"content", value}})) << piece;
  }
}

TEST(Long, ManyCallsAndManyFields) {
  const size_t count = 20000;
  const Answer m2_answer =
      parse(m2(), bytes_of("<minimax:tool_call>" + repeated("<invoke name=\"a\"></invoke>\n", count * 27)));
  EXPECT_EQ(m2_answer.calls.size(), count);
  std::string fields;
  for (size_t i = 0; i < count; ++i) fields += m3_text("N<k" + std::to_string(i) + ">vN</k>");
  const Answer m3_answer =
      parse(m3(), bytes_of(m3_text("N<tool_call>N<invoke name=\"a\">") + fields + m3_text("N</invoke>")));
  ASSERT_EQ(m3_answer.calls.size(), 1U);
  EXPECT_EQ(Json::parse(m3_answer.calls[0].arguments).size(), count);
}

TEST(Deep, NestingIsBounded) {
  const size_t depth = 100'000;
  const std::string brackets(depth, '[');
  const std::string close(depth, ']');
  const Answer m2_answer = parse(m2(), "<minimax:tool_call><invoke name=\"write\"><parameter name=\"list\">" +
                                           brackets + close + "</parameter></invoke>");
  ASSERT_EQ(m2_answer.calls.size(), 1U);
  EXPECT_EQ(Json::parse(m2_answer.calls[0].arguments).at("list"), brackets + close);
  const Answer m3_answer =
      parse(m3(), m3_text("N<tool_call>N<invoke name=\"write\">" + repeated("N<data>", depth * 7) + "x" +
                          repeated("N</data>", depth * 8) + "N</invoke>"));
  ASSERT_EQ(m3_answer.calls.size(), 1U);
  EXPECT_TRUE(Json::accept(m3_answer.calls[0].arguments));
  const Answer m1_answer = parse(m1(), "<tool_calls>\n{\"name\": \"a\", \"arguments\": {\"a\": " + brackets +
                                           close + "}}\n" + "{\"name\": \"b\", \"arguments\": {}}\n");
  ASSERT_EQ(m1_answer.calls.size(), 1U);
  EXPECT_EQ(m1_answer.calls[0].name, "b");
}

TEST(Bytes, IllFormedTextStillGivesJson) {
  const Answer answer =
      parse(m2(),
            "\xFF<minimax:tool_call><invoke name=\"w\xC3\"><parameter name=\"\xE6\x9D\">\x80\xF0\x9F"
            "</parameter></invoke>");
  ASSERT_EQ(answer.calls.size(), 1U);
  EXPECT_EQ(answer.content, "\xEF\xBF\xBD");
  EXPECT_EQ(Json::parse(answer.calls[0].arguments), Json({{"\xEF\xBF\xBD", "\xEF\xBF\xBD\xEF\xBF\xBD"}}));
}

// Random mixes of a family's markers and of text near them.
const std::vector<std::string>& pieces_of_family(ChatFormat format) {
  static const std::vector<std::string> kM1 = {
      "<think>",
      "</think>",
      "\n",
      " ",
      "<tool_calls>",
      "</tool_calls>",
      "{\"name\": \"write\", \"arguments\": {}}",
      "{\"name\": \"a\"",
      "}",
      "text",
      "<",
      "</",
      "é",
      "{\"name\": \"b\", \"arguments\": {\"a\": \"</tool_calls>\"}}\n"};
  static const std::vector<std::string> kM2 = {"<think>",
                                               "</think>",
                                               "\n",
                                               " ",
                                               "<minimax:tool_call>",
                                               "</minimax:tool_call>",
                                               "<invoke name=\"write\">",
                                               "<invoke name=",
                                               "</invoke>",
                                               "<parameter name=\"content\">",
                                               "<parameter name=\"count\">",
                                               "</parameter>",
                                               "12",
                                               "null",
                                               "text",
                                               "<",
                                               "</",
                                               "é",
                                               "\"",
                                               ">",
                                               "<minimax:tool_call>\n<invoke name=\"a\">"};
  static const std::vector<std::string> kM3 = {"<mm:think>",
                                               "</mm:think>",
                                               "\n",
                                               " ",
                                               m3_text("N<tool_call>"),
                                               m3_text("N</tool_call>"),
                                               m3_text("N<invoke name=\"write\">"),
                                               m3_text("N</invoke>"),
                                               m3_text("N<content>"),
                                               m3_text("N</content>"),
                                               m3_text("N<list>"),
                                               m3_text("N</list>"),
                                               m3_text("N<item>"),
                                               m3_text("N</item>"),
                                               m3_text("N<data>"),
                                               m3_text("N</data>"),
                                               m3_text("N"),
                                               "]<]",
                                               "text",
                                               "3",
                                               "<",
                                               "é",
                                               "\"",
                                               m3_text("N<tool_call>\nN<invoke name=\"a\">"),
                                               m3_text("N<x>"),
                                               m3_text("N</x>"),
                                               m3_text("N<count>")};
  return format == ChatFormat::kM1 ? kM1 : format == ChatFormat::kM2 ? kM2 : kM3;
}

TEST(Random, MixesOfMarkers) {
  std::mt19937 random(7);
  for (const Prompt& base : {m1(), m2(), m3()}) {
    const auto& pieces = pieces_of_family(base.format);
    for (int round = 0; round < 4000; ++round) {
      Prompt prompt = base;
      if (round % 2 == 1) prompt.tail = base.format == ChatFormat::kM3 ? "<mm:think>" : "<think>\n";
      std::string text;
      for (size_t i = random() % 24; i > 0; --i) text += pieces[random() % pieces.size()];
      const Answer whole = parse(prompt, text);
      for (const auto& call : whole.calls) EXPECT_TRUE(Json::accept(call.arguments)) << text;
      // Only openers without a call and stray closing markers may stay.
      EXPECT_EQ(whole.content.find("<mm:think>"), std::string::npos) << text;
      EXPECT_EQ(whole.content.find("<minimax:tool_call>\n<invoke name="), std::string::npos) << text;
      EXPECT_EQ(whole.content.find(m3_text("N<tool_call>\nN<invoke name=")), std::string::npos) << text;
      const bool may_differ = prompt.tail == "ai\n" && text.find("</think>") != std::string::npos;
      if (may_differ) continue;
      const Answer cut = parse(prompt, bytes_of(text));
      ASSERT_TRUE(whole.same_as(cut)) << text << "\n" << shown(whole) << "\n" << shown(cut);
    }
  }
}

// Answers of well-formed sections, whatever is inside the calls: no marker reaches the content.
TEST(Random, ContentOfWellFormedSectionsHasNoMarker) {
  std::mt19937 random(11);
  const std::vector<std::string> words = {"a",  " b\n",      "é",    "<",      "]<]mini",
                                          "</", "<minimax:", "\n\n", "<mm:thi"};
  const auto some_text = [&] {
    std::string text;
    for (size_t i = random() % 6; i > 0; --i) text += words[random() % words.size()];
    return text + ".";
  };
  for (const ChatFormat format : {ChatFormat::kM2, ChatFormat::kM3}) {
    const bool is_m3 = format == ChatFormat::kM3;
    const Prompt prompt = {format, write_tool(), is_m3 ? "<mm:think>" : "<think>\n"};
    const auto& pieces = pieces_of_family(format);
    for (int round = 0; round < 2000; ++round) {
      const std::string reasoning = some_text();
      const std::string content = some_text();
      std::string text =
          reasoning + (is_m3 ? "</mm:think>" : "\n</think>\n\n") + content +
          (is_m3 ? m3_text("N<tool_call>N<invoke name=\"a\">") : "<minimax:tool_call><invoke name=\"a\">");
      for (size_t i = random() % 20; i > 0; --i) text += pieces[random() % pieces.size()];
      const Answer answer = parse(prompt, bytes_of(text));
      EXPECT_EQ(answer.reasoning, reasoning) << text;
      // A newline at its beginning is the marker's in M2.
      const std::string expected = is_m3 ? content : content.substr(content.find_first_not_of('\n'));
      EXPECT_EQ(answer.content, expected) << text;
    }
  }
}

// Whatever stands in a broken call, a good one after it is found.
TEST(Random, Complaint24_ABrokenCallHidesNoLaterCall) {
  std::mt19937 random(13);
  const std::vector<std::string> m2_junk = {"text",
                                            "\n",
                                            "<",
                                            "</parameter>",
                                            "<invoke name=",
                                            "<invoke name=\"b\n",
                                            "<invoke>",
                                            "<parameter name=\"x\n",
                                            "<parameter>",
                                            "<invoke name=\"\">"};
  const std::vector<std::string> m3_junk = {
      "text",         "\n",         "N",       "N<b\n",   "N<city>",
      "N</city>",     "N</x>",      "N<list>", "N<item>", "N<invoke name=\"\">",
      "N<tool_call>", "N<content>", "N<count>"};
  for (int round = 0; round < 2000; ++round) {
    std::string junk = "<minimax:tool_call><invoke name=\"write\">";
    for (size_t i = random() % 8; i > 0; --i) junk += m2_junk[random() % m2_junk.size()];
    const Answer m2_answer =
        parse(m2(), junk + "\n<invoke name=\"good\">\n<parameter name=\"p\">1</parameter>\n</invoke>\n");
    ASSERT_FALSE(m2_answer.calls.empty()) << junk;
    EXPECT_EQ(m2_answer.calls.back(), (Answer::Call{"good", R"({"p": "1"})"})) << junk;

    junk = m3_text("N<tool_call>N<invoke name=\"write\">");
    for (size_t i = random() % 8; i > 0; --i) junk += m3_text(m3_junk[random() % m3_junk.size()]);
    const Answer m3_answer = parse(m3(), junk + m3_text("N<invoke name=\"good\">N<p>1N</p>N</invoke>"));
    ASSERT_FALSE(m3_answer.calls.empty()) << junk;
    EXPECT_EQ(m3_answer.calls.back(), (Answer::Call{"good", R"({"p": "1"})"})) << junk;
  }
}

}  // namespace
}  // namespace minimax::testing
