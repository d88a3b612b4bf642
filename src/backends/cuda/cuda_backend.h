// The CUDA backend: NVIDIA GPUs of compute capability 8.0 and newer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ops/backend.h"

namespace minimax::cuda {

struct CudaOptions {
  int device = 0;
  // The kernels of which architecture: 80 (mma.sync, cp.async), 90 (TMA, wgmma), or 0 for the device's best.
  int architecture = 0;
};

struct CudaDevice {
  std::string name;
  int capability = 0;  // 90 for 9.0
  int multiprocessors = 0;
  int64_t total_bytes = 0;
};

// Why there is no GPU to compute on, or nothing.
std::string cuda_problem();
// THROWS: Error naming the device and what is there instead.
CudaDevice describe_cuda_device(int device);

// THROWS: Error when the device is missing, too old, or its memory cannot be had.
std::unique_ptr<ops::Backend> make_cuda_backend(const CudaOptions& options = {});

// "NVIDIA H200, kernels for SM90".
std::string describe_cuda(const CudaOptions& options);

// Bytes read and written a second by a copy far larger than the caches, and operations a second of a BF16
// matrix product: the floors that benchmarks are held against. REQUIRES: a backend of make_cuda_backend.
double measure_copy_bandwidth(ops::Backend& backend);
double measure_gemm_rate(ops::Backend& backend);

}  // namespace minimax::cuda
