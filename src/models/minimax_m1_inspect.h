// Sizes of a MiniMax-Text-01 / M1 model, from its configuration alone or with a checkpoint's dtypes.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "formats/weight_source.h"
#include "models/minimax_m1_config.h"
#include "models/minimax_m1_tensors.h"

namespace minimax::models {

struct ComponentSize {
  int64_t parameters = 0;
  int64_t bytes = 0;
};

struct ModelSummary {
  std::string family;        // "MiniMax-Text-01 / M1"
  std::string architecture;  // as in config.json
  int64_t num_layers = 0;
  int64_t num_lightning_layers = 0;
  int64_t num_full_layers = 0;
  int64_t max_position_embeddings = 0;
  int64_t total_parameters = 0;
  int64_t active_parameters = 0;            // per token, without embedding and head
  int64_t active_parameters_with_head = 0;  // per token, without embedding
  int64_t weight_bytes = 0;
  std::array<ComponentSize, kNumComponents> components;  // indexed by Component
  int64_t kv_bytes_per_token = 0;                        // BF16 keys and values of all full layers
  int64_t linear_state_bytes_per_sequence = 0;           // F32 states of all lightning layers

  const ComponentSize& component(Component c) const { return components[static_cast<size_t>(c)]; }
};

// Counts with the released dtypes, or with those of `source` where it has the tensor.
ModelSummary summarize(const MiniMaxM1Config& config, const formats::WeightSource* source = nullptr);

}  // namespace minimax::models
