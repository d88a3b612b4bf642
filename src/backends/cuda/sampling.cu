// The next token of each row, one block a row. Nothing is sorted: thresholds and the draw itself are found by
// radix selection over the logits, with probabilities as integers, so that sums do not depend on their order.
#include "backends/cuda/device.cuh"

namespace minimax::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kBins = 2048;
constexpr float kMassUnit = 1099511627776.0F;  // 2^40 units are a probability of one
constexpr int32_t kSeen = 1 << 30;

// Greater logits have greater keys.
__device__ uint32_t order_key(float x) {
  const uint32_t bits = __float_as_uint(x);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

__device__ float uniform(int64_t seed, int64_t counter) {
  uint64_t z = static_cast<uint64_t>(seed) * 0xd1342543de82ef95ULL + static_cast<uint64_t>(counter) + 1;
  for (int round = 0; round < 2; ++round) {
    z += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
    z ^= z >> 31U;
  }
  return static_cast<float>(z >> 40U) * 0x1.0p-24F;
}

// A place in the descending order of a row: logit, then id.
struct Place {
  uint32_t key;
  int32_t id;
};
__device__ bool is_at_or_before(uint32_t key, int32_t id, const Place& p) {
  return key > p.key || (key == p.key && id <= p.id);
}

struct Shared {
  unsigned long long bins[kBins];
  unsigned long long before;  // mass of what stands before the chosen bin
  int32_t bin;
  float scratch[33];
  float best[32];
  int32_t best_id[32];
  int32_t counts[32];
  Place place;
};

struct Row {
  const float* logits;
  int64_t count;
  float largest;
  float inverse_temperature;
  float min_p;

  __device__ float probability(float x) const { return expf((x - largest) * inverse_temperature); }
  __device__ unsigned long long mass(float x) const {
    const float p = probability(x);
    return p >= min_p ? static_cast<unsigned long long>(p * kMassUnit) : 0ULL;
  }
  // Bins of equal width in the logarithm spread what a float's leading bits would crowd together.
  __device__ int32_t coarse(float x) const {
    const float distance = (largest - x) * inverse_temperature * 64.0F;
    return distance < static_cast<float>(kBins - 1) ? static_cast<int32_t>(distance) : kBins - 1;
  }
};

// In `shared.bins`, descending order is ascending bin: the first bin at whose end the running sum exceeds
// `target` (or the last one that holds anything).
__device__ void find_bin(Shared& shared, int bins, unsigned long long before, unsigned long long target) {
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x;
    unsigned long long sum = before;
    int32_t last = 0;
    unsigned long long last_before = before;
    bool is_found = false;
    for (int base = 0; base < bins && !is_found; base += 32) {
      const unsigned long long own = shared.bins[base + lane];
      unsigned long long upto = own;
      for (int i = 1; i < 32; i <<= 1) {
        const unsigned long long left = __shfl_up_sync(0xffffffffU, upto, i);
        if (lane >= i) upto += left;
      }
      const uint32_t beyond = __ballot_sync(0xffffffffU, own > 0 && sum + upto > target);
      const uint32_t filled = __ballot_sync(0xffffffffU, own > 0);
      const uint32_t candidates = beyond != 0 ? beyond & (~beyond + 1U) : filled;
      if (candidates != 0) {
        const int pick =
            beyond != 0 ? __ffs(static_cast<int>(candidates)) - 1 : 31 - __clz(static_cast<int>(filled));
        last = base + pick;
        last_before = sum + __shfl_sync(0xffffffffU, upto - own, pick);
        is_found = beyond != 0;
      }
      sum += __shfl_sync(0xffffffffU, upto, 31);
    }
    if (lane == 0) {
      shared.bin = last;
      shared.before = last_before;
    }
  }
  __syncthreads();
}

__device__ void clear_bins(Shared& shared, int bins) {
  for (int i = threadIdx.x; i < bins; i += kThreads) shared.bins[i] = 0;
  __syncthreads();
}

