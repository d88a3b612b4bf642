// Writes a TensorTable. The places given must outlive the slots.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/tensor_table.h"
#include "ops/moe.h"

namespace minimax::models {

using MlpWeights = ops::MlpWeights;

// How a checkpoint spells experts, below their folder ("model.layers.0.block_sparse_moe.").
enum class ExpertNames : uint8_t {
  kSeparate,  // experts.{e}.w1.weight (gate), w3 (up), w2 (down)
  kFused,     // experts.gate_up_proj [E, 2I, H] (gate rows first), experts.down_proj [E, H, I]
};

class TableBuilder {
 public:
  void tensor(std::string name, std::vector<int64_t> shape, Component component, Tensor& place,
              DType released_dtype = DType::kBF16);
  // The embedding; `tied_head`, when given, is the same matrix as a head.
  void embedding(std::string name, std::vector<int64_t> shape, Tensor& place, quant::Weight* tied_head);
  // A linear weight in any format. Routers are released in F32, all others in BF16 or quantised.
  void weight(std::string name, std::vector<int64_t> shape, Component component, quant::Weight& place);
  void weight(std::string name, std::vector<int64_t> shape, Component component,
              std::function<void(const quant::Weight&)> assign);

  // gate_proj, up_proj [width, hidden] and down_proj [hidden, width] below `folder`; with `fused`,
  // gate_up_proj [2 width, hidden] with the gate's rows first.
  void mlp(const std::string& folder, int64_t hidden, int64_t width, Component component, MlpWeights& place,
           bool fused = false);
  // `places` holds one entry an expert.
  void experts(const std::string& folder, int64_t hidden, int64_t width, ExpertNames names,
               std::vector<MlpWeights>& places);

  std::vector<TensorSlot> take() { return std::move(slots_); }

 private:
  std::vector<TensorSlot> slots_;
};

}  // namespace minimax::models
