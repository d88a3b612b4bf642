#include "models/common_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "formats/printable.h"

namespace minimax::models {
namespace {

using nlohmann::json;

constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxLayers = int64_t{1} << 10;
constexpr int64_t kMaxLayersTimesExperts = int64_t{1} << 18;
constexpr int64_t kMaxPositions = int64_t{1} << 32;
constexpr double kMaxRopeTheta = 1e18;

void read_sizes(const ConfigReader& reader, CommonConfig& config) {
  config.vocab_size = reader.integer("vocab_size", 1, kMaxVocab);
  config.hidden_size = reader.integer("hidden_size", 1, kMaxModelWidth);
  config.intermediate_size = reader.integer("intermediate_size", 1, kMaxModelWidth);
  config.num_layers = reader.integer("num_hidden_layers", 1, kMaxLayers);
  config.num_heads = reader.integer("num_attention_heads", 1, kMaxHeads);
  config.num_kv_heads = reader.integer("num_key_value_heads", 1, config.num_heads);
  config.head_dim = reader.integer("head_dim", 1, kMaxHeadDim);
  config.max_position_embeddings = reader.integer("max_position_embeddings", 1, kMaxPositions);
  if (config.num_heads % config.num_kv_heads != 0) {
    fail("config.json: num_attention_heads {} is no multiple of num_key_value_heads {}", config.num_heads,
         config.num_kv_heads);
  }
  config.rms_norm_eps = static_cast<float>(reader.required_number("rms_norm_eps", 1e-12, 1.0));
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings").value_or(false);
}

void read_experts(const ConfigReader& reader, CommonConfig& config) {
  const std::string_view field =
      reader.find("num_local_experts") == nullptr && reader.find("num_experts") != nullptr
          ? "num_experts"
          : "num_local_experts";
  const auto num_experts = reader.uniform_integer(field, 1, kMaxModelExperts, config.num_layers);
  config.num_experts = num_experts ? *num_experts : reader.integer(field, 1, kMaxModelExperts);
  config.num_experts_per_tok = reader.integer("num_experts_per_tok", 1, config.num_experts);
  if (config.num_layers * config.num_experts > kMaxLayersTimesExperts) {
    fail("config.json: num_hidden_layers {} times {} {} exceeds the limit of {}", config.num_layers, field,
         config.num_experts, kMaxLayersTimesExperts);
  }
}

double read_theta(const ConfigReader& reader, const std::optional<ConfigReader>& nested) {
  const auto theta = reader.number({"rope_theta"}, 1.0, kMaxRopeTheta);
  std::optional<double> nested_theta;
  if (nested) nested_theta = nested->number({"rope_theta"}, 1.0, kMaxRopeTheta);
  if (theta && nested_theta && *theta != *nested_theta) {
    fail("config.json: rope_theta is {} but rope_parameters.rope_theta is {}", *theta, *nested_theta);
  }
  return nested_theta ? *nested_theta : reader.required_number("rope_theta", 1.0, kMaxRopeTheta);
}

void read_rotary(const ConfigReader& reader, CommonConfig& config) {
  if (const json* scaling = reader.find("rope_scaling")) {
    reader.refuse("rope_scaling", *scaling,
                  "null; scaled rotary embeddings are not supported for this family");
  }
  const auto nested = reader.object("rope_parameters");
  if (nested) {
    const std::string type = nested->text("rope_type").value_or("default");
    if (type != "default") nested->refuse("rope_type", type, "\"default\"");
  }
  config.rope_theta = read_theta(reader, nested);

  std::optional<double> share = reader.number({"partial_rotary_factor"}, 0.0, 1.0);
  if (nested) {
    if (const auto inner = nested->number({"partial_rotary_factor"}, 0.0, 1.0)) share = inner;
  }
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

}  // namespace

void CommonConfig::read(const ConfigReader& reader, const json& root) {
  read_sizes(reader, *this);
  read_rotary(reader, *this);
  read_experts(reader, *this);
  quantization = QuantizationConfig::from_json(root);
}

std::optional<std::string> find_architecture(const json& root, const FamilyNames& names) {
  const ConfigReader reader(root);
  const json* list = reader.find("architectures");
  if (list == nullptr) {
    const std::string type = reader.text("model_type").value_or("");
    for (const auto& [name, architecture] : names.model_types) {
      if (name == type) return std::string(architecture);
    }
    return std::nullopt;
  }
  if (!list->is_array() || list->size() != 1 || !list->front().is_string()) {
    reader.refuse("architectures", *list, "a list of one class name");
  }
  const auto& known = names.architectures;
  auto architecture = list->front().get<std::string>();
  if (std::find(known.begin(), known.end(), architecture) == known.end()) return std::nullopt;
  return architecture;
}

std::string read_architecture(const json& root, const FamilyNames& names) {
  std::optional<std::string> architecture = find_architecture(root, names);
  if (architecture) return *std::move(architecture);
  const ConfigReader reader(root);
  const json* list = reader.find("architectures");
  if (list == nullptr) {
    fail(
        "config.json: architectures is missing and model_type is \"{}\"; expected the class name of the "
        "model",
        formats::printable(reader.text("model_type").value_or("")));
  }
  fail("config.json: architecture {} is no {} model; expected {}",
       formats::printable(list->front().get<std::string>()), names.family,
       fmt::join(names.architectures, ", "));
}

std::vector<float> inverse_frequencies(double theta, int64_t dim) {
  std::vector<float> frequencies;
  for (int64_t c = 0; c < dim / 2; ++c) {
    const double exponent = 2.0 * static_cast<double>(c) / static_cast<double>(dim);
    frequencies.push_back(static_cast<float>(std::pow(theta, -exponent)));
  }
  return frequencies;
}

std::vector<bool> read_layer_flags(const ConfigReader& reader, std::string_view name, int64_t num_layers,
                                   std::string_view zero, std::string_view one) {
  std::vector<bool> flags;
  const json* list = reader.list(name, num_layers);
  if (list == nullptr) return flags;
  for (const json& element : *list) {
    const bool is_zero =
        (element.is_number_integer() && element == 0) || (element.is_string() && element == zero);
    const bool is_one =
        (element.is_number_integer() && element == 1) || (element.is_string() && element == one);
    if (!is_zero && !is_one) {
      reader.refuse(name, element, fmt::format("0 or \"{}\", 1 or \"{}\" as elements", zero, one));
    }
    flags.push_back(is_one);
  }
  return flags;
}

}  // namespace minimax::models
