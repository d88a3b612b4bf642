// MiniMax-M2, M2.1, M2.5, M2.7: full GQA with normed queries and keys, sigmoid routing over many small
// experts, pre-norm residuals.
#pragma once

#include "models/minimax_m2_config.h"
#include "models/minimax_m2_weights.h"
#include "models/model.h"
#include "models/shard.h"

namespace minimax::models {

CacheLayout cache_layout(const MiniMaxM2Config& config, const ComputeOptions& options);
std::vector<LayerCount> layer_counts(const MiniMaxM2Config& config);

class MiniMaxM2 final : public Model {
 public:
  MiniMaxM2(MiniMaxM2Config config, MiniMaxM2Weights weights, const ComputeOptions& options);

  int64_t vocab_size() const override { return config_.vocab_size; }
  int64_t max_position_embeddings() const override { return config_.max_position_embeddings; }
  DType activation_dtype() const override { return dtype_; }
  CacheLayout cache_layout() const override { return layout_; }
  void forward(ops::OpContext& context, const StepBatch& batch, const ModelCache& cache,
               const Tensor& logits) const override;

 private:
  void attention(ops::OpContext& context, const StepBatch& batch, const MiniMaxM2Layer& layer,
                 const KvPages& pages, const Tensor& x, const Tensor& out) const;
  // mixed [T, heads, head_dim] of the rank's heads.
  void mix(ops::OpContext& context, const StepBatch& batch, const MiniMaxM2Layer& layer, const KvPages& pages,
           const Tensor& x, const Tensor& mixed) const;
  // [T, 2]: the sums of squares of q and k over the heads of all ranks, for the norms over their widths.
  Tensor sum_squares(ops::OpContext& context, const Tensor& qkv) const;
  void experts(ops::OpContext& context, const MiniMaxM2Layer& layer, const Tensor& x,
               const Tensor& out) const;

  MiniMaxM2Config config_;
  MiniMaxM2Weights weights_;
  Shard shard_;
  DType dtype_;               // of projections
  ops::Precision precision_;  // of matrix products
  CacheLayout layout_;
  Constant inv_freq_;  // [rotary_dim / 2]
};

}  // namespace minimax::models
