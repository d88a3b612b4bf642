// From config.json to a model: the one place that knows which architectures exist.
#include <nlohmann/json.hpp>

#include "models/minimax_m1.h"
#include "models/minimax_m1_config.h"
#include "models/minimax_m1_weights.h"
#include "models/model.h"

namespace minimax::models {
namespace {

// Cuts every per-layer list of `node` and sets its layer count.
void cut_layers(nlohmann::json& node, size_t old_count, int64_t new_count) {
  for (auto& [key, value] : node.items()) {
    if (key == "num_hidden_layers") {
      value = new_count;
    } else if (value.is_array() && value.size() == old_count) {
      value.erase(value.begin() + new_count, value.end());
    } else if (value.is_object()) {
      cut_layers(value, old_count, new_count);
    }
  }
}

}  // namespace

nlohmann::json with_first_layers(const nlohmann::json& config, int64_t num_layers) {
  const int64_t all = MiniMaxM1Config::from_json(config).num_layers;
  if (num_layers < 1 || num_layers > all) {
    fail("{} layers asked for; the model has {}, give a number from 1 to that", num_layers, all);
  }
  nlohmann::json cut = config;
  cut_layers(cut, static_cast<size_t>(all), num_layers);
  return cut;
}

std::unique_ptr<Model> load_model(const nlohmann::json& config, DType activation_dtype,
                                  formats::WeightSource& source, formats::Progress& progress) {
  MiniMaxM1Config m1 = MiniMaxM1Config::from_json(config);
  MiniMaxM1Weights weights = load_weights(m1, source, progress);
  return std::make_unique<MiniMaxM1>(std::move(m1), std::move(weights), activation_dtype);
}

std::unique_ptr<Model> plan_model(const nlohmann::json& config, DType activation_dtype) {
  MiniMaxM1Config m1 = MiniMaxM1Config::from_json(config);
  MiniMaxM1Weights weights = planned_weights(m1);
  return std::make_unique<MiniMaxM1>(std::move(m1), std::move(weights), activation_dtype);
}

ModelSummary summarize_model(const nlohmann::json& config, const formats::WeightSource* source) {
  return summarize(MiniMaxM1Config::from_json(config), source);
}

void check_weights(const nlohmann::json& config, const formats::WeightSource& source) {
  check_weights(MiniMaxM1Config::from_json(config), source);
}

std::unique_ptr<formats::WeightSource> make_dummy_weights(const nlohmann::json& config, uint64_t seed) {
  return dummy_weights(MiniMaxM1Config::from_json(config), seed);
}

}  // namespace minimax::models
