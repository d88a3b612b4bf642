// Weights of MiniMax-Text-01 / M1, bound to a checkpoint's tensors without copying. Heads, experts, widths
// and rows of the vocabulary are those that the rank holds.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "core/tensor.h"
#include "models/minimax_m1_config.h"
#include "ops/moe.h"
#include "quant/weight.h"

namespace minimax::models {

struct LightningWeights {
  quant::Weight qkv_proj;     // [3 * num_heads * head_dim, hidden]; per head q, k, v interleaved
  quant::Weight output_gate;  // [num_heads * head_dim, hidden]
  Tensor norm;                // [num_heads * head_dim]
  quant::Weight out_proj;     // [hidden, num_heads * head_dim]
};

struct FullAttentionWeights {
  quant::Weight q_proj;  // [num_heads * head_dim, hidden]
  quant::Weight k_proj;  // [num_kv_heads * head_dim, hidden]
  quant::Weight v_proj;  // [num_kv_heads * head_dim, hidden]
  quant::Weight o_proj;  // [hidden, num_heads * head_dim]
};

using MlpWeights = ops::MlpWeights;

struct MiniMaxM1Layer {
  Tensor input_layernorm;           // [hidden]
  Tensor post_attention_layernorm;  // [hidden]
  std::variant<LightningWeights, FullAttentionWeights> attention;
  quant::Weight router;             // [num_experts, hidden]; undefined when num_experts == 1
  std::vector<MlpWeights> experts;  // [num_experts]; one entry: a dense MLP
  MlpWeights shared_mlp;            // undefined members when the model has none
  quant::Weight coefficient;        // [1, hidden], with shared_mlp
};

struct MiniMaxM1Weights {
  Tensor embed_tokens;  // [vocab, hidden]
  std::vector<MiniMaxM1Layer> layers;
  Tensor norm;            // [hidden]
  quant::Weight lm_head;  // [vocab, hidden]; the embedding when tied
};

}  // namespace minimax::models
