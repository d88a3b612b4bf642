// The GPU of this machine, for tests: a build without CUDA and a machine without a GPU skip with one line.
#pragma once

#include <cstdio>
#include <memory>
#include <vector>

#include "ops/backend.h"
#ifdef MINIMAX_HAS_CUDA
#include "backends/cuda/cuda_backend.h"
#endif

namespace minimax::testing {

#ifdef MINIMAX_HAS_CUDA

// Kernels that can be tested here: 80 on every GPU, 90 on Hopper too.
inline const std::vector<int>& cuda_architectures() {
  static const std::vector<int> all = [] {
    if (const std::string problem = cuda::cuda_problem(); !problem.empty()) {
      std::printf("cuda: %s; the CUDA backend is not tested\n", problem.c_str());
      return std::vector<int>{};
    }
    return cuda::describe_cuda_device(0).capability == 90 ? std::vector<int>{80, 90} : std::vector<int>{80};
  }();
  return all;
}

inline std::unique_ptr<ops::Backend> make_cuda_backend(int architecture) {
  return cuda::make_cuda_backend({0, architecture});
}

#else

inline const std::vector<int>& cuda_architectures() {
  static const std::vector<int> none;
  return none;
}

inline std::unique_ptr<ops::Backend> make_cuda_backend(int) { return nullptr; }

#endif

}  // namespace minimax::testing
