// Which prefill kernel runs, over which segments.
#include "backends/cuda/lightning_element.cuh"
#include "backends/cuda/lightning_prefill_common.cuh"
#include "backends/cuda/lightning_prefill_kernels.h"

namespace minimax::cuda {
namespace {

bool has_tensor_core_kernel(Element element, int head_dim) {
  return element == Element::kBF16 && (head_dim == 64 || head_dim == 128);
}

// How sequences are cut, from the sizes alone.
struct Plan {
  int segment_tokens = INT32_MAX - kChunkTokens + 1;  // nothing is cut
  int64_t num_items = 0;                              // segments at most
  int64_t cut_items = 0;                              // segments of cut sequences at most
};

Plan make_plan(int64_t num_tokens, int64_t num_sequences, int num_heads, int head_dim, int sm) {
  constexpr int kMinSegment = 512;  // below, the first kernel costs more than it saves
  constexpr int kMaxSegments = 16;  // a block adds up as many states before it begins
  const int64_t multiprocessors = sm >= 90 ? 132 : 108;
  const int64_t blocks_per_sequence = int64_t{num_heads} * head_dim / kBlockValues;
  int64_t segments = multiprocessors / blocks_per_sequence;
  if (segments > kMaxSegments) segments = kMaxSegments;
  Plan plan;
  plan.num_items = num_sequences;
  if (segments < 2 || num_tokens <= kMinSegment) return plan;
  int64_t tokens = (num_tokens + segments - 1) / segments;
  tokens = (tokens + kChunkTokens - 1) / kChunkTokens * kChunkTokens;
  if (tokens < kMinSegment) tokens = kMinSegment;
  plan.segment_tokens = static_cast<int>(tokens);
  // A sequence of n > 1 segments has more than (n - 1) segment_tokens >= n / 2 segment_tokens rows.
  plan.num_items += num_tokens / tokens;
  plan.cut_items = 2 * num_tokens / tokens;
  return plan;
}

int64_t partial_bytes(const Plan& plan, int num_heads, int head_dim) {
  return plan.cut_items * num_heads * head_dim * head_dim * static_cast<int64_t>(sizeof(float));
}

__global__ void clear_rows(Rows out, int64_t num_tokens, int num_heads, int head_dim, int element_bytes) {
  const int64_t count = num_tokens * num_heads * head_dim;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t row = i / head_dim;
    const int64_t at = row / num_heads * out.token_stride + row % num_heads * out.head_stride + i % head_dim;
    if (element_bytes == 2) {
      static_cast<uint16_t*>(out.data)[at] = 0;
    } else {
      static_cast<uint32_t*>(out.data)[at] = 0;
    }
  }
}

PrefillParams make_params(const LightningPrefillArgs& args, const Plan& plan) {
  PrefillParams params;
  params.q = static_cast<const __nv_bfloat16*>(args.q.data);
  params.k = static_cast<const __nv_bfloat16*>(args.k.data);
  params.v = static_cast<const __nv_bfloat16*>(args.v.data);
  params.out = static_cast<__nv_bfloat16*>(args.out.data);
  params.q_token_stride = args.q.token_stride;
  params.q_head_stride = args.q.head_stride;
  params.k_token_stride = args.k.token_stride;
  params.k_head_stride = args.k.head_stride;
  params.v_token_stride = args.v.token_stride;
  params.v_head_stride = args.v.head_stride;
  params.out_token_stride = args.out.token_stride;
  params.out_head_stride = args.out.head_stride;
  params.decay = args.decay;
  params.state = args.state;
  params.read_slots = args.read_slots;
  params.write_slots = args.write_slots;
  params.query_starts = args.query_starts;
  params.checkpoint_rows = args.checkpoint_rows;
  params.checkpoint_slots = args.checkpoint_slots;
  params.num_checkpoints = args.num_checkpoints;
  params.num_tokens = args.num_tokens;
  params.num_sequences = static_cast<int>(args.num_sequences);
  params.num_heads = args.num_heads;
  params.segment_tokens = plan.segment_tokens;
  params.num_items = static_cast<int>(plan.num_items);
  params.partial = static_cast<float*>(args.workspace);
  return params;
}

// What a tensor map can say: strides below 2^40 bytes that are not 0, and at least one row.
bool fits_tensor_map(const Rows& rows, int64_t num_tokens) {
  constexpr int64_t kMaxStride = (int64_t{1} << 39) - 1;
  return num_tokens > 0 && rows.token_stride > 0 && rows.head_stride > 0 && rows.token_stride < kMaxStride &&
         rows.head_stride < kMaxStride;
}

}  // namespace

int64_t lightning_prefill_workspace_bytes(int64_t num_tokens, int64_t num_sequences, int num_heads,
                                          int head_dim, Element element, int sm) {
  if (num_heads <= 0 || !has_tensor_core_kernel(element, head_dim)) return 0;
  return partial_bytes(make_plan(num_tokens, num_sequences, num_heads, head_dim, sm), num_heads, head_dim);
}

cudaError_t lightning_prefill(const LightningPrefillArgs& args, cudaStream_t stream) {
  if (args.num_tokens < 0 || args.num_tokens > INT32_MAX || args.num_sequences < 0 || args.num_heads <= 0 ||
      args.head_dim < 1 || args.head_dim > 256 || args.num_checkpoints < 0 ||
      (args.num_checkpoints > 0 && (args.checkpoint_rows == nullptr || args.checkpoint_slots == nullptr))) {
    return cudaErrorInvalidValue;
  }
  if (args.num_sequences == 0) {
    if (args.num_tokens == 0) return cudaSuccess;
    clear_rows<<<132, 256, 0, stream>>>(args.out, args.num_tokens, args.num_heads, args.head_dim,
                                        args.element == Element::kF32 ? 4 : 2);
    return cudaGetLastError();
  }
  const bool is_reachable = is_aligned(args.q, args.element) && is_aligned(args.k, args.element) &&
                            is_aligned(args.v, args.element) && is_aligned(args.out, args.element);
  if (!has_tensor_core_kernel(args.element, args.head_dim) || !is_reachable) {
    if (args.num_sequences * args.num_heads > INT32_MAX / 8) return cudaErrorInvalidValue;
    return launch_prefill_generic(args, stream);
  }
  const Plan plan = make_plan(args.num_tokens, args.num_sequences, args.num_heads, args.head_dim, args.sm);
  const int64_t blocks = (plan.num_items + plan.cut_items) * args.num_heads * (args.head_dim / kBlockValues);
  const int64_t needed = partial_bytes(plan, args.num_heads, args.head_dim);
  if (blocks > INT32_MAX || args.workspace_bytes < needed || (needed > 0 && args.workspace == nullptr)) {
    return cudaErrorInvalidValue;
  }
  const bool is_mappable = fits_tensor_map(args.q, args.num_tokens) &&
                           fits_tensor_map(args.k, args.num_tokens) &&
                           fits_tensor_map(args.v, args.num_tokens);
  const auto launch = args.sm >= 90 && is_mappable ? launch_prefill_sm90 : launch_prefill_sm80;
  return launch(make_params(args, plan), args.head_dim, static_cast<int>(plan.cut_items), stream);
}

}  // namespace minimax::cuda
