// Random weights of given shapes, to run a model whose checkpoint is not at hand.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/host_memory.h"
#include "formats/weight_source.h"

namespace minimax::formats {

// Values depend only on the seed and the tensor's name. Vectors (norms) are near 1; matrices have mean 0 and
// standard deviation 1/sqrt(last dimension), so that activations keep their size through a linear layer.
// 8-bit matrices come with their scales: of a tensor F8_E4M3 `name`, the tensor `name` + "_scale_inv", F32 or
// E8M0 (U8 or F8_E8M0). The codes are finite and bell-shaped as trained weights' are; the standard deviation
// above is that of the decoded matrix. Memory is taken when a tensor is first asked for; a source nobody asks
// costs none.
class DummyWeights : public WeightSource {
 public:
  // REQUIRES: dtypes are F32, BF16, F16 or F8_E4M3, or those of a scale.
  DummyWeights(std::vector<TensorInfo> tensors, uint64_t seed);

  std::span<const TensorInfo> tensors() const override { return tensors_; }
  std::string describe() const override { return "dummy weights"; }
  Tensor tensor(const TensorInfo& info) override;
  void release() override;
  using WeightSource::tensor;

 private:
  void reserve();
  void fill(const TensorInfo& info, const Tensor& tensor) const;
  // The 8-bit matrix that `info` holds the scales of, or null.
  const TensorInfo* scaled_by(const TensorInfo& info) const;

  std::vector<TensorInfo> tensors_;
  std::vector<int64_t> offsets_;  // [tensors] in memory_, once reserved
  std::vector<bool> is_filled_;   // [tensors]
  HostMemory memory_;
  uint64_t seed_;
};

}  // namespace minimax::formats
