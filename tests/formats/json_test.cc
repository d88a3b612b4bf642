#include "formats/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "formats/printable.h"
#include "tests/formats/temp_dir.h"

namespace minimax::formats {
namespace {

using testing::expect_error;
using testing::TempDir;

TEST(Json, ParsesAnObject) {
  const auto value = parse_json(R"({"a": {"k": 1}, "b": [{"k": 2}, {"k": 3}]})", "x");
  EXPECT_EQ(value["b"][1]["k"], 3);
}

TEST(Json, RefusesDuplicateKeysAtEveryLevel) {
  expect_error([] { parse_json(R"({"a": 1, "a": 2})", "x.json"); }, "x.json: JSON key \"a\" appears twice");
  expect_error([] { parse_json(R"({"o": [{"k": 1, "k": 1}]})", "x.json"); }, "JSON key \"k\" appears twice");
}

TEST(Json, RefusesWhatIsNoJson) {
  for (const char* text : {"", "{", "{'a': 1}", "{\"a\": NaN}", "{} {}", "{\"a\": 1,}", "// c\n{}", "\xff"}) {
    expect_error([&] { parse_json(text, "x.json"); }, "x.json: not valid JSON");
  }
}

TEST(Json, RefusesDeepNesting) {
  expect_error([] { parse_json(std::string(100'000, '['), "x.json"); }, "nested deeper than 64 levels");
}

TEST(Json, ReadsFilesWithinABound) {
  const TempDir dir;
  EXPECT_EQ(read_json_object(dir.write("a.json", "{\"a\": 1}"), 100)["a"], 1);
  expect_error([&] { read_json_object(dir.write("b.json", "{\"a\": 1}"), 4); }, "b.json: has 8 bytes");
  expect_error([&] { read_json_object(dir.write("c.json", "[1]"), 100); }, "c.json: holds a JSON array");
  expect_error([&] { read_json_object(dir.path() / "d.json", 100); }, "d.json: no such file");
}

TEST(Printable, EscapesAndCuts) {
  EXPECT_EQ(printable("a b\"~"), "a b\"~");
  EXPECT_EQ(printable(std::string_view("\0\n\x7f\xc3", 4)), "\\x00\\x0a\\x7f\\xc3");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
  EXPECT_EQ(printable("abc", 3), "abc");
}

}  // namespace
}  // namespace minimax::formats
