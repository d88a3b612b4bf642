#include "models/minimax_m3_weights.h"

#include <fmt/format.h>

#include "models/canonical_name.h"
#include "models/shard.h"
#include "models/table_builder.h"

namespace minimax::models {
namespace {

// Released names begin with language_model., those of transformers with model.language_model.; transformers
// also calls every feed-forward folder mlp (and writes the dense layers' into block_sparse_moe), hangs the
// routing bias on the gate and gives the indexer a folder.
std::string canonical(std::string_view name) {
  std::string result(without_prefix(name, "language_model."));
  result = replaced(result, "model.language_model.", "model.");
  result = replaced(result, ".block_sparse_moe.", ".mlp.");
  result = replaced(result, ".gate.e_score_correction_bias", ".e_score_correction_bias");
  return replaced(result, ".self_attn.indexer.", ".self_attn.index_");
}

class M3Table {
 public:
  M3Table(const MiniMaxM3Config& config, Shard shard, const TensorNames& names, MiniMaxM3Weights& weights)
      : config_(config),
        shard_(std::move(shard)),
        names_(names),
        weights_(weights),
        hidden_(config.hidden_size) {}

  std::vector<TensorSlot> build() {
    weights_.layers.resize(static_cast<size_t>(config_.num_layers));
    table_.embedding("language_model.model.embed_tokens.weight", {config_.vocab_size, hidden_}, shard_.vocab,
                     weights_.embed_tokens, config_.tie_word_embeddings ? &weights_.lm_head : nullptr);
    for (int64_t l = 0; l < config_.num_layers; ++l) {
      MiniMaxM3Layer& layer = weights_.layers[static_cast<size_t>(l)];
      const std::string path = fmt::format("language_model.model.layers.{}.", l);
      table_.tensor(path + "input_layernorm.weight", {hidden_}, Component::kNorms, layer.input_layernorm);
      const bool is_sparse = config_.is_sparse[static_cast<size_t>(l)];
      add_attention(path + "self_attn.", is_sparse, layer);
      if (is_sparse) add_indexer(path + "self_attn.index_", layer.indexer);
      table_.tensor(path + "post_attention_layernorm.weight", {hidden_}, Component::kNorms,
                    layer.post_attention_layernorm);
      if (config_.has_moe[static_cast<size_t>(l)]) {
        add_moe(path + "block_sparse_moe.", layer);
      } else {
        add_mlp(path + "mlp.", config_.dense_intermediate_size, Component::kDenseMlp, layer.dense_mlp);
      }
    }
    table_.tensor("language_model.model.norm.weight", {hidden_}, Component::kNorms, weights_.norm);
    if (!config_.tie_word_embeddings) {
      table_.weight("language_model.lm_head.weight", {config_.vocab_size, hidden_}, Component::kHead,
                    weights_.lm_head, {.rows = shard_.vocab});
    }
    return table_.take();
  }

 private:
  void add_attention(const std::string& attn, bool is_sparse, MiniMaxM3Layer& layer) {
    const int64_t q_width = config_.num_heads * config_.head_dim;
    const int64_t kv_width = config_.num_kv_heads * config_.head_dim;
    const Range q = shard_.heads.q.scaled(config_.head_dim);
    const Range kv = shard_.heads.kv.scaled(config_.head_dim);
    const Component component = is_sparse ? Component::kSparseAttention : Component::kFullAttention;
    table_.weight(attn + "q_proj.weight", {q_width, hidden_}, component, layer.q_proj, {.rows = q});
    table_.weight(attn + "k_proj.weight", {kv_width, hidden_}, component, layer.k_proj, {.rows = kv});
    table_.weight(attn + "v_proj.weight", {kv_width, hidden_}, component, layer.v_proj, {.rows = kv});
    table_.tensor(attn + "q_norm.weight", {config_.head_dim}, Component::kNorms, layer.q_norm);
    table_.tensor(attn + "k_norm.weight", {config_.head_dim}, Component::kNorms, layer.k_norm);
    table_.weight(attn + "o_proj.weight", {hidden_, q_width}, component, layer.o_proj, {.columns = q});
  }

  void add_indexer(const std::string& index, IndexerWeights& weights) {
    const IndexerConfig& indexer = config_.indexer;
    table_.weight(index + "q_proj.weight", {indexer.num_heads * indexer.head_dim, hidden_},
                  Component::kIndexer, weights.q_proj, {.rows = shard_.heads.kv.scaled(indexer.head_dim)});
    table_.weight(index + "k_proj.weight", {indexer.head_dim, hidden_}, Component::kIndexer, weights.k_proj);
    table_.tensor(index + "q_norm.weight", {indexer.head_dim}, Component::kNorms, weights.q_norm);
    table_.tensor(index + "k_norm.weight", {indexer.head_dim}, Component::kNorms, weights.k_norm);
  }

  void add_moe(const std::string& moe, MiniMaxM3Layer& layer) {
    table_.weight(moe + "gate.weight", {config_.num_experts, hidden_}, Component::kRouter, layer.router);
    if (config_.routing_bias) {
      table_.tensor(moe + "e_score_correction_bias", {config_.num_experts}, Component::kRouter,
                    layer.routing_bias, DType::kF32);
    }
    const bool is_fused = names_.has(moe + "experts.gate_up_proj");
    table_.experts(moe, hidden_, config_.intermediate_size, shard_.experts,
                   is_fused ? ExpertNames::kFused : ExpertNames::kSeparate, layer.experts);
    if (config_.shared_intermediate_size > 0) {
      add_mlp(moe + "shared_experts.", config_.shared_intermediate_size, Component::kSharedMlp,
              layer.shared_expert);
    }
  }

  void add_mlp(const std::string& folder, int64_t width, Component component, ops::MlpWeights& place) {
    table_.mlp(folder, hidden_, width, shard_.width(width), component, place,
               names_.has(folder + "gate_up_proj.weight"));
  }

  const MiniMaxM3Config& config_;
  Shard shard_;
  const TensorNames& names_;
  MiniMaxM3Weights& weights_;
  int64_t hidden_;
  TableBuilder table_;
};

}  // namespace

TensorTable tensor_table(const MiniMaxM3Config& config, const formats::WeightSource* source,
                         MiniMaxM3Weights& weights, const parallel::Parallel& parallel) {
  TensorTable table;
  table.architecture = config.architecture;
  table.canonical = &canonical;
  table.quantization = config.quantization;
  table.skipped = common_skipped(config.tie_word_embeddings);
  table.skipped.push_back(skipped_mtp(config.num_layers));
  table.skipped.push_back({"vision", is_vision_tensor});
  const TensorNames names(source == nullptr ? std::span<const formats::TensorInfo>() : source->tensors(),
                          &canonical);
  table.slots = M3Table(config, make_shard(config, parallel), names, weights).build();
  return table;
}

}  // namespace minimax::models
