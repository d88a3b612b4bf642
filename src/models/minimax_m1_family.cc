// What the registry needs of MiniMax-Text-01 and M1.
#include <utility>

#include "models/architecture.h"
#include "models/minimax_m1.h"
#include "models/minimax_m1_tensors.h"

namespace minimax::models {
namespace {

constexpr std::string_view kArchitectures[] = {"MiniMaxM1ForCausalLM", "MiniMaxText01ForCausalLM",
                                               "MiniMaxForCausalLM", "MiniMaxVL01ForConditionalGeneration"};
constexpr std::string_view kModelTypes[] = {"minimax_m1", "minimax_text_01", "minimax"};

class MiniMaxM1Architecture final : public Architecture {
 public:
  explicit MiniMaxM1Architecture(MiniMaxM1Config config) : config_(std::move(config)) {}

  ModelSummary describe(const ComputeOptions& options) const override {
    ModelSummary summary = common_summary(config_, "MiniMax-Text-01 / M1");
    summary.layers = {{"lightning attention", config_.count(AttentionKind::kLightning)},
                      {"full attention", config_.count(AttentionKind::kFull)}};
    summary.caches = cache_layout(config_, options);
    return summary;
  }

  TensorTable table(const formats::WeightSource* source) override {
    return minimax_m1_table(config_, source, weights_);
  }

  std::unique_ptr<Model> make_model(const ComputeOptions& options) override {
    return std::make_unique<MiniMaxM1>(config_, std::move(weights_), options);
  }

 private:
  MiniMaxM1Config config_;
  MiniMaxM1Weights weights_;
};

}  // namespace

Family minimax_m1_family() {
  return {kArchitectures, kModelTypes, [](const nlohmann::json& config) -> std::unique_ptr<Architecture> {
            return std::make_unique<MiniMaxM1Architecture>(MiniMaxM1Config::from_json(config));
          }};
}

}  // namespace minimax::models
