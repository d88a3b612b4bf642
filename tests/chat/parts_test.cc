// The parts that output parsers are made of.
#include <random>

#include "chat/argument_text.h"
#include "chat/chat_format.h"
#include "chat/marker_scanner.h"
#include "chat/schema.h"
#include "chat/utf8_input.h"
#include "core/error.h"
#include "jinja/utf8.h"
#include "models/minimax_m1_config.h"
#include "models/minimax_m2_config.h"
#include "models/minimax_m3_config.h"
#include "tests/chat/answer.h"

namespace minimax::chat {
namespace {

using testing::Json;

TypeSet types(const char* schema) {
  const Json json = Json::parse(schema);
  return Schema(json).types();
}

TEST(Utf8Input, GivesWhatTheTemplatesReaderGives) {
  std::mt19937 random(3);
  const unsigned char bytes[] = {'a',  0x80, 0xBF, 0xC1, 0xC3, 0xE0, 0xA0, 0x9F,
                                 0xED, 0xF0, 0x90, 0xF4, 0x8F, 0xF5, 0xE6};
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t i = random() % 9; i > 0; --i) text += static_cast<char>(bytes[random() % std::size(bytes)]);
    Utf8Input input;
    std::string out;
    for (const char c : text) out += input.push({&c, 1});
    out += input.finish();
    ASSERT_EQ(out, jinja::sanitize_utf8(text));
  }
}

TEST(MarkerScanner, FindsWhatASearchFinds) {
  const std::vector<std::string_view> markers = {"aab", "]<]m", "bb"};
  std::mt19937 random(5);
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    for (size_t i = random() % 20; i > 0; --i) text += "ab]<m"[random() % 5];
    size_t first = std::string::npos;
    size_t end = 0;
    for (const std::string_view marker : markers) {
      const size_t found = text.find(marker);
      if (found != std::string::npos && (first == std::string::npos || found + marker.size() < end)) {
        first = found;
        end = found + marker.size();
      }
    }
    MarkerScanner scanner(markers);
    std::string released;
    size_t read = 0;
    bool is_found = false;
    while (read < text.size() && !is_found)
      is_found = scanner.feed(text[read++], released) != MarkerScanner::kNone;
    ASSERT_EQ(is_found, first != std::string::npos) << text;
    if (is_found) {
      EXPECT_EQ(released, text.substr(0, first)) << text;
      EXPECT_EQ(read, end) << text;
    } else {
      EXPECT_EQ(released + scanner.take_held(), text);
    }
  }
}

