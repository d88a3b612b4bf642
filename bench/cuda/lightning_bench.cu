// Speed of the lightning attention kernels, against the bandwidth of a device-to-device copy in the same run.
//
//   lightning_bench [prefill] [decode] [long]     which parts to run; all of them if none is named
//
// Calls are captured in a CUDA graph, which rotates through copies of the operands larger than the cache; the
// figure is the median over replays. `long` runs 1,048,576 tokens with 64 heads and checks sampled outputs.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "backends/cuda/lightning.h"
#include "bench/cuda/bench.cuh"

namespace {

using minimax::bench::allocate;
using minimax::bench::Buffer;
using minimax::bench::check;
using minimax::bench::time_graph;
using minimax::bench::Timing;
using minimax::bench::upload;
using minimax::cuda::Element;
using minimax::cuda::LightningDecodeArgs;
using minimax::cuda::LightningPrefillArgs;
using minimax::cuda::Rows;

constexpr int kDim = 128;
constexpr double kCacheBytes = 64e6;

// A value in [-1, 1] with 8 significant bits, by its place alone, so that the host can say what the device
// holds.
__host__ __device__ float value_at(uint64_t place) {
  return (static_cast<float>((minimax::bench::mixed(place) >> 40) & 0xff) - 127.5F) / 128.0F;
}

template <typename T>
__global__ void fill_values(T* data, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    data[i] = static_cast<T>(value_at(static_cast<uint64_t>(i)));
  }
}

template <typename T>
Buffer<T> random_values(int64_t count) {
  Buffer<T> buffer = allocate<T>(count);
  fill_values<<<2048, 256>>>(buffer.get(), count);
  check(cudaGetLastError());
  return buffer;
}

// Slopes of the first of 80 layers.
std::vector<float> slopes(int heads) {
  std::vector<float> decay;
  for (int head = 0; head < heads; ++head) {
    decay.push_back(std::exp2(-8.0F * static_cast<float>(head + 1) / static_cast<float>(heads)));
  }
  return decay;
}

struct Prefill {
  Buffer<__nv_bfloat16> qkv, out;
  Buffer<float> decay, state;
  Buffer<int32_t> slots, starts;
  Buffer<uint8_t> workspace;
  LightningPrefillArgs args;
};

Prefill make_prefill(int64_t tokens, int64_t sequences, int heads, int sm) {
  Prefill p;
  p.qkv = random_values<__nv_bfloat16>(tokens * heads * 3 * kDim);
  p.out = allocate<__nv_bfloat16>(tokens * heads * kDim);
  p.decay = upload(slopes(heads));
  p.state = random_values<float>(sequences * heads * kDim * kDim);
  std::vector<int32_t> slots;
  std::vector<int32_t> starts = {0};
  for (int64_t b = 0; b < sequences; ++b) {
    slots.push_back(static_cast<int32_t>(b));
    starts.push_back(static_cast<int32_t>(tokens * (b + 1) / sequences));
  }
  p.slots = upload(slots);
  p.starts = upload(starts);
  const auto part = [&](int i) { return Rows{p.qkv.get() + i * kDim, int64_t{3} * heads * kDim, 3 * kDim}; };
  p.args.q = part(0);
  p.args.k = part(1);
  p.args.v = part(2);
  p.args.out = {p.out.get(), int64_t{heads} * kDim, kDim};
  p.args.decay = p.decay.get();
  p.args.state = p.state.get();
  p.args.read_slots = p.slots.get();
  p.args.write_slots = p.slots.get();
  p.args.query_starts = p.starts.get();
  p.args.num_tokens = tokens;
  p.args.num_sequences = sequences;
  p.args.num_heads = heads;
  p.args.head_dim = kDim;
  p.args.sm = sm;
  p.args.workspace_bytes =
      minimax::cuda::lightning_prefill_workspace_bytes(tokens, sequences, heads, kDim, Element::kBF16, sm);
  p.workspace = allocate<uint8_t>(p.args.workspace_bytes + 16);
  p.args.workspace = p.workspace.get();
  return p;
}

