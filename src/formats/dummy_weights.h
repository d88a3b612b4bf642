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
// Memory is taken when a tensor is first asked for; a source nobody asks costs none.
class DummyWeights : public WeightSource {
 public:
  // REQUIRES: dtypes are F32 or BF16.
  DummyWeights(std::vector<TensorInfo> tensors, uint64_t seed);

  std::span<const TensorInfo> tensors() const override { return tensors_; }
  std::string describe() const override { return "dummy weights"; }
  Tensor tensor(const TensorInfo& info) override;
  using WeightSource::tensor;

 private:
  void reserve();

  std::vector<TensorInfo> tensors_;
  std::vector<int64_t> offsets_;  // [tensors] in memory_, once reserved
  std::vector<bool> is_filled_;   // [tensors]
  HostMemory memory_;
  uint64_t seed_;
};

}  // namespace minimax::formats
