// Writes a TensorTable. The places given must outlive the slots.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/range.h"
#include "models/tensor_table.h"
#include "ops/moe.h"

namespace minimax::models {

using MlpWeights = ops::MlpWeights;

// How a checkpoint spells experts, below their folder ("model.layers.0.block_sparse_moe.").
enum class ExpertNames : uint8_t {
  kSeparate,  // experts.{e}.w1.weight (gate), w3 (up), w2 (down)
  kFused,     // experts.gate_up_proj [E, 2I, H] (gate rows first), experts.down_proj [E, H, I]
};

// The part of a matrix that a rank holds; what is not said is not cut.
struct Cut {
  std::optional<Range> rows{};
  std::optional<Range> columns{};
};

// The experts that a rank holds, and what it holds of the width of each.
struct ExpertCut {
  int64_t count = 0;  // of all ranks
  Range experts;
  Range width;
};

class TableBuilder {
 public:
  void tensor(std::string name, std::vector<int64_t> shape, Component component, Tensor& place,
              DType released_dtype = DType::kBF16);
  // The elements `part` of a vector.
  void vector_part(std::string name, int64_t length, Range part, Component component, Tensor& place);
  // `rows` of the embedding; `tied_head`, when given, is the same part as a head.
  void embedding(std::string name, std::vector<int64_t> shape, Range rows, Tensor& place,
                 quant::Weight* tied_head);
  // A linear weight in any format. Routers are released in F32, all others in BF16 or quantised.
  void weight(std::string name, std::vector<int64_t> shape, Component component, quant::Weight& place,
              const Cut& cut = {});
  // One that is checked and not used.
  void unused_weight(std::string name, std::vector<int64_t> shape, Component component);

  // gate_proj, up_proj [width, hidden] and down_proj [hidden, width] below `folder`, of which `part` of the
  // width is held; with `fused`, gate_up_proj [2 width, hidden] with the gate's rows first.
  void mlp(const std::string& folder, int64_t hidden, int64_t width, Range part, Component component,
           MlpWeights& place, bool fused = false);
  // Resizes `places` to one entry an expert that the rank holds.
  void experts(const std::string& folder, int64_t hidden, int64_t width, const ExpertCut& cut,
               ExpertNames names, std::vector<MlpWeights>& places);

  std::vector<TensorSlot> take() { return std::move(slots_); }

 private:
  // A linear weight without pieces.
  TensorSlot& linear(std::string name, std::vector<int64_t> shape, Component component);
  void fused_experts(const std::string& folder, int64_t hidden, int64_t width, const ExpertCut& cut,
                     std::vector<MlpWeights>& places);

  std::vector<TensorSlot> slots_;
};

}  // namespace minimax::models
