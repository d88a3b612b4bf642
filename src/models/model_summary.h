// Sizes of a model, from its configuration alone or with a checkpoint's dtypes.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "models/cache_layout.h"

namespace minimax::models {

// The part of the model a tensor belongs to.
enum class Component : uint8_t {
  kEmbedding,
  kLightningAttention,
  kFullAttention,
  kSparseAttention,
  kIndexer,
  kRouter,
  kExperts,
  kSharedMlp,
  kDenseMlp,
  kNorms,
  kHead,
};
inline constexpr int kNumComponents = 11;

std::string_view name(Component component);

struct ComponentSize {
  int64_t parameters = 0;  // scales of quantised weights not counted
  int64_t bytes = 0;       // with scales
};

// Layers of one kind, e.g. {"lightning attention", 70}.
struct LayerCount {
  std::string kind;
  int64_t count = 0;
};

struct ModelSummary {
  std::string family;        // "MiniMax-Text-01 / M1"
  std::string architecture;  // as in config.json
  int64_t num_layers = 0;
  std::vector<LayerCount> layers;
  int64_t max_position_embeddings = 0;
  int64_t num_experts = 1;
  int64_t num_experts_per_tok = 1;
  int64_t head_parameters = 0;  // of the head's product, stored or tied

  CacheLayout caches;

  // Counted from the tensors.
  int64_t total_parameters = 0;
  int64_t active_parameters = 0;            // per token, without embedding and head
  int64_t active_parameters_with_head = 0;  // per token, without embedding
  int64_t weight_bytes = 0;
  int64_t active_bytes_with_head = 0;                    // read for one token, without embedding
  std::array<ComponentSize, kNumComponents> components;  // indexed by Component

  const ComponentSize& component(Component c) const { return components[static_cast<size_t>(c)]; }
};

// What the ranks of a grid hold of the stored weights.
struct RankSizes {
  struct Rank {
    int64_t weight_bytes = 0;
    CacheLayout caches;
  };
  std::vector<Rank> ranks;
  int64_t stored_bytes = 0;  // each tensor once
  // Bytes of the second and further copies, by tensor name with `*` for layers and experts: with the stored
  // ones they are the sum over ranks.
  std::map<std::string, int64_t> repeated;
};

}  // namespace minimax::models
