// Masks of a vocabulary of 200,000 tokens under JSON schemas: found for the first time, and known.
#include <benchmark/benchmark.h>

#include <nlohmann/json.hpp>
#include <set>

#include "grammar/json_schema.h"
#include "grammar/matcher.h"

namespace minimax::grammar {
namespace {

constexpr size_t kTokens = 200'000;

// Words of two to five syllables with the spaces and signs that merges keep with them, and every byte.
std::vector<std::string> vocabulary() {
  const std::vector<std::string> syllables{"a",  "be", "con", "de",  "er", "fi",  "ing", "ka", "lo", "mi",
                                           "no", "or", "pre", "re",  "st", "ti",  "un",  "ve", "wo", "y",
                                           "é",  "中", "ß",   "ion", "s",  "\\n", "0",   "12", "_",  "."};
  const std::vector<std::string> before{"", " ", "", " ", "\"", "", "(", "\n", "", ":"};
  const std::vector<std::string> behind{"", "", "", ",", "\"", "", ")", "\":", "", "\","};
  std::set<std::string> texts;
  for (int byte = 0; byte < 256; ++byte) texts.emplace(1, static_cast<char>(byte));
  uint64_t x = 1;
  const auto draw = [&x](size_t count) {
    x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<size_t>(x >> 33U) % count;
  };
  while (texts.size() < kTokens) {
    std::string text = before[draw(before.size())];
    for (size_t n = 1 + draw(4); n > 0; --n) text += syllables[draw(syllables.size())];
    texts.insert(text + behind[draw(behind.size())]);
  }
  return {texts.begin(), texts.end()};
}

const std::shared_ptr<const TokenTrie>& trie() {
  static const auto kTrie = std::make_shared<const TokenTrie>(vocabulary());
  return kTrie;
}

constexpr const char* kSchema = R"({"type":"object","properties":{
  "name":{"type":"string"},"tag":{"type":"string","maxLength":200},"size":{"type":"integer","minimum":0,"maximum":9999},
  "parts":{"type":"array","items":{"type":"object","properties":{"id":{"type":"string","format":"uuid"}},
  "required":["id"]}},"any":{}},"required":["name","tag","size","parts","any"]})";

std::shared_ptr<const Grammar> grammar() {
  GrammarBuilder builder;
  JsonText json(builder);
  const RuleId root = builder.rule("root", add_json_schema(json, nlohmann::ordered_json::parse(kSchema)));
  return std::move(builder).build(root);
}

struct Place {
  const char* name;
  const char* text;  // what was written so far
};
constexpr Place kPlaces[] = {
    {"key", "{"},
    {"string", "{\"name\":\"a"},
    {"counted string", "{\"name\":\"a\",\"tag\":\"abc"},
    {"integer", "{\"name\":\"a\",\"tag\":\"abc\",\"size\":1"},
    {"any value", "{\"name\":\"a\",\"tag\":\"abc\",\"size\":1,\"parts\":[],\"any\":"},
    {"string inside any", "{\"name\":\"a\",\"tag\":\"abc\",\"size\":1,\"parts\":[],\"any\":[{\"a\":\"b"}};

void mask_found(benchmark::State& state) {
  const Place& place = kPlaces[state.range(0)];
  const auto compiled = grammar();
  std::vector<uint64_t> mask(static_cast<size_t>(trie()->num_words()));
  for (auto _ : state) {
    state.PauseTiming();
    GrammarMasks masks(compiled, trie());
    const int32_t at = masks.advance(masks.start(), place.text);
    state.ResumeTiming();
    masks.fill(at, mask);
  }
  state.SetLabel(place.name);
}

void mask_known(benchmark::State& state) {
  const Place& place = kPlaces[state.range(0)];
  std::vector<uint64_t> mask(static_cast<size_t>(trie()->num_words()));
  GrammarMasks masks(grammar(), trie());
  const int32_t at = masks.advance(masks.start(), place.text);
  for (auto _ : state) masks.fill(at, mask);
  state.SetLabel(place.name);
}

void build_trie(benchmark::State& state) {
  const auto tokens = vocabulary();
  for (auto _ : state) benchmark::DoNotOptimize(TokenTrie(tokens));
}

void compile_schema(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(grammar());
}

BENCHMARK(mask_found)->DenseRange(0, std::size(kPlaces) - 1)->Unit(benchmark::kMicrosecond);
BENCHMARK(mask_known)->DenseRange(0, std::size(kPlaces) - 1)->Unit(benchmark::kMicrosecond);
BENCHMARK(build_trie)->Unit(benchmark::kMillisecond);
BENCHMARK(compile_schema)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace minimax::grammar

BENCHMARK_MAIN();