void bench_prefill(double bandwidth) {
  struct Size {
    int heads;
    int64_t tokens;
    int64_t sequences;
  };
  const Size sizes[] = {{64, 2048, 1}, {64, 8192, 1},  {64, 32768, 1},  {64, 131072, 1}, {64, 8192, 16},
                        {16, 2048, 1}, {16, 32768, 1}, {16, 131072, 1}, {8, 2048, 1},    {8, 131072, 1}};
  std::printf("\nprefill, BF16, head_dim 128\n%6s %9s %5s %4s %12s %20s %9s %9s\n", "heads", "tokens", "seqs",
              "sm", "median ms", "spread", "floor ms", "of floor");
  for (const Size& size : sizes) {
    for (const int sm : {80, 90}) {
      const double bytes = 4.0 * 2 * kDim * size.heads * static_cast<double>(size.tokens);
      const int sets = static_cast<int>(std::clamp(4 * kCacheBytes / bytes, 1.0, 12.0));
      std::vector<Prefill> prefills;
      for (int i = 0; i < sets; ++i)
        prefills.push_back(make_prefill(size.tokens, size.sequences, size.heads, sm));
      const int launches = size.tokens >= 32768 ? std::max(sets, 2) : 24;
      const Timing t = time_graph(launches, 9, [&](int i, cudaStream_t stream) {
        check(minimax::cuda::lightning_prefill(prefills[static_cast<std::size_t>(i % sets)].args, stream));
      });
      const double floor = 1e3 * bytes / bandwidth;
      std::printf("%6d %9lld %5lld %4d %12.4f %9.4f - %8.4f %9.4f %8.0f%%\n", size.heads,
                  static_cast<long long>(size.tokens), static_cast<long long>(size.sequences), sm,
                  t.median_us / 1e3, t.low_us / 1e3, t.high_us / 1e3, floor, 1e5 * floor / t.median_us);
      std::fflush(stdout);
    }
  }
}

struct Decode {
  Buffer<__nv_bfloat16> qkv, out;
  Buffer<float> decay;
  Buffer<uint8_t> state;
  Buffer<int32_t> slots;
  LightningDecodeArgs args;
};

Decode make_decode(int64_t batch, int heads, bool is_state_bf16) {
  Decode d;
  d.qkv = random_values<__nv_bfloat16>(batch * heads * 3 * kDim);
  d.out = allocate<__nv_bfloat16>(batch * heads * kDim);
  d.decay = upload(slopes(heads));
  const int64_t count = batch * heads * kDim * kDim;
  d.state = allocate<uint8_t>(count * (is_state_bf16 ? 2 : 4));
  if (is_state_bf16) {
    fill_values<<<2048, 256>>>(reinterpret_cast<__nv_bfloat16*>(d.state.get()), count);
  } else {
    fill_values<<<2048, 256>>>(reinterpret_cast<float*>(d.state.get()), count);
  }
  std::vector<int32_t> slots;
  for (int64_t b = 0; b < batch; ++b) slots.push_back(static_cast<int32_t>(b * 7 % batch));
  if (batch % 7 == 0) std::sort(slots.begin(), slots.end());
  d.slots = upload(slots);
  const auto part = [&](int i) { return Rows{d.qkv.get() + i * kDim, int64_t{3} * heads * kDim, 3 * kDim}; };
  d.args.q = part(0);
  d.args.k = part(1);
  d.args.v = part(2);
  d.args.out = {d.out.get(), int64_t{heads} * kDim, kDim};
  d.args.decay = d.decay.get();
  d.args.state = d.state.get();
  d.args.read_slots = d.slots.get();
  d.args.write_slots = d.slots.get();
  d.args.batch = batch;
  d.args.num_heads = heads;
  d.args.head_dim = kDim;
  d.args.is_state_bf16 = is_state_bf16;
  d.args.is_uploaded = true;
  return d;
}

void bench_decode(double bandwidth) {
  std::printf("\ndecode, head_dim 128, in place\n%6s %6s %6s %12s %20s %9s %9s %9s\n", "heads", "batch",
              "state", "median us", "spread", "TB/s", "of copy", "states");
  for (const bool is_state_bf16 : {false, true}) {
    for (const int heads : {64, 16}) {
      for (const int64_t batch : {1, 2, 4, 8, 16, 32, 64, 128, 256}) {
        const double state = 2.0 * (is_state_bf16 ? 2 : 4) * kDim * kDim * heads * static_cast<double>(batch);
        const double bytes = state + 4.0 * 2 * kDim * heads * static_cast<double>(batch);  // q, k, v, out
        // As in a model: the states of other layers come between two uses, except that one layer's may fit
        // the cache.
        const int sets = batch <= 2 ? 1 : static_cast<int>(std::clamp(4 * kCacheBytes / bytes, 1.0, 16.0));
        std::vector<Decode> decodes;
        for (int i = 0; i < sets; ++i) decodes.push_back(make_decode(batch, heads, is_state_bf16));
        const Timing t = time_graph(std::max(64, sets), 9, [&](int i, cudaStream_t stream) {
          check(minimax::cuda::lightning_decode(decodes[static_cast<std::size_t>(i % sets)].args, stream));
        });
        const double rate = bytes / (t.median_us * 1e-6);
        std::printf("%6d %6lld %6s %12.2f %9.2f - %8.2f %9.2f %8.1f%% %8.1f%%\n", heads,
                    static_cast<long long>(batch), is_state_bf16 ? "BF16" : "F32", t.median_us, t.low_us,
                    t.high_us, rate / 1e12, 100 * rate / bandwidth, 100 * rate / bandwidth * state / bytes);
        std::fflush(stdout);
      }
    }
  }
}

