// Root-mean-square norms: one block a row, two passes, the second from the caches.
#include "backends/cuda/device.cuh"

namespace minimax::cuda {
namespace {

template <typename T>
__device__ float mixed(const NormArgs& a, const T* x, const T* branch, int64_t i) {
  const float value = to_f32(x[i]);
  return branch == nullptr ? value : a.alpha * value + a.beta * to_f32(branch[i]);
}

template <typename T, typename Out>
__global__ void norm_kernel(NormArgs a) {
  ptx::wait_for_previous_kernel();
  __shared__ float scratch[33];
  const int64_t row = blockIdx.x;
  const int64_t n = a.x.columns;
  const T* x = static_cast<const T*>(a.x.data) + row * a.x.stride;
  const T* branch =
      a.branch.data == nullptr ? nullptr : static_cast<const T*>(a.branch.data) + row * a.branch.stride;
  float squares;
  if (a.squares == nullptr) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      const float v = mixed(a, x, branch, i);
      sum += v * v;
    }
    squares = block_sum(sum, scratch) / static_cast<float>(n);
  } else {
    squares = a.squares[row * a.squares_stride] / static_cast<float>(a.norm_width);
  }
  const float factor = rsqrtf(squares + a.eps);
  const T* gate = a.gate.data == nullptr ? nullptr : static_cast<const T*>(a.gate.data) + row * a.gate.stride;
  T* sum_out = a.sum.data == nullptr ? nullptr : static_cast<T*>(a.sum.data) + row * a.sum.stride;
  Out* out = static_cast<Out*>(a.out.data) + row * a.out.stride;
  // Element by element, each read before it is written: outputs may be inputs.
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const float v = mixed(a, x, branch, i);
    float y = (a.weight_offset + load_scalar(a.weight.data, a.weight.scalar, i)) * v * factor;
    if (gate != nullptr) y *= sigmoid(to_f32(gate[i]));
    if (sum_out != nullptr) sum_out[i] = from_f32<T>(v);
    out[i] = from_f32<Out>(y);
  }
}

template <typename T>
__global__ void sum_of_squares_kernel(Matrix x, float* out, int64_t out_stride) {
  __shared__ float scratch[33];
  const T* row = static_cast<const T*>(x.data) + static_cast<int64_t>(blockIdx.x) * x.stride;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < x.columns; i += blockDim.x) sum += to_f32(row[i]) * to_f32(row[i]);
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) out[blockIdx.x * out_stride] = sum;
}

// Few rows want all the threads a row can have; many rows share the chip.
unsigned threads_for(int64_t rows, int64_t columns) {
  const int64_t most = rows >= 512 ? 256 : 1024;
  int64_t threads = 32;
  while (threads < most && threads * 4 < columns) threads *= 2;
  return static_cast<unsigned>(threads);
}

}  // namespace

void launch_norm(const NormArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const auto rows = static_cast<unsigned>(a.x.rows);
  with_activation(a.x.scalar, [&](auto in) {
    with_activation(a.out.scalar, [&](auto out) {
      launch(norm_kernel<decltype(in), decltype(out)>, rows, threads_for(a.x.rows, a.x.columns), 0, stream, a);
    });
  });
}

void launch_sum_of_squares(const Matrix& x, float* out, int64_t out_stride, cudaStream_t stream) {
  if (x.rows == 0) return;
  with_activation(x.scalar, [&](auto in) {
    sum_of_squares_kernel<decltype(in)>
        <<<static_cast<unsigned>(x.rows), threads_for(x.rows, x.columns), 0, stream>>>(x, out, out_stride);
  });
}

}  // namespace minimax::cuda
