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
  // out = x weight^T in BF16 of e4m3 codes with a scale for 128 inputs of x and for 128 x 128 of the weight,
  // on devices of compute capability 9.0. False, and nothing done, where the library has no kernel for it.
  bool multiply_codes(const CodedRows& x, const WeightView& weight, const Matrix& out, cudaStream_t stream);

 private:
  struct Plan;
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, Scalar, Scalar, bool>;

  // Null where there is no algorithm.
  Plan* plan(const Matrix& x, const WeightView& weight, const Matrix& out, const float* x_scales = nullptr);
  void run(const Plan& plan, const void* x, const void* weight, void* out, cudaStream_t stream);

  Memory workspace_;
  std::shared_ptr<void> handle_;
  std::map<Key, std::shared_ptr<Plan>> plans_;
};

}  // namespace minimax::cuda
