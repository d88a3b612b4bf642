// Internal to the CUDA backend: return codes to errors.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <string_view>

#include "core/error.h"

namespace minimax::cuda {

// A failed call is final for the process: what was computed since the last synchronize() is lost.
inline void check(cudaError_t code, std::string_view what) {
  if (code != cudaSuccess) [[unlikely]]
    fail("cuda: {}: {} ({})", what, cudaGetErrorString(code), cudaGetErrorName(code));
}

inline void check(cublasStatus_t code, std::string_view what) {
  if (code != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    fail("cublasLt: {}: status {}", what, static_cast<int>(code));
}

}  // namespace minimax::cuda
