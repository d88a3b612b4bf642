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

// Of all threads of the block, given to all, behind one barrier. `scratch` holds 32 floats that nobody else
// uses.
__device__ float block_sum_once(float x, float* scratch) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  return warp_sum(lane < static_cast<int>(blockDim.x) / 32 ? scratch[lane] : 0.0F);
}

// The same with rows held in registers, 4 kVectors numbers a thread.
template <typename T, typename Out, int kVectors>
__global__ void norm_vectors_kernel(NormArgs a) {
  if (a.lets_next_start) ptx::start_next_kernel();
  __shared__ float scratch[32];
  const int64_t row = blockIdx.x;
  const int64_t n = a.x.columns;
  const auto at = [&](int i) {
    return 4 * (static_cast<int64_t>(threadIdx.x) + i * static_cast<int64_t>(blockDim.x));
  };
  // Weights do not change: they are read before the kernel that made the rows is done.
  float4 weights[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (at(i) >= n) continue;
    weights[i] = a.weight.scalar == Scalar::kBF16
                     ? load_four(static_cast<const bf16_t*>(a.weight.data) + at(i))
                     : load_four(static_cast<const float*>(a.weight.data) + at(i));
  }
  ptx::wait_for_previous_kernel();
  const T* x = static_cast<const T*>(a.x.data) + row * a.x.stride;
  float4 values[kVectors];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) values[i] = at(i) < n ? load_four(x + at(i)) : float4{0, 0, 0, 0};
  if (a.branch.data != nullptr) {
    const T* branch = static_cast<const T*>(a.branch.data) + row * a.branch.stride;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (at(i) >= n) continue;
      const float4 b = load_four(branch + at(i));
      values[i] = {a.alpha * values[i].x + a.beta * b.x, a.alpha * values[i].y + a.beta * b.y,
                   a.alpha * values[i].z + a.beta * b.z, a.alpha * values[i].w + a.beta * b.w};
    }
  }
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    sum += values[i].x * values[i].x + values[i].y * values[i].y + values[i].z * values[i].z +
           values[i].w * values[i].w;
  }
  const float squares = a.squares == nullptr
                            ? block_sum_once(sum, scratch) / static_cast<float>(n)
                            : a.squares[row * a.squares_stride] / static_cast<float>(a.norm_width);
  const float factor = rsqrtf(squares + a.eps);
  Out* out = static_cast<Out*>(a.out.data) + row * a.out.stride;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (at(i) >= n) continue;
    const float4& v = values[i];
    const float4& w = weights[i];
    float4 y = {(a.weight_offset + w.x) * v.x * factor, (a.weight_offset + w.y) * v.y * factor,
                (a.weight_offset + w.z) * v.z * factor, (a.weight_offset + w.w) * v.w * factor};
    if (a.gate.data != nullptr) {
      const float4 g = load_four(static_cast<const T*>(a.gate.data) + row * a.gate.stride + at(i));
      y = {y.x * sigmoid(g.x), y.y * sigmoid(g.y), y.z * sigmoid(g.z), y.w * sigmoid(g.w)};
    }
    if (a.sum.data != nullptr) store_four(static_cast<T*>(a.sum.data) + row * a.sum.stride + at(i), v);
    store_four(out + at(i), y);
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

// Few rows want many threads; many rows share the chip.
unsigned threads_for(int64_t rows, int64_t columns) {
  const int64_t most = rows >= 512 ? 256 : 1024;
  int64_t threads = 32;
  while (threads < most && threads * 4 < columns) threads *= 2;
  return static_cast<unsigned>(threads);
}
// Of kernels that hold a row in registers: as few warps as hold it at `vectors` a thread.
unsigned vector_threads(int64_t columns, int64_t vectors) {
  const int64_t warps = ceil_div(ceil_div(columns, 4 * vectors), 32);
  return static_cast<unsigned>(warps > 0 ? 32 * warps : 32);
}

// Float4s a thread: many rows load more at once, few are spread wider.
constexpr int kMostVectors = 4;
int64_t vectors_for(const NormArgs& a) {
  constexpr int64_t kFewRows = 512, kMostThreads = 1024;
  const int64_t fewest = ceil_div(a.x.columns, 4 * kMostThreads);
  return a.x.rows >= kFewRows && fewest < 2 ? 2 : fewest;
}
bool has_vectors(const NormArgs& a) {
  const auto fits = [](const Matrix& m) {
    return m.data == nullptr || (m.stride % 4 == 0 && reinterpret_cast<uintptr_t>(m.data) % 16 == 0);
  };
  return a.x.columns % 4 == 0 && fits(a.x) && fits(a.branch) && fits(a.gate) && fits(a.sum) && fits(a.out) &&
         reinterpret_cast<uintptr_t>(a.weight.data) % 16 == 0 && vectors_for(a) <= kMostVectors;
}

template <typename T, typename Out>
void launch_vectors(const NormArgs& a, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(a.x.rows);
  const auto start = [&]<int kVectors>() {
    launch(norm_vectors_kernel<T, Out, kVectors>, rows, vector_threads(a.x.columns, kVectors), 0, stream, a);
  };
  const int64_t vectors = vectors_for(a);
  if (vectors <= 1) return start.template operator()<1>();
  if (vectors <= 2) return start.template operator()<2>();
  start.template operator()<kMostVectors>();
}

}  // namespace

void launch_norm(const NormArgs& a, cudaStream_t stream) {
  if (a.x.rows == 0) return;
  const auto rows = static_cast<unsigned>(a.x.rows);
  with_activation(a.x.scalar, [&](auto in) {
    with_activation(a.out.scalar, [&](auto out) {
      if (has_vectors(a)) return launch_vectors<decltype(in), decltype(out)>(a, stream);
      launch(norm_kernel<decltype(in), decltype(out)>, rows, threads_for(a.x.rows, a.x.columns), 0, stream,
             a);
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
