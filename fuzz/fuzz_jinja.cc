// Input: template source, then optionally a zero byte and a JSON object as context.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "jinja/template.h"
#include "jinja/utf8.h"

namespace {

using Json = nlohmann::ordered_json;

Json context_of(std::string_view text) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_object()) return json;
  return {
      {"messages", {{{"role", "user"}, {"content", "Hi"}}, {{"role", "assistant"}, {"content", nullptr}}}},
      {"tools", nullptr},
      {"l", {3, 1, 2.5}},
      {"s", "a b\xC3\xA9 c"},
      {"d", {{"k", "v"}, {"n", {1, true}}}},
      {"add_generation_prompt", true}};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  minimax::jinja::Limits limits;
  limits.max_steps = 300'000;
  limits.max_value_bytes = 32 << 20;
  limits.max_output_bytes = 4 << 20;
  try {
    const minimax::jinja::Template parsed(input.substr(0, zero), limits);
    const Json context = context_of(zero == std::string_view::npos ? "" : input.substr(zero + 1));
    if (!minimax::jinja::is_valid_utf8(parsed.render(context, {.now = 1}))) __builtin_trap();
  } catch (const minimax::Error&) {
  }
  return 0;
}
