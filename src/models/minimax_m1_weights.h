// Weights of MiniMax-Text-01 / M1, bound to a checkpoint's tensors without copying.
#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "core/tensor.h"
#include "formats/progress.h"
#include "formats/weight_source.h"
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

// THROWS: Error that lists missing, unexpected and mis-shaped tensors of `source` together.
void check_weights(const MiniMaxM1Config& config, const formats::WeightSource& source);

// Binds every tensor of the model to `source`, which must outlive the weights, and brings it into memory;
// `progress` counts the bytes. Linear weights, norms and the embedding may be BF16 or F32.
// THROWS: Error that lists missing, unexpected and mis-shaped tensors together.
MiniMaxM1Weights load_weights(const MiniMaxM1Config& config, formats::WeightSource& source,
                              formats::Progress& progress);

// Shapes without memory, for dry runs: every tensor has its shape and released dtype and no data.
MiniMaxM1Weights planned_weights(const MiniMaxM1Config& config);

// A source of random weights in the released names and dtypes. Costs no tensor memory until it is loaded.
std::unique_ptr<formats::WeightSource> dummy_weights(const MiniMaxM1Config& config, uint64_t seed);

}  // namespace minimax::models
