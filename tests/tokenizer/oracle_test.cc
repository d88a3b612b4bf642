// Compares with Hugging Face's `tokenizers`: committed strings always, many more where a Python that has the
// package is at hand (tests/tokenizer/oracle.py).
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tokenizer/detokenizer.h"
#include "tokenizer/tokenizer.h"

namespace minimax::tokenizer {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

const fs::path kSource = MINIMAX_SOURCE_DIR;

std::string find_python() {
  const char* named = std::getenv("MINIMAX_PYTHON");
  const std::string python = named != nullptr ? named : (kSource / ".venv/bin/python").string();
  return std::system((python + " -c 'import tokenizers' >/dev/null 2>&1").c_str()) == 0 ? python : "";
}

std::string decode_in_steps(const Tokenizer& tokenizer, const Ids& ids, const DecodeOptions& options) {
  Detokenizer detokenizer(tokenizer, options);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.push(id);
  return text + detokenizer.finish();
}

void compare_strings(const Tokenizer& tokenizer, const Json& cases) {
  const Json& strings = cases.at("strings");
  int failures = 0;
  for (size_t i = 0; i < strings.size() && failures < 20; ++i) {
    const std::string text = strings[i];
    const Ids expected = cases.at("ids")[i];
    const Ids ids = tokenizer.encode(text);
    EXPECT_EQ(ids, expected) << strings[i];
    const Json& plain = cases.at("text_ids")[i];
    const Ids plain_ids = tokenizer.encode(text, {.parse_special = false});
    EXPECT_EQ(plain_ids, plain.is_null() ? expected : plain.get<Ids>()) << strings[i];
    failures += ids != expected;
  }
}

void compare_decodes(const Tokenizer& tokenizer, const Json& cases) {
  for (const Json& entry : cases.at("decodes")) {
    const Ids ids = entry[0];
    EXPECT_EQ(tokenizer.decode(ids), entry[1].get<std::string>()) << entry[0];
    EXPECT_EQ(tokenizer.decode(ids, {.skip_special = true}), entry[2].get<std::string>()) << entry[0];
    EXPECT_EQ(decode_in_steps(tokenizer, ids, {}), entry[1].get<std::string>()) << entry[0];
    EXPECT_EQ(decode_in_steps(tokenizer, ids, {.skip_special = true}), entry[2].get<std::string>())
        << entry[0];
  }
}

void compare(const Tokenizer& tokenizer, const fs::path& cases_file) {
  std::ifstream in(cases_file);
  ASSERT_TRUE(in.good()) << cases_file;
  const Json cases = Json::parse(in);
  compare_strings(tokenizer, cases);
  compare_decodes(tokenizer, cases);
  std::cout << cases.at("strings").size() << " strings and " << cases.at("decodes").size()
            << " decodes compared\n";
}

void compare_with_script(const std::string& kind, int strings, int seed) {
  const std::string python = find_python();
  if (python.empty()) GTEST_SKIP() << "no Python with tokenizers: only the committed strings are compared";
  const fs::path out = fs::temp_directory_path() / ("minimax_tokenizer_" + kind);
  const std::string command = python + " " + (kSource / "tests/tokenizer/oracle.py").string() + " --kind " +
                              kind + " --out " + out.string() + " --strings " + std::to_string(strings) +
                              " --seed " + std::to_string(seed);
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  const Tokenizer tokenizer = Tokenizer::load(kind == "m1" ? kSource / "tests/fixtures/minimax-m1" : out);
  compare(tokenizer, out / "cases.json");
  fs::remove_all(out);
}

TEST(Oracle, CommittedStrings) {
  compare(Tokenizer::load(kSource / "tests/fixtures/minimax-m1"),
          kSource / "tests/fixtures/tokenizer-cases.json");
}

TEST(Oracle, M1FromMerges) { compare_with_script("m1", 25'000, 11); }
TEST(Oracle, M2FromTokenizerJson) { compare_with_script("m2", 25'000, 12); }
TEST(Oracle, OddAddedTokensAndIgnoreMerges) { compare_with_script("odd", 25'000, 13); }

TEST(Speed, EncodesMegabytesPerSecond) {
  const Tokenizer tokenizer = Tokenizer::load(kSource / "tests/fixtures/minimax-m1");
  std::ifstream in(kSource / "tests/fixtures/tokenizer-cases.json");
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto rate = [&](const char* what, const std::string& input) {
    const auto begin = std::chrono::steady_clock::now();
    const size_t count = tokenizer.encode(input).size();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    const double megabytes = static_cast<double>(input.size()) / 1e6;
    std::cout << what << ": " << megabytes << " MB, " << count << " tokens, " << megabytes / seconds.count()
              << " MB/s\n";
    return seconds.count();
  };
  std::string prose;
  while (prose.size() < 4'000'000)
    prose += "The quick brown fox jumps over the lazy dog, and nobody knows why it did so in 1987.\n";
  rate("prose", prose);
  rate("mixed scripts", text);
  // Runs that a quadratic merge or a backtracking split would take minutes for.
  EXPECT_LT(rate("1 MB of one letter", std::string(1'000'000, 'a')), 20.0);
  EXPECT_LT(rate("1 MB of capitals", std::string(1'000'000, 'A')), 20.0);
  EXPECT_LT(rate("1 MB of spaces", std::string(1'000'000, ' ') + "x"), 20.0);
  EXPECT_LT(rate("1 MB of newlines", std::string(1'000'000, '\n') + "x"), 20.0);
}

}  // namespace
}  // namespace minimax::tokenizer
