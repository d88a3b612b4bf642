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

// Upper bounds, far above every released model, that keep all products of sizes, the parameters of the whole
// model in bytes included, below 2^63, and the list of its tensors small.
constexpr int64_t kMaxWidth = kMaxMiniMaxM1Width;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxLayers = int64_t{1} << 10;
constexpr int64_t kMaxHeads = int64_t{1} << 12;
constexpr int64_t kMaxHeadDim = int64_t{1} << 12;
constexpr int64_t kMaxExperts = int64_t{1} << 12;
constexpr int64_t kMaxLayersTimesExperts = int64_t{1} << 18;
constexpr int64_t kMaxPositions = int64_t{1} << 32;
constexpr double kMaxFactor = 1e6;
constexpr double kMaxRopeTheta = 1e18;

constexpr std::string_view kHuggingFaceClass = "MiniMaxForCausalLM";

// architectures[0], or what model_type stands for.
std::string read_architecture(const ConfigReader& reader) {
  if (const json* list = reader.find("architectures")) {
    if (!list->is_array() || list->size() != 1 || !list->front().is_string()) {
      reader.refuse("architectures", *list, "a list of one class name");
    }
    return list->front().get<std::string>();
  }
  const std::string type = reader.text("model_type").value_or("");
  if (type == "minimax_m1") return "MiniMaxM1ForCausalLM";
  if (type == "minimax_text_01") return "MiniMaxText01ForCausalLM";
  if (type == "minimax") return std::string(kHuggingFaceClass);
  fail("config.json: architectures is missing and model_type is \"{}\"; expected the class name of the model",
       formats::printable(type));
}

void check_architecture(const std::string& architecture) {
  for (const std::string_view known :
       {std::string_view("MiniMaxM1ForCausalLM"), std::string_view("MiniMaxText01ForCausalLM"),
        kHuggingFaceClass, std::string_view("MiniMaxVL01ForConditionalGeneration")}) {
    if (architecture == known) return;
  }
  fail(
      "config.json: architecture {} is no MiniMax-Text-01 or M1 model; expected MiniMaxM1ForCausalLM, "
      "MiniMaxText01ForCausalLM, MiniMaxForCausalLM or MiniMaxVL01ForConditionalGeneration",
      formats::printable(architecture));
}

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

void read_rotary(const ConfigReader& reader, MiniMaxM1Config& config) {
  if (const json* scaling = reader.find("rope_scaling")) {
    reader.refuse("rope_scaling", *scaling,
                  "null; scaled rotary embeddings are not supported for this family");
  }
  const auto nested = reader.object("rope_parameters");
  if (nested) {
    const std::string type = nested->text("rope_type").value_or("default");
    if (type != "default") nested->refuse("rope_type", type, "\"default\"");
  }
  const auto theta = reader.number({"rope_theta"}, 1.0, kMaxRopeTheta);
  std::optional<double> nested_theta;
  if (nested) nested_theta = nested->number({"rope_theta"}, 1.0, kMaxRopeTheta);
  if (theta && nested_theta && *theta != *nested_theta) {
    fail("config.json: rope_theta is {} but rope_parameters.rope_theta is {}", *theta, *nested_theta);
  }
  config.rope_theta = nested_theta ? *nested_theta : reader.required_number("rope_theta", 1.0, kMaxRopeTheta);

  std::optional<double> share;
  if (nested) share = nested->number({"partial_rotary_factor"}, 0.0, 1.0);
  const auto derived = static_cast<int64_t>(static_cast<double>(config.head_dim) * share.value_or(1.0));
  config.rotary_dim = reader.integer_or("rotary_dim", derived, 2, config.head_dim);
  if (share && config.rotary_dim != derived) {
    fail("config.json: rotary_dim is {} but rope_parameters.partial_rotary_factor {} of head_dim {} gives {}",
         config.rotary_dim, *share, config.head_dim, derived);
  }
  if (config.rotary_dim < 2 || config.rotary_dim % 2 != 0) {
    fail("config.json: rotary_dim is {}; expected an even number from 2 to head_dim = {}", config.rotary_dim,
         config.head_dim);
  }
}

void read_sizes(const ConfigReader& reader, MiniMaxM1Config& config) {
  config.vocab_size = reader.integer("vocab_size", 1, kMaxVocab);
  config.hidden_size = reader.integer("hidden_size", 1, kMaxWidth);
  config.intermediate_size = reader.integer("intermediate_size", 1, kMaxWidth);
  config.num_layers = reader.integer("num_hidden_layers", 1, kMaxLayers);
  config.num_heads = reader.integer("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads = reader.integer("num_key_value_heads", 1, config.num_heads);
  config.head_dim = reader.integer("head_dim", 1, kMaxHeadDim);
  config.max_position_embeddings = reader.integer("max_position_embeddings", 1, kMaxPositions);
  if (config.num_heads % config.num_kv_heads != 0) {
    fail("config.json: num_attention_heads {} is no multiple of num_key_value_heads {}", config.num_heads,
         config.num_kv_heads);
  }
}

void read_experts(const ConfigReader& reader, MiniMaxM1Config& config) {
  const auto num_experts = reader.uniform_integer("num_local_experts", 1, kMaxExperts, config.num_layers);
  config.num_experts = num_experts ? *num_experts : reader.integer("num_local_experts", 1, kMaxExperts);
  config.num_experts_per_tok = reader.integer("num_experts_per_tok", 1, config.num_experts);
  if (config.num_layers * config.num_experts > kMaxLayersTimesExperts) {
    fail("config.json: num_hidden_layers {} times num_local_experts {} exceeds the limit of {}",
         config.num_layers, config.num_experts, kMaxLayersTimesExperts);
  }
  config.shared_intermediate_size =
      reader.uniform_integer("shared_intermediate_size", 0, kMaxWidth, config.num_layers).value_or(0);
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
  config.rms_norm_eps = static_cast<float>(reader.required_number("rms_norm_eps", 1e-12, 1.0));
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings").value_or(false);
  if (config.architecture == kHuggingFaceClass) {
    config.postnorm = true;  // transformers keeps the field but never reads it
    config.decay_rule = DecayRule::kTransformers;
    return;
  }
  const auto postnorm = reader.boolean("postnorm");
  if (!postnorm) fail("config.json: postnorm is missing; expected true or false, as released");
  config.postnorm = *postnorm;
}

void refuse_quantization(const ConfigReader& reader) {
  const auto quantization = reader.object("quantization_config");
  if (!quantization) return;
  fail("config.json: quantization method {} is not supported for this family yet; use the BF16 checkpoint",
       formats::printable(quantization->text("quant_method").value_or("(unnamed)")));
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

MiniMaxM1Config MiniMaxM1Config::from_json(const json& root) {
  if (!root.is_object()) fail("config.json: holds a JSON {}; expected an object", root.type_name());
  const ConfigReader outer(root);
  MiniMaxM1Config config;
  config.architecture = read_architecture(outer);
  check_architecture(config.architecture);
  refuse_quantization(outer);
  // MiniMax-VL-01 keeps the language model's fields in text_config.
  const ConfigReader reader = outer.object("text_config").value_or(outer);
  refuse_quantization(reader);
  read_sizes(reader, config);
  read_rotary(reader, config);
  read_experts(reader, config);
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