// The first place in descending order at which the running sum of `mass` over the row exceeds `target`.
template <typename Mass>
__device__ Place select(Shared& shared, const Row& row, unsigned long long target, Mass&& mass) {
  clear_bins(shared, kBins);
  for (int64_t i = threadIdx.x; i < row.count; i += kThreads) {
    const float x = row.logits[i];
    const unsigned long long m = mass(x, static_cast<int32_t>(i));
    if (m > 0) atomicAdd(&shared.bins[row.coarse(x)], m);
  }
  find_bin(shared, kBins, 0, target);
  const int32_t coarse = shared.bin;
  unsigned long long before = shared.before;
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    const uint32_t mask = shift == 24 ? 0U : ~0U << static_cast<uint32_t>(shift + 8);
    clear_bins(shared, 256);
    for (int64_t i = threadIdx.x; i < row.count; i += kThreads) {
      const float x = row.logits[i];
      const uint32_t key = order_key(x);
      if ((key & mask) != (prefix & mask) || row.coarse(x) != coarse) continue;
      const unsigned long long m = mass(x, static_cast<int32_t>(i));
      if (m > 0) atomicAdd(&shared.bins[255 - (key >> static_cast<uint32_t>(shift) & 255U)], m);
    }
    find_bin(shared, 256, before, target);
    before = shared.before;
    prefix |= static_cast<uint32_t>(255 - shared.bin) << static_cast<uint32_t>(shift);
    __syncthreads();
  }
  // Of those with the same logit, which all weigh the same, by id.
  unsigned long long sum = before;
  if (threadIdx.x == 0) shared.place = {prefix, -1};
  __syncthreads();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int64_t base = 0; base < row.count; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    const bool is_equal = i < row.count && order_key(row.logits[i]) == prefix;
    const unsigned long long m = is_equal ? mass(row.logits[i], static_cast<int32_t>(i)) : 0ULL;
    const uint32_t heavy = __ballot_sync(0xffffffffU, m > 0);
    if (lane == 0) shared.counts[warp] = __popc(heavy);
    if (!__syncthreads_or(static_cast<int>(m > 0))) continue;
    int32_t earlier = __popc(heavy & ((1U << static_cast<uint32_t>(lane)) - 1U)), all = 0;
    for (int w = 0; w < kThreads / 32; ++w) {
      earlier += w < warp ? shared.counts[w] : 0;
      all += shared.counts[w];
    }
    // A row's last place holds where rounding leaves the target beyond the whole sum.
    if (m > 0 && sum + (static_cast<unsigned long long>(earlier) + 1) * m > target &&
        sum + static_cast<unsigned long long>(earlier) * m <= target) {
      shared.place.id = static_cast<int32_t>(i);
    } else if (m > 0 && earlier == all - 1 && sum + static_cast<unsigned long long>(all) * m <= target) {
      shared.place.id = static_cast<int32_t>(i);
    }
    // All equal logits weigh the same, so one thread's weight speaks for all; take it from the bins'
    // difference.
    unsigned long long chunk = m * static_cast<unsigned long long>(all);
    for (int s = 16; s > 0; s >>= 1) {
      const unsigned long long other = __shfl_xor_sync(0xffffffffU, chunk, s);
      chunk = other > chunk ? other : chunk;
    }
    if (lane == 0) shared.bins[warp] = chunk;
    __syncthreads();
    unsigned long long largest = 0;
    for (int w = 0; w < kThreads / 32; ++w) largest = shared.bins[w] > largest ? shared.bins[w] : largest;
    sum += largest;
    __syncthreads();
  }
  const Place result = shared.place;
  __syncthreads();
  return result;
}

// The largest logit before `end` in descending order: of all when end.id is -1.
__device__ Place next_largest(Shared& shared, const float* logits, int64_t count, bool has_end,
                              const Place& end, float& value) {
  float best = -INFINITY;
  int32_t best_id = 0x7fffffff;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const float x = logits[i];
    if (has_end && is_at_or_before(order_key(x), static_cast<int32_t>(i), end)) continue;
    if (x > best || best_id == 0x7fffffff) {
      best = x;
      best_id = static_cast<int32_t>(i);
    }
  }
  const auto take = [&](float other, int32_t other_id) {
    if (other_id != 0x7fffffff &&
        (best_id == 0x7fffffff || other > best || (other == best && other_id < best_id))) {
      best = other;
      best_id = other_id;
    }
  };
  for (int i = 16; i > 0; i >>= 1) {
    const float other = __shfl_xor_sync(0xffffffffU, best, i);
    const int32_t other_id = __shfl_xor_sync(0xffffffffU, best_id, i);
    take(other, other_id);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    shared.best[threadIdx.x / 32] = best;
    shared.best_id[threadIdx.x / 32] = best_id;
  }
  __syncthreads();
  for (int w = 0; w < kThreads / 32; ++w) take(shared.best[w], shared.best_id[w]);
  value = best;
  return {order_key(best), best_id};
}

// Steps 1 to 4 of the contract, into the row's working copy.
__device__ void adjust(const SampleArgs& a, int64_t b, float* logits) {
  for (int64_t i = threadIdx.x; i < a.vocab; i += kThreads) logits[i] = a.logits[b * a.logits_stride + i];
  __syncthreads();
  const int64_t begin = a.history_starts[b], end = a.history_starts[b + 1];
  const float repetition = a.repetition[b], presence = a.presence[b], frequency = a.frequency[b];
  int32_t* counts = a.counts + b * a.vocab;
  const auto is_id = [&](int32_t id) { return id >= 0 && id < a.vocab; };
  // Scratch memory comes as it is: the counts of the ids that are looked at begin at zero.
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    if (is_id(a.history_ids[i])) counts[a.history_ids[i]] = 0;
  __syncthreads();
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int32_t id = a.history_ids[i];
    if (!is_id(id)) continue;
    atomicOr(&counts[id], kSeen);
    if (i - begin >= a.prompt_lens[b]) atomicAdd(&counts[id], 1);
  }
  __syncthreads();
  // Whoever takes an id's count first applies it.
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int32_t id = a.history_ids[i];
    if (!is_id(id)) continue;
    const int32_t seen = atomicExch(&counts[id], 0);
    if (seen == 0) continue;
    const auto generated = static_cast<float>(seen & ~kSeen);
    float x = logits[id];
    x = x > 0 ? x / repetition : x * repetition;
    logits[id] = x - frequency * generated - (generated > 0 ? presence : 0.0F);
  }
  __syncthreads();
  for (int64_t i = a.bias_starts[b] + threadIdx.x; i < a.bias_starts[b + 1]; i += kThreads)
    if (is_id(a.bias_ids[i])) atomicAdd(&logits[a.bias_ids[i]], a.bias_values[i]);
  __syncthreads();
  const int32_t mask = a.allowed_rows == nullptr ? -1 : a.allowed_rows[b];
  if (mask < 0) return;
  const int64_t* words = a.allowed + mask * a.allowed_words;
  for (int64_t i = threadIdx.x; i < a.vocab; i += kThreads)
    if ((static_cast<uint64_t>(words[i / 64]) >> static_cast<uint64_t>(i % 64) & 1U) == 0)
      logits[i] = -INFINITY;
  __syncthreads();
}

