// MiniMax-M3, text: GQA over the key blocks that a lightning indexer chooses (arXiv 2606.13392), sigmoid
// routing with a shared expert, clamped SwiGLU, Gemma-style norms, pre-norm residuals.
#pragma once

#include "models/minimax_m3_config.h"
#include "models/minimax_m3_weights.h"
#include "models/model.h"
#include "models/shard.h"

namespace minimax::models {

CacheLayout cache_layout(const MiniMaxM3Config& config, const ComputeOptions& options);
std::vector<LayerCount> layer_counts(const MiniMaxM3Config& config);

class MiniMaxM3 final : public Model {
 public:
  MiniMaxM3(MiniMaxM3Config config, MiniMaxM3Weights weights, const ComputeOptions& options);

  int64_t vocab_size() const override { return config_.vocab_size; }
  int64_t max_position_embeddings() const override { return config_.max_position_embeddings; }
  DType activation_dtype() const override { return dtype_; }
  CacheLayout cache_layout() const override { return layout_; }
  std::optional<ops::SparseShape> sparse_shape() const override;
  void forward(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache,
               const Tensor& logits) const override;

 private:
  void attention(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache, int64_t layer,
                 const Tensor& x, const Tensor& out) const;
  // mixed [T, heads, head_dim] of the rank's heads, of which it has some.
  void mix(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache, int64_t layer,
           const Tensor& x, const Tensor& mixed) const;
  // out [T, heads, head_dim]: every row over the blocks that its index query scores highest.
  void sparse_attention(ops::OpContext& context, const StepBatch& batch, const KvPages& pages,
                        const Tensor& index_pages, const Tensor& q, const Tensor& index_q,
                        const Tensor& out) const;
  void feed_forward(ops::OpContext& context, const MiniMaxM3Layer& layer, const Tensor& x,
                    const Tensor& out) const;

  float attention_scale() const;

  MiniMaxM3Config config_;
  MiniMaxM3Weights weights_;
  Shard shard_;
  DType dtype_;               // of projections
  DType index_q_dtype_;       // that of the index keys when they are FP8
  ops::Precision precision_;  // of matrix products
  CacheLayout layout_;
  Constant inv_freq_;                 // [rotary_dim / 2]
  std::vector<int64_t> index_layer_;  // [layers]: place among the sparse layers, -1 for the others
};

}  // namespace minimax::models
