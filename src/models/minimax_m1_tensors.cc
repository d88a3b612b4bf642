#include "models/minimax_m1_tensors.h"

#include <unordered_set>
#include <utility>

#include "core/error.h"

namespace minimax::models {
namespace {

constexpr std::string_view kVisionLanguagePrefix = "language_model.";

std::string experts_folder(ExpertNames names) {
  return names == ExpertNames::kReleased ? "block_sparse_moe." : "mlp.";
}

// Writes the table. One method per block of the model.
class TableBuilder {
 public:
  TableBuilder(const MiniMaxM1Config& config, const TensorNaming& naming, MiniMaxM1Weights& weights)
      : config_(config), naming_(naming), weights_(weights) {}

  std::vector<TensorSlot> build() {
    const int64_t hidden = config_.hidden_size;
    weights_.layers.resize(static_cast<size_t>(config_.num_layers));
    add("model.embed_tokens.weight", {config_.vocab_size, hidden}, Component::kEmbedding,
        weights_.embed_tokens);
    for (int64_t l = 0; l < config_.num_layers; ++l) add_layer(l);
    add("model.norm.weight", {hidden}, Component::kNorms, weights_.norm);
    if (!config_.tie_word_embeddings) {
      add("lm_head.weight", {config_.vocab_size, hidden}, Component::kHead, weights_.lm_head);
    }
    return std::move(slots_);
  }

 private:
  void add(const std::string& name, std::vector<int64_t> shape, Component component,
           std::function<void(const Tensor&)> assign) {
    const DType dtype = component == Component::kRouter ? DType::kF32 : DType::kBF16;
    slots_.push_back({{naming_.prefix + name, std::move(shape), dtype, component}, std::move(assign)});
  }
  void add(const std::string& name, std::vector<int64_t> shape, Component component, Tensor& place) {
    add(name, std::move(shape), component, [&place](const Tensor& tensor) { place = tensor; });
  }
  void add(const std::string& name, std::vector<int64_t> shape, Component component, quant::Weight& place) {
    add(name, std::move(shape), component,
        [&place](const Tensor& tensor) { place = quant::plain_weight(tensor); });
  }

  void add_layer(int64_t l);
  void add_lightning(const std::string& attn, LightningWeights& weights);
  void add_full_attention(const std::string& attn, FullAttentionWeights& weights);
  void add_router(const std::string& moe, MiniMaxM1Layer& layer);
  void add_experts(const std::string& moe, std::vector<MlpWeights>& experts);
  void add_fused_experts(const std::string& moe, std::vector<MlpWeights>& experts);
  void add_mlp(const std::string& mlp, int64_t width, Component component, MlpWeights& weights);

