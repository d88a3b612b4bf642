// Compares renders with what Python's Jinja2 printed: a committed set of cases, and, where a Python with
// Jinja2 is at hand, a larger set made on the spot (tests/jinja/differential.py).
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "jinja/template.h"

namespace minimax::jinja {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

const fs::path kSource = MINIMAX_SOURCE_DIR;

struct Score {
  int compared = 0;
  int failing = 0;  // cases in which both sides refuse
};

struct Outcome {
  bool ok = false;
  std::string text;  // output or error
};

Outcome render(const std::string& source, const Json& context) {
  try {
    return {true, Template(source).render(context)};
  } catch (const Error& e) {
    return {false, e.what()};
  }
}

Score compare(const Json& file) {
  Score score;
  for (const Json& test : file.at("cases")) {
    const bool is_snippet = test.contains("source");
    const std::string name = test.at(is_snippet ? "source" : "template");
    const Json& context = is_snippet ? file.at("data") : test.at("context");
    const Outcome mine =
        render(is_snippet ? name : file.at("templates").at(name).get<std::string>(), context);
    const bool expected_ok = test.contains("output");
    const std::string label = is_snippet ? name : name + " with " + context.dump();
    EXPECT_EQ(mine.ok, expected_ok) << label << "\nours: " << mine.text
                                    << "\ntheirs: " << test.value("error", test.value("output", ""));
    if (mine.ok && expected_ok) {
      EXPECT_EQ(mine.text, test.at("output").get<std::string>()) << label;
    }
    ++score.compared;
    score.failing += !mine.ok;
  }
  return score;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A Python that can import jinja2, or nothing.
std::string find_python() {
  std::string python = environment("MINIMAX_PYTHON");
  if (python.empty()) python = (kSource / ".venv/bin/python").string();
  return std::system((python + " -c 'import jinja2' >/dev/null 2>&1").c_str()) == 0 ? python : "";
}

// Templates that the repository cannot carry, when they lie beside it.
fs::path find_m3_template() {
  const std::string named = environment("MINIMAX_SHARED_DATA");
  for (const fs::path& root : {fs::path(named), kSource / "../shared/data", kSource / "../../shared/data"}) {
    const fs::path file = root / "chat-templates/minimax-m3.jinja";
    if (!root.empty() && fs::exists(file)) return file;
  }
  return {};
}

Json run_script(const std::string& python, const std::vector<fs::path>& templates, int conversations,
                int seed) {
  const fs::path out = fs::temp_directory_path() / ("minimax_jinja_cases_" + std::to_string(seed) + ".json");
  std::string command = python + " " + (kSource / "tests/jinja/differential.py").string() + " --out " +
                        out.string() + " --seed " + std::to_string(seed) + " --conversations " +
                        std::to_string(conversations) + " --templates";
  for (const fs::path& file : templates) command += " " + file.string();
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  std::ifstream in(out);
  Json cases = Json::parse(in);
  in.close();
  fs::remove(out);
  return cases;
}

TEST(Differential, CommittedCases) {
  std::ifstream in(kSource / "tests/fixtures/jinja-cases.json");
  ASSERT_TRUE(in.good());
  const Score score = compare(Json::parse(in));
  std::cout << score.compared << " committed cases, " << score.failing << " of them refused by both\n";
}

TEST(Differential, GeneratedCases) {
  const std::string python = find_python();
  if (python.empty())
    GTEST_SKIP() << "no Python with jinja2: templates are compared on the committed cases only";
  const fs::path templates = kSource / "tests/fixtures/chat-templates";
  const Score score = compare(run_script(
      python,
      {templates / "minimax-m1.jinja", templates / "minimax-m1-vllm.jinja", templates / "minimax-m2.jinja"},
      500, 20));
  std::cout << score.compared << " generated cases, " << score.failing << " of them refused by both\n";
}

TEST(Differential, M3Template) {
  const std::string python = find_python();
  const fs::path m3 = find_m3_template();
  if (python.empty() || m3.empty())
    GTEST_SKIP() << "M3's template or a Python with jinja2 is missing: M3 is not compared";
  const Score score = compare(run_script(python, {m3}, 1000, 30));
  std::cout << score.compared << " cases with M3's template, " << score.failing
            << " of them refused by both\n";
}

}  // namespace
}  // namespace minimax::jinja
