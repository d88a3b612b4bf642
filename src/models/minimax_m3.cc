#include "models/minimax_m3.h"

#include <cmath>

#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/moe.h"
#include "ops/norm.h"
#include "ops/sparse_attention.h"

namespace minimax::models {
namespace {

// Norm weights are stored as their difference from 1.
constexpr float kNormOffset = 1;

}  // namespace

MiniMaxM3::MiniMaxM3(MiniMaxM3Config config, MiniMaxM3Weights weights, const ComputeOptions& options)
    : config_(std::move(config)),
      weights_(std::move(weights)),
      shard_(make_shard(config_, options.parallel)),
      dtype_(options.activation_dtype),
      index_q_dtype_(options.index_dtype() == DType::kF8E4M3 ? DType::kF8E4M3 : dtype_),
      precision_(options.precision()),
      layout_(minimax::models::cache_layout(config_, options)),
      inv_freq_(inverse_frequencies(config_.rope_theta, config_.rotary_dim), "inv_freq", options.backend) {
  int64_t sparse_layers = 0;
  for (const bool is_sparse : config_.is_sparse) index_layer_.push_back(is_sparse ? sparse_layers++ : -1);
}

CacheLayout cache_layout(const MiniMaxM3Config& config, const ComputeOptions& options) {
  CacheLayout layout;
  layout.num_kv_layers = config.num_layers;
  layout.num_kv_heads = make_shard(config, options.parallel).heads.kv.size();
  layout.head_dim = config.head_dim;
  layout.kv_dtype = options.kv_dtype();
  if (config.num_sparse_layers() == 0) return layout;
  layout.page_size = config.indexer.block_size;
  // A rank without heads has no use for index keys.
  layout.num_index_layers = layout.num_kv_heads > 0 ? config.num_sparse_layers() : 0;
  layout.index_dim = config.indexer.head_dim;
  layout.index_dtype = options.index_dtype();
  return layout;
}

std::vector<LayerCount> layer_counts(const MiniMaxM3Config& config) {
  return {{"full attention", config.num_layers - config.num_sparse_layers()},
          {"sparse attention", config.num_sparse_layers()}};
}

float MiniMaxM3::attention_scale() const {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim)));
}

void MiniMaxM3::forward(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache,
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
  ops::rms_norm(context, {h, weights_.layers.front().input_layernorm, eps, x, kNormOffset});
  for (int64_t l = 0; l < config_.num_layers; ++l) {
    const MiniMaxM3Layer& layer = weights_.layers[l];
    const bool is_last = l + 1 == config_.num_layers;
    const Tensor& next_norm = is_last ? weights_.norm : weights_.layers[l + 1].input_layernorm;
    attention(context, batch, cache, l, x, branch);
    ops::residual_rms_norm(context,
                           {h, branch, 1, 1, layer.post_attention_layernorm, eps, h, x, kNormOffset});
    feed_forward(context, layer, x, branch);
    ops::residual_rms_norm(context, {h, branch, 1, 1, next_norm, eps, h, x, kNormOffset});
  }
  const Tensor last = arena.tensor("last", DType::kF32, {batch.logits_rows.dim(0), config_.hidden_size});
  ops::embedding(context, {batch.logits_rows, x, last});
  const Tensor own_logits = logits.slice(1, shard_.vocab.begin, shard_.vocab.end);
  ops::linear(context, {last, weights_.lm_head, ops::Activation::kNone, own_logits, precision_});
  shard_.gather(context, logits);
}

void MiniMaxM3::attention(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache,
                          int64_t layer, const Tensor& x, const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const int64_t heads = shard_.heads.q.size();
  const Tensor mixed = context.arena.tensor("mixed", dtype_, {x.dim(0), heads, config_.head_dim});
  if (heads > 0) mix(context, batch, cache, layer, x, mixed);
  const Tensor rows = mixed.reshape({x.dim(0), heads * config_.head_dim});
  ops::linear(context, {rows, weights_.layers[layer].o_proj, ops::Activation::kNone, out, precision_});
  shard_.add_up(context, out);
}