TEST(Schema, TypesOfUnionsReferencesAndWordsThatImplyThem) {
  EXPECT_EQ(types(R"({"type": "integer"})").bits, TypeSet::kInteger);
  EXPECT_EQ(types(R"({"type": ["string", "null"]})").bits, TypeSet::kString | TypeSet::kNull);
  EXPECT_EQ(types(R"({"anyOf": [{"type": "number"}, {"oneOf": [{"type": "array"}]}]})").bits,
            TypeSet::kNumber | TypeSet::kArray);
  EXPECT_EQ(types(R"({"enum": ["a", 1, null]})").bits, TypeSet::kString | TypeSet::kInteger | TypeSet::kNull);
  EXPECT_EQ(types(R"({"const": true})").bits, TypeSet::kBoolean);
  EXPECT_EQ(types(R"({"properties": {}})").bits, TypeSet::kObject);
  EXPECT_EQ(types(R"({"items": {}})").bits, TypeSet::kArray);
  for (const char* unknown :
       {"{}", "null", "true", "[]", R"({"type": "date"})", R"({"type": 3})", R"({"$ref": "#/no"})"})
    EXPECT_TRUE(types(unknown).empty()) << unknown;
}

TEST(Schema, FindsFieldsThroughReferencesAndEndsInCircles) {
  const Json json =
      Json::parse(R"({"$defs": {"a/b": {"type": "object", "properties": {"x": {"type": "integer"}}},
      "loop": {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/loop"}, {"$ref": "#/$defs/loop"}]}},
      "properties": {"p": {"$ref": "#/$defs/a~1b"}, "q": {"$ref": "#/$defs/loop"}, "l": {"items": {"type": "null"}}},
      "additionalProperties": {"type": "boolean"}})");
  const Schema schema(json);
  EXPECT_EQ(schema.property("p").property("x").types().bits, TypeSet::kInteger);
  EXPECT_EQ(schema.property("l").items().types().bits, TypeSet::kNull);
  EXPECT_EQ(schema.property("other").types().bits, TypeSet::kBoolean);
  EXPECT_TRUE(schema.lists("p"));
  EXPECT_FALSE(schema.lists("other"));
  EXPECT_TRUE(schema.property("q").types().has(TypeSet::kObject));
  EXPECT_FALSE(schema.property("p").property("y").is_known());
}

TEST(TypedValue, EveryTypeAndWhatDoesNotFit) {
  struct Row {
    const char* schema;
    const char* text;
    const char* json;
  };
  for (const Row& row : std::initializer_list<Row>{
           {R"({"type": "integer"})", " 018956 ", "18956"},
           {R"({"type": "integer"})", "-0", "-0"},
           {R"({"type": "integer"})", "+7", "7"},
           {R"({"type": "integer"})", "12345678901234567890123", "12345678901234567890123"},
           {R"({"type": "integer"})", "1.0", R"("1.0")"},
           {R"({"type": "integer"})", "", R"("")"},
           {R"({"type": "integer"})", "-", R"("-")"},
           {R"({"type": "number"})", "5.0", "5"},
           {R"({"type": "number"})", "2.50", "2.50"},
           {R"({"type": "number"})", "-.5", "-0.5"},
           {R"({"type": "number"})", "7.", "7"},
           {R"({"type": "number"})", "1.5E+3", "1.5E+3"},
           {R"({"type": "number"})", "1e", R"("1e")"},
           {R"({"type": "number"})", ".", R"(".")"},
           {R"({"type": "number"})", "nan", R"("nan")"},
           {R"({"type": "number"})", "1e999", R"("1e999")"},
           {R"({"type": "boolean"})", "0", "false"},
           {R"({"type": "boolean"})", "True", "true"},
           {R"({"type": "boolean"})", "yes", R"("yes")"},
           {R"({"type": "object"})", "{\"a\": [1]}", "{\"a\": [1]}"},
           {R"({"type": "object"})", "[1]", R"("[1]")"},
           {R"({"type": "array"})", "[1,]", R"("[1,]")"},
           {R"({"type": "string"})", " 5 ", R"(" 5 ")"},
           {R"({"type": "string"})", "null", R"("null")"},
           {R"({"type": "integer"})", "null", "null"},
           {R"({"type": ["string", "null"]})", "null", "null"},
           {R"({"type": ["boolean", "integer"]})", "1", "1"},
           {"{}", "null", R"("null")"}}) {
    EXPECT_EQ(typed_value(row.text, types(row.schema), NullRule::kDeclared), row.json) << row.schema;
  }
  EXPECT_EQ(typed_value("null", types(R"({"type": "string"})"), NullRule::kAlways), "null");
}

TEST(TextValue, HoldsBackWhatMayBeNullOrTrimmed) {
  const auto written = [](TextValue value, std::string_view text) {
    std::string before_end;
    for (const char c : text) value.push(c, before_end);
    std::string all = before_end;
    value.finish(all);
    return std::pair(before_end, all);
  };
  using Pair = std::pair<std::string, std::string>;
  EXPECT_EQ(written({true, true}, " null\n"), Pair("", "null"));
  EXPECT_EQ(written({true, true}, " null x "), Pair("\"null x", "\"null x\""));
  EXPECT_EQ(written({true, true}, "nul"), Pair("", "\"nul\""));
  EXPECT_EQ(written({true, false}, "null"), Pair("\"null", "\"null\""));
  EXPECT_EQ(written({false, true}, "null "), Pair("\"null ", "\"null \""));
  EXPECT_EQ(written({false, false}, " "), Pair("\" ", "\" \""));
  EXPECT_EQ(written({true, true}, " \n"), Pair("", "\"\""));
  EXPECT_EQ(written({false, false}, ""), Pair("", "\"\""));
}

TEST(ArgumentText, EscapesAsJsonReadersExpect) {
  std::string text;
  for (int c = 0; c < 128; ++c) text += static_cast<char>(c);
  EXPECT_EQ(Json::parse(json_string(text)).get<std::string>(), text);
}

TEST(ChatFormat, KnowsEveryArchitectureOfTheModels) {
  const auto expect_format = [](const models::FamilyNames& names, ChatFormat format) {
    for (const std::string_view name : names.architectures) EXPECT_EQ(chat_format_of(name), format) << name;
    for (const auto& [type, name] : names.model_types) EXPECT_EQ(chat_format_of(type), format) << type;
  };
  expect_format(models::MiniMaxM1Config::kNames, ChatFormat::kM1);
  expect_format(models::MiniMaxM2Config::kNames, ChatFormat::kM2);
  expect_format(models::MiniMaxM3Config::kNames, ChatFormat::kM3);
  EXPECT_THROW(chat_format_of("LlamaForCausalLM"), Error);
  EXPECT_EQ(parse_chat_format("m2"), ChatFormat::kM2);
  EXPECT_THROW(parse_chat_format("M2"), Error);
}

}  // namespace
}  // namespace minimax::chat
