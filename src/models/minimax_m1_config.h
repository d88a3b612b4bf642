// Configuration of MiniMax-Text-01 and MiniMax-M1, from any of the config.json spellings in use.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

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

// The largest accepted hidden or intermediate size; see the bounds in minimax_m1_config.cc.
inline constexpr int64_t kMaxMiniMaxM1Width = int64_t{1} << 18;

struct MiniMaxM1Config {
  std::string architecture;  // as in config.json, e.g. "MiniMaxM1ForCausalLM"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;         // width of one expert
  int64_t shared_intermediate_size = 0;  // 0: no shared MLP
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t max_position_embeddings = 0;
  double rope_theta = 0;
  float rms_norm_eps = 0;
  float lightning_norm_eps = 1e-6F;  // the released code's constant, not in config.json
  DeepNorm full_attention;
  DeepNorm lightning_attention;
  DeepNorm mlp;
  bool postnorm = true;
  bool tie_word_embeddings = false;
  DecayRule decay_rule = DecayRule::kReleased;
  std::vector<AttentionKind> layer_kinds;  // [num_layers]

  // THROWS: Error naming the field, its value and what is accepted.
  static MiniMaxM1Config from_json(const nlohmann::json& config);

  int64_t count(AttentionKind kind) const;
};

// Decay rates s[h, l] = slope[h] * f(l) of one layer, [num_heads].
std::vector<float> decay_rates(const MiniMaxM1Config& config, int64_t layer);

}  // namespace minimax::models
