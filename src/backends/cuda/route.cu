// Choice of experts: the k best of a token's logits and their weights.
#include "backends/cuda/device.cuh"

namespace minimax::cuda {
namespace {

constexpr uint32_t kEveryLane = 0xffffffffU;
constexpr int kNone = 0x7fffffff;

// A number as an integer of the same order; NaN is the lowest, and above 0, which stands for no number.
__device__ uint32_t ordered_bits(float x) {
  const uint32_t bits = __float_as_uint(x);
  if (x != x) return 1;
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

__device__ float probability(const RouteArgs& a, float logit) {
  return a.is_sigmoid ? 1.0F / (1.0F + expf(-logit)) : logit;
}
__device__ float bias_of(const RouteArgs& a, int e) {
  return a.bias.scalar == Scalar::kBF16 ? to_f32(static_cast<const bf16_t*>(a.bias.data)[e])
                                        : static_cast<const float*>(a.bias.data)[e];
}

// The experts chosen of token t, in order, with their weights. `room` holds 32 floats of the warp's,
// `probabilities` what probability() gives of every expert.
__device__ void write_choices(const RouteArgs& a, int64_t t, const int* chosen, const float* probabilities,
                              float* room) {
  const int lane = threadIdx.x % 32, top_k = static_cast<int>(a.top_k);
  const float largest = probabilities[chosen[0]];
  const auto p_of = [&](int j) {
    const float p = probabilities[chosen[j]];
    return a.is_sigmoid ? p : expf(p - largest);
  };
  float sum = 0;
#pragma unroll 1
  for (int first = 0; first < top_k; first += 32) {
    room[lane] = first + lane < top_k ? p_of(first + lane) : 0;
    __syncwarp();
    // In their order; what is not there adds zeros.
#pragma unroll 1
    for (int i = 0; i < min(32, top_k - first); i += 8) {
#pragma unroll
      for (int c = 0; c < 8; ++c) sum += room[i + c];
    }
    __syncwarp();
  }
  const float factor = (a.is_sigmoid ? a.scale : 1.0F) / sum;
#pragma unroll 1
  for (int j = lane; j < top_k; j += 32) {
    a.ids[t * a.ids_stride + j] = chosen[j];
    a.weights[t * a.weights_stride + j] = p_of(j) * factor;
  }
}

// One block a token and one thread an expert, so that what runs once is short code; then one warp sorts the
// kPerLane experts of each lane, and the lane whose best is the best of all gives it away. Ties go to the
// lowest id, and so do NaN logits once nothing else is left.
template <int kPerLane>
__global__ void __launch_bounds__(32 * kPerLane) route_kernel(const __grid_constant__ RouteArgs a) {
  __shared__ uint32_t shared_keys[32 * kPerLane];
  __shared__ float probabilities[32 * kPerLane], room[32];
  __shared__ int chosen[32 * kPerLane];
  if (a.lets_next_start) ptx::start_next_kernel();
  const int64_t t = blockIdx.x;
  const int lane = threadIdx.x, top_k = static_cast<int>(a.top_k);
  const bool is_there = threadIdx.x < a.experts;
  // The bias is a weight: it is read before the kernel that makes the logits is done.
  const float bias = is_there && a.bias.data != nullptr ? bias_of(a, static_cast<int>(threadIdx.x)) : 0.0F;
  ptx::wait_for_previous_kernel();
  const float p = is_there ? probability(a, a.logits[t * a.logits_stride + threadIdx.x]) : 0;
  probabilities[threadIdx.x] = p;
  shared_keys[threadIdx.x] = is_there ? ordered_bits(p + bias) : 0;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  uint32_t keys[kPerLane];
  int ids[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    ids[i] = lane + 32 * i;
    keys[i] = shared_keys[ids[i]];
  }
  // Batcher's merge exchange.
  const auto order = [&](int x, int y) {
    const bool swaps = keys[y] > keys[x] || (keys[y] == keys[x] && ids[y] < ids[x]);
    const uint32_t key = swaps ? keys[y] : keys[x];
    const int id = swaps ? ids[y] : ids[x];
    keys[y] = swaps ? keys[x] : keys[y];
    ids[y] = swaps ? ids[x] : ids[y];
    keys[x] = key;
    ids[x] = id;
  };
#pragma unroll
  for (int p = 1; p < kPerLane; p *= 2) {
#pragma unroll
    for (int k = p; k > 0; k /= 2) {
#pragma unroll
      for (int x = 0; x + k < kPerLane; ++x) {
        if (x >= k % p && (x - k % p) / k % 2 == 0 && x / (2 * p) == (x + k) / (2 * p)) order(x, x + k);
      }
    }
  }
#pragma unroll 1
  for (int j = 0; j < top_k; ++j) {
    const uint32_t best = __reduce_max_sync(kEveryLane, keys[0]);
    bool is_mine = keys[0] == best;
    const uint32_t holders = __ballot_sync(kEveryLane, is_mine);
    if ((holders & (holders - 1)) != 0)
      is_mine = __reduce_min_sync(kEveryLane, is_mine ? ids[0] : kNone) == ids[0] && is_mine;
    if (is_mine) {
      chosen[j] = ids[0];
#pragma unroll
      for (int i = 0; i + 1 < kPerLane; ++i) {
        keys[i] = keys[i + 1];
        ids[i] = ids[i + 1];
      }
      keys[kPerLane - 1] = 0;
    }
  }
  __syncwarp();
  write_choices(a, t, chosen, probabilities, room);
}

// The same for any number of experts, one warp a token.
__global__ void route_any_kernel(const __grid_constant__ RouteArgs a) {
  ptx::wait_for_previous_kernel();
  extern __shared__ int chosen[];  // then keys and probabilities
  __shared__ float room[32];
  const int64_t t = blockIdx.x;
  const int lane = threadIdx.x, top_k = static_cast<int>(a.top_k), experts = static_cast<int>(a.experts);
  uint32_t* keys = reinterpret_cast<uint32_t*>(chosen + top_k);
  float* probabilities = reinterpret_cast<float*>(keys + experts);
  for (int e = lane; e < experts; e += 32) {
    const float p = probability(a, a.logits[t * a.logits_stride + e]);
    probabilities[e] = p;
    keys[e] = ordered_bits(p + (a.bias.data != nullptr ? bias_of(a, e) : 0.0F));  // which makes -0 a 0
  }
  __syncwarp();
  for (int j = 0; j < top_k; ++j) {
    uint32_t own = 0;
    int id = kNone;
    for (int e = lane; e < experts; e += 32) {
      if (keys[e] > own) {
        own = keys[e];
        id = e;
      }
    }
    const uint32_t best = __reduce_max_sync(kEveryLane, own);
    if (__reduce_min_sync(kEveryLane, own == best ? id : kNone) == id && own == best) {
      chosen[j] = id;
      keys[id] = 0;
    }
  }
  __syncwarp();
  write_choices(a, t, chosen, probabilities, room);
}

}  // namespace

void launch_route(const RouteArgs& a, cudaStream_t stream) {
  if (a.tokens == 0) return;
  const auto start = [&](auto* kernel, int64_t threads, int64_t words) {
    launch(kernel, static_cast<unsigned>(a.tokens), static_cast<unsigned>(threads),
           static_cast<size_t>(words * 4), stream, a);
  };
  if (a.experts <= 32) return start(route_kernel<1>, 32, 0);
  if (a.experts <= 128) return start(route_kernel<4>, 128, 0);
  if (a.experts <= 256) return start(route_kernel<8>, 256, 0);
  start(route_any_kernel, 32, a.top_k + 2 * a.experts);
}

}  // namespace minimax::cuda
