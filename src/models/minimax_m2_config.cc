#include "models/minimax_m2_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace minimax::models {
namespace {

using nlohmann::json;

constexpr std::string_view kArchitectures[] = {"MiniMaxM2ForCausalLM"};
constexpr std::pair<std::string_view, std::string_view> kModelTypes[] = {{"minimax_m2", kArchitectures[0]}};

void check_layers(const ConfigReader& reader, const MiniMaxM2Config& config) {
  for (const std::string_view name : {"attn_type_list", "layer_types"}) {
    const std::vector<bool> is_full =
        read_layer_flags(reader, name, config.num_layers, "linear_attention", "full_attention");
    if (std::find(is_full.begin(), is_full.end(), false) != is_full.end()) {
      fail("config.json: {} has a layer without full attention; every layer of this family has it", name);
    }
  }
  if (const json* window = reader.find("sliding_window")) {
    reader.refuse("sliding_window", *window, "null; a window is not supported for this family");
  }
}

QkNorm read_qk_norm(const ConfigReader& reader) {
  if (!reader.boolean("use_qk_norm").value_or(true)) {
    reader.refuse("use_qk_norm", false, "true; the family's attention norms its queries and keys");
  }
  const std::string type = reader.text("qk_norm_type").value_or("per_layer");
  if (type == "per_layer") return QkNorm::kFlattened;
  if (type == "per_head") return QkNorm::kPerHead;
  reader.refuse("qk_norm_type", type, "\"per_layer\" or \"per_head\"");
}

}  // namespace

const FamilyNames MiniMaxM2Config::kNames = {"MiniMax-M2", kArchitectures, kModelTypes};

MiniMaxM2Config MiniMaxM2Config::from_json(const json& root) {
  if (!root.is_object()) fail("config.json: holds a JSON {}; expected an object", root.type_name());
  const ConfigReader reader(root);
  MiniMaxM2Config config;
  config.architecture = read_architecture(root, kNames);
  config.read(reader, root);
  check_layers(reader, config);
  config.qk_norm = read_qk_norm(reader);
  const std::string scoring = reader.text("scoring_func").value_or("sigmoid");
  if (scoring != "sigmoid") reader.refuse("scoring_func", scoring, "\"sigmoid\"");
  const std::string activation = reader.text("hidden_act").value_or("silu");
  if (activation != "silu") reader.refuse("hidden_act", activation, "\"silu\"");
  config.routing_bias = reader.boolean("use_routing_bias").value_or(true);
  config.routed_scale = static_cast<float>(reader.number({"routed_scaling_factor"}, 1e-6, 1e6).value_or(1.0));
  if (reader.uniform_integer("shared_intermediate_size", 0, kMaxModelWidth, config.num_layers).value_or(0) >
      0) {
    reader.refuse("shared_intermediate_size", *reader.find("shared_intermediate_size"),
                  "0; the family has no shared expert");
  }
  return config;
}

}  // namespace minimax::models
