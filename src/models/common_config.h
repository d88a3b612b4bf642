// The part of a config.json that all families share.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/config_reader.h"
#include "models/quantization.h"

namespace minimax::models {

// Upper bounds, far above every released model, that keep all products of sizes, the parameters of the whole
// model in bytes included, below 2^63, and the list of its tensors small.
inline constexpr int64_t kMaxModelWidth = int64_t{1} << 18;
inline constexpr int64_t kMaxModelExperts = int64_t{1} << 12;
inline constexpr int64_t kMaxHeadDim = int64_t{1} << 12;
inline constexpr int64_t kMaxHeads = int64_t{1} << 12;

// What config.json calls the models of a family.
struct FamilyNames {
  std::string_view family;                          // for people
  std::span<const std::string_view> architectures;  // class names
  // {model_type, class name}: what a file without `architectures` is.
  std::span<const std::pair<std::string_view, std::string_view>> model_types;
};

// The class name that config.json gives or its model_type stands for; nothing when it is not of the family.
// THROWS: Error when `architectures` is no list of one name.
std::optional<std::string> find_architecture(const nlohmann::json& root, const FamilyNames& names);
// The same. THROWS: Error naming what was found when it is not of the family.
std::string read_architecture(const nlohmann::json& root, const FamilyNames& names);

struct CommonConfig {
  std::string architecture;  // as in config.json, e.g. "MiniMaxM1ForCausalLM"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t intermediate_size = 0;  // width of one expert
  int64_t max_position_embeddings = 0;
  double rope_theta = 0;
  float rms_norm_eps = 0;
  bool tie_word_embeddings = false;
  QuantizationConfig quantization;

  // Sizes, norms, experts and rotary embedding from `reader`; quantization_config is looked for in `root`.
  // THROWS: Error naming the field, its value and what is accepted.
  void read(const ConfigReader& reader, const nlohmann::json& root);
};

// theta^(-2c / dim) for c < dim / 2.
std::vector<float> inverse_frequencies(double theta, int64_t dim);

// The elements of a per-layer list of 0 and 1, or of two words for them. Empty when the field is absent.
std::vector<bool> read_layer_flags(const ConfigReader& reader, std::string_view name, int64_t num_layers,
                                   std::string_view zero, std::string_view one);

}  // namespace minimax::models
