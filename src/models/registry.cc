// From config.json to a model: the one place that knows which architectures exist.
#include <nlohmann/json.hpp>

#include "models/minimax_m1.h"
#include "models/minimax_m1_config.h"
#include "models/minimax_m1_weights.h"
#include "models/model.h"

namespace minimax::models {
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

std::unique_ptr<formats::WeightSource> make_dummy_weights(const nlohmann::json& config, uint64_t seed) {
  return dummy_weights(MiniMaxM1Config::from_json(config), seed);
}

}  // namespace minimax::models
