// BF16 products of few rows with very many outputs, on Hopper: heads over a vocabulary.
//
// Weights are the rows of a warpgroup product and tokens its columns. Blocks stay, one a multiprocessor, and
// take neighbouring tiles one after the other; the copy engine keeps a ring in shared memory full, so that as
// much memory is on its way as there is room.
#include <algorithm>

#include "backends/cuda/device.cuh"
#include "backends/cuda/fp8_wgmma.cuh"
#include "backends/cuda/tensor_map.h"

namespace minimax::cuda {
namespace {

constexpr int kTileRows = 128;  // 64 of each warpgroup
constexpr int kDepth = 64;      // inputs of a stage
constexpr int kRowBytes = kDepth * 2;
constexpr int kStageBytes = kTileRows * kRowBytes;
constexpr int kMathThreads = 256;
constexpr int kThreads = kMathThreads + 32;
constexpr int kMostStages = 10, kLeastStages = 4;
constexpr int kSharedBytes = 226 << 10;

__host__ __device__ inline int64_t x_bytes(int64_t columns, int tokens) { return columns * 2 * tokens; }
inline int stages_for(int64_t columns, int tokens) {
  const int64_t room = kSharedBytes - x_bytes(columns, tokens) - 2 * kMostStages * 8;
  return static_cast<int>(std::min<int64_t>(kMostStages, room / kStageBytes));
}

// kTokens: 8 or 16, with as many columns.
template <int kTokens, typename X, typename Out>
__global__ void __launch_bounds__(kThreads, 1)
    linear_stream_kernel(Matrix x, int64_t outputs, int stages, bool applies_silu, Matrix out,
                         const __grid_constant__ CUtensorMap weights) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint8_t bytes[];  // stages, tokens, barriers
  const uint32_t base = ptx::shared_address(bytes);
  const auto steps = static_cast<int>(x.columns / kDepth);
  const uint32_t tokens = base + static_cast<uint32_t>(stages * kStageBytes);
  const uint32_t barriers = tokens + static_cast<uint32_t>(x_bytes(x.columns, kTokens));
  const auto full = [&](int stage) { return barriers + static_cast<uint32_t>(stage) * 8; };
  const auto empty = [&](int stage) { return full(kMostStages + stage); };
  const int64_t tiles = ceil_div(outputs, kTileRows);
  const auto first = static_cast<int>(blockIdx.x * tiles / gridDim.x);
  const auto end = static_cast<int>((blockIdx.x + 1) * tiles / gridDim.x);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < stages; ++stage) {
      ptx::barrier_init(full(stage), 1);
      ptx::barrier_init(empty(stage), kMathThreads / 32);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  const int count = (end - first) * steps;
  if (threadIdx.x >= kMathThreads) {
    if (threadIdx.x > kMathThreads) return;
    const uint64_t policy = ptx::policy_evict_first();
    int stage = 0, step = 0, tile = first;
    uint32_t parity = 1;
    for (int i = 0; i < count; ++i) {
      ptx::barrier_wait(empty(stage), parity);
      ptx::barrier_arrive_expect(full(stage), kStageBytes);
      ptx::copy_box(base + static_cast<uint32_t>(stage * kStageBytes), &weights, full(stage), step * kDepth,
                    tile * kTileRows, policy);
      if (++stage == stages) {
        stage = 0;
        parity ^= 1;
      }
      if (++step == steps) {
        step = 0;
        ++tile;
      }
    }
    return;
  }
  ptx::wait_for_previous_kernel();
  const int chunks = static_cast<int>(x.columns) / 8;
  for (int i = threadIdx.x; i < static_cast<int>(x.rows) * chunks; i += kMathThreads) {
    const int token = i / chunks, chunk = i - token * chunks;
    const X* from = static_cast<const X*>(x.data) + token * x.stride + chunk * 8;
    const float4 low = load_four(from), high = load_four(from + 4);
    const uint32_t to = tokens + static_cast<uint32_t>(chunk / 8 * kTokens * kRowBytes) +
                        ptx::swizzled(static_cast<uint32_t>(token), static_cast<uint32_t>(chunk % 8));
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(pack_bf16(low.x, low.y)),
                 "r"(pack_bf16(low.z, low.w)), "r"(pack_bf16(high.x, high.y)), "r"(pack_bf16(high.z, high.w))
                 : "memory");
  }
  ptx::fence_shared_async();
  ptx::named_barrier(1, kMathThreads);

