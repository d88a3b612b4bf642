#include "models/minimax_m2_weights.h"

#include <fmt/format.h>

#include "models/canonical_name.h"
#include "models/shard.h"
#include "models/table_builder.h"

namespace minimax::models {
namespace {

// transformers calls the feed-forward folder mlp.
std::string canonical(std::string_view name) { return replaced(name, ".block_sparse_moe.", ".mlp."); }

class M2Table {
 public:
  M2Table(const MiniMaxM2Config& config, Shard shard, ExpertNames expert_names, MiniMaxM2Weights& weights)
      : config_(config),
        shard_(std::move(shard)),
        expert_names_(expert_names),
        weights_(weights),
        hidden_(config.hidden_size) {}

  std::vector<TensorSlot> build() {
    weights_.layers.resize(static_cast<size_t>(config_.num_layers));
    table_.embedding("model.embed_tokens.weight", {config_.vocab_size, hidden_}, shard_.vocab,
                     weights_.embed_tokens, config_.tie_word_embeddings ? &weights_.lm_head : nullptr);
    for (int64_t l = 0; l < config_.num_layers; ++l) {
      MiniMaxM2Layer& layer = weights_.layers[static_cast<size_t>(l)];
      const std::string path = fmt::format("model.layers.{}.", l);
      add_attention(path, layer);
      add_moe(path + "block_sparse_moe.", layer);
    }
    table_.tensor("model.norm.weight", {hidden_}, Component::kNorms, weights_.norm);
    if (!config_.tie_word_embeddings) {
      table_.weight("lm_head.weight", {config_.vocab_size, hidden_}, Component::kHead, weights_.lm_head,
                    {.rows = shard_.vocab});
    }
    return table_.take();
  }

 private:
  void add_attention(const std::string& path, MiniMaxM2Layer& layer) {
    const int64_t d = config_.head_dim;
    const int64_t q_width = config_.num_heads * d;
    const int64_t kv_width = config_.num_kv_heads * d;
    const Range q = shard_.heads.q.scaled(d);
    const Range kv = shard_.heads.kv.scaled(d);
    const bool flattened = config_.qk_norm == QkNorm::kFlattened;
    const std::string attn = path + "self_attn.";
    const auto component = Component::kFullAttention;
    table_.tensor(path + "input_layernorm.weight", {hidden_}, Component::kNorms, layer.input_layernorm);
    table_.weight(attn + "q_proj.weight", {q_width, hidden_}, component, layer.q_proj, {.rows = q});
    table_.weight(attn + "k_proj.weight", {kv_width, hidden_}, component, layer.k_proj, {.rows = kv});
    table_.weight(attn + "v_proj.weight", {kv_width, hidden_}, component, layer.v_proj, {.rows = kv});
    table_.vector_part(attn + "q_norm.weight", flattened ? q_width : d, flattened ? q : Range{0, d},
                       Component::kNorms, layer.q_norm);
    table_.vector_part(attn + "k_norm.weight", flattened ? kv_width : d, flattened ? kv : Range{0, d},
                       Component::kNorms, layer.k_norm);
    table_.weight(attn + "o_proj.weight", {hidden_, q_width}, component, layer.o_proj, {.columns = q});
    table_.tensor(path + "post_attention_layernorm.weight", {hidden_}, Component::kNorms,
                  layer.post_attention_layernorm);
  }

  void add_moe(const std::string& moe, MiniMaxM2Layer& layer) {
    table_.weight(moe + "gate.weight", {config_.num_experts, hidden_}, Component::kRouter, layer.router);
    if (config_.routing_bias) {
      table_.tensor(moe + "e_score_correction_bias", {config_.num_experts}, Component::kRouter,
                    layer.routing_bias, DType::kF32);
    }
    table_.experts(moe, hidden_, config_.intermediate_size, shard_.experts, expert_names_, layer.experts);
  }

  const MiniMaxM2Config& config_;
  Shard shard_;
  ExpertNames expert_names_;
  MiniMaxM2Weights& weights_;
  int64_t hidden_;
  TableBuilder table_;
};

}  // namespace

TensorTable tensor_table(const MiniMaxM2Config& config, const formats::WeightSource* source,
                         MiniMaxM2Weights& weights, const parallel::Parallel& parallel) {
  TensorTable table;
  table.architecture = config.architecture;
  table.canonical = &canonical;
  table.quantization = config.quantization;
  table.skipped = common_skipped(config.tie_word_embeddings);
  table.skipped.push_back(skipped_mtp(config.num_layers));
  const TensorNames names(source == nullptr ? std::span<const formats::TensorInfo>() : source->tensors(),
                          &canonical);
  const bool is_fused = names.has("model.layers.0.mlp.experts.gate_up_proj");
  table.slots = M2Table(config, make_shard(config, parallel),
                        is_fused ? ExpertNames::kFused : ExpertNames::kSeparate, weights)
                    .build();
  return table;
}

}  // namespace minimax::models
