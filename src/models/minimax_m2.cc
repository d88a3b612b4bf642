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
      dtype_(options.activation_dtype),
      precision_(options.precision()),
      layout_(minimax::models::cache_layout(config_, options)),
      inv_freq_(inverse_frequencies(config_.rope_theta, config_.rotary_dim)) {}

CacheLayout cache_layout(const MiniMaxM2Config& config, const ComputeOptions& options) {
  CacheLayout layout;
  layout.page_size = 64;  // long rows to read, and little of a last page lost
  layout.num_kv_layers = config.num_layers;
  layout.num_kv_heads = config.num_kv_heads;
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

  ops::embedding(context, {batch.token_ids, weights_.embed_tokens, h});
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
  ops::linear(context, {last, weights_.lm_head, ops::Activation::kNone, logits, precision_});
}

void MiniMaxM2::attention(ops::OpContext& context, const StepBatch& batch, const MiniMaxM2Layer& layer,
                          const KvPages& pages, const Tensor& x, const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const int64_t num_tokens = x.dim(0);
  const int64_t d = config_.head_dim;
  const int64_t q_width = config_.num_heads * d;
  const int64_t kv_width = config_.num_kv_heads * d;
  const Tensor qkv = context.arena.tensor("qkv", dtype_, {num_tokens, q_width + 2 * kv_width});
  const Tensor q = context.arena.tensor("q", dtype_, {num_tokens, config_.num_heads, d});
  const Tensor mixed = context.arena.tensor("mixed", dtype_, {num_tokens, config_.num_heads, d});
  const auto project = [&](const quant::Weight& weight, int64_t begin, int64_t end) {
    ops::linear(context, {x, weight, ops::Activation::kNone, qkv.slice(1, begin, end), precision_});
  };
  project(layer.q_proj, 0, q_width);
  project(layer.k_proj, q_width, q_width + kv_width);
  project(layer.v_proj, q_width + kv_width, q_width + 2 * kv_width);

  ops::QkNormRopeKvWrite write;
  write.qkv = qkv;
  write.q_norm = layer.q_norm;
  write.k_norm = layer.k_norm;
  write.eps = config_.rms_norm_eps;
  write.positions = batch.positions;
  write.inv_freq = constant(inv_freq_, "inv_freq");
  write.slot_mapping = batch.slot_mapping;
  write.q_out = q;
  write.k_cache = pages.k;
  write.v_cache = pages.v;
  ops::qk_norm_rope_kv_write(context, write);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  ops::paged_attention(
      context, {q, pages.k, pages.v, batch.block_table, batch.query_starts, batch.seq_lens, scale, mixed});
  ops::linear(context,
              {mixed.reshape({num_tokens, q_width}), layer.o_proj, ops::Activation::kNone, out, precision_});
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
  ops::moe(context, {x, ids, weights, layer.experts, out, precision_});
}

}  // namespace minimax::models
