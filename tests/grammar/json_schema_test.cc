// Each word of JSON schema with texts that must and must not be read.
#include "grammar/json_schema.h"

#include <gtest/gtest.h>

#include "tests/grammar/helpers.h"

namespace minimax::grammar {
namespace {

using minimax::testing::matches;
using minimax::testing::message_of;
using minimax::testing::schema_grammar;

struct Case {
  std::string name;
  std::string schema;
  std::vector<std::string> good;
  std::vector<std::string> bad;
};

class SchemaWord : public ::testing::TestWithParam<Case> {};

TEST_P(SchemaWord, ReadsWhatItAllowsAndNothingElse) {
  const auto grammar = schema_grammar(GetParam().schema);
  for (const std::string& text : GetParam().good) {
    EXPECT_TRUE(matches(grammar, text)) << text;
    EXPECT_TRUE(nlohmann::json::accept(text)) << text;
  }
  for (const std::string& text : GetParam().bad) EXPECT_FALSE(matches(grammar, text)) << text;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases{
      {"Any", "{}", {"1", "\"a\"", "[1, {\"a\":[]}]", "null"}, {"", "nul", "[1,]", "{\"a\"}", "01", "'a'"}},
      {"True", "true", {"[true]"}, {"tru"}},
      {"Boolean", R"({"type":"boolean"})", {"true", "false"}, {"1", "null", "True"}},
      {"Null", R"({"type":"null"})", {"null"}, {"0"}},
      {"TypeList", R"({"type":["null","integer"]})", {"null", "-12"}, {"1.5", "\"1\""}},
      {"Number",
       R"({"type":"number"})",
       {"0", "-1", "1.50", "2e5", "-0.1E-3", "10"},
       {"01", ".5", "1.", "+1", "1e", "NaN", "-"}},
      {"Integer", R"({"type":"integer"})", {"0", "-7", "1234567890"}, {"1.0", "1e3", "00", "--1"}},
      {"String",
       R"({"type":"string"})",
       {R"("")", R"("a\"\\\n\u00e9ü😀")", R"("\ud83d\ude00")"},
       {"\"a", "\"\n\"", R"("\x")", R"("\ud83d")", R"("\ude00x")", "\"\xFF\"", "\"\xED\xA0\x80\""}},
      {"StringLength",
       R"({"type":"string","minLength":2,"maxLength":3})",
       {R"("ab")", R"("äöü")", R"("a\n\u00e9")", R"("\ud83d\ude00b")"},
       {R"("a")", R"("abcd")", R"("")"}},
      {"Pattern",
       R"({"type":"string","pattern":"^a[b-d]+$"})",
       {R"("ab")", R"("abcd")"},
       {R"("a")", R"("xab")", R"("abx")"}},
      {"PatternIsSearched",
       R"({"pattern":"b|^c"})",
       {R"("abc")", R"("cx")", R"("b")", R"("\u0041b")"},
       {R"("ac")", R"("")"}},
      {"PatternEscapes",
       R"({"pattern":"^[\"\\\\\n]x\\s$"})",
       {R"("\"x ")", R"("\\x\t")", R"("\nx\n")"},
       {R"(""x ")", R"("x ")"}},
      {"Date",
       R"({"type":"string","format":"date"})",
       {R"("2024-02-29")", R"("2023-12-31")", R"("2000-02-29")"},
       {R"("2023-02-29")", R"("1900-02-29")", R"("2023-04-31")", R"("2023-13-01")", R"("2023-1-1")"}},
      {"DateTime",
       R"({"type":"string","format":"date-time"})",
       {R"("2024-02-29T23:59:59Z")", R"("2024-01-01T00:00:00.5+01:30")"},
       {R"("2024-02-29T24:00:00Z")", R"("2024-02-29 10:00:00Z")", R"("2024-02-29T10:00:00")"}},
      {"Time", R"({"type":"string","format":"time"})", {R"("12:00:01Z")"}, {R"("12:60:01Z")", R"("12:00")"}},
      {"Uuid",
       R"({"type":"string","format":"uuid"})",
       {R"("123e4567-e89b-12d3-a456-426614174000")"},
       {R"("123e4567e89b12d3a456426614174000")"}},
      {"Email",
       R"({"type":"string","format":"email"})",
       {R"("a.b@example.org")"},
       {R"("a@")", R"("@b")", R"("a b@c")", R"(".a@b")"}},
      {"Ipv4",
       R"({"type":"string","format":"ipv4"})",
       {R"("127.0.0.1")", R"("255.255.255.255")"},
       {R"("256.0.0.1")", R"("1.2.3")", R"("01.2.3.4")"}},
      {"Uri", R"({"type":"string","format":"uri"})", {R"("https://example.org/a/b")"}, {R"("example")"}},
      {"Enum",
       R"({"enum":["a","b\"",1,null,{"x":[1,2]}]})",
       {R"("a")", R"("b\"")", "1", "null", R"({"x":[1,2]})"},
       {R"("c")", "2", R"("b")"}},
      {"EnumOfType", R"({"type":"string","enum":["a",1]})", {R"("a")"}, {"1"}},
      {"Const", R"({"const":"só"})", {R"("só")"}, {R"("so")"}},
      {"Bounds",
       R"({"type":"integer","minimum":-12,"maximum":105})",
       {"-12", "-9", "0", "7", "99", "100", "105"},
       {"-13", "-20", "106", "110", "1000", "00", "5.0"}},
      {"ExclusiveBounds",
       R"({"type":"integer","exclusiveMinimum":0,"exclusiveMaximum":10})",
       {"1", "9"},
       {"0", "10", "-1", "-0"}},
      {"OneBound",
       R"({"type":"integer","minimum":1000})",
       {"1000", "1001", "2000", "99999"},
       {"999", "0", "-1000"}},
      {"LargeBounds",
       R"({"type":"integer","minimum":-9223372036854775807,"maximum":9223372036854775807})",
       {"9223372036854775807", "-9223372036854775807", "0"},
       {"9223372036854775808", "-9223372036854775808"}},
      {"FractionalBoundOfIntegers",
       R"({"type":"integer","minimum":0.5,"maximum":2.5})",
       {"1", "2"},
       {"0", "3"}},
      {"NumberBounds",
       R"({"type":"number","minimum":0,"maximum":1})",
       {"0", "0.5", "1", "1.0", "0.999"},
       {"1.01", "-0.1", "2", "1.10", "1e0"}},
      {"NumberBelowZero",
       R"({"type":"number","exclusiveMinimum":-3,"maximum":-1})",
       {"-1", "-1.0", "-2.99", "-1.5", "-2"},
       {"-3", "-3.0", "-0.5", "-0.99", "1", "-3.1"}},
      {"NumberAcrossZero",
       R"({"type":"number","minimum":-1,"exclusiveMaximum":2})",
       {"-1", "-0.5", "0", "0.5", "1.9", "-1.00"},
       {"2", "-1.01", "2.0"}},
      {"Object",
       R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a","b"]})",
       {R"({"a":1,"b":"x"})", "{ \"a\": 1, \"b\": \"x\" }", "{\n  \"a\": 1,\n  \"b\": \"x\"\n}"},
       {R"({"b":"x","a":1})", R"({"a":1})", "{}", R"({"a":1,"b":"x","c":1})", "{\"a\":  1,\"b\":\"x\"}",
        R"({"a":1,"b":"x",})", R"({"a":1 "b":"x"})"}},
      {"OptionalProperties",
       R"({"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"},"c":{"type":"null"}},"required":["b"]})",
       {R"({"b":null})", R"({"a":null,"b":null})", R"({"b":null,"c":null})",
        R"({"a":null,"b":null,"c":null})"},
       {"{}", R"({"a":null})", R"({"c":null,"b":null})", R"({,"b":null})", R"({"a":null,"c":null})"}},
      {"NoneRequired",
       R"({"properties":{"a":{"type":"null"},"b":{"type":"null"}}})",
       {"{}", R"({"a":null})", R"({"b":null})", R"({"a":null,"b":null})"},
       {R"({"b":null,"a":null})", "{,}"}},
      {"AdditionalSchema",
       R"({"type":"object","properties":{"ab":{"type":"null"}},"required":["ab"],"additionalProperties":{"type":"integer"}})",
       {R"({"ab":null})", R"({"ab":null,"a":1,"abc":2,"":3,"x":4})"},
       {R"({"a":1})", R"({"ab":null,"ab":1})", R"({"ab":null,"x":null})", R"({"ab":null,"\u0061b":1})"}},
      {"AdditionalOnly",
       R"({"type":"object","additionalProperties":{"type":"integer"}})",
       {"{}", R"({"a":1})", R"({"a":1, "b":2})"},
       {R"({"a":"x"})"}},
      {"AdditionalFalse",
       R"({"type":"object","properties":{},"additionalProperties":false})",
       {"{}", "{ }"},
       {R"({"a":1})"}},
      {"FreeObject", R"({"type":"object"})", {"{}", R"({"a":[1,{"b":{}}]})"}, {"[]", R"({"a":})"}},
      {"RequiredUndeclared", R"({"type":"object","required":["x"]})", {R"({"x":[1]})"}, {"{}", R"({"y":1})"}},
      {"MapSizes",
       R"({"type":"object","additionalProperties":{"type":"null"},"minProperties":1,"maxProperties":2})",
       {R"({"a":null})", R"({"a":null,"b":null})"},
       {"{}", R"({"a":null,"b":null,"c":null})"}},
      {"EscapedName",
       R"({"type":"object","properties":{"a\"/~é":{"type":"null"}},"required":["a\"/~é"]})",
       {R"({"a\"/~é":null})"},
       {R"({"a":null})"}},
      {"Items",
       R"({"type":"array","items":{"type":"integer"}})",
       {"[]", "[1]", "[1, 2,3]", "[\n  1,\n  2\n]"},
       {"[1,]", "[,1]", "[1 2]", "[\"a\"]", "["}},
      {"ItemCounts",
       R"({"type":"array","items":{"type":"null"},"minItems":2,"maxItems":3})",
       {"[null,null]", "[null,null,null]"},
       {"[]", "[null]", "[null,null,null,null]"}},
      {"ItemMinimum", R"({"items":{"enum":[1]},"minItems":1})", {"[1]", "[1,1,1]"}, {"[]"}},
      {"NoItems", R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"}},
      {"PrefixItems",
       R"({"type":"array","prefixItems":[{"enum":[1]},{"enum":[2]}]})",
       {"[]", "[1]", "[1,2]"},
       {"[2]", "[1,2,3]", "[1,]"}},
      {"PrefixThenItems",
       R"({"type":"array","prefixItems":[{"enum":[1]},{"enum":[2]}],"items":{"enum":[3]},"minItems":1,"maxItems":4})",
       {"[1]", "[1,2]", "[1,2,3,3]"},
       {"[]", "[1,3]", "[1,2,3,3,3]"}},
      {"PrefixAndMore",
       R"({"prefixItems":[{"enum":[1]}],"minItems":2,"maxItems":2})",
       {"[1,{}]"},
       {"[1]", "[1,1,1]"}},
      {"AnyOf",
       R"({"anyOf":[{"type":"integer"},{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]}]})",
       {"5", R"({"a":null})"},
       {"{}", "null"}},
      {"OneOf", R"({"oneOf":[{"type":"null"},{"type":"boolean"}]})", {"null", "true"}, {"1"}},
      {"AnyOfBesides",
       R"({"type":"object","properties":{"k":{"enum":["x","y"]}},"required":["k"],"anyOf":[{"properties":{"k":{"const":"x"},"n":{"type":"integer"}},"required":["n"]},{"properties":{"k":{"const":"y"}}}]})",
       {R"({"k":"x","n":1})", R"({"k":"y"})"},
       {R"({"k":"x"})", R"({"k":"y","n":1})"}},
      {"AllOf",
       R"({"allOf":[{"type":"object","properties":{"a":{"type":"number","minimum":0}},"required":["a"]},{"properties":{"a":{"type":"integer","maximum":9},"b":{"type":"null"}}}]})",
       {R"({"a":3})", R"({"a":0,"b":null})"},
       {R"({"a":10})", R"({"b":null})", R"({"a":-1})", R"({"a":1.5})"}},
      {"Ref",
       R"({"$defs":{"p":{"type":"integer"}},"type":"object","properties":{"x":{"$ref":"#/$defs/p","description":"d"},"y":{"$ref":"#/$defs/p","minimum":5}},"required":["x","y"]})",
       {R"({"x":1,"y":5})"},
       {R"({"x":1,"y":4})", R"({"x":"1","y":5})"}},
      {"Recursion",
       R"({"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["v","next"]})",
       {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":{"v":3,"next":null}}})"},
       {R"({"v":1})", R"({"v":1,"next":{"v":2}})"}},
      {"Tree",
       R"({"$ref":"#/$defs/t","$defs":{"t":{"type":"array","items":{"$ref":"#/$defs/t"}}}})",
       {"[]", "[[],[[]]]"},
       {"[1]", "[[]"}},
      {"DeadBranch",
       R"({"type":"object","properties":{"a":false,"b":{"type":"null"}}})",
       {"{}", R"({"b":null})"},
       {R"({"a":1})"}},
      {"Annotations",
       R"({"title":"t","description":"d","default":1,"examples":[1],"x-order":3,"type":"integer"})",
       {"1"},
       {"\"1\""}},
  };
  return kCases;
}

