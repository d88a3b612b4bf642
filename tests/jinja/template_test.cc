#include "jinja/template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

namespace minimax::jinja {
namespace {

using Json = nlohmann::ordered_json;

std::string render(std::string_view source, const Json& context = Json::object(), const Limits& limits = {}) {
  return Template(source, limits).render(context);
}

std::string error_of(std::string_view source, const Json& context = Json::object(),
                     const Limits& limits = {}) {
  try {
    render(source, context, limits);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Template, KeepsKeyOrder) {
  EXPECT_EQ(render("{{ d|tojson }}", {{"d", {{"z", 1}, {"a", 2}}}}), R"({"z": 1, "a": 2})");
}

TEST(Template, ErrorsNameTheLine) {
  EXPECT_NE(error_of("a\nb\n{{ x.y }}").find("line 3"), std::string::npos);
  EXPECT_NE(error_of("a\n{% if %}").find("line 2"), std::string::npos);
  EXPECT_NE(error_of("a\n\n{{ 1 / 0 }}").find("line 3"), std::string::npos);
}

TEST(Template, RaiseExceptionIsToldApart) {
  EXPECT_THROW(render("{{ raise_exception('no') }}"), RaisedError);
  EXPECT_NE(error_of("{{ raise_exception('no tools') }}").find("no tools"), std::string::npos);
}

TEST(Template, ContextMustBeAnObject) { EXPECT_THROW(render("x", Json::array()), Error); }

TEST(Template, IllFormedBytesBecomeReplacementCharacters) {
  EXPECT_EQ(render("{{ x }}\xff", {{"x", "a\xc3"}}), "a\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Template, StrftimeNowUsesTheGivenTime) {
  setenv("TZ", "UTC", 1);
  EXPECT_EQ(Template("{{ strftime_now('%Y-%m-%d') }}").render(Json::object(), {.now = 1700000000}),
            "2023-11-14");
}

TEST(Limits, HugeValuesAreRefusedNotAllocated) {
  for (const char* source :
       {"{{ 'a' * 10 ** 10 }}", "{{ [0] * 10 ** 12 }}", "{{ range(10 ** 12) }}", "{{ 'x'.center(10 ** 12) }}",
        "{{ '%1000000000d' % 1 }}", "{{ '{:1000000000}'.format(1) }}", "{{ 'x'|indent(10 ** 12) }}",
        "{{ [1]|batch(10 ** 12, 0)|list }}", "{{ 'a'.zfill(10 ** 15) }}", "{{ [1]|slice(10 ** 12)|list }}",
        "{{ '\\t'.expandtabs(10 ** 12) }}", "{{ [1]|tojson(indent=10 ** 12) }}"}) {
    EXPECT_NE(error_of(source), "no error") << source;
  }
}

TEST(Limits, DoublingValuesAreRefused) {
  EXPECT_NE(
      error_of(
          "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"),
      "no error");
  EXPECT_NE(
      error_of(
          "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"),
      "no error");
  EXPECT_NE(
      error_of(
          "{% set ns = namespace(x=[1]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}"),
      "no error");
}

TEST(Limits, StepsAreBounded) {
  Limits limits;
  limits.max_steps = 10'000;
  EXPECT_NE(error_of("{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
                     Json::object(), limits)
                .find("steps"),
            std::string::npos);
}

TEST(Limits, OutputIsBounded) {
  Limits limits;
  limits.max_output_bytes = 100;
  EXPECT_NE(error_of("{% for i in range(1000) %}xxxx{% endfor %}", Json::object(), limits).find("output"),
            std::string::npos);
}

TEST(Limits, NestingIsBounded) {
  const auto nested = [](int depth, const std::string& open, const std::string& close) {
    std::string text = "{{ ";
    for (int i = 0; i < depth; ++i) text += open;
    text += "1";
    for (int i = 0; i < depth; ++i) text += close;
    return text + " }}";
  };
  for (const auto& [open, close] :
       {std::pair{"(", ")"}, {"[", "]"}, {"-", ""}, {"not ", ""}, {"{1: ", "}"}, {"f(", ")"}}) {
    EXPECT_NE(error_of(nested(100'000, open, close)), "no error") << open;
  }
  for (const char* tail : {" + 1", "|abs", ".x", "[0]", "()", " and 1", " is odd", " if 1 else 1", "in 1"}) {
    EXPECT_NE(error_of(nested(100'000, "", tail)), "no error") << tail;
  }
  std::string blocks;
  for (int i = 0; i < 100'000; ++i) blocks += "{% if 1 %}";
  EXPECT_NE(error_of(blocks), "no error");
  EXPECT_NE(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").find("recurses"), std::string::npos);
  EXPECT_NE(error_of("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}").find("recurses"),
            std::string::npos);
}

TEST(Limits, DeepDocumentsAreRefused) {
  Json deep = 1;
  for (int i = 0; i < 1000; ++i) deep = Json::array({std::move(deep)});
  EXPECT_NE(error_of("{{ x }}", {{"x", deep}}).find("nests"), std::string::npos);
}

TEST(Limits, CyclesThroughNamespacesEnd) {
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns.me.me is defined }}"), "True");
  EXPECT_EQ(render("{% set ns = namespace() %}{% macro m() %}x{% endmacro %}{% set ns.m = m %}{{ ns.m() }}"),
            "x");
}

TEST(Template, RendersFromSeveralThreads) {
  const Template shared("{% for i in range(100) %}{{ i }}{{ x }}{% endfor %}");
  const std::string expected = shared.render({{"x", "é"}});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) EXPECT_EQ(shared.render({{"x", "é"}}), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace minimax::jinja
