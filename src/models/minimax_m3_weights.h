// Weights of MiniMax-M3's text model, bound to a checkpoint's tensors without copying. Heads, experts, widths
// and rows of the vocabulary are those that the rank holds.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "formats/weight_source.h"
#include "models/minimax_m3_config.h"
#include "models/tensor_table.h"
#include "ops/moe.h"
#include "parallel/comm.h"
#include "quant/weight.h"

namespace minimax::models {

struct IndexerWeights {
  quant::Weight q_proj;  // [num_heads * head_dim, hidden]
  quant::Weight k_proj;  // [head_dim, hidden]
  Tensor q_norm;         // [head_dim]
  Tensor k_norm;         // [head_dim]
};

struct MiniMaxM3Layer {
  Tensor input_layernorm;                // [hidden]
  quant::Weight q_proj;                  // [num_heads * head_dim, hidden]
  quant::Weight k_proj;                  // [num_kv_heads * head_dim, hidden]
  quant::Weight v_proj;                  // [num_kv_heads * head_dim, hidden]
  Tensor q_norm;                         // [head_dim]
  Tensor k_norm;                         // [head_dim]
  quant::Weight o_proj;                  // [hidden, num_heads * head_dim]
  IndexerWeights indexer;                // undefined members in layers that attend to all keys
  Tensor post_attention_layernorm;       // [hidden]
  ops::MlpWeights dense_mlp;             // undefined members in layers with experts
  quant::Weight router;                  // [num_experts, hidden]
  Tensor routing_bias;                   // [num_experts] F32, undefined when the model has none
  std::vector<ops::MlpWeights> experts;  // [num_experts]
  ops::MlpWeights shared_expert;
};

struct MiniMaxM3Weights {
  Tensor embed_tokens;  // [vocab, hidden]
  std::vector<MiniMaxM3Layer> layers;
  Tensor norm;            // [hidden]
  quant::Weight lm_head;  // [vocab, hidden]; the embedding when tied
};

// The table in the spelling of `source` (null: as released). Resizes `weights` and refers to its members, so
// `weights` must not be moved while the slots are used. Pieces are those of the rank.
TensorTable tensor_table(const MiniMaxM3Config& config, const formats::WeightSource* source,
                         MiniMaxM3Weights& weights, const parallel::Parallel& parallel = {});

}  // namespace minimax::models
