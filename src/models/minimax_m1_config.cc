#include "models/minimax_m1_config.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "formats/printable.h"
#include "models/config_reader.h"

namespace minimax::models {
namespace {

using nlohmann::json;

constexpr double kMaxFactor = 1e6;

constexpr std::string_view kHuggingFaceClass = "MiniMaxForCausalLM";

constexpr std::string_view kArchitectures[] = {"MiniMaxM1ForCausalLM", "MiniMaxText01ForCausalLM",
                                               kHuggingFaceClass, "MiniMaxVL01ForConditionalGeneration"};
constexpr std::pair<std::string_view, std::string_view> kModelTypes[] = {
    {"minimax_m1", "MiniMaxM1ForCausalLM"},
    {"minimax_text_01", "MiniMaxText01ForCausalLM"},
    {"minimax", kHuggingFaceClass}};

AttentionKind attention_kind(const ConfigReader& reader, std::string_view name, const json& value) {
  if (value.is_number_integer() && value == 0) return AttentionKind::kLightning;
  if (value.is_number_integer() && value == 1) return AttentionKind::kFull;
  if (value.is_string() && value == "linear_attention") return AttentionKind::kLightning;
  if (value.is_string() && value == "full_attention") return AttentionKind::kFull;
  reader.refuse(name, value, "0 or \"linear_attention\", 1 or \"full_attention\" as elements");
}

std::vector<AttentionKind> read_layer_kinds(const ConfigReader& reader, int64_t num_layers) {
  std::vector<AttentionKind> kinds;
  std::string_view first_name;
  for (const std::string_view name : {"attn_type_list", "layer_types", "decoder_attention_types"}) {
    const json* list = reader.list(name, num_layers);
    if (list == nullptr) continue;
    std::vector<AttentionKind> found;
    for (const json& element : *list) found.push_back(attention_kind(reader, name, element));
    if (!kinds.empty() && kinds != found) fail("config.json: {} and {} disagree", first_name, name);
    kinds = std::move(found);
    first_name = name;
  }
  if (kinds.empty()) {
    fail(
        "config.json: attn_type_list (or layer_types) is missing; which layers use full attention is not "
        "guessed, add the list");
  }
  return kinds;
}

DeepNorm read_factors(const ConfigReader& reader, std::string_view released, std::string_view converted) {
  const auto factor = [&](std::string_view released_suffix, std::string_view converted_suffix) {
    const std::string name = fmt::format("layernorm_{}_{}", released, released_suffix);
    const std::string other = fmt::format("{}_{}_factor", converted, converted_suffix);
    return static_cast<float>(reader.number({name, other}, -kMaxFactor, kMaxFactor).value_or(1.0));
  };
  return {factor("alpha", "alpha"), factor("beta", "beta")};
}

void read_shared_mlp(const ConfigReader& reader, MiniMaxM1Config& config) {
  config.shared_intermediate_size =
      reader.uniform_integer("shared_intermediate_size", 0, kMaxModelWidth, config.num_layers).value_or(0);
  if (config.shared_intermediate_size == 0) return;
  const std::string mode = reader.text("shared_moe_mode").value_or("softmax");
  if (mode != "sigmoid") {
    fail("config.json: shared_moe_mode is \"{}\" with a shared MLP; expected \"sigmoid\"",
         formats::printable(mode));
  }
}

void read_features(const ConfigReader& reader, MiniMaxM1Config& config) {
  const std::string act = reader.text("hidden_act").value_or("silu");
  if (act != "silu") reader.refuse("hidden_act", act, "\"silu\"");
  if (const json* window = reader.find("sliding_window")) {
    reader.refuse("sliding_window", *window, "null; a window is not supported for this family");
  }
  if (config.architecture == kHuggingFaceClass) {
    config.postnorm = true;  // transformers keeps the field but never reads it
    config.decay_rule = DecayRule::kTransformers;
    return;
  }
  const auto postnorm = reader.boolean("postnorm");
  if (!postnorm) fail("config.json: postnorm is missing; expected true or false, as released");
  config.postnorm = *postnorm;
}

// slope[h] of ALiBi for n heads.
std::vector<double> alibi_slopes(int64_t n) {
  const auto powers = [](int64_t count) {
    std::vector<double> slopes;
    const double start = std::exp2(-8.0 / static_cast<double>(count));
    for (int64_t h = 0; h < count; ++h) slopes.push_back(std::pow(start, static_cast<double>(h + 1)));
    return slopes;
  };
  const auto lower = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(n)));
  std::vector<double> slopes = powers(lower);
  const std::vector<double> finer = powers(2 * lower);
  for (int64_t i = 0; i < n - lower; ++i) slopes.push_back(finer[static_cast<size_t>(2 * i)]);
  return slopes;
}

std::vector<double> geometric_slopes(int64_t n) {
  std::vector<double> slopes;
  for (int64_t h = 0; h < n; ++h) {
    slopes.push_back(std::exp2(-8.0 * static_cast<double>(h + 1) / static_cast<double>(n)));
  }
  return slopes;
}

}  // namespace

const FamilyNames MiniMaxM1Config::kNames = {"MiniMax-Text-01 / M1", kArchitectures, kModelTypes};

MiniMaxM1Config MiniMaxM1Config::from_json(const json& root) {
  if (!root.is_object()) fail("config.json: holds a JSON {}; expected an object", root.type_name());
  const ConfigReader outer(root);
  MiniMaxM1Config config;
  config.architecture = read_architecture(root, kNames);
  // MiniMax-VL-01 keeps the language model's fields in text_config.
  const ConfigReader reader = outer.object("text_config").value_or(outer);
  config.read(reader, root);
  read_shared_mlp(reader, config);
  read_features(reader, config);
  config.full_attention = read_factors(reader, "full_attention", "full_attn");
  config.lightning_attention = read_factors(reader, "linear_attention", "linear_attn");
  config.mlp = read_factors(reader, "mlp", "mlp");
  config.layer_kinds = read_layer_kinds(reader, config.num_layers);
  return config;
}

int64_t MiniMaxM1Config::count(AttentionKind kind) const {
  return std::count(layer_kinds.begin(), layer_kinds.end(), kind);
}

std::vector<float> decay_rates(const MiniMaxM1Config& config, int64_t layer) {
  MM_CHECK(layer >= 0 && layer < config.num_layers, "decay_rates: layer {} of {}", layer, config.num_layers);
  const bool is_released = config.decay_rule == DecayRule::kReleased;
  const std::vector<double> slopes =
      is_released ? alibi_slopes(config.num_heads) : geometric_slopes(config.num_heads);
  const auto last = static_cast<double>(config.num_layers - 1);
  double factor = 1.0 + 1e-5;
  if (config.num_layers > 1) factor -= static_cast<double>(layer) / (is_released ? last : last + 1e-5);
  std::vector<float> rates;
  rates.reserve(slopes.size());
  for (const double slope : slopes) rates.push_back(static_cast<float>(slope * factor));
  return rates;
}

}  // namespace minimax::models
