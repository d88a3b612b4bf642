#include "models/minimax_m1.h"

#include <cmath>

#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/lightning_attention.h"
#include "ops/linear.h"
#include "ops/moe.h"
#include "ops/norm.h"

namespace minimax::models {
MiniMaxM1::MiniMaxM1(MiniMaxM1Config config, MiniMaxM1Weights weights, const ComputeOptions& options)
    : config_(std::move(config)),
      weights_(std::move(weights)),
      shard_(make_shard(config_, options.parallel)),
      lightning_heads_(shard_.independent_heads(config_.num_heads)),
      dtype_(options.activation_dtype),
      precision_(options.precision()),
      layout_(minimax::models::cache_layout(config_, options)),
      inv_freq_(inverse_frequencies(config_.rope_theta, config_.rotary_dim), "inv_freq", options.backend) {
  int64_t lightning = 0;
  int64_t full = 0;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const bool is_lightning = config_.layer_kinds[layer] == AttentionKind::kLightning;
    const std::vector<float> rates = decay_rates(config_, layer);
    decay_.emplace_back(
        std::vector<float>(rates.begin() + lightning_heads_.begin, rates.begin() + lightning_heads_.end),
        "decay", options.backend);
    cache_index_.push_back(is_lightning ? lightning++ : full++);
  }
}

CacheLayout cache_layout(const MiniMaxM1Config& config, const ComputeOptions& options) {
  const Shard shard = make_shard(config, options.parallel);
  CacheLayout layout;
  layout.num_kv_layers = config.count(AttentionKind::kFull);
  layout.num_kv_heads = shard.heads.kv.size();
  layout.head_dim = config.head_dim;
  layout.kv_dtype = options.kv_dtype();
  layout.num_state_layers = config.count(AttentionKind::kLightning);
  layout.num_state_heads = shard.independent_heads(config.num_heads).size();
  return layout;
}

std::vector<LayerCount> layer_counts(const MiniMaxM1Config& config) {
  return {{"lightning attention", config.count(AttentionKind::kLightning)},
          {"full attention", config.count(AttentionKind::kFull)}};
}

void MiniMaxM1::forward(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache,
                        const Tensor& logits) const {
  Arena& arena = context.arena;
  const Arena::Scope scope(arena);
  const int64_t num_tokens = batch.token_ids.dim(0);
  // The residual stream is F32 in every mode: rounding it would cost more accuracy than all products
  // together. `x` is the normed input of each branch. With postnorm it is the residual stream too; otherwise
  // `h` is.
  const Tensor h = arena.tensor("hidden", DType::kF32, {num_tokens, config_.hidden_size});
  const Tensor x = arena.tensor("normed", DType::kF32, {num_tokens, config_.hidden_size});
  const Tensor branch = arena.tensor("branch", DType::kF32, {num_tokens, config_.hidden_size});
  const Tensor residual = config_.postnorm ? x : h;
  const Tensor sum = config_.postnorm ? Tensor() : h;

  ops::embedding(context, {batch.token_ids, weights_.embed_tokens, h, shard_.vocab.begin});
  shard_.add_up(context, h);
  ops::rms_norm(context, {h, weights_.layers.front().input_layernorm, config_.rms_norm_eps, x});
  for (int64_t l = 0; l < config_.num_layers; ++l) {
    const MiniMaxM1Layer& layer = weights_.layers[l];
    const bool is_lightning = config_.layer_kinds[l] == AttentionKind::kLightning;
    const DeepNorm& attention_norm = is_lightning ? config_.lightning_attention : config_.full_attention;
    const Tensor& next_norm =
        l + 1 < config_.num_layers ? weights_.layers[l + 1].input_layernorm : weights_.norm;

    attention(context, batch, cache, l, x, branch);
    ops::residual_rms_norm(context, {residual, branch, attention_norm.alpha, attention_norm.beta,
                                     layer.post_attention_layernorm, config_.rms_norm_eps, sum, x});
    feed_forward(context, layer, x, branch);
    ops::residual_rms_norm(context, {residual, branch, config_.mlp.alpha, config_.mlp.beta, next_norm,
                                     config_.rms_norm_eps, sum, x});
  }
  const Tensor last = arena.tensor("last", DType::kF32, {batch.logits_rows.dim(0), config_.hidden_size});
  ops::embedding(context, {batch.logits_rows, x, last});
  const Tensor own_logits = logits.slice(1, shard_.vocab.begin, shard_.vocab.end);
  ops::linear(context, {last, weights_.lm_head, ops::Activation::kNone, own_logits, precision_});
  shard_.gather(context, logits);
}

