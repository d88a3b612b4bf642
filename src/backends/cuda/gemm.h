// Internal to the CUDA backend: dense products through cuBLASLt, with the algorithm of each shape remembered.
#pragma once

#include <map>
#include <memory>
#include <tuple>

#include "backends/cuda/cuda_error.h"
#include "backends/cuda/kernels.h"
#include "core/memory.h"

namespace minimax::cuda {

class Gemm {
 public:
  // `workspace` is used by every product, so products run on one stream.
  explicit Gemm(Memory workspace);

  // Rows and addresses are what the library's fast kernels take.
  static bool can_multiply(const Matrix& x, const WeightView& weight, const Matrix& out);
  // out = x weight^T, both BF16 or both F32 (then without TF32); out BF16 or F32; sums in F32. Also both e4m3
  // without scales, sums as fast as the tensor cores make them.
  void multiply(const Matrix& x, const WeightView& weight, const Matrix& out, cudaStream_t stream);

 private:
  struct Plan;
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, Scalar, Scalar>;

  Plan& plan(const Matrix& x, const WeightView& weight, const Matrix& out);

  Memory workspace_;
  std::shared_ptr<void> handle_;
  std::map<Key, std::shared_ptr<Plan>> plans_;
};

}  // namespace minimax::cuda
