// Any bytes as a config.json: refused with one line, or a configuration whose sizes can be counted.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "formats/json.h"
#include "models/minimax_m1_config.h"
#include "models/minimax_m1_inspect.h"

namespace {

// Larger tables are as valid but slow the fuzzer down.
constexpr int64_t kMaxTableRows = 4096;

void parse(std::string_view text) {
  const auto json = minimax::formats::parse_json(text, "fuzz");
  const auto config = minimax::models::MiniMaxM1Config::from_json(json);
  if (config.num_layers * config.num_experts > kMaxTableRows) return;
  const auto summary = minimax::models::summarize(config);
  MM_CHECK(summary.active_parameters > 0 && summary.active_parameters <= summary.total_parameters,
           "{} active of {} parameters", summary.active_parameters, summary.total_parameters);
  MM_CHECK(summary.weight_bytes > summary.total_parameters, "{} bytes", summary.weight_bytes);
  minimax::models::decay_rates(config, config.num_layers - 1);
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
