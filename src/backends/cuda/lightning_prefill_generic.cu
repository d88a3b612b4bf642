// Prefill for any dtype, head_dim and stride: the recurrence itself in F32, one token after another. Correct
// rather than fast. A block owns one sequence, one head and 32 value columns.
#include <cuda_bf16.h>

#include "backends/cuda/lightning_element.cuh"
#include "backends/cuda/lightning_prefill_kernels.h"

namespace minimax::cuda {
namespace {

constexpr int kValues = 32;
constexpr int kGroups = 8;  // warps; group g holds the keys g, g + 8, g + 16 ...
constexpr int kThreads = kValues * kGroups;
constexpr int kTokens = 8;  // staged at a time
static_assert(kTokens * kValues == kThreads, "each thread sums one output of a stage");

template <int kKeys>
struct Stage {
  float q[kTokens][kGroups * kKeys];
  float k[kTokens][kGroups * kKeys];
  float v[kTokens][kValues];
  float sums[kTokens][kGroups][kValues];
};

template <typename T, int kKeys>
__device__ void load_stage(Stage<kKeys>& stage, const LightningPrefillArgs& args, int64_t first, int tokens,
                           int head, int first_value) {
  const auto row = [&](const Rows& rows, int token) {
    return static_cast<const T*>(rows.data) + (first + token) * rows.token_stride + head * rows.head_stride;
  };
  for (int i = threadIdx.x; i < kTokens * kGroups * kKeys; i += kThreads) {
    const int token = i / (kGroups * kKeys);
    const int key = i % (kGroups * kKeys);
    const bool is_valid = token < tokens && key < args.head_dim;
    stage.q[token][key] = is_valid ? to_float(row(args.q, token)[key]) : 0.0F;
    stage.k[token][key] = is_valid ? to_float(row(args.k, token)[key]) : 0.0F;
  }
  const int token = threadIdx.x / kValues;
  const int value = threadIdx.x % kValues;
  const bool is_valid = token < tokens && first_value + value < args.head_dim;
  stage.v[token][value] = is_valid ? to_float(row(args.v, token)[first_value + value]) : 0.0F;
}

template <typename T, int kKeys>
__global__ void __launch_bounds__(kThreads) lightning_prefill_generic(LightningPrefillArgs args) {
  __shared__ Stage<kKeys> stage;
  const int dim = args.head_dim;
  const int blocks = (dim + kValues - 1) / kValues;
  const int units = args.num_heads * blocks;
  const int64_t sequence = blockIdx.x / units;
  const int head = blockIdx.x % units / blocks;
  const int first_value = blockIdx.x % blocks * kValues;
  const int group = threadIdx.x / kValues;
  const int value = first_value + threadIdx.x % kValues;
  const auto out_row = [&](int64_t token) {
    return static_cast<T*>(args.out.data) + token * args.out.token_stride + head * args.out.head_stride;
  };
  const int64_t end = args.query_starts[args.num_sequences];
  for (int64_t row = end + sequence * kGroups + group; row < args.num_tokens;
       row += args.num_sequences * kGroups) {
    if (value < dim) out_row(row)[value] = from_float<T>(0.0F);
  }

  const auto head_state = [&](int64_t slot) {
    return args.state + (slot * args.num_heads + head) * dim * dim;
  };
  const int read_slot = args.read_slots[sequence];
  float s[kKeys];
#pragma unroll
  for (int i = 0; i < kKeys; ++i) {
    const int key = group + kGroups * i;
    s[i] = read_slot >= 0 && key < dim && value < dim ? head_state(read_slot)[key * dim + value] : 0.0F;
  }
  const float decay_minus_one = expm1f(-args.decay[head]);
  const int64_t begin = args.query_starts[sequence];
  const int64_t stop = args.query_starts[sequence + 1];
  const auto leave_state = [&](int64_t slot) {
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      const int key = group + kGroups * i;
      if (slot >= 0 && key < dim && value < dim) head_state(slot)[key * dim + value] = s[i];
    }
  };
  int64_t checkpoint = sequence * args.num_checkpoints;
  const int64_t last_checkpoint = checkpoint + args.num_checkpoints;
  for (int64_t first = begin; first < stop; first += kTokens) {
    const int tokens = static_cast<int>(stop - first < kTokens ? stop - first : kTokens);
    load_stage<T>(stage, args, first, tokens, head, first_value);
    __syncthreads();
    for (int token = 0; token < tokens; ++token) {
      const float v = stage.v[token][threadIdx.x % kValues];
      float sum = 0.0F;
#pragma unroll
      for (int i = 0; i < kKeys; ++i) {
        const int key = group + kGroups * i;
        s[i] = fmaf(stage.k[token][key], v, fmaf(s[i], decay_minus_one, s[i]));
        sum = fmaf(stage.q[token][key], s[i], sum);
      }
      stage.sums[token][group][threadIdx.x % kValues] = sum;
      if (checkpoint < last_checkpoint && args.checkpoint_rows[checkpoint] == first + token + 1 - begin)
        leave_state(args.checkpoint_slots[checkpoint++]);
    }
    __syncthreads();
    if (group < tokens && value < dim) {
      float sum = 0.0F;
      for (int other = 0; other < kGroups; ++other) sum += stage.sums[group][other][threadIdx.x % kValues];
      out_row(first + group)[value] = from_float<T>(sum);
    }
  }

  leave_state(args.write_slots[sequence]);
}

template <typename T>
cudaError_t launch(const LightningPrefillArgs& args, cudaStream_t stream) {
  const int64_t blocks = args.num_sequences * args.num_heads * ((args.head_dim + kValues - 1) / kValues);
  const auto grid = static_cast<unsigned>(blocks);
  if (args.head_dim <= 64) {
    lightning_prefill_generic<T, 8><<<grid, kThreads, 0, stream>>>(args);
  } else if (args.head_dim <= 128) {
    lightning_prefill_generic<T, 16><<<grid, kThreads, 0, stream>>>(args);
  } else {
    lightning_prefill_generic<T, 32><<<grid, kThreads, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_prefill_generic(const LightningPrefillArgs& args, cudaStream_t stream) {
  return args.element == Element::kF32 ? launch<float>(args, stream) : launch<__nv_bfloat16>(args, stream);
}

}  // namespace minimax::cuda
