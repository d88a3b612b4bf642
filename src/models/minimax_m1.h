// MiniMax-Text-01 and MiniMax-M1 (arXiv 2501.08313, 2506.13585): lightning attention in most layers, softmax
// GQA in every eighth, mixture of experts, DeepNorm residuals.
#pragma once

#include "models/minimax_m1_config.h"
#include "models/minimax_m1_weights.h"
#include "models/model.h"
#include "models/shard.h"

namespace minimax::models {

CacheLayout cache_layout(const MiniMaxM1Config& config, const ComputeOptions& options);
std::vector<LayerCount> layer_counts(const MiniMaxM1Config& config);

class MiniMaxM1 final : public Model {
 public:
  MiniMaxM1(MiniMaxM1Config config, MiniMaxM1Weights weights, const ComputeOptions& options);

  int64_t vocab_size() const override { return config_.vocab_size; }
  int64_t max_position_embeddings() const override { return config_.max_position_embeddings; }
  DType activation_dtype() const override { return dtype_; }
  CacheLayout cache_layout() const override { return layout_; }
  void forward(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache,
               const Tensor& logits) const override;

 private:
  void attention(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache, int64_t layer,
                 const Tensor& x, const Tensor& out) const;
  void lightning_attention(ops::OpContext& context, const StepBatch& batch, const LightningWeights& weights,
                           int64_t layer, const Tensor& state, const Tensor& x, const Tensor& out) const;
  // mixed [T, heads * head_dim] of the rank's heads, of which it has some.
  void mix_lightning(ops::OpContext& context, const StepBatch& batch, const LightningWeights& weights,
                     int64_t layer, const Tensor& state, const Tensor& x, const Tensor& mixed) const;
  void mix(ops::OpContext& context, const StepBatch& batch, const FullAttentionWeights& weights,
           const KvPages& pages, const Tensor& x, const Tensor& mixed) const;
  void full_attention(ops::OpContext& context, const StepBatch& batch, const FullAttentionWeights& weights,
                      const KvPages& pages, const Tensor& x, const Tensor& out) const;
  void feed_forward(ops::OpContext& context, const MiniMaxM1Layer& layer, const Tensor& x,
                    const Tensor& out) const;

  MiniMaxM1Config config_;
  MiniMaxM1Weights weights_;
  Shard shard_;
  Range lightning_heads_;        // of this rank
  DType dtype_;                  // of projections and caches
  ops::Precision precision_;     // of matrix products
  std::vector<Constant> decay_;  // [layers][lightning heads of this rank]
  CacheLayout layout_;
  Constant inv_freq_;                 // [rotary_dim / 2]
  std::vector<int64_t> cache_index_;  // [layers]: place among the layers of its kind
};

}  // namespace minimax::models