  const MiniMaxM1Config& config_;
  const TensorNaming& naming_;
  MiniMaxM1Weights& weights_;
  std::vector<TensorSlot> slots_;
};

void TableBuilder::add_layer(int64_t l) {
  MiniMaxM1Layer& layer = weights_.layers[static_cast<size_t>(l)];
  const std::string path = fmt::format("model.layers.{}.", l);
  const int64_t hidden = config_.hidden_size;
  add(path + "input_layernorm.weight", {hidden}, Component::kNorms, layer.input_layernorm);
  if (config_.layer_kinds[static_cast<size_t>(l)] == AttentionKind::kLightning) {
    add_lightning(path + "self_attn.", layer.attention.emplace<LightningWeights>());
  } else {
    add_full_attention(path + "self_attn.", layer.attention.emplace<FullAttentionWeights>());
  }
  add(path + "post_attention_layernorm.weight", {hidden}, Component::kNorms, layer.post_attention_layernorm);

  layer.experts.resize(static_cast<size_t>(config_.num_experts));
  if (naming_.experts == ExpertNames::kDense) {
    add_mlp(path + "mlp.", config_.intermediate_size, Component::kExperts, layer.experts.front());
  } else {
    const std::string moe = path + experts_folder(naming_.experts);
    add_router(moe, layer);
    add_experts(moe + "experts.", layer.experts);
  }
  if (config_.shared_intermediate_size > 0) {
    add_mlp(path + "shared_mlp.", config_.shared_intermediate_size, Component::kSharedMlp, layer.shared_mlp);
    add(path + "coefficient.weight", {1, hidden}, Component::kSharedMlp, layer.coefficient);
  }
}

void TableBuilder::add_lightning(const std::string& attn, LightningWeights& weights) {
  const int64_t hidden = config_.hidden_size;
  const int64_t width = config_.num_heads * config_.head_dim;
  add(attn + "qkv_proj.weight", {3 * width, hidden}, Component::kLightningAttention, weights.qkv_proj);
  add(attn + "output_gate.weight", {width, hidden}, Component::kLightningAttention, weights.output_gate);
  add(attn + "norm.weight", {width}, Component::kNorms, weights.norm);
  add(attn + "out_proj.weight", {hidden, width}, Component::kLightningAttention, weights.out_proj);
}

void TableBuilder::add_full_attention(const std::string& attn, FullAttentionWeights& weights) {
  const int64_t hidden = config_.hidden_size;
  const int64_t q_width = config_.num_heads * config_.head_dim;
  const int64_t kv_width = config_.num_kv_heads * config_.head_dim;
  add(attn + "q_proj.weight", {q_width, hidden}, Component::kFullAttention, weights.q_proj);
  add(attn + "k_proj.weight", {kv_width, hidden}, Component::kFullAttention, weights.k_proj);
  add(attn + "v_proj.weight", {kv_width, hidden}, Component::kFullAttention, weights.v_proj);
  add(attn + "o_proj.weight", {hidden, q_width}, Component::kFullAttention, weights.o_proj);
}

// A router of one expert has no effect (its weight is always 1); it is read past.
void TableBuilder::add_router(const std::string& moe, MiniMaxM1Layer& layer) {
  const std::vector<int64_t> shape = {config_.num_experts, config_.hidden_size};
  if (config_.num_experts == 1) {
    add(moe + "gate.weight", shape, Component::kRouter, [](const Tensor&) {});
  } else {
    add(moe + "gate.weight", shape, Component::kRouter, layer.router);
  }
}

void TableBuilder::add_experts(const std::string& prefix, std::vector<MlpWeights>& experts) {
  if (naming_.experts == ExpertNames::kFused) return add_fused_experts(prefix, experts);
  const std::vector<int64_t> up = {config_.intermediate_size, config_.hidden_size};
  const std::vector<int64_t> down = {config_.hidden_size, config_.intermediate_size};
  for (size_t e = 0; e < experts.size(); ++e) {
    const std::string expert = fmt::format("{}{}.", prefix, e);
    add(expert + "w1.weight", up, Component::kExperts, experts[e].w1);
    add(expert + "w3.weight", up, Component::kExperts, experts[e].w3);
    add(expert + "w2.weight", down, Component::kExperts, experts[e].w2);
  }
}

void TableBuilder::add_fused_experts(const std::string& prefix, std::vector<MlpWeights>& experts) {
  const int64_t width = config_.intermediate_size;
  const int64_t hidden = config_.hidden_size;
  add(prefix + "gate_up_proj", {config_.num_experts, 2 * width, hidden}, Component::kExperts,
      [&experts, width](const Tensor& fused) {
        for (size_t e = 0; e < experts.size(); ++e) {
          const Tensor rows = fused.select(static_cast<int64_t>(e));
          experts[e].w1 = quant::plain_weight(rows.slice(0, 0, width));
          experts[e].w3 = quant::plain_weight(rows.slice(0, width, 2 * width));
        }
      });
  add(prefix + "down_proj", {config_.num_experts, hidden, width}, Component::kExperts,
      [&experts](const Tensor& fused) {
        for (size_t e = 0; e < experts.size(); ++e) {
          experts[e].w2 = quant::plain_weight(fused.select(static_cast<int64_t>(e)));
        }
      });
}

void TableBuilder::add_mlp(const std::string& mlp, int64_t width, Component component, MlpWeights& weights) {
  add(mlp + "gate_proj.weight", {width, config_.hidden_size}, component, weights.w1);
  add(mlp + "up_proj.weight", {width, config_.hidden_size}, component, weights.w3);
  add(mlp + "down_proj.weight", {config_.hidden_size, width}, component, weights.w2);
}

bool is_buffer(std::string_view name) {
  for (const std::string_view buffer :
       {"rotary_emb.inv_freq", "self_attn.slope_rate", "self_attn.query_decay", "self_attn.key_decay",
        "self_attn.diagonal_decay", "model.slopes"}) {
    if (name.ends_with(buffer)) return true;
  }
  return false;
}

}  // namespace

std::string_view name(Component component) {
  switch (component) {
    case Component::kEmbedding:
      return "embedding";
    case Component::kLightningAttention:
      return "lightning attention";
    case Component::kFullAttention:
      return "full attention";
    case Component::kRouter:
      return "router";
    case Component::kExperts:
      return "experts";
    case Component::kSharedMlp:
      return "shared MLP";
    case Component::kNorms:
      return "norms";
    case Component::kHead:
      return "head";
  }
  return "?";
}

TensorNaming detect_naming(const MiniMaxM1Config& config, const std::function<bool(std::string_view)>& has) {
  TensorNaming naming;
  if (has(fmt::format("{}model.embed_tokens.weight", kVisionLanguagePrefix))) {
    naming.prefix = kVisionLanguagePrefix;
  }
  const std::string layer = naming.prefix + "model.layers.0.";
  if (has(layer + "mlp.experts.gate_up_proj")) {
    naming.experts = ExpertNames::kFused;
  } else if (has(layer + "mlp.gate.weight")) {
    naming.experts = ExpertNames::kMlp;
  } else if (config.num_experts == 1 && !has(layer + "block_sparse_moe.gate.weight")) {
    naming.experts = ExpertNames::kDense;
  }
  return naming;
}

TensorNaming detect_naming(const MiniMaxM1Config& config, const formats::WeightSource& source) {
  return detect_naming(config, [&source](std::string_view name) { return source.find(name) != nullptr; });
}

MiniMaxM1Config with_stored_shared_width(const MiniMaxM1Config& config, const TensorNaming& naming,
                                         const formats::WeightSource& source) {
  MiniMaxM1Config stored = config;
  const auto* gate = source.find(naming.prefix + "model.layers.0.shared_mlp.gate_proj.weight");
  const bool is_usable = config.shared_intermediate_size > 0 && gate != nullptr && gate->shape.size() == 2 &&
                         gate->shape[0] >= 1 && gate->shape[0] <= kMaxMiniMaxM1Width;
  if (is_usable) stored.shared_intermediate_size = gate->shape[0];
  return stored;
}

std::vector<TensorSlot> tensor_slots(const MiniMaxM1Config& config, const TensorNaming& naming,
                                     MiniMaxM1Weights& weights) {
  return TableBuilder(config, naming, weights).build();
}

std::vector<TensorSpec> tensor_specs(const MiniMaxM1Config& config, const TensorNaming& naming) {
  MiniMaxM1Weights places;
  std::vector<TensorSpec> specs;
  for (TensorSlot& slot : tensor_slots(config, naming, places)) specs.push_back(std::move(slot.spec));
  return specs;
}

bool is_ignored_tensor(const MiniMaxM1Config& config, const TensorNaming& naming, std::string_view name) {
  if (is_buffer(name)) return true;
  if (!name.starts_with(naming.prefix)) return true;
  return config.tie_word_embeddings && name.substr(naming.prefix.size()) == "lm_head.weight";
}

NameDifference compare_names(const MiniMaxM1Config& config, std::span<const std::string> names) {
  std::unordered_set<std::string_view> given(names.begin(), names.end());
  const TensorNaming naming =
      detect_naming(config, [&given](std::string_view n) { return given.contains(n); });
  NameDifference difference;
  for (TensorSpec& spec : tensor_specs(config, naming)) {
    if (given.erase(spec.name) == 0) difference.missing.push_back(std::move(spec.name));
  }
  for (const std::string& name : names) {
    if (given.contains(name) && !is_ignored_tensor(config, naming, name))
      difference.unexpected.push_back(name);
  }
  return difference;
}

}  // namespace minimax::models
