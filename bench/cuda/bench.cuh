// What the kernels' benchmarks share: checked calls, owned device memory, times of calls in a CUDA graph, and
// the bandwidth of a copy, their floor.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

namespace minimax::bench {

inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

struct Release {
  void operator()(void* data) const { cudaFree(data); }
};
template <typename T>
using Buffer = std::unique_ptr<T, Release>;

template <typename T>
Buffer<T> allocate(int64_t count) {
  void* data = nullptr;
  check(cudaMalloc(&data, static_cast<std::size_t>(std::max<int64_t>(count, 1)) * sizeof(T)));
  return Buffer<T>(static_cast<T*>(data));
}
template <typename T>
Buffer<T> upload(const std::vector<T>& values) {
  Buffer<T> buffer = allocate<T>(static_cast<int64_t>(values.size()));
  check(cudaMemcpy(buffer.get(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return buffer;
}
template <typename T>
std::vector<T> download(const T* data, int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  check(cudaMemcpy(values.data(), data, values.size() * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

// 64 bits that look random, by a place alone.
__host__ __device__ inline uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}
// Sums of four uniform numbers: bell-shaped, of variance 1.
__device__ inline float normal_at(uint64_t place) {
  const uint64_t x = mixed(place);
  float sum = 0;
  for (int i = 0; i < 4; ++i) sum += static_cast<float>((x >> (16 * i)) & 0xffff) / 65536.0F - 0.5F;
  return sum * 1.7320508F;
}

struct Timing {
  double median_us = 0;
  double low_us = 0;
  double high_us = 0;
};

// The time of one of `launches` calls of launch(i) in a graph, over `replays` of it.
inline Timing time_graph(int launches, int replays, const std::function<void(int, cudaStream_t)>& launch) {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaStreamCreate(&stream));
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) launch(i, stream);
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&exec, graph, 0));
  std::vector<double> times;
  for (int replay = -2; replay < replays; ++replay) {
    check(cudaEventRecord(begin, stream));
    check(cudaGraphLaunch(exec, stream));
    check(cudaEventRecord(end, stream));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (replay >= 0) times.push_back(1e3 * milliseconds / launches);
  }
  std::sort(times.begin(), times.end());
  check(cudaGraphExecDestroy(exec));
  check(cudaGraphDestroy(graph));
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  check(cudaStreamDestroy(stream));
  return {times[times.size() / 2], times.front(), times.back()};
}

static __global__ void fill_words(uint32_t* data, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x)
    data[i] = static_cast<uint32_t>(mixed(static_cast<uint64_t>(i)));
}
static __global__ void copy_vectors(uint4* to, const uint4* from, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x)
    to[i] = from[i];
}

// Bytes read and written in a second by a copy much larger than the cache: the better of the runtime's,
// outside a graph, where it is fastest, and a kernel's.
inline double copy_bandwidth() {
  constexpr int64_t kBytes = int64_t{4} << 30;
  const Buffer<uint4> from = allocate<uint4>(kBytes / 16);
  const Buffer<uint4> to = allocate<uint4>(kBytes / 16);
  fill_words<<<2048, 256>>>(reinterpret_cast<uint32_t*>(from.get()), kBytes / 4);
  const Timing kernel = time_graph(3, 7, [&](int, cudaStream_t stream) {
    copy_vectors<<<static_cast<unsigned>(kBytes / 16 / 1024), 1024, 0, stream>>>(to.get(), from.get(),
                                                                                 kBytes / 16);
  });
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  double best = kernel.median_us;
  for (int i = 0; i < 5; ++i) {
    check(cudaEventRecord(begin));
    for (int j = 0; j < 3; ++j)
      check(cudaMemcpyAsync(to.get(), from.get(), kBytes, cudaMemcpyDeviceToDevice));
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i > 0) best = std::min(best, 1e3 * milliseconds / 3);
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  std::printf("copy %.2f TB/s, by a kernel %.2f\n", 2e-6 * kBytes / best, 2e-6 * kBytes / kernel.median_us);
  return 2.0 * kBytes / (best * 1e-6);
}

}  // namespace minimax::bench
