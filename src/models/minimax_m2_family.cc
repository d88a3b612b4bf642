// What the registry needs of MiniMax-M2 to M2.7.
#include <utility>

#include "models/architecture.h"
#include "models/minimax_m2.h"

namespace minimax::models {
namespace {

constexpr std::string_view kArchitectures[] = {"MiniMaxM2ForCausalLM"};
constexpr std::string_view kModelTypes[] = {"minimax_m2"};

class MiniMaxM2Architecture final : public Architecture {
 public:
  explicit MiniMaxM2Architecture(MiniMaxM2Config config) : config_(std::move(config)) {}

  ModelSummary describe(const ComputeOptions& options) const override {
    ModelSummary summary = common_summary(config_, "MiniMax-M2");
    summary.layers = {{"full attention", config_.num_layers}};
    summary.caches = cache_layout(config_, options);
    return summary;
  }

  TensorTable table(const formats::WeightSource* source) override {
    return minimax_m2_table(config_, source, weights_);
  }

  std::unique_ptr<Model> make_model(const ComputeOptions& options) override {
    return std::make_unique<MiniMaxM2>(config_, std::move(weights_), options);
  }

 private:
  MiniMaxM2Config config_;
  MiniMaxM2Weights weights_;
};

}  // namespace

Family minimax_m2_family() {
  return {kArchitectures, kModelTypes, [](const nlohmann::json& config) -> std::unique_ptr<Architecture> {
            return std::make_unique<MiniMaxM2Architecture>(MiniMaxM2Config::from_json(config));
          }};
}

}  // namespace minimax::models
