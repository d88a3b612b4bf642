// Launching a kernel while the one before it in the stream still runs.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace minimax::cuda {

// Launches a kernel that calls ptx::wait_for_previous_kernel() before it touches memory: on devices that can
// (9.0 and newer), its blocks are placed while the last ones of the previous kernel finish.
template <typename... Parameters, typename... Args>
cudaError_t launch_early(void (*kernel)(Parameters...), dim3 blocks, unsigned threads,
                         std::size_t shared_bytes, cudaStream_t stream, Args&&... args) {
  int device = 0;
  int major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = major >= 9 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

}  // namespace minimax::cuda