struct Norms {
  double difference = 0;  // squared
  double value = 0;

  double error() const { return std::sqrt(difference / value); }
};

// o_t = sum over i <= t of exp(-s (t - i)) (q_t . k_i) v_i, as far back as the factor matters, in float64.
Norms sampled_norms(const Prefill& p, int64_t token, int head) {
  const int heads = p.args.num_heads;
  const auto input = [&](int64_t t, int part, int i) {
    return static_cast<double>(value_at(static_cast<uint64_t>(((t * heads + head) * 3 + part) * kDim + i)));
  };
  const double rate = slopes(heads)[static_cast<std::size_t>(head)];
  const auto reach = static_cast<int64_t>(25 / rate);
  double expected[kDim] = {};
  for (int64_t t = std::max<int64_t>(0, token - reach); t <= token; ++t) {
    double product = 0;
    for (int i = 0; i < kDim; ++i) product += input(token, 0, i) * input(t, 1, i);
    product *= std::exp(-rate * static_cast<double>(token - t));
    for (int i = 0; i < kDim; ++i) expected[i] += product * input(t, 2, i);
  }
  std::vector<__nv_bfloat16> got(kDim);
  check(
      cudaMemcpy(got.data(), p.out.get() + (token * heads + head) * kDim, kDim * 2, cudaMemcpyDeviceToHost));
  Norms norms;
  for (int i = 0; i < kDim; ++i) {
    const double d = __bfloat162float(got[static_cast<std::size_t>(i)]) - expected[i];
    norms.difference += d * d;
    norms.value += expected[i] * expected[i];
  }
  return norms;
}

void bench_long(double bandwidth) {
  constexpr int64_t kTokens = 1048576;
  constexpr int kHeads = 64;
  std::printf("\n%lld tokens, %d heads\n", static_cast<long long>(kTokens), kHeads);
  for (const int sm : {80, 90}) {
    Prefill p = make_prefill(kTokens, 1, kHeads, sm);
    std::vector<int32_t> none = {-1};
    check(cudaMemcpy(p.slots.get(), none.data(), 4, cudaMemcpyHostToDevice));
    check(cudaMemset(p.out.get(), 0xff, kTokens * kHeads * kDim * 2));
    const Timing t = time_graph(
        1, 2, [&](int, cudaStream_t stream) { check(minimax::cuda::lightning_prefill(p.args, stream)); });
    double worst_row = 0;
    double worst = 0;
    for (const int head : {0, 20, 41, 63}) {
      Norms sum;
      for (const int64_t token :
           {int64_t{0}, int64_t{63}, int64_t{64}, int64_t{4095}, int64_t{262143}, int64_t{524287},
            int64_t{524288}, int64_t{777777}, kTokens - 65, kTokens - 2, kTokens - 1}) {
        const Norms row = sampled_norms(p, token, head);
        worst_row = std::max(worst_row, row.error());
        sum.difference += row.difference;
        sum.value += row.value;
      }
      worst = std::max(worst, sum.error());
    }
    const double floor = 1e3 * 4.0 * 2 * kDim * kHeads * kTokens / bandwidth;
    std::printf(
        "  sm %d: %.2f ms, floor %.2f ms (%.0f%%); 11 sampled rows: error of the worst head %.2e, row %.2e, "
        "%s\n",
        sm, t.median_us / 1e3, floor, 1e5 * floor / t.median_us, worst, worst_row,
        worst <= 3e-3 ? "ok" : "WRONG");
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> parts(argv + 1, argv + argc);
  const auto wants = [&](const char* part) {
    return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
  };
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0));
  const double bandwidth = minimax::bench::copy_bandwidth();
  std::printf("%s, copy %.2f TB/s\n", device.name, bandwidth / 1e12);
  if (wants("prefill")) bench_prefill(bandwidth);
  if (wants("decode")) bench_decode(bandwidth);
  if (wants("long")) bench_long(bandwidth);
  return 0;
}
