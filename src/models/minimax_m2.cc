#include "models/minimax_m2.h"

#include <cmath>

#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/moe.h"
#include "ops/norm.h"

namespace minimax::models {

MiniMaxM2::MiniMaxM2(MiniMaxM2Config config, MiniMaxM2Weights weights, const ComputeOptions& options)
    : config_(std::move(config)),
      weights_(std::move(weights)),
      shard_(make_shard(config_, options.parallel)),
      dtype_(options.activation_dtype),
      precision_(options.precision()),
      layout_(minimax::models::cache_layout(config_, options)),
      inv_freq_(inverse_frequencies(config_.rope_theta, config_.rotary_dim), "inv_freq", options.backend) {}

CacheLayout cache_layout(const MiniMaxM2Config& config, const ComputeOptions& options) {
  CacheLayout layout;
  layout.page_size = 64;  // long rows to read, and little of a last page lost
  layout.num_kv_layers = config.num_layers;
  layout.num_kv_heads = make_shard(config, options.parallel).heads.kv.size();
  layout.head_dim = config.head_dim;
  layout.kv_dtype = options.kv_dtype();
  return layout;
}

std::vector<LayerCount> layer_counts(const MiniMaxM2Config& config) {
  return {{"full attention", config.num_layers}};
}

void MiniMaxM2::forward(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache,
                        const Tensor& logits) const {
  Arena& arena = context.arena;
  const Arena::Scope scope(arena);
  const int64_t num_tokens = batch.token_ids.dim(0);
  const float eps = config_.rms_norm_eps;
  // `h` is the residual stream, in F32; `x` its norm; `branch` what a block adds to it.
  const Tensor h = arena.tensor("hidden", DType::kF32, {num_tokens, config_.hidden_size});
  const Tensor x = arena.tensor("normed", DType::kF32, {num_tokens, config_.hidden_size});
  const Tensor branch = arena.tensor("branch", DType::kF32, {num_tokens, config_.hidden_size});

  ops::embedding(context, {batch.token_ids, weights_.embed_tokens, h, shard_.vocab.begin});
  shard_.add_up(context, h);
  ops::rms_norm(context, {h, weights_.layers.front().input_layernorm, eps, x});
  for (int64_t l = 0; l < config_.num_layers; ++l) {
    const MiniMaxM2Layer& layer = weights_.layers[l];
    const bool is_last = l + 1 == config_.num_layers;
    const Tensor& next_norm = is_last ? weights_.norm : weights_.layers[l + 1].input_layernorm;
    attention(context, batch, layer, cache.kv[l], x, branch);
    ops::residual_rms_norm(context, {h, branch, 1, 1, layer.post_attention_layernorm, eps, h, x});
    experts(context, layer, x, branch);
    ops::residual_rms_norm(context, {h, branch, 1, 1, next_norm, eps, h, x});
  }
  const Tensor last = arena.tensor("last", DType::kF32, {batch.logits_rows.dim(0), config_.hidden_size});
  ops::embedding(context, {batch.logits_rows, x, last});
  const Tensor own_logits = logits.slice(1, shard_.vocab.begin, shard_.vocab.end);
  ops::linear(context, {last, weights_.lm_head, ops::Activation::kNone, own_logits, precision_});
  shard_.gather(context, logits);
}

void MiniMaxM2::attention(ops::OpContext& context, const StepBatch& batch, const MiniMaxM2Layer& layer,
                          const KvPages& pages, const Tensor& x, const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const int64_t heads = shard_.heads.q.size();
  const Tensor mixed = context.arena.tensor("mixed", dtype_, {x.dim(0), heads, config_.head_dim});
  mix(context, batch, layer, pages, x, mixed);
  const Tensor rows = mixed.reshape({x.dim(0), heads * config_.head_dim});
  ops::linear(context, {rows, layer.o_proj, ops::Activation::kNone, out, precision_});
  shard_.add_up(context, out);
}

void MiniMaxM2::mix(ops::OpContext& context, const StepBatch& batch, const MiniMaxM2Layer& layer,
                    const KvPages& pages, const Tensor& x, const Tensor& mixed) const {
  const Arena::Scope scope(context.arena);
  const int64_t num_tokens = x.dim(0);
  const int64_t d = config_.head_dim;
  const int64_t q_width = shard_.heads.q.size() * d;
  const int64_t kv_width = shard_.heads.kv.size() * d;
  const Tensor qkv = context.arena.tensor("qkv", dtype_, {num_tokens, q_width + 2 * kv_width});
  const Tensor q = context.arena.tensor("q", dtype_, {num_tokens, shard_.heads.q.size(), d});
  ops::projections(context, {x, {layer.q_proj, layer.k_proj, layer.v_proj}, qkv, precision_});

  ops::QkNormRopeKvWrite write;
  write.qkv = qkv;
  write.q_norm = layer.q_norm;
  write.k_norm = layer.k_norm;
  write.eps = config_.rms_norm_eps;
  write.positions = batch.positions;
  write.inv_freq = inv_freq_.tensor();
  write.slot_mapping = batch.slot_mapping;
  write.q_out = q;
  write.k_cache = pages.k;
  write.v_cache = pages.v;
  if (!shard_.is_whole() && config_.qk_norm == QkNorm::kFlattened) {
    write.squares = sum_squares(context, qkv);
    write.q_norm_width = config_.num_heads * d;
    write.k_norm_width = config_.num_kv_heads * d;
  }
  if (shard_.heads.q.empty()) return;
  ops::qk_norm_rope_kv_write(context, write);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  ops::paged_attention(
      context, {q, pages.k, pages.v, batch.block_table, batch.query_starts, batch.seq_lens, scale, mixed});
}

Tensor MiniMaxM2::sum_squares(ops::OpContext& context, const Tensor& qkv) const {
  const parallel::HeadPart& heads = shard_.heads;
  const int64_t q_width = heads.q.size() * config_.head_dim;
  // A KV head that several ranks hold is counted by one.
  const int64_t k_width = heads.counts_kv ? heads.kv.size() * config_.head_dim : 0;
  const Tensor squares = context.arena.tensor("squares", DType::kF32, {qkv.dim(0), 2});
  ops::sum_of_squares(context, {qkv.slice(1, 0, q_width), squares.slice(1, 0, 1)});
  ops::sum_of_squares(context, {qkv.slice(1, q_width, q_width + k_width), squares.slice(1, 1, 2)});
  shard_.add_up(context, squares);
  return squares;
}

void MiniMaxM2::experts(ops::OpContext& context, const MiniMaxM2Layer& layer, const Tensor& x,
                        const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const int64_t num_tokens = x.dim(0);
  const int64_t k = config_.num_experts_per_tok;
  const Tensor logits = context.arena.tensor("router_logits", DType::kF32, {num_tokens, config_.num_experts});
  const Tensor ids = context.arena.tensor("expert_ids", DType::kI32, {num_tokens, k});
  const Tensor weights = context.arena.tensor("expert_weights", DType::kF32, {num_tokens, k});
  // Routing decides which experts run at all, so its product is always F32.
  ops::linear(context, {x, layer.router, ops::Activation::kNone, logits});
  ops::route_sigmoid(context, {logits, layer.routing_bias, config_.routed_scale, ids, weights});
  ops::moe(context, {x, ids, weights, layer.experts, out, precision_, {}, shard_.experts.experts.begin});
  shard_.add_up(context, out);
}

}  // namespace minimax::models
