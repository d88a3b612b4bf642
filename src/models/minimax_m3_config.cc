#include "models/minimax_m3_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "formats/printable.h"

namespace minimax::models {
namespace {

using nlohmann::json;

constexpr std::string_view kArchitectures[] = {"MiniMaxM3SparseForConditionalGeneration",
                                               "MiniMaxM3SparseForCausalLM", "MiniMaxM3VLForCausalLM"};
constexpr std::pair<std::string_view, std::string_view> kModelTypes[] = {
    {"minimax_m3_vl", "MiniMaxM3SparseForConditionalGeneration"},
    {"minimax_m3_vl_text", "MiniMaxM3SparseForCausalLM"}};

constexpr int64_t kMaxBlocks = int64_t{1} << 20;
constexpr int64_t kMaxBlockSize = int64_t{1} << 16;

// The flags of a per-layer list in either spelling. THROWS: Error when both are absent or disagree.
std::vector<bool> layer_flags(const ConfigReader& released, std::string_view released_name,
                              const ConfigReader& flat, std::string_view flat_name, std::string_view zero,
                              std::string_view one, int64_t num_layers) {
  const std::vector<bool> from_released = read_layer_flags(released, released_name, num_layers, zero, one);
  const std::vector<bool> from_flat = read_layer_flags(flat, flat_name, num_layers, zero, one);
  if (!from_released.empty() && !from_flat.empty() && from_released != from_flat) {
    fail("config.json: {} and {} disagree", released_name, flat_name);
  }
  if (from_released.empty() && from_flat.empty()) {
    fail("config.json: {} (or {}) is missing; which layers are of which kind is not guessed, add the list",
         released_name, flat_name);
  }
  return from_released.empty() ? from_flat : from_released;
}

// A field of sparse_attention_config, or its flat spelling.
int64_t index_field(const std::optional<ConfigReader>& nested, std::string_view released_name,
                    const ConfigReader& flat, std::string_view flat_name, int64_t low, int64_t high) {
  if (nested && nested->find(released_name) != nullptr) return nested->integer(released_name, low, high);
  return flat.integer(flat_name, low, high);
}

void refuse_index_values(const ConfigReader& nested, const MiniMaxM3Config& config) {
  const std::vector<bool> disabled =
      read_layer_flags(nested, "sparse_disable_index_value", config.num_layers, "", "");
  for (size_t l = 0; l < disabled.size(); ++l) {
    if (!disabled[l] && config.is_sparse[l]) {
      fail(
          "config.json: sparse_disable_index_value is 0 in sparse layer {}; an index value branch is not "
          "supported",
          l);
    }
  }
  const std::string score = nested.text("sparse_score_type").value_or("max");
  if (score != "max") nested.refuse("sparse_score_type", score, "\"max\"");
}

void read_indexer(const ConfigReader& reader, MiniMaxM3Config& config) {
  const auto nested = reader.object("sparse_attention_config");
  config.is_sparse = layer_flags(nested.value_or(reader), "sparse_attention_freq", reader, "layer_types",
                                 "full_attention", "minimax_m3_sparse", config.num_layers);
  if (nested && !nested->boolean("use_sparse_attention").value_or(true)) {
    config.is_sparse.assign(config.is_sparse.size(), false);
  }
  if (config.num_sparse_layers() == 0) return;
  IndexerConfig& indexer = config.indexer;
  const auto field = [&](std::string_view released, std::string_view flat, int64_t low, int64_t high) {
    return index_field(nested, released, reader, flat, low, high);
  };
  indexer.num_heads = field("sparse_num_index_heads", "index_n_heads", 1, kMaxHeads);
  indexer.head_dim = field("sparse_index_dim", "index_head_dim", 1, kMaxHeadDim);
  indexer.block_size = field("sparse_block_size", "index_block_size", 1, kMaxBlockSize);
  indexer.topk_blocks = field("sparse_topk_blocks", "index_topk_blocks", 1, kMaxBlocks);
  indexer.local_blocks = field("sparse_local_block", "index_local_blocks", 0, kMaxBlocks);
  if (nested) {
    indexer.init_blocks = nested->integer_or("sparse_init_block", 0, 0, kMaxBlocks);
    refuse_index_values(*nested, config);
  }
  if (indexer.num_heads != config.num_kv_heads) {
    fail("config.json: {} index heads for {} kv heads; each kv head needs one of its own", indexer.num_heads,
         config.num_kv_heads);
  }
  if (config.rotary_dim > indexer.head_dim) {
    fail("config.json: rotary_dim {} is more than the {} dimensions of an index head", config.rotary_dim,
         indexer.head_dim);
  }
}

void read_mlps(const ConfigReader& reader, MiniMaxM3Config& config) {
  config.has_moe =
      layer_flags(reader, "moe_layer_freq", reader, "mlp_layer_types", "dense", "sparse", config.num_layers);
  const bool any_dense =
      std::find(config.has_moe.begin(), config.has_moe.end(), false) != config.has_moe.end();
  config.dense_intermediate_size =
      any_dense ? reader.integer("dense_intermediate_size", 1, kMaxModelWidth) : 0;
  const int64_t shared_experts = reader.integer_or("n_shared_experts", 1, 0, kMaxModelExperts);
  const int64_t shared_width = reader.integer_or("shared_intermediate_size", 0, 0, kMaxModelWidth);
  config.shared_intermediate_size = shared_experts * shared_width;
  if (config.shared_intermediate_size > kMaxModelWidth) {
    fail("config.json: n_shared_experts {} of shared_intermediate_size {} are wider than the limit of {}",
         shared_experts, shared_width, kMaxModelWidth);
  }
  config.swiglu_alpha = static_cast<float>(reader.required_number("swiglu_alpha", 1e-6, 1e6));
  config.swiglu_limit = static_cast<float>(reader.required_number("swiglu_limit", 1e-6, 1e6));
  const double beta = reader.number({"swiglu_beta"}, -1e6, 1e6).value_or(1.0);
  if (beta != 1.0) reader.refuse("swiglu_beta", beta, "1");
  // transformers writes "silu" and still computes the clamped form.
  const std::string activation = reader.text("hidden_act").value_or("swigluoai");
  if (activation != "swigluoai" && activation != "silu") {
    reader.refuse("hidden_act", activation, "\"swigluoai\"");
  }
}

void check_features(const ConfigReader& reader) {
  const auto require = [&reader](std::string_view name, bool expected) {
    const bool value = reader.boolean(name).value_or(expected);
    if (value != expected) reader.refuse(name, value, expected ? "true" : "false");
  };
  require("use_gemma_norm", true);
  require("use_qk_norm", true);
  require("attention_output_gate", false);
  const std::string qk_norm = reader.text("qk_norm_type").value_or("per_head");
  if (qk_norm != "per_head") reader.refuse("qk_norm_type", qk_norm, "\"per_head\"");
  const std::string scoring = reader.text("scoring_func").value_or("sigmoid");
  if (scoring != "sigmoid") reader.refuse("scoring_func", scoring, "\"sigmoid\"");
}

}  // namespace

const FamilyNames MiniMaxM3Config::kNames = {"MiniMax-M3", kArchitectures, kModelTypes};

MiniMaxM3Config MiniMaxM3Config::from_json(const json& root) {
  if (!root.is_object()) fail("config.json: holds a JSON {}; expected an object", root.type_name());
  const ConfigReader outer(root);
  MiniMaxM3Config config;
  config.architecture = read_architecture(root, kNames);
  const ConfigReader reader = outer.object("text_config").value_or(outer);
  config.read(reader, root);
  check_features(reader);
  read_mlps(reader, config);
  read_indexer(reader, config);
  config.routing_bias = reader.boolean("use_routing_bias").value_or(true);
  config.routed_scale = static_cast<float>(reader.number({"routed_scaling_factor"}, 1e-6, 1e6).value_or(1.0));
  return config;
}

int64_t MiniMaxM3Config::num_sparse_layers() const {
  return std::count(is_sparse.begin(), is_sparse.end(), true);
}

}  // namespace minimax::models
