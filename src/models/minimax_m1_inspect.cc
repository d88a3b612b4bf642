#include "models/minimax_m1_inspect.h"

namespace minimax::models {
namespace {

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

std::vector<TensorSpec> specs_of(const MiniMaxM1Config& config, const formats::WeightSource* source) {
  if (source == nullptr)
    return tensor_specs(config, detect_naming(config, [](std::string_view) { return false; }));
  const TensorNaming naming = detect_naming(config, *source);
  return tensor_specs(with_stored_shared_width(config, naming, *source), naming);
}

void count_active(const MiniMaxM1Config& config, ModelSummary& summary) {
  const int64_t experts = summary.component(Component::kExperts).parameters;
  const int64_t idle = experts / config.num_experts * (config.num_experts - config.num_experts_per_tok);
  summary.active_parameters = summary.total_parameters - idle -
                              summary.component(Component::kEmbedding).parameters -
                              summary.component(Component::kHead).parameters;
  // A tied head is counted as the embedding but multiplied all the same.
  summary.active_parameters_with_head = summary.active_parameters + config.vocab_size * config.hidden_size;
}

}  // namespace

ModelSummary summarize(const MiniMaxM1Config& config, const formats::WeightSource* source) {
  ModelSummary summary;
  summary.family = "MiniMax-Text-01 / M1";
  summary.architecture = config.architecture;
  summary.num_layers = config.num_layers;
  summary.num_lightning_layers = config.count(AttentionKind::kLightning);
  summary.num_full_layers = config.count(AttentionKind::kFull);
  summary.max_position_embeddings = config.max_position_embeddings;
  for (const TensorSpec& spec : specs_of(config, source)) {
    const auto* info = source == nullptr ? nullptr : source->find(spec.name);
    const int64_t parameters = element_count(spec.shape);
    const int64_t bytes = parameters * size_of(info == nullptr ? spec.released_dtype : info->dtype);
    auto& component = summary.components[static_cast<size_t>(spec.component)];
    component.parameters += parameters;
    component.bytes += bytes;
    summary.total_parameters += parameters;
    summary.weight_bytes += bytes;
  }
  count_active(config, summary);
  summary.kv_bytes_per_token =
      summary.num_full_layers * 2 * config.num_kv_heads * config.head_dim * size_of(DType::kBF16);
  summary.linear_state_bytes_per_sequence = summary.num_lightning_layers * config.num_heads *
                                            config.head_dim * config.head_dim * size_of(DType::kF32);
  return summary;
}

}  // namespace minimax::models
