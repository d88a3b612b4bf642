// From config.json to a model: the one place that knows which families exist.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "formats/dummy_weights.h"
#include "formats/printable.h"
#include "models/architecture.h"
#include "models/config_reader.h"

namespace minimax::models {
namespace {

using nlohmann::json;

std::array<Family, 3> families() { return {minimax_m1_family(), minimax_m2_family(), minimax_m3_family()}; }

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string_view> known_architectures() {
  std::vector<std::string_view> names;
  for (const Family& family : families()) {
    names.insert(names.end(), family.architectures.begin(), family.architectures.end());
  }
  return names;
}

// architectures[0], where there is one.
std::optional<std::string> first_architecture(const json& config) {
  const ConfigReader reader(config);
  const json* list = reader.find("architectures");
  if (list == nullptr) return std::nullopt;
  if (!list->is_array() || list->size() != 1 || !list->front().is_string()) {
    reader.refuse("architectures", *list, "a list of one class name");
  }
  return list->front().get<std::string>();
}

Family find_family(const json& config) {
  if (!config.is_object()) fail("config.json is no object");
  const std::optional<std::string> architecture = first_architecture(config);
  const std::string type = ConfigReader(config).text("model_type").value_or("");
  for (const Family& family : families()) {
    if (architecture ? contains(family.architectures, *architecture) : contains(family.model_types, type)) {
      return family;
    }
  }
  if (architecture) {
    fail("config.json: architecture {} is not supported; supported are {}", formats::printable(*architecture),
         fmt::join(known_architectures(), ", "));
  }
  fail("config.json: architectures is missing and model_type is \"{}\"; expected the class name of the model",
       formats::printable(type));
}

std::unique_ptr<Architecture> open(const json& config) { return find_family(config).open(config); }

// Cuts every per-layer list of `node` and sets its layer count.
void cut_layers(json& node, size_t old_count, int64_t new_count) {
  for (auto& [key, value] : node.items()) {
    if (key == "num_hidden_layers") {
      value = new_count;
    } else if (value.is_array() && value.size() == old_count) {
      value.erase(value.begin() + new_count, value.end());
    } else if (value.is_object() && key != "vision_config") {
      cut_layers(value, old_count, new_count);
    }
  }
}

}  // namespace

ops::Precision ComputeOptions::precision() const {
  return activation_dtype == DType::kBF16 ? ops::Precision::kBF16 : ops::Precision::kF32;
}

ModelSummary common_summary(const CommonConfig& config, std::string_view family) {
  ModelSummary summary;
  summary.family = family;
  summary.architecture = config.architecture;
  summary.num_layers = config.num_layers;
  summary.max_position_embeddings = config.max_position_embeddings;
  summary.num_experts = config.num_experts;
  summary.num_experts_per_tok = config.num_experts_per_tok;
  summary.head_parameters = config.vocab_size * config.hidden_size;
  return summary;
}

json with_first_layers(const json& config, int64_t num_layers) {
  const int64_t all = open(config)->describe({}).num_layers;
  if (num_layers < 1 || num_layers > all) {
    fail("{} layers asked for; the model has {}, give a number from 1 to that", num_layers, all);
  }
  json cut = config;
  cut_layers(cut, static_cast<size_t>(all), num_layers);
  return cut;
}

std::unique_ptr<Model> load_model(const json& config, const ComputeOptions& options,
                                  formats::WeightSource& source, formats::Progress& progress) {
  const auto architecture = open(config);
  load_table(architecture->table(&source), source, progress);
  return architecture->make_model(options);
}

std::unique_ptr<Model> plan_model(const json& config, const ComputeOptions& options) {
  const auto architecture = open(config);
  plan_table(architecture->table(nullptr));
  return architecture->make_model(options);
}

ModelSummary describe_model(const json& config, const ComputeOptions& options) {
  return open(config)->describe(options);
}

ModelSummary summarize_model(const json& config, const formats::WeightSource* source,
                             const ComputeOptions& options) {
  const auto architecture = open(config);
  ModelSummary summary = architecture->describe(options);
  count_tensors(architecture->table(source), source, summary);
  return summary;
}

void check_weights(const json& config, const formats::WeightSource& source) {
  check_table(open(config)->table(&source), source);
}

std::unique_ptr<formats::WeightSource> make_dummy_weights(const json& config, uint64_t seed) {
  return std::make_unique<formats::DummyWeights>(released_tensors(open(config)->table(nullptr)), seed);
}

}  // namespace minimax::models
