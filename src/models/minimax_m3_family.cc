// What the registry needs of MiniMax-M3.
#include <utility>

#include "models/architecture.h"
#include "models/minimax_m3.h"

namespace minimax::models {
namespace {

constexpr std::string_view kArchitectures[] = {"MiniMaxM3SparseForConditionalGeneration",
                                               "MiniMaxM3SparseForCausalLM", "MiniMaxM3VLForCausalLM"};
constexpr std::string_view kModelTypes[] = {"minimax_m3_vl", "minimax_m3_vl_text"};

class MiniMaxM3Architecture final : public Architecture {
 public:
  explicit MiniMaxM3Architecture(MiniMaxM3Config config) : config_(std::move(config)) {}

  ModelSummary describe(const ComputeOptions& options) const override {
    ModelSummary summary = common_summary(config_, "MiniMax-M3");
    summary.layers = {{"full attention", config_.num_layers - config_.num_sparse_layers()},
                      {"sparse attention", config_.num_sparse_layers()}};
    summary.caches = cache_layout(config_, options);
    return summary;
  }

  TensorTable table(const formats::WeightSource* source) override {
    return minimax_m3_table(config_, source, weights_);
  }

  std::unique_ptr<Model> make_model(const ComputeOptions& options) override {
    return std::make_unique<MiniMaxM3>(config_, std::move(weights_), options);
  }

 private:
  MiniMaxM3Config config_;
  MiniMaxM3Weights weights_;
};

}  // namespace

Family minimax_m3_family() {
  return {kArchitectures, kModelTypes, [](const nlohmann::json& config) -> std::unique_ptr<Architecture> {
            return std::make_unique<MiniMaxM3Architecture>(MiniMaxM3Config::from_json(config));
          }};
}

}  // namespace minimax::models
