// Random weights of given shapes, to run a model whose checkpoint is not at hand.
#pragma once

#include <cstdint>
#include <map>
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
  std::byte* place(size_t index);
  void fill(const TensorInfo& info, const Tensor& tensor);
  // A large matrix: draws that repeat, which are made once for a width.
  template <typename T>
  void fill_large(const Tensor& tensor, uint64_t seed, std::map<int64_t, std::vector<T>>& draws);
  void fill_large_codes(const Tensor& tensor, float deviation, uint64_t seed);
  // The 8-bit matrix that `info` holds the scales of, or null.
  const TensorInfo* scaled_by(const TensorInfo& info) const;

  std::vector<TensorInfo> tensors_;
  std::vector<std::byte*> places_;  // [tensors] in memory_; null before somebody asks and after release()
  HostMemory memory_;
  int64_t used_ = 0;
  std::map<int64_t, std::vector<bf16>> bf16_draws_;  // by width
  std::map<int64_t, std::vector<float>> f32_draws_;
  std::map<float, std::vector<f8e4m3>> code_draws_;  // by standard deviation
  uint64_t seed_;
};

}  // namespace minimax::formats
