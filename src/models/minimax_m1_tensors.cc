#include "models/minimax_m1_tensors.h"

#include <fmt/format.h>

#include <utility>

#include "models/canonical_name.h"
#include "models/shard.h"
#include "models/table_builder.h"

namespace minimax::models {
namespace {

std::string canonical(std::string_view name) {
  return replaced(without_prefix(name, "language_model."), ".block_sparse_moe.", ".mlp.");
}

bool is_decay_buffer(std::string_view name) {
  for (const std::string_view buffer : {"self_attn.slope_rate", "self_attn.query_decay",
                                        "self_attn.key_decay", "self_attn.diagonal_decay", "model.slopes"}) {
    if (name.ends_with(buffer)) return true;
  }
  return false;
}

// How a checkpoint spells the feed-forward part.
struct Spelling {
  ExpertNames experts = ExpertNames::kSeparate;
  bool dense = false;  // one expert: mlp.gate_proj, up_proj, down_proj
};

Spelling detect_spelling(const MiniMaxM1Config& config, const TensorNames& names) {
  Spelling spelling;
  const std::string mlp = "model.layers.0.mlp.";
  if (names.has(mlp + "experts.gate_up_proj")) spelling.experts = ExpertNames::kFused;
  spelling.dense = config.num_experts == 1 && !names.has(mlp + "gate.weight");
  return spelling;
}

// Writes the table. One method per block of the model.
class M1Table {
 public:
  M1Table(const MiniMaxM1Config& config, Shard shard, Spelling spelling, MiniMaxM1Weights& weights)
      : config_(config),
        shard_(std::move(shard)),
        spelling_(spelling),
        weights_(weights),
        hidden_(config.hidden_size) {}

  std::vector<TensorSlot> build() {
    weights_.layers.resize(static_cast<size_t>(config_.num_layers));
    table_.embedding("model.embed_tokens.weight", {config_.vocab_size, hidden_}, shard_.vocab,
                     weights_.embed_tokens, config_.tie_word_embeddings ? &weights_.lm_head : nullptr);
    for (int64_t l = 0; l < config_.num_layers; ++l) add_layer(l);
    table_.tensor("model.norm.weight", {hidden_}, Component::kNorms, weights_.norm);
    if (!config_.tie_word_embeddings) {
      table_.weight("lm_head.weight", {config_.vocab_size, hidden_}, Component::kHead, weights_.lm_head,
                    {.rows = shard_.vocab});
    }
    return table_.take();
  }

 private:
  void add_layer(int64_t l) {
    MiniMaxM1Layer& layer = weights_.layers[static_cast<size_t>(l)];
    const std::string path = fmt::format("model.layers.{}.", l);
    table_.tensor(path + "input_layernorm.weight", {hidden_}, Component::kNorms, layer.input_layernorm);
    if (config_.layer_kinds[static_cast<size_t>(l)] == AttentionKind::kLightning) {
      add_lightning(path + "self_attn.", layer.attention.emplace<LightningWeights>());
    } else {
      add_full_attention(path + "self_attn.", layer.attention.emplace<FullAttentionWeights>());
    }
    table_.tensor(path + "post_attention_layernorm.weight", {hidden_}, Component::kNorms,
                  layer.post_attention_layernorm);
    add_feed_forward(path, layer);
  }

  void add_lightning(const std::string& attn, LightningWeights& weights) {
    const int64_t d = config_.head_dim;
    const int64_t width = config_.num_heads * d;
    const Range heads = shard_.independent_heads(config_.num_heads);
    const auto component = Component::kLightningAttention;
    table_.weight(attn + "qkv_proj.weight", {3 * width, hidden_}, component, weights.qkv_proj,
                  {.rows = heads.scaled(3 * d)});
    table_.weight(attn + "output_gate.weight", {width, hidden_}, component, weights.output_gate,
                  {.rows = heads.scaled(d)});
    table_.vector_part(attn + "norm.weight", width, heads.scaled(d), Component::kNorms, weights.norm);
    table_.weight(attn + "out_proj.weight", {hidden_, width}, component, weights.out_proj,
                  {.columns = heads.scaled(d)});
  }

