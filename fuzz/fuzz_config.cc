// Any bytes as a config.json: refused with one line, or a configuration whose sizes can be counted.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "formats/json.h"
#include "models/model.h"

namespace {

// Larger tables are as valid but slow the fuzzer down.
constexpr int64_t kMaxTableRows = 4096;

void parse(std::string_view text) {
  using namespace minimax::models;
  const auto json = minimax::formats::parse_json(text, "fuzz");
  const ModelSummary described = describe_model(json);
  if (described.num_layers * described.num_experts > kMaxTableRows) return;
  const ModelSummary summary = summarize_model(json, nullptr);
  MM_CHECK(summary.active_parameters > 0 && summary.active_parameters <= summary.total_parameters,
           "{} active of {} parameters", summary.active_parameters, summary.total_parameters);
  MM_CHECK(summary.weight_bytes >= summary.total_parameters, "{} bytes", summary.weight_bytes);
  MM_CHECK(summary.caches.kv_bytes(1) >= 0 && summary.caches.state_bytes(1) >= 0, "caches");
  plan_model(json, {});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    parse({reinterpret_cast<const char*>(data), size});
  } catch (const minimax::Error& e) {
    MM_CHECK(std::string_view(e.what()).find('\n') == std::string_view::npos, "message of several lines");
  }
  return 0;
}