INSTANTIATE_TEST_SUITE_P(Words, SchemaWord, ::testing::ValuesIn(cases()),
                         [](const auto& word) { return word.param.name; });

// Every number of a window, for bounds that begin and end in every place.
TEST(JsonSchema, IntegerBoundsAreExact) {
  for (const auto& [low, high] : std::vector<std::pair<int, int>>{{0, 0},
                                                                  {-1, 1},
                                                                  {7, 7},
                                                                  {3, 12},
                                                                  {-105, -98},
                                                                  {99, 1001},
                                                                  {-11, 109},
                                                                  {190, 310},
                                                                  {-999, 999},
                                                                  {18, 92}}) {
    const auto grammar =
        schema_grammar(fmt::format(R"({{"type":"integer","minimum":{},"maximum":{}}})", low, high));
    for (int n = -1100; n <= 1100; ++n)
      ASSERT_EQ(matches(grammar, std::to_string(n)), low <= n && n <= high)
          << n << " in " << low << ".." << high;
  }
}

TEST(JsonSchema, NumberBoundsAreExact) {
  for (const auto& [low, high] :
       std::vector<std::pair<int, int>>{{0, 1}, {-2, 3}, {-12, -9}, {5, 5}, {98, 103}}) {
    for (const bool exclusive : {false, true}) {
      if (exclusive && low == high) continue;
      const std::string prefix = exclusive ? "exclusiveM" : "m";
      const auto grammar = schema_grammar(
          fmt::format(R"({{"type":"number","{0}inimum":{1},"{0}aximum":{2}}})", prefix, low, high));
      for (int tenths = -1300; tenths <= 1300; ++tenths) {
        const std::string text =
            fmt::format("{}{}.{}", tenths < 0 ? "-" : "", std::abs(tenths) / 10, std::abs(tenths) % 10);
        const bool is_inside =
            exclusive ? low * 10 < tenths && tenths < high * 10 : low * 10 <= tenths && tenths <= high * 10;
        if (tenths == 0) continue;
        ASSERT_EQ(matches(grammar, text), is_inside) << text << " in " << low << ".." << high;
      }
    }
  }
}