void MiniMaxM1::attention(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache,
                          int64_t layer, const Tensor& x, const Tensor& out) const {
  const auto& weights = weights_.layers[layer].attention;
  const int64_t index = cache_index_[layer];
  if (config_.layer_kinds[layer] == AttentionKind::kLightning) {
    lightning_attention(context, batch, std::get<LightningWeights>(weights), layer, cache.states[index], x,
                        out);
  } else {
    full_attention(context, batch, std::get<FullAttentionWeights>(weights), cache.kv[index], x, out);
  }
}

void MiniMaxM1::lightning_attention(ops::OpContext& context, const StepBatch& batch,
                                    const LightningWeights& weights, int64_t layer, const Tensor& state,
                                    const Tensor& x, const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const int64_t num_tokens = x.dim(0);
  const int64_t width = lightning_heads_.size() * config_.head_dim;
  const Tensor gate = context.arena.tensor("gate", dtype_, {num_tokens, width});
  const Tensor mixed = context.arena.tensor("mixed", dtype_, {num_tokens, width});
  ops::linear(context, {x, weights.output_gate, ops::Activation::kNone, gate, precision_});
  if (width > 0) mix_lightning(context, batch, weights, layer, state, x, mixed);

  ops::GatedRmsNorm norm{mixed, gate, weights.norm, config_.lightning_norm_eps, mixed};
  if (!shard_.is_whole()) {
    norm.squares = context.arena.tensor("squares", DType::kF32, {num_tokens, 1});
    norm.norm_width = config_.num_heads * config_.head_dim;
    ops::sum_of_squares(context, {mixed, norm.squares});
    shard_.add_up(context, norm.squares);
  }
  ops::gated_rms_norm(context, norm);
  ops::linear(context, {mixed, weights.out_proj, ops::Activation::kNone, out, precision_});
  shard_.add_up(context, out);
}

void MiniMaxM1::mix_lightning(ops::OpContext& context, const StepBatch& batch,
                              const LightningWeights& weights, int64_t layer, const Tensor& state,
                              const Tensor& x, const Tensor& mixed) const {
  const Arena::Scope scope(context.arena);
  const int64_t heads = lightning_heads_.size();
  const int64_t d = config_.head_dim;
  const Tensor qkv = context.arena.tensor("qkv", dtype_, {x.dim(0), heads * 3 * d});
  ops::linear(context, {x, weights.qkv_proj, ops::Activation::kSilu, qkv, precision_});

  // The projection is interleaved per head: [heads, q | k | v].
  const Tensor per_head = qkv.split_last(heads, 3 * d);
  const Tensor q = per_head.slice(2, 0, d).named("q");
  const Tensor k = per_head.slice(2, d, 2 * d).named("k");
  const Tensor v = per_head.slice(2, 2 * d, 3 * d).named("v");
  const Tensor o = mixed.split_last(heads, d);
  const Tensor decay = decay_[layer].tensor();
  if (batch.is_decode) {
    ops::lightning_decode(context,
                          {q, k, v, decay, state, batch.state_read_slots, batch.state_write_slots, o});
  } else {
    ops::lightning_prefill(
        context, {q, k, v, decay, state, batch.state_read_slots, batch.state_write_slots, batch.query_starts,
                  o, batch.state_checkpoint_rows, batch.state_checkpoint_slots});
  }
}