  // Taken from one lane, so that the compiler sees that all have the same.
  const int warp = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  const uint32_t own_rows = base + static_cast<uint32_t>(warp / 4 * 64 * kRowBytes);
  int stage = 0;
  uint32_t parity = 0;
  for (int tile = first; tile < end; ++tile) {
    float c[kTokens / 2];
    for (int step = 0; step < steps; ++step) {
      ptx::barrier_wait(full(stage), parity);
      ptx::wgmma_fence();
#pragma unroll
      for (uint32_t k = 0; k < kRowBytes; k += 32) {
        ptx::wgmma_bf16(c, ptx::operand_along_k(own_rows + static_cast<uint32_t>(stage * kStageBytes) + k),
                        ptx::operand_along_k(tokens + static_cast<uint32_t>(step * kTokens * kRowBytes) + k),
                        step > 0 || k > 0);
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      if (lane == 0) ptx::barrier_arrive(empty(stage));
      if (++stage == stages) {
        stage = 0;
        parity ^= 1;
      }
    }
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) {
      const int64_t n = int64_t{tile} * kTileRows + warp * 16 + lane / 4 + i / 2 % 2 * 8;
      const int token = i / 4 * 8 + lane % 4 * 2 + i % 2;
      if (n < outputs && token < x.rows)
        static_cast<Out*>(out.data)[token * out.stride + n] = from_f32<Out>(applies_silu ? silu(c[i]) : c[i]);
    }
  }
#endif
}

}  // namespace

bool can_linear_stream_bf16(const Matrix& x, const WeightView& w) {
  // So many tiles that it does not matter that some blocks have one more than others.
  constexpr int64_t kFewestOutputs = 512 * kTileRows;
  const auto address = reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(w.values);
  const int64_t wide = x.rows <= 8 ? 8 : 16;
  return x.rows <= 16 && w.scalar == Scalar::kBF16 && w.scales == nullptr && w.columns % kDepth == 0 &&
         w.rows >= kFewestOutputs && w.columns > 0 && w.stride % 8 == 0 && x.stride % 8 == 0 &&
         address % 16 == 0 && stages_for(w.columns, static_cast<int>(wide)) >= kLeastStages;
}

void launch_linear_stream_bf16(const Matrix& x, const WeightView& w, bool applies_silu, const Matrix& out,
                               int multiprocessors, cudaStream_t stream) {
  if (x.rows == 0) return;
  const CUtensorMap map = make_swizzled_map(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, w.values, {w.columns, w.rows},
                                            {w.stride * 2}, {kDepth, kTileRows});
  const int64_t tiles = ceil_div(w.rows, kTileRows);
  const auto blocks = static_cast<unsigned>(ceil_div(tiles, ceil_div(tiles, multiprocessors)));
  const auto start = [&]<int kTokens>() {
    const int stages = stages_for(w.columns, kTokens);
    const auto used =
        static_cast<int>(stages * kStageBytes + x_bytes(w.columns, kTokens) + 2 * kMostStages * 8);
    with_activation(x.scalar, [&](auto in) {
      with_activation(out.scalar, [&](auto o) {
        const auto kernel = linear_stream_kernel<kTokens, decltype(in), decltype(o)>;
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, used);
        launch(kernel, blocks, kThreads, static_cast<size_t>(used), stream, x, w.rows, stages, applies_silu,
               out, map);
      });
    });
  };
  x.rows <= 8 ? start.template operator()<8>() : start.template operator()<16>();
}

}  // namespace minimax::cuda
