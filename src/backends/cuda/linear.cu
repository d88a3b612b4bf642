// Products in F32 arithmetic, of any weight format and any shape: routers, --dtype float32, odd sizes.
#include "backends/cuda/device.cuh"

namespace minimax::cuda {
namespace {

constexpr int kRowThreads = 256;
constexpr int kRowTokens = 8;

template <typename Out>
__device__ void store_out(const Matrix& out, int64_t t, int64_t n, float sum, bool applies_silu) {
  static_cast<Out*>(out.data)[t * out.stride + n] = from_f32<Out>(applies_silu ? silu(sum) : sum);
}

// One block a row of the weight, for a few tokens: the row is read once.
template <typename X, typename Out>
__global__ void linear_rows_kernel(Matrix x, WeightView w, bool applies_silu, Matrix out) {
  ptx::wait_for_previous_kernel();
  __shared__ float scratch[33];
  const int64_t n = blockIdx.x;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kRowTokens;
  const int64_t count = x.rows - first < kRowTokens ? x.rows - first : kRowTokens;
  float sums[kRowTokens] = {};
  for (int64_t k = threadIdx.x; k < w.columns; k += kRowThreads) {
    const float weight = weight_at(w, n, k);
#pragma unroll
    for (int t = 0; t < kRowTokens; ++t)
      if (t < count) sums[t] += weight * to_f32(static_cast<const X*>(x.data)[(first + t) * x.stride + k]);
  }
#pragma unroll
  for (int t = 0; t < kRowTokens; ++t) {
    if (t >= count) break;
    const float sum = block_sum(sums[t], scratch);
    if (threadIdx.x == 0) store_out<Out>(out, first + t, n, sum, applies_silu);
  }
}

// The same for F32 weights and inputs, four numbers at a time: routers, which stand between two steps of
// memory traffic. A block has kRows rows of the weight and kTokens tokens; kAhead loads of each row are under
// way before the kernel that makes the inputs is done. kIsWhole: no row ends before kAhead loads of all
// threads.
template <typename Out, int kRows, int kTokens, int kAhead, bool kIsWhole>
__global__ void __launch_bounds__(kRowThreads)
    linear_rows_f32_kernel(Matrix x, WeightView w, bool applies_silu, Matrix out, bool lets_next_start) {
  if (lets_next_start) ptx::start_next_kernel();
  constexpr int kSums = kRows * kTokens;
  __shared__ float parts[kRowThreads / 32][kSums];
  const int64_t n0 = static_cast<int64_t>(blockIdx.x) * kRows,
                t0 = static_cast<int64_t>(blockIdx.y) * kTokens;
  // Rows and tokens behind the last are read as the last ones and not stored.
  const float4 *rows[kRows], *inputs[kTokens];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    rows[r] = reinterpret_cast<const float4*>(static_cast<const float*>(w.values) +
                                              min(n0 + r, w.rows - 1) * w.stride);
#pragma unroll
  for (int t = 0; t < kTokens; ++t)
    inputs[t] = reinterpret_cast<const float4*>(static_cast<const float*>(x.data) +
                                                min(t0 + t, x.rows - 1) * x.stride);
  float sums[kSums] = {};
  const auto quads = static_cast<int>(w.columns / 4);
  bool is_first = true;
  for (int base = threadIdx.x; base < quads; base += kAhead * kRowThreads) {
    float4 weights[kRows][kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int k = base + i * kRowThreads;
#pragma unroll
      for (int r = 0; r < kRows; ++r) weights[r][i] = kIsWhole || k < quads ? rows[r][k] : float4{0, 0, 0, 0};
    }
    if (is_first) ptx::wait_for_previous_kernel();
    is_first = false;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int k = base + i * kRowThreads;
      float4 values[kTokens];
#pragma unroll
      for (int t = 0; t < kTokens; ++t) values[t] = kIsWhole || k < quads ? inputs[t][k] : float4{0, 0, 0, 0};
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const float4& v = values[t];
          const float4& u = weights[r][i];
          sums[r * kTokens + t] += u.x * v.x + u.y * v.y + u.z * v.z + u.w * v.w;
        }
      }
    }
  }
  if (is_first) ptx::wait_for_previous_kernel();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[i] = warp_sum(sums[i]);
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) parts[warp][i] = sums[i];
  }
  __syncthreads();
  if (threadIdx.x >= kSums) return;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kRowThreads / 32; ++i) sum += parts[i][threadIdx.x];
  const int64_t n = n0 + threadIdx.x / kTokens, t = t0 + threadIdx.x % kTokens;
  if (n < w.rows && t < x.rows) store_out<Out>(out, t, n, sum, applies_silu);
}

template <typename Out>
void launch_rows_f32(const Matrix& x, const WeightView& w, bool applies_silu, const Matrix& out,
                     bool lets_next_start, cudaStream_t stream) {
  const auto start = [&]<int kRows, int kTokens, int kAhead>() {
    const dim3 grid(static_cast<unsigned>(ceil_div(w.rows, kRows)),
                    static_cast<unsigned>(ceil_div(x.rows, kTokens)));
    const auto with_kernel = [&](auto* kernel) {
      launch(kernel, grid, kRowThreads, 0, stream, x, w, applies_silu, out, lets_next_start);
    };
    w.columns % (4 * kAhead * kRowThreads) == 0
        ? with_kernel(linear_rows_f32_kernel<Out, kRows, kTokens, kAhead, true>)
        : with_kernel(linear_rows_f32_kernel<Out, kRows, kTokens, kAhead, false>);
  };
  if (x.rows == 1) return start.template operator()<1, 1, 3>();
  if (x.rows <= 2) return start.template operator()<1, 2, 3>();
  if (x.rows <= 4) return start.template operator()<2, 4, 3>();
  if (x.rows <= 8) return start.template operator()<2, 8, 3>();
  // As many blocks as run at once.
  constexpr int64_t kBlocks = 160;
  if (ceil_div(w.rows, 4) * ceil_div(x.rows, 8) <= kBlocks) return start.template operator()<4, 8, 3>();
  start.template operator()<8, 8, 2>();
}