  void add_full_attention(const std::string& attn, FullAttentionWeights& weights) {
    const int64_t q_width = config_.num_heads * config_.head_dim;
    const int64_t kv_width = config_.num_kv_heads * config_.head_dim;
    const Range q = shard_.heads.q.scaled(config_.head_dim);
    const Range kv = shard_.heads.kv.scaled(config_.head_dim);
    const auto component = Component::kFullAttention;
    table_.weight(attn + "q_proj.weight", {q_width, hidden_}, component, weights.q_proj, {.rows = q});
    table_.weight(attn + "k_proj.weight", {kv_width, hidden_}, component, weights.k_proj, {.rows = kv});
    table_.weight(attn + "v_proj.weight", {kv_width, hidden_}, component, weights.v_proj, {.rows = kv});
    table_.weight(attn + "o_proj.weight", {hidden_, q_width}, component, weights.o_proj, {.columns = q});
  }

  void add_feed_forward(const std::string& path, MiniMaxM1Layer& layer) {
    if (spelling_.dense) {
      layer.experts.resize(1);
      table_.mlp(path + "mlp.", hidden_, config_.intermediate_size, shard_.experts.width, Component::kExperts,
                 layer.experts.front());
    } else {
      const std::string moe = path + "block_sparse_moe.";
      add_router(moe, layer);
      table_.experts(moe, hidden_, config_.intermediate_size, shard_.experts, spelling_.experts,
                     layer.experts);
    }
    if (config_.shared_intermediate_size == 0) return;
    table_.mlp(path + "shared_mlp.", hidden_, config_.shared_intermediate_size,
               shard_.width(config_.shared_intermediate_size), Component::kSharedMlp, layer.shared_mlp);
    table_.weight(path + "coefficient.weight", {1, hidden_}, Component::kSharedMlp, layer.coefficient);
  }

  // A router of one expert has no effect (its weight is always 1); it is read past.
  void add_router(const std::string& moe, MiniMaxM1Layer& layer) {
    const std::vector<int64_t> shape = {config_.num_experts, hidden_};
    if (config_.num_experts == 1) {
      table_.unused_weight(moe + "gate.weight", shape, Component::kRouter);
    } else {
      table_.weight(moe + "gate.weight", shape, Component::kRouter, layer.router);
    }
  }

  const MiniMaxM1Config& config_;
  Shard shard_;
  Spelling spelling_;
  MiniMaxM1Weights& weights_;
  int64_t hidden_;
  TableBuilder table_;
};

MiniMaxM1Config with_stored_shared_width(const MiniMaxM1Config& config, const TensorNames& names) {
  MiniMaxM1Config stored = config;
  const auto* gate = names.find("model.layers.0.shared_mlp.gate_proj.weight");
  const bool is_usable = config.shared_intermediate_size > 0 && gate != nullptr && gate->shape.size() == 2 &&
                         gate->shape[0] >= 1 && gate->shape[0] <= kMaxModelWidth;
  if (is_usable) stored.shared_intermediate_size = gate->shape[0];
  return stored;
}

}  // namespace

TensorTable tensor_table(const MiniMaxM1Config& config, const formats::WeightSource* source,
                         MiniMaxM1Weights& weights, const parallel::Parallel& parallel) {
  TensorTable table;
  table.architecture = config.architecture;
  table.canonical = &canonical;
  table.quantization = config.quantization;
  table.skipped = common_skipped(config.tie_word_embeddings);
  table.skipped.push_back({"", is_decay_buffer});
  table.skipped.push_back({"vision", is_vision_tensor});
  const TensorNames names(source == nullptr ? std::span<const formats::TensorInfo>() : source->tensors(),
                          &canonical);
  const MiniMaxM1Config stored = with_stored_shared_width(config, names);
  table.slots =
      M1Table(stored, make_shard(stored, parallel), detect_spelling(stored, names), weights).build();
  return table;
}

}  // namespace minimax::models