void MiniMaxM3::mix(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache, int64_t layer,
                    const Tensor& x, const Tensor& mixed) const {
  const Arena::Scope scope(context.arena);
  const MiniMaxM3Layer& weights = weights_.layers[layer];
  const bool is_sparse = config_.is_sparse[layer];
  const int64_t num_tokens = x.dim(0);
  const int64_t d = config_.head_dim;
  const int64_t heads = shard_.heads.q.size();
  const int64_t kv_heads = shard_.heads.kv.size();
  const int64_t index_dim = config_.indexer.head_dim;
  // An index head belongs to its kv head; their one key is every rank's.
  const int64_t index_width = is_sparse ? (kv_heads + 1) * index_dim : 0;

  // One fused projection: q | k | v | index q | index k.
  const Tensor fused =
      context.arena.tensor("qkv", dtype_, {num_tokens, (heads + 2 * kv_heads) * d + index_width});
  ops::Projections project{x, {weights.q_proj, weights.k_proj, weights.v_proj}, fused, precision_};
  if (is_sparse) {
    project.weights[3] = weights.indexer.q_proj;
    project.weights[4] = weights.indexer.k_proj;
  }
  ops::projections(context, project);

  const KvPages& pages = cache.kv[layer];
  const Tensor q = context.arena.tensor("q", dtype_, {num_tokens, heads, d});
  ops::QkNormRopeKvWrite write;
  write.qkv = fused;
  write.q_norm = weights.q_norm;
  write.k_norm = weights.k_norm;
  write.weight_offset = kNormOffset;
  write.eps = config_.rms_norm_eps;
  write.positions = batch.positions;
  write.inv_freq = inv_freq_.tensor();
  write.slot_mapping = batch.slot_mapping;
  write.q_out = q;
  write.k_cache = pages.k;
  write.v_cache = pages.v;
  if (is_sparse) {
    const Tensor& index_pages = cache.index[index_layer_[layer]];
    write.index_q_norm = weights.indexer.q_norm;
    write.index_k_norm = weights.indexer.k_norm;
    write.index_q_out = context.arena.tensor("index_q", index_q_dtype_, {num_tokens, kv_heads, index_dim});
    write.index_cache = index_pages;
    ops::qk_norm_rope_kv_write(context, write);
    sparse_attention(context, batch, pages, index_pages, q, write.index_q_out, mixed);
  } else {
    ops::qk_norm_rope_kv_write(context, write);
    ops::paged_attention(context, {q, pages.k, pages.v, batch.block_table, batch.query_starts, batch.seq_lens,
                                   attention_scale(), mixed});
  }
}

void MiniMaxM3::sparse_attention(ops::OpContext& context, const StepBatch& batch, const KvPages& pages,
                                 const Tensor& index_pages, const Tensor& q, const Tensor& index_q,
                                 const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const IndexerConfig& indexer = config_.indexer;
  const int64_t num_tokens = q.dim(0);
  const int64_t max_blocks = batch.block_table.dim(1);
  const int64_t topk = std::min(indexer.topk_blocks, max_blocks);
  const Tensor selection = context.arena.tensor("selection", DType::kI32, {num_tokens, index_q.dim(1), topk});
  {
    const Arena::Scope scores_scope(context.arena);
    const Tensor scores =
        context.arena.tensor("block_scores", DType::kF32, {num_tokens, index_q.dim(1), max_blocks});
    ops::index_block_scores(
        context, {index_q, index_pages, batch.block_table, batch.query_starts, batch.seq_lens, scores});
    ops::select_blocks(context, {scores, indexer.block_size, batch.query_starts, batch.seq_lens,
                                 indexer.init_blocks, indexer.local_blocks, selection});
  }
  ops::sparse_paged_attention(context, {q, pages.k, pages.v, batch.block_table, batch.query_starts,
                                        batch.seq_lens, selection, attention_scale(), out});
}

void MiniMaxM3::feed_forward(ops::OpContext& context, const MiniMaxM3Layer& layer, const Tensor& x,
                             const Tensor& out) const {
  const Arena::Scope scope(context.arena);
  const int64_t num_tokens = x.dim(0);
  const ops::Swiglu swiglu{config_.swiglu_alpha, config_.swiglu_limit, 1};
  ops::Mlp mlp;
  mlp.x = x;
  mlp.out = out;
  mlp.precision = precision_;
  mlp.swiglu = swiglu;
  if (!layer.router.defined()) {
    mlp.weights = layer.dense_mlp;
    ops::mlp(context, mlp);
    return shard_.add_up(context, out);
  }
  const int64_t k = config_.num_experts_per_tok;
  const Tensor logits = context.arena.tensor("router_logits", DType::kF32, {num_tokens, config_.num_experts});
  const Tensor ids = context.arena.tensor("expert_ids", DType::kI32, {num_tokens, k});
  const Tensor weights = context.arena.tensor("expert_weights", DType::kF32, {num_tokens, k});
  // Routing decides which experts run at all, so its product is always F32.
  ops::linear(context, {x, layer.router, ops::Activation::kNone, logits});
  ops::route_sigmoid(context, {logits, layer.routing_bias, config_.routed_scale, ids, weights});
  ops::moe(context, {x, ids, weights, layer.experts, out, precision_, swiglu, shard_.experts.experts.begin});
  if (config_.shared_intermediate_size > 0) {
    mlp.weights = layer.shared_expert;
    mlp.addend = out;
    ops::mlp(context, mlp);
  }
  shard_.add_up(context, out);
}

}  // namespace minimax::models