bool is_plain_f32(const Matrix& x, const WeightView& w) {
  const auto address = reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(w.values);
  return x.scalar == Scalar::kF32 && w.scalar == Scalar::kF32 && w.scales == nullptr && address % 16 == 0 &&
         w.columns % 4 == 0 && w.stride % 4 == 0 && x.stride % 4 == 0;
}

constexpr int kTile = 64;
constexpr int kTileK = 16;

// Tiles of 64 tokens by 64 outputs, four by four a thread.
template <typename X, typename Out>
__global__ void linear_tiles_kernel(Matrix x, WeightView w, bool applies_silu, Matrix out) {
  __shared__ float xs[kTileK][kTile + 1];
  __shared__ float ws[kTileK][kTile + 1];
  const int64_t t0 = static_cast<int64_t>(blockIdx.x) * kTile, n0 = static_cast<int64_t>(blockIdx.y) * kTile;
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
  float sums[4][4] = {};
  for (int64_t k0 = 0; k0 < w.columns; k0 += kTileK) {
    for (int i = threadIdx.x; i < kTile * kTileK; i += 256) {
      const int r = i / kTileK, k = i % kTileK;
      const bool k_is_in = k0 + k < w.columns;
      xs[k][r] = k_is_in && t0 + r < x.rows
                     ? to_f32(static_cast<const X*>(x.data)[(t0 + r) * x.stride + k0 + k])
                     : 0.0F;
      ws[k][r] = k_is_in && n0 + r < w.rows ? weight_at(w, n0 + r, k0 + k) : 0.0F;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kTileK; ++k) {
      float a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = xs[k][ty + 16 * i];
        b[i] = ws[k][tx + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] += a[i] * b[j];
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      const int64_t t = t0 + ty + 16 * i, n = n0 + tx + 16 * j;
      if (t < x.rows && n < w.rows) store_out<Out>(out, t, n, sums[i][j], applies_silu);
    }
  }
}

// One warp a group of inputs that share a scale.
template <typename X, typename Out>
__global__ void round_e4m3_kernel(Matrix x, bool is_mx, Matrix out) {
  const int group = is_mx ? 32 : 128;
  const int64_t groups = ceil_div(x.columns, group);
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (index >= x.rows * groups) return;
  const int64_t row = index / groups, begin = index % groups * group;
  const int64_t end = begin + group < x.columns ? begin + group : x.columns;
  const X* from = static_cast<const X*>(x.data) + row * x.stride;
  float largest = 0;
  for (int64_t i = begin + lane; i < end; i += 32) largest = fmaxf(largest, fabsf(to_f32(from[i])));
  float scale = fmaxf(warp_max(largest) / 448.0F, 1e-10F);
  if (is_mx) {
    const uint32_t bits = __float_as_uint(scale);
    scale = __uint_as_float((bits + 0x7fffffU) & 0x7f800000U);
  }
  Out* to = static_cast<Out*>(out.data) + row * out.stride;
  for (int64_t i = begin + lane; i < end; i += 32)
    to[i] = from_f32<Out>(to_f32(from_f32<e4m3_t>(to_f32(from[i]) / scale)) * scale);
}

}  // namespace

void launch_linear_f32(const Matrix& x, const WeightView& w, bool applies_silu, const Matrix& out,
                       bool lets_next_start, cudaStream_t stream) {
  if (x.rows == 0 || w.rows == 0) return;
  with_activation(x.scalar, [&](auto in) {
    with_activation(out.scalar, [&](auto o) {
      using X = decltype(in);
      using Out = decltype(o);
      if (x.rows <= 4 * kRowTokens) {
        const dim3 grid(static_cast<unsigned>(w.rows), static_cast<unsigned>(ceil_div(x.rows, kRowTokens)));
        if (is_plain_f32(x, w)) {
          return launch_rows_f32<Out>(x, w, applies_silu, out, lets_next_start, stream);
        }
        launch(linear_rows_kernel<X, Out>, grid, kRowThreads, 0, stream, x, w, applies_silu, out);
      } else {
        const dim3 grid(static_cast<unsigned>(ceil_div(x.rows, kTile)),
                        static_cast<unsigned>(ceil_div(w.rows, kTile)));
        linear_tiles_kernel<X, Out><<<grid, 256, 0, stream>>>(x, w, applies_silu, out);
      }
    });
  });
}

void launch_round_e4m3(const Matrix& x, bool is_mx, const Matrix& out, cudaStream_t stream) {
  const int64_t warps = x.rows * ceil_div(x.columns, is_mx ? 32 : 128);
  if (warps == 0) return;
  with_activation(x.scalar, [&](auto in) {
    with_activation(out.scalar, [&](auto o) {
      round_e4m3_kernel<decltype(in), decltype(o)>
          <<<static_cast<unsigned>(ceil_div(warps, 8)), 256, 0, stream>>>(x, is_mx, out);
    });
  });
}

}  // namespace minimax::cuda