void MiniMaxM1::full_attention(ops::OpContext& context, const StepBatch& batch,
                               const FullAttentionWeights& weights, const KvPages& pages, const Tensor& x,
                               const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const int64_t heads = shard_.heads.q.size();
  const Tensor mixed = context.arena.tensor("mixed", dtype_, {x.dim(0), heads * config_.head_dim});
  if (heads > 0) mix(context, batch, weights, pages, x, mixed);
  ops::linear(context, {mixed, weights.o_proj, ops::Activation::kNone, out, precision_});
  shard_.add_up(context, out);
}

void MiniMaxM1::mix(ops::OpContext& context, const StepBatch& batch, const FullAttentionWeights& weights,
                    const KvPages& pages, const Tensor& x, const Tensor& mixed) const {
  const Arena::Scope scope(context.arena);
  const int64_t num_tokens = x.dim(0);
  const int64_t d = config_.head_dim;
  const int64_t heads = shard_.heads.q.size();
  const int64_t kv_heads = shard_.heads.kv.size();
  const Tensor q = context.arena.tensor("q", dtype_, {num_tokens, heads * d});
  const Tensor k = context.arena.tensor("k", dtype_, {num_tokens, kv_heads * d});
  const Tensor v = context.arena.tensor("v", dtype_, {num_tokens, kv_heads * d});
  ops::linear(context, {x, weights.q_proj, ops::Activation::kNone, q, precision_});
  ops::linear(context, {x, weights.k_proj, ops::Activation::kNone, k, precision_});
  ops::linear(context, {x, weights.v_proj, ops::Activation::kNone, v, precision_});

  const Tensor q_heads = q.split_last(heads, d);
  const Tensor k_heads = k.split_last(kv_heads, d);
  const Tensor v_heads = v.split_last(kv_heads, d);
  const Tensor inv_freq = inv_freq_.tensor();
  ops::rope(context, {q_heads, batch.positions, inv_freq});
  ops::rope(context, {k_heads, batch.positions, inv_freq});
  ops::paged_kv_write(context, {k_heads, v_heads, batch.slot_mapping, pages.k, pages.v});
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  ops::paged_attention(context, {q_heads, pages.k, pages.v, batch.block_table, batch.query_starts,
                                 batch.seq_lens, scale, mixed.split_last(heads, d)});
}

void MiniMaxM1::feed_forward(ops::OpContext& context, const MiniMaxM1Layer& layer, const Tensor& x,
                             const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const int64_t num_tokens = x.dim(0);
  if (layer.router.defined()) {
    const int64_t k = config_.num_experts_per_tok;
    const Tensor logits =
        context.arena.tensor("router_logits", DType::kF32, {num_tokens, config_.num_experts});
    const Tensor ids = context.arena.tensor("expert_ids", DType::kI32, {num_tokens, k});
    const Tensor weights = context.arena.tensor("expert_weights", DType::kF32, {num_tokens, k});
    // Routing decides which experts run at all, so its product is always F32.
    ops::linear(context, {x, layer.router, ops::Activation::kNone, logits});
    ops::route_softmax(context, {logits, ids, weights});
    ops::moe(context, {x, ids, weights, layer.experts, out, precision_, {}, shard_.experts.experts.begin});
  } else {
    ops::mlp(context, {x, layer.experts.front(), out, precision_});
  }
  if (!layer.coefficient.defined()) return shard_.add_up(context, out);
  const Tensor shared = context.arena.tensor("shared", DType::kF32, {num_tokens, config_.hidden_size});
  const Tensor coefficient = context.arena.tensor("coefficient", DType::kF32, {num_tokens, 1});
  ops::mlp(context, {x, layer.shared_mlp, shared, precision_});
  ops::linear(context, {x, layer.coefficient, ops::Activation::kNone, coefficient});
  // The mix is linear in both: of the rank's parts first, then added up once.
  ops::mix_shared(context, {out, shared, coefficient, out});
  shard_.add_up(context, out);
}

}  // namespace minimax::models
