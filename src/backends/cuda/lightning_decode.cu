// Decode reads and writes each state once and does little else, so all that counts is bytes in flight: every
// thread loads its whole share of a state in 16-byte pieces before it uses any.
#include "backends/cuda/launch.cuh"
#include "backends/cuda/lightning.h"
#include "backends/cuda/lightning_element.cuh"

namespace minimax::cuda {
namespace {

constexpr int kLoads = 16;  // pieces of state a thread holds
// Up to so many blocks it pays to load slots before the kernel before has ended; beyond, it costs (measured).
constexpr unsigned kFewBlocks = 1024;

// A block: kValues value columns of one head of one row, all D keys.
template <typename T, typename StateT, int D, int kValues>
struct Shape {
  static constexpr int kVector = kPerVector<StateT>;
  static constexpr int kLanes = kValues / kVector;  // threads across a row of the state
  static constexpr int kThreads = D * kLanes / kLoads;
  static constexpr int kRows = kThreads / kLanes;  // keys loaded side by side
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kBlocks = D / kValues;
  static constexpr int kElements = D / kThreads;  // of q and of k that a thread fetches
  static_assert(kThreads % 32 == 0 && D % kThreads == 0, "threads divide the keys");
};

// 16 bytes of a cache line whose rest is wanted too.
__device__ __forceinline__ uint4 load_whole_line(const void* p) {
  uint4 v;
  asm volatile("ld.global.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p)
               : "memory");
  return v;
}

template <typename T>
__device__ __forceinline__ const T* row_of(const Rows& rows, int64_t row, int head) {
  return static_cast<const T*>(rows.data) + row * rows.token_stride + head * rows.head_stride;
}

// kCount neighbouring elements, from an address that is a multiple of their size.
template <int kCount>
__device__ __forceinline__ void load_elements(float (&x)[kCount], const float* from) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    float part[4];
    unpack(part, *reinterpret_cast<const uint4*>(from + i));
#pragma unroll
    for (int j = 0; j < 4; ++j) x[i + j] = part[j];
  }
}
template <int kCount>
__device__ __forceinline__ void load_elements(float (&x)[kCount], const __nv_bfloat16* from) {
#pragma unroll
  for (int i = 0; i < kCount; i += 2) {
    const uint32_t word = reinterpret_cast<const uint32_t*>(from)[i / 2];
    x[i] = ptx::low_float(word);
    x[i + 1] = ptx::high_float(word);
  }
}

template <typename T, typename StateT, int D, int kValues, bool kLoadsEarly>
__global__ void __launch_bounds__(Shape<T, StateT, D, kValues>::kThreads)
    lightning_decode_vectors(LightningDecodeArgs args) {
  using S = Shape<T, StateT, D, kValues>;
  __shared__ float q[D];
  __shared__ float k[D];
  __shared__ float sums[S::kWarps][kValues];
  const int64_t row = blockIdx.x / (args.num_heads * S::kBlocks);
  const int head = blockIdx.x / S::kBlocks % args.num_heads;
  const int first_value = blockIdx.x % S::kBlocks * kValues;
  const int thread = threadIdx.x;
  T* out = static_cast<T*>(args.out.data) + row * args.out.token_stride + head * args.out.head_stride +
           first_value;

  int read_slot = 0, write_slot = 0;
  float rate = 0;
  const auto load_slots = [&] {
    read_slot = args.read_slots[row];
    write_slot = args.write_slots[row];
  };
  if constexpr (kLoadsEarly) {
    load_slots();
    rate = args.decay[head];
  }
  ptx::wait_for_previous_kernel();
  if constexpr (!kLoadsEarly) load_slots();
  const int column = thread % S::kLanes * S::kVector;
  const int first_key = thread / S::kLanes;
  float own_q[S::kElements];
  float own_k[S::kElements];
#pragma unroll
  for (int i = 0; i < S::kElements; ++i) {
    own_q[i] = to_float(row_of<T>(args.q, row, head)[thread + i * S::kThreads]);
    own_k[i] = to_float(row_of<T>(args.k, row, head)[thread + i * S::kThreads]);
  }
  float v[S::kVector];
  load_elements(v, row_of<T>(args.v, row, head) + first_value + column);
  if constexpr (!kLoadsEarly) rate = args.decay[head];
  if (read_slot < 0) {
    for (int i = thread; i < kValues; i += S::kThreads) out[i] = from_float<T>(0.0F);
    return;
  }
  const auto piece = [&](int slot) {
    return static_cast<StateT*>(args.state) + (int64_t{slot} * args.num_heads + head) * (D * D) +
           first_key * D + first_value + column;
  };
  uint4 pieces[kLoads];
  const StateT* from = piece(read_slot);
#pragma unroll
  for (int i = 0; i < kLoads; ++i) pieces[i] = load_whole_line(from + i * S::kRows * D);

#pragma unroll
  for (int i = 0; i < S::kElements; ++i) {
    q[thread + i * S::kThreads] = own_q[i];
    k[thread + i * S::kThreads] = own_k[i];
  }
  const float decay_minus_one = expm1f(-rate);
  __syncthreads();

  float sum[S::kVector] = {};
  StateT* to = piece(write_slot);
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const int key = first_key + i * S::kRows;
    float s[S::kVector];
    unpack(s, pieces[i]);
#pragma unroll
    for (int j = 0; j < S::kVector; ++j) {
      s[j] = fmaf(k[key], v[j], fmaf(s[j], decay_minus_one, s[j]));
      sum[j] = fmaf(q[key], s[j], sum[j]);
    }
    if (write_slot >= 0) *reinterpret_cast<uint4*>(to + i * S::kRows * D) = pack(s);
  }

