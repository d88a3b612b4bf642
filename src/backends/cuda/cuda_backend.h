// The CUDA backend: NVIDIA GPUs of compute capability 8.0 and newer.
#pragma once

#include <cstdint>
#include <functional>
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

// Bytes read and written a second by a copy far larger than the caches, and operations a second of the
// library's product of 8192 x 8192 matrices in BF16 or F8_E4M3: the floors that benchmarks are held against.
// The products' operands are made once, so that a measurement can follow at once on what it is compared with.
// REQUIRES: a backend of make_cuda_backend, which outlives the probe.
double measure_copy_bandwidth(ops::Backend& backend);
bool multiplies_codes(ops::Backend& backend);  // whether its kernels multiply in F8_E4M3, too
std::function<double()> make_gemm_probe(ops::Backend& backend, DType dtype);

}  // namespace minimax::cuda
