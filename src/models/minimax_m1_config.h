// Configuration of MiniMax-Text-01 and MiniMax-M1, from any of the config.json spellings in use.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "models/common_config.h"

namespace minimax::models {

enum class AttentionKind : uint8_t { kLightning, kFull };

// How the decay slope of a head and the factor of a layer are computed. The released code interpolates
// ALiBi slopes when the head count is no power of two and uses f(l) = 1 - l/(L-1) + 1e-5; transformers'
// converted class uses 2^(-8(h+1)/n) for every n and f(l) = 1 - l/(L-1+1e-5) + 1e-5. Equal, to 1e-7, at
// the released sizes.
enum class DecayRule : uint8_t { kReleased, kTransformers };

// Residual factors of DeepNorm: h = alpha * residual + beta * branch.
struct DeepNorm {
  float alpha = 1.0F;
  float beta = 1.0F;
};

struct MiniMaxM1Config : CommonConfig {
  static const FamilyNames kNames;

  int64_t shared_intermediate_size = 0;  // 0: no shared MLP
  float lightning_norm_eps = 1e-6F;      // the released code's constant, not in config.json
  DeepNorm full_attention;
  DeepNorm lightning_attention;
  DeepNorm mlp;
  bool postnorm = true;
  DecayRule decay_rule = DecayRule::kReleased;
  std::vector<AttentionKind> layer_kinds;  // [num_layers]

  // THROWS: Error naming the field, its value and what is accepted.
  static MiniMaxM1Config from_json(const nlohmann::json& config);

  int64_t count(AttentionKind kind) const;
};

// Decay rates s[h, l] = slope[h] * f(l) of one layer, [num_heads].
std::vector<float> decay_rates(const MiniMaxM1Config& config, int64_t layer);

}  // namespace minimax::models
