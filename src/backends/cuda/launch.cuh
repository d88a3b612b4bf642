// Launching a kernel while the one before it in the stream still runs.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

namespace minimax::cuda {

// Launches a kernel that calls ptx::wait_for_previous_kernel() before it touches memory: on devices that can
// (9.0 and newer), its blocks are placed while the last ones of the previous kernel finish. Blocks of a
// cluster, if it is more than one, run side by side; only such devices can do that.
template <typename... Parameters, typename... Args>
cudaError_t launch_clusters(void (*kernel)(Parameters...), dim3 blocks, dim3 cluster, unsigned threads,
                            std::size_t shared_bytes, cudaStream_t stream, Args&&... args) {
  int device = 0;
  int major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = cluster.x;
  attributes[1].val.clusterDim.y = cluster.y;
  attributes[1].val.clusterDim.z = cluster.z;
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = major < 9 ? 0 : cluster.x * cluster.y * cluster.z > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}
template <typename... Parameters, typename... Args>
cudaError_t launch_early(void (*kernel)(Parameters...), dim3 blocks, unsigned threads,
                         std::size_t shared_bytes, cudaStream_t stream, Args&&... args) {
  return launch_clusters(kernel, blocks, dim3(1), threads, shared_bytes, stream, std::forward<Args>(args)...);
}

}  // namespace minimax::cuda
