// Configuration of MiniMax-M3's text model, as released (nested sparse_attention_config, *_freq lists) and as
// transformers writes it (flat index_* fields, layer_types).
#pragma once

#include <vector>

#include "models/common_config.h"

namespace minimax::models {

// The lightning indexer and its choice of key blocks (arXiv 2606.13392).
struct IndexerConfig {
  int64_t num_heads = 0;  // one per kv head
  int64_t head_dim = 0;
  int64_t block_size = 0;    // tokens of a key block, and of a cache page
  int64_t topk_blocks = 0;   // blocks a query attends to, forced ones included
  int64_t init_blocks = 0;   // first blocks, always chosen
  int64_t local_blocks = 1;  // last blocks, always chosen
};

struct MiniMaxM3Config : CommonConfig {
  static const FamilyNames kNames;

  int64_t dense_intermediate_size = 0;   // MLP of dense layers
  int64_t shared_intermediate_size = 0;  // all shared experts together; 0: none
  bool routing_bias = true;              // e_score_correction_bias takes part in the choice of experts
  float routed_scale = 1;                // of the experts' weighted sum, not of the shared expert
  float swiglu_alpha = 0;
  float swiglu_limit = 0;
  IndexerConfig indexer;
  std::vector<bool> has_moe;    // [num_layers]; false: a dense MLP
  std::vector<bool> is_sparse;  // [num_layers]; false: attention over all keys

  // THROWS: Error naming the field, its value and what is accepted.
  static MiniMaxM3Config from_json(const nlohmann::json& config);

  int64_t num_sparse_layers() const;
};

}  // namespace minimax::models