TEST(JsonSchema, WhatIsNotSupportedIsNamedWithItsPlace) {
  const auto message = [](const std::string& schema) { return message_of([&] { schema_grammar(schema); }); };
  EXPECT_EQ(
      message(R"({"type":"object","properties":{"a/b":{"not":{}}}})"),
      "JSON schema at /properties/a~1b: \"not\" is not supported; leave it out and check it on the answer");
  for (const char* word :
       {"patternProperties", "if", "contains", "multipleOf", "dependentRequired", "propertyNames"})
    EXPECT_NE(message(fmt::format(R"({{"{}":1}})", word)).find(word), std::string::npos);
  EXPECT_EQ(message(R"({"uniqueItems":true})").find("JSON schema at /: \"uniqueItems\""), 0U);
  EXPECT_EQ(message(R"({"type":"array","uniqueItems":false})"), "");
  EXPECT_NE(message(R"({"type":"text"})").find("/type: \"text\""), std::string::npos);
  EXPECT_NE(message(R"({"items":{"format":"ipv6"}})").find("/items: format \"ipv6\""), std::string::npos);
  EXPECT_NE(message(R"({"$ref":"http://x/y"})").find("only references into the schema"), std::string::npos);
  EXPECT_NE(message(R"({"$ref":"#/$defs/x"})").find("leads nowhere"), std::string::npos);
  EXPECT_NE(message(R"_({"pattern":"(?=a)"})_").find("/pattern: regular expression: look-around"),
            std::string::npos);
  EXPECT_NE(message(R"({"type":"number","minimum":0.5})").find("/minimum"), std::string::npos);
  EXPECT_NE(message(R"({"enum":[]})").find("/enum"), std::string::npos);
  EXPECT_NE(message(R"({"type":"string","minLength":-1})").find("/minLength"), std::string::npos);
  EXPECT_NE(message(R"([1])").find("an object, true or false"), std::string::npos);
  EXPECT_NE(
      message(R"({"allOf":[{"properties":{"a":{}},"additionalProperties":false},{"properties":{"b":{}}}]})")
          .find("property \"b\""),
      std::string::npos);
}

TEST(JsonSchema, WhatCannotBeFulfilledIsRefused) {
  const auto message = [](const std::string& schema) { return message_of([&] { schema_grammar(schema); }); };
  for (const char* schema :
       {"false", R"({"type":"integer","minimum":2,"maximum":1})",
        R"({"type":"array","minItems":2,"maxItems":1})",
        R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
        R"({"type":"object","required":["a"],"additionalProperties":false})", R"({"$ref":"#"})",
        R"({"allOf":[{"type":"string"},{"type":"integer"}],"enum":[1]})"})
    EXPECT_NE(message(schema).find("no text matches"), std::string::npos)
        << schema << ": " << message(schema);
  EXPECT_NE(message(R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})").find("left recursion"), std::string::npos);
}

TEST(JsonSchema, SizesAreBounded) {
  const auto message = [](const std::string& schema) { return message_of([&] { schema_grammar(schema); }); };
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += R"({"type":"array","items":)";
  EXPECT_NE(message(deep + "{}" + std::string(100, '}')).find("deeper than 64"), std::string::npos);
  // Each level names the next one twice: 2 to the 40th when written out.
  std::string doubling = R"({"$ref":"#/$defs/d0","$defs":{)";
  for (int i = 0; i < 40; ++i)
    doubling += fmt::format(
        R"("d{0}":{{"type":"array","prefixItems":[{{"$ref":"#/$defs/d{1}"}},{{"$ref":"#/$defs/d{1}"}}]}},)",
        i, i + 1);
  EXPECT_EQ(message(doubling + R"("d40":{"type":"null"}}})"), "");
  std::string merging = R"({"$ref":"#/$defs/d0","$defs":{)";
  for (int i = 0; i < 40; ++i) {
    merging += fmt::format(
        R"("d{0}":{{"anyOf":[{{"$ref":"#/$defs/d{1}","minLength":1}},{{"$ref":"#/$defs/d{1}","maxLength":9}}]}},)",
        i, i + 1);
  }
  EXPECT_NE(message(merging + R"("d40":{"type":"string"}}})"), "");
  EXPECT_NE(message(R"({"type":"array","maxItems":900000})").find("states"), std::string::npos);
}

TEST(JsonSchema, ManyOptionalPropertiesAreNoProblem) {
  std::string schema = R"({"type":"object","properties":{)";
  for (int i = 0; i < 1000; ++i) schema += fmt::format(R"({}"p{}":{{"type":"null"}})", i == 0 ? "" : ",", i);
  const auto grammar = schema_grammar(schema + "}}");
  EXPECT_TRUE(matches(grammar, R"({"p3":null,"p500":null,"p999":null})"));
  EXPECT_FALSE(matches(grammar, R"({"p500":null,"p3":null})"));
}

}  // namespace
}  // namespace minimax::grammar
