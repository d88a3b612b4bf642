// Choice of experts: the k best of a token's logits and their weights.
#include "backends/cuda/device.cuh"

namespace minimax::cuda {
namespace {

constexpr float kNever = -INFINITY;

// A number as an integer of the same order; NaN is the lowest.
__device__ uint32_t ordered_bits(float x) {
  const uint32_t bits = __float_as_uint(x);
  if (x != x) return 0;
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// One warp a token, kPerLane experts a lane: expert lane + 32 i is its i-th. The k best are found one by one;
// ties go to the lowest id, and so do NaN logits once nothing else is left.
template <int kPerLane>
__global__ void route_kernel(RouteArgs a) {
  ptx::wait_for_previous_kernel();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp;
  if (t >= a.tokens) return;
  const float* logits = a.logits + t * a.logits_stride;
  // Chosen ones and those beyond the last expert have key 0 and are told apart by `is_left`.
  float values[kPerLane];
  uint32_t keys[kPerLane];
  uint32_t is_left = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = lane + 32 * i;
    values[i] = e < a.experts ? logits[e] : NAN;
    float choice = values[i];
    if (a.is_sigmoid) {
      values[i] = 1.0F / (1.0F + expf(-values[i]));
      choice = values[i];
      if (a.bias.data != nullptr && e < a.experts) choice += load_scalar(a.bias.data, a.bias.scalar, e);
    }
    keys[i] = ordered_bits(choice);
    if (e < a.experts) is_left |= 1U << i;
  }
  float largest = 0, sum = 0, own_weight = 0;
  int own_id = 0;
  for (int64_t j = 0; j < a.top_k; ++j) {
    uint32_t best = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) best = (is_left >> i & 1U) != 0 && keys[i] > best ? keys[i] : best;
    best = __reduce_max_sync(0xffffffffU, best);
    int at = 0x7fffffff;
    float value = 0;
#pragma unroll
    for (int i = kPerLane - 1; i >= 0; --i) {
      if ((is_left >> i & 1U) != 0 && keys[i] == best) {
        at = lane + 32 * i;
        value = values[i];
      }
    }
    const int chosen = __reduce_min_sync(0xffffffffU, at);
    value = __shfl_sync(0xffffffffU, value, chosen % 32);
    if (at == chosen) is_left &= ~(1U << (chosen / 32));
    if (j == 0) largest = value;
    const float p = a.is_sigmoid ? value : expf(value - largest);
    sum += p;
    if (lane == j % 32) {
      own_id = chosen;
      own_weight = p;
    }
    if (j % 32 == 31 || j + 1 == a.top_k) {
      // A lane keeps one of 32 choices.
      const int64_t slot = j / 32 * 32 + lane;
      if (slot < a.top_k) {
        a.ids[t * a.ids_stride + slot] = own_id;
        a.weights[t * a.weights_stride + slot] = own_weight;
      }
    }
  }
  __syncwarp();
  const float factor = (a.is_sigmoid ? a.scale : 1.0F) / sum;
  for (int64_t j = lane; j < a.top_k; j += 32) a.weights[t * a.weights_stride + j] *= factor;
}

// The same for any number of experts, which stand in shared memory.
__global__ void route_any_kernel(RouteArgs a) {
  ptx::wait_for_previous_kernel();
  extern __shared__ float rows[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp;
  if (t >= a.tokens) return;
  float* choice = rows + warp * a.experts;
  const float* logits = a.logits + t * a.logits_stride;
  for (int64_t e = lane; e < a.experts; e += 32) {
    float value = logits[e];
    if (a.is_sigmoid) {
      value = 1.0F / (1.0F + expf(-value));
      if (a.bias.data != nullptr) value += load_scalar(a.bias.data, a.bias.scalar, e);
    }
    choice[e] = value;
  }
  __syncwarp();
  float largest = 0, sum = 0;
  for (int64_t j = 0; j < a.top_k; ++j) {
    float best = kNever;
    int best_at = 0x7fffffff;
    for (int e = lane; e < a.experts; e += 32) {
      if (choice[e] > best || (best_at == 0x7fffffff && choice[e] == choice[e])) {
        best = choice[e];
        best_at = e;
      }
    }
    for (int i = 16; i > 0; i >>= 1) {
      const float other = __shfl_xor_sync(0xffffffffU, best, i);
      const int other_at = __shfl_xor_sync(0xffffffffU, best_at, i);
      if (other_at != 0x7fffffff &&
          (best_at == 0x7fffffff || other > best || (other == best && other_at < best_at))) {
        best = other;
        best_at = other_at;
      }
    }
    // NaN logits leave nothing to compare: the lowest id not taken yet.
    if (best_at == 0x7fffffff) best_at = static_cast<int>(j);
    if (j == 0) largest = best;
    const float p = a.is_sigmoid ? 1.0F / (1.0F + expf(-logits[best_at])) : expf(best - largest);
    sum += p;
    if (lane == 0) {
      a.ids[t * a.ids_stride + j] = best_at;
      a.weights[t * a.weights_stride + j] = p;
      choice[best_at] = NAN;
    }
    __syncwarp();
  }
  const float factor = (a.is_sigmoid ? a.scale : 1.0F) / sum;
  for (int64_t j = lane; j < a.top_k; j += 32) a.weights[t * a.weights_stride + j] *= factor;
}

}  // namespace

void launch_route(const RouteArgs& a, cudaStream_t stream) {
  if (a.tokens == 0) return;
  constexpr int kWarps = 4;
  const auto blocks = static_cast<unsigned>(ceil_div(a.tokens, kWarps));
  if (a.experts <= 32) return launch(route_kernel<1>, blocks, kWarps * 32, 0, stream, a);
  if (a.experts <= 128) return launch(route_kernel<4>, blocks, kWarps * 32, 0, stream, a);
  if (a.experts <= 256) return launch(route_kernel<8>, blocks, kWarps * 32, 0, stream, a);
  launch(route_any_kernel, blocks, kWarps * 32, static_cast<size_t>(kWarps * a.experts) * sizeof(float),
         stream, a);
}

}  // namespace minimax::cuda
