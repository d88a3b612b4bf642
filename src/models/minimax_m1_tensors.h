// The tensors of a MiniMax-Text-01 / M1 model: one table, computed from the configuration, that serves
// loading, dummy weights, counting and the check of an index.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "formats/weight_source.h"
#include "models/minimax_m1_config.h"
#include "models/minimax_m1_weights.h"

namespace minimax::models {

// The part of the model a tensor belongs to.
enum class Component : uint8_t {
  kEmbedding,
  kLightningAttention,
  kFullAttention,
  kRouter,
  kExperts,
  kSharedMlp,
  kNorms,
  kHead,
};
inline constexpr int kNumComponents = 8;

std::string_view name(Component component);

// How a checkpoint spells the names.
enum class ExpertNames : uint8_t {
  kReleased,  // block_sparse_moe.experts.{e}.w1.weight, ...
  kMlp,       // mlp.experts.{e}.w1.weight, ...
  kFused,     // mlp.experts.gate_up_proj [E, 2I, H] (gate rows first) and mlp.experts.down_proj [E, H, I]
  kDense,     // one expert: mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
};

struct TensorNaming {
  std::string prefix;  // "language_model." in MiniMax-VL-01
  ExpertNames experts = ExpertNames::kReleased;
};

struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  DType released_dtype = DType::kBF16;  // F32 for the router
  Component component = Component::kNorms;
};

// `assign` stores a loaded tensor in its place of the weights the table was made for.
struct TensorSlot {
  TensorSpec spec;
  std::function<void(const Tensor&)> assign;
};

// The naming that `has(name)` reveals; the released one when nothing does.
TensorNaming detect_naming(const MiniMaxM1Config& config, const std::function<bool(std::string_view)>& has);
TensorNaming detect_naming(const MiniMaxM1Config& config, const formats::WeightSource& source);

// The configuration with the shared MLP's width as stored: the released code and vLLM take it from different
// fields, so the tensor decides.
MiniMaxM1Config with_stored_shared_width(const MiniMaxM1Config& config, const TensorNaming& naming,
                                         const formats::WeightSource& source);

// The table, in the order of the forward pass. Resizes `weights` and refers to its members, so `weights` must
// not be moved while the slots are used.
std::vector<TensorSlot> tensor_slots(const MiniMaxM1Config& config, const TensorNaming& naming,
                                     MiniMaxM1Weights& weights);

// The same table without places.
std::vector<TensorSpec> tensor_specs(const MiniMaxM1Config& config, const TensorNaming& naming = {});

// True for names that checkpoints carry and the model does not need: rotary and decay buffers, and what
// belongs to the vision part of MiniMax-VL-01.
bool is_ignored_tensor(const MiniMaxM1Config& config, const TensorNaming& naming, std::string_view name);

struct NameDifference {
  std::vector<std::string> missing;     // needed, not in the checkpoint
  std::vector<std::string> unexpected;  // in the checkpoint, neither needed nor ignored
};

// Compares the table with a checkpoint's names, e.g. those of an index without its shards.
NameDifference compare_names(const MiniMaxM1Config& config, std::span<const std::string> names);

}  // namespace minimax::models