#pragma unroll
  for (int j = 0; j < S::kVector; ++j) {
#pragma unroll
    for (int step = S::kLanes; step < 32; step *= 2) sum[j] += __shfl_xor_sync(0xffffffffU, sum[j], step);
  }
  if (thread % 32 < S::kLanes) {
#pragma unroll
    for (int j = 0; j < S::kVector; ++j) sums[thread / 32][column + j] = sum[j];
  }
  __syncthreads();
  for (int i = thread; i < kValues; i += S::kThreads) {
    float total = 0.0F;
#pragma unroll
    for (int warp = 0; warp < S::kWarps; ++warp) total += sums[warp][i];
    out[i] = from_float<T>(total);
  }
}

// Any head_dim and stride; a thread owns a value column.
template <typename T, typename StateT>
__global__ void lightning_decode_generic(LightningDecodeArgs args) {
  const int dim = args.head_dim;
  const int64_t row = blockIdx.x / args.num_heads;
  const int head = blockIdx.x % args.num_heads;
  const int value = threadIdx.x;
  ptx::wait_for_previous_kernel();
  if (value >= dim) return;
  T* out = static_cast<T*>(args.out.data) + row * args.out.token_stride + head * args.out.head_stride;
  const int read_slot = args.read_slots[row];
  if (read_slot < 0) {
    out[value] = from_float<T>(0.0F);
    return;
  }
  const int write_slot = args.write_slots[row];
  const auto column = [&](int slot) {
    return static_cast<StateT*>(args.state) + (int64_t{slot} * args.num_heads + head) * dim * dim + value;
  };
  const T* q = row_of<T>(args.q, row, head);
  const T* k = row_of<T>(args.k, row, head);
  const float v = to_float(row_of<T>(args.v, row, head)[value]);
  const float decay_minus_one = expm1f(-args.decay[head]);
  const StateT* from = column(read_slot);
  StateT* to = column(write_slot);
  float sum = 0.0F;
  for (int key = 0; key < dim; ++key) {
    const float before = to_float(from[key * dim]);
    const float s = fmaf(to_float(k[key]), v, fmaf(before, decay_minus_one, before));
    if (write_slot >= 0) to[key * dim] = from_float<StateT>(s);
    sum = fmaf(to_float(q[key]), s, sum);
  }
  out[value] = from_float<T>(sum);
}

template <typename T, typename StateT, int D, int kValues>
cudaError_t launch_vectors(const LightningDecodeArgs& args, cudaStream_t stream) {
  using S = Shape<T, StateT, D, kValues>;
  const auto blocks = static_cast<unsigned>(args.batch * args.num_heads * S::kBlocks);
  const auto kernel = args.is_uploaded && blocks <= kFewBlocks
                          ? lightning_decode_vectors<T, StateT, D, kValues, true>
                          : lightning_decode_vectors<T, StateT, D, kValues, false>;
  return launch_early(kernel, blocks, S::kThreads, 0, stream, args);
}

template <typename T, typename StateT>
cudaError_t launch(const LightningDecodeArgs& args, cudaStream_t stream) {
  const bool is_reachable = is_aligned(args.q, args.element) && is_aligned(args.k, args.element) &&
                            is_aligned(args.v, args.element) && is_aligned(args.out, args.element);
  if (is_reachable && args.head_dim == 128) return launch_vectors<T, StateT, 128, 64>(args, stream);
  if (is_reachable && args.head_dim == 64) return launch_vectors<T, StateT, 64, 64>(args, stream);
  const int threads = (args.head_dim + 31) / 32 * 32;
  const auto blocks = static_cast<unsigned>(args.batch * args.num_heads);
  return launch_early(lightning_decode_generic<T, StateT>, blocks, threads, 0, stream, args);
}

}  // namespace

cudaError_t lightning_decode(const LightningDecodeArgs& args, cudaStream_t stream) {
  if (args.batch < 0 || args.num_heads <= 0 || args.head_dim < 1 || args.head_dim > 256 ||
      args.batch > INT32_MAX / 4 / args.num_heads) {
    return cudaErrorInvalidValue;
  }
  if (args.batch == 0) return cudaSuccess;
  if (args.element == Element::kF32) {
    return args.is_state_bf16 ? launch<float, __nv_bfloat16>(args, stream)
                              : launch<float, float>(args, stream);
  }
  return args.is_state_bf16 ? launch<__nv_bfloat16, __nv_bfloat16>(args, stream)
                            : launch<__nv_bfloat16, float>(args, stream);
}

}  // namespace minimax::cuda