__device__ int32_t draw(Shared& shared, const SampleArgs& a, int64_t b, const Row& row) {
  Place last = {0, 0x7fffffff};  // of top-k
  const int32_t top_k = a.top_k[b];
  if (top_k > 0 && top_k < a.vocab) {
    last =
        select(shared, row, static_cast<unsigned long long>(top_k - 1), [](float, int32_t) { return 1ULL; });
  }
  const auto mass = [&](float x, int32_t id) {
    return is_at_or_before(order_key(x), id, last) ? row.mass(x) : 0ULL;
  };
  const auto total_of = [&](auto&& f) {
    if (threadIdx.x == 0) shared.before = 0;
    __syncthreads();
    unsigned long long own = 0;
    for (int64_t i = threadIdx.x; i < row.count; i += kThreads)
      own += f(row.logits[i], static_cast<int32_t>(i));
    for (int i = 16; i > 0; i >>= 1) own += __shfl_xor_sync(0xffffffffU, own, i);
    if (threadIdx.x % 32 == 0) atomicAdd(&shared.before, own);
    __syncthreads();
    const unsigned long long sum = shared.before;
    __syncthreads();
    return sum;
  };
  unsigned long long kept = total_of(mass);
  if (a.top_p[b] < 1.0F) {
    // The smallest set that reaches the wanted mass ends where the sum exceeds one unit less.
    const auto wanted =
        static_cast<unsigned long long>(static_cast<double>(a.top_p[b]) * static_cast<double>(kept));
    last = select(shared, row, wanted > 0 ? wanted - 1 : 0, mass);
    kept = total_of(mass);
  }
  const auto target = static_cast<unsigned long long>(static_cast<double>(uniform(a.seed[b], a.counter[b])) *
                                                      static_cast<double>(kept));
  return select(shared, row, target, mass).id;
}

__global__ void __launch_bounds__(kThreads) sample_kernel(SampleArgs a) {
  __shared__ Shared shared;
  const int64_t b = blockIdx.x;
  const bool has_changes = a.history_starts[b + 1] > a.history_starts[b] ||
                           a.bias_starts[b + 1] > a.bias_starts[b] ||
                           (a.allowed_rows != nullptr && a.allowed_rows[b] >= 0);
  const float* logits = a.logits + b * a.logits_stride;
  if (has_changes) {
    adjust(a, b, a.work + b * a.vocab);
    logits = a.work + b * a.vocab;
  }
  float largest = 0;
  Place place = next_largest(shared, logits, a.vocab, false, {}, largest);
  float sum = 0;
  for (int64_t i = threadIdx.x; i < a.vocab; i += kThreads) sum += expf(logits[i] - largest);
  const float normalizer = largest + logf(block_sum(sum, shared.scratch));

  int32_t token = place.id;
  const int32_t forced = a.forced_ids == nullptr ? -1 : a.forced_ids[b];
  if (forced >= 0) {
    token = forced;
  } else if (a.temperature[b] > 0) {
    const Row row = {logits, a.vocab, largest, 1.0F / a.temperature[b], a.min_p[b]};
    const int32_t drawn = draw(shared, a, b, row);
    if (drawn >= 0) token = drawn;
  }
  if (threadIdx.x == 0) {
    a.tokens[b] = token;
    a.logprobs[b] = logits[token] - normalizer;
  }
  float value = largest;
  for (int64_t i = 0; i < a.num_top; ++i) {
    if (i > 0) place = next_largest(shared, logits, a.vocab, true, place, value);
    if (threadIdx.x == 0) {
      a.top_ids[b * a.num_top + i] = place.id;
      a.top_logprobs[b * a.num_top + i] = value - normalizer;
    }
  }
}

}  // namespace

void launch_sample(const SampleArgs& a, cudaStream_t stream) {
  if (a.rows == 0) return;
  sample_kernel<<<static_cast<unsigned>(a.rows), kThreads, 0, stream>>>(a);
}

}  // namespace minimax::cuda
