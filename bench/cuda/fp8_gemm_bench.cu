// Speed of products of many rows with 8-bit weights, dense and of experts, against cuBLASLt's product of
// 8192^3 in the same run, and their error against plain sums.
//
//   fp8_gemm_bench [dense] [moe] [hot] [unpacked]     which parts to run; all if none is named
//
// Calls are captured in a CUDA graph; the figure is the median over replays. Operands of calls one after
// another are the same, and larger than the cache together. TFLOP/s of `moe` count 2 * 3 * tokens * k *
// hidden * intermediate and hold everything from inputs in BF16 to the weighted sum but the routing itself.
// `hot`: the library's product and the experts in turns, each for 100 ms of which the second half counts,
// with the clock that each ran at: what power allows to either.
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "backends/cuda/kernels.h"
#include "bench/cuda/bench.cuh"

namespace {

using minimax::bench::allocate;
using minimax::bench::Buffer;
using minimax::bench::check;
using minimax::bench::normal_at;
using minimax::bench::upload;
using minimax::cuda::CodedRows;
using minimax::cuda::ExpertPointers;
using minimax::cuda::Matrix;
using minimax::cuda::MoeArgs;
using minimax::cuda::MoeCodes;
using minimax::cuda::Scalar;
using minimax::cuda::WeightView;

constexpr int64_t kGroup = 128;

void check(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "cublasLt: %s\n", cublasLtGetStatusString(status));
  std::exit(1);
}

template <typename T>
__global__ void fill_values(T* data, int64_t count, uint64_t seed, float scale, float offset) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x)
    data[i] = static_cast<T>(normal_at((seed << 40) + static_cast<uint64_t>(i)) * scale + offset);
}
template <typename T>
Buffer<T> random_values(int64_t count, uint64_t seed, float scale, float offset = 0) {
  Buffer<T> buffer = allocate<T>(count);
  fill_values<<<2048, 256>>>(buffer.get(), count, seed, scale, offset);
  check(cudaGetLastError());
  return buffer;
}

// Median microseconds of one of `launches` calls in a graph.
double time_calls(int launches, int replays, const std::function<void(cudaStream_t)>& launch) {
  return minimax::bench::time_graph(launches, replays, [&](int, cudaStream_t stream) { launch(stream); })
      .median_us;
}

// The cycles and the time of every multiprocessor.
struct Clocks {
  long long cycles[256], nanoseconds[256];
};
__global__ void read_clocks(Clocks* to) {
  uint32_t multiprocessor = 0;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(multiprocessor));
  long long time = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  to->cycles[multiprocessor % 256] = clock64();
  to->nanoseconds[multiprocessor % 256] = time;
}

struct HotItem {
  const char* name;
  double flops;
  std::function<void(cudaStream_t)> launch;
  std::vector<double> microseconds, gigahertz;
};

// The items in turns, each long enough that the chip is as warm, and its clock as low, as it makes them.
void time_hot(std::vector<HotItem> items) {
  constexpr int kRounds = 4, kFewBlocks = 1024;
  constexpr double kHalf = 50e3;  // microseconds
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaStreamCreate(&stream));
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  const auto clocks = allocate<Clocks>(2);
  for (int round = -1; round < kRounds; ++round) {
    for (HotItem& item : items) {
      const double guess = round < 0 ? 1000 : item.microseconds.back();
      const int calls = static_cast<int>(kHalf / guess) + 1;
      for (int i = 0; i < calls; ++i) item.launch(stream);
      read_clocks<<<kFewBlocks, 32, 0, stream>>>(clocks.get());
      check(cudaEventRecord(begin, stream));
      for (int i = 0; i < calls; ++i) item.launch(stream);
      check(cudaEventRecord(end, stream));
      read_clocks<<<kFewBlocks, 32, 0, stream>>>(clocks.get() + 1);
      check(cudaStreamSynchronize(stream));
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin, end));
      std::array<Clocks, 2> read{};
      check(cudaMemcpy(read.data(), clocks.get(), sizeof(read), cudaMemcpyDeviceToHost));
      if (round == 0) item.microseconds.clear();
      item.microseconds.push_back(1e3 * milliseconds / calls);
      if (round >= 0)
        item.gigahertz.push_back(static_cast<double>(read[1].cycles[0] - read[0].cycles[0]) /
                                 static_cast<double>(read[1].nanoseconds[0] - read[0].nanoseconds[0]));
    }
  }
  double first = 0;
  for (HotItem& item : items) {
    std::sort(item.microseconds.begin(), item.microseconds.end());
    std::sort(item.gigahertz.begin(), item.gigahertz.end());
    const double us = item.microseconds[kRounds / 2], rate = item.flops / us / 1e6;
    if (first == 0) first = rate;
    std::printf("hot %-24s %8.1f us (%.1f to %.1f) %6.0f TFLOP/s %5.1f %%  at %.2f GHz\n", item.name, us,
                item.microseconds.front(), item.microseconds.back(), rate, 100 * rate / first,
                item.gigahertz[kRounds / 2]);
  }
  std::fflush(stdout);
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  check(cudaStreamDestroy(stream));
}

// --- cuBLASLt's rate

constexpr int64_t kLibrarySize = 8192;

// Square matrices' product.
template <typename T>
class Library {
 public:
  Library(int64_t size, bool sums_fast);
  void multiply(cudaStream_t stream);
  double flops() const { return 2 * static_cast<double>(size_) * static_cast<double>(size_ * size_); }

 private:
  static constexpr int64_t kWorkspace = 64 << 20;
  int64_t size_;
  Buffer<T> a_, b_;
  Buffer<__nv_bfloat16> out_;
  Buffer<uint8_t> workspace_;
  Buffer<float> scale_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t description_ = nullptr;
  cublasLtMatrixLayout_t codes_ = nullptr, result_ = nullptr;
  cublasLtMatmulHeuristicResult_t found_{};
};

template <typename T>
Library<T>::Library(int64_t size, bool sums_fast)
    : size_(size),
      a_(random_values<T>(size * size, 1, 60)),
      b_(random_values<T>(size * size, 2, 60)),
      out_(allocate<__nv_bfloat16>(size * size)),
      workspace_(allocate<uint8_t>(kWorkspace)),
      scale_(upload(std::vector<float>{1e-4F})) {
  constexpr bool kIsFp8 = sizeof(T) == 1;
  check(cublasLtCreate(&handle_));
  check(cublasLtMatmulDescCreate(&description_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const int8_t fast = sums_fast ? 1 : 0;
  const float* scale = scale_.get();
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    check(cublasLtMatmulDescSetAttribute(description_, attribute, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
  if (kIsFp8) {
    set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, fast);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, scale);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, scale);
  }
  const auto n = static_cast<uint64_t>(size);
  check(cublasLtMatrixLayoutCreate(&codes_, kIsFp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF, n, n, size));
  check(cublasLtMatrixLayoutCreate(&result_, CUDA_R_16BF, n, n, size));
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference));
  const auto bytes = static_cast<uint64_t>(kWorkspace);
  check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                             sizeof(bytes)));
  int count = 0;
  check(cublasLtMatmulAlgoGetHeuristic(handle_, description_, codes_, codes_, result_, result_, preference, 1,
                                       &found_, &count));
  check(count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED);
}

template <typename T>
void Library<T>::multiply(cudaStream_t stream) {
  const float one = 1, zero = 0;
  check(cublasLtMatmul(handle_, description_, &one, a_.get(), codes_, b_.get(), codes_, &zero, out_.get(),
                       result_, out_.get(), result_, &found_.algo, workspace_.get(), kWorkspace, stream));
}

template <typename T>
double library_rate(int64_t size, bool sums_fast) {
  Library<T> library(size, sums_fast);
  return library.flops() / time_calls(40, 9, [&](cudaStream_t stream) { library.multiply(stream); }) / 1e6;
}

// --- plain sums

__device__ float weight_number(const WeightView& w, int64_t n, int64_t k) {
  const float value = static_cast<float>(static_cast<const __nv_fp8_e4m3*>(w.values)[n * w.stride + k]);
  return value * static_cast<const float*>(w.scales)[n / w.block_rows * w.scale_stride + k / w.block_columns];
}
__device__ float warp_sum(float x) {
  for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(0xffffffffU, x, i);
  return x;
}

// Groups of `x` rounded to codes and back, one thread a group.
__global__ void round_groups(float* x, int64_t groups) {
  const int64_t g = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (g >= groups) return;
  float* group = x + g * kGroup;
  float largest = 0;
  for (int i = 0; i < kGroup; ++i) largest = fmaxf(largest, fabsf(group[i]));
  const float scale = fmaxf(largest / 448, 1e-10F);
  for (int i = 0; i < kGroup; ++i) group[i] = static_cast<float>(__nv_fp8_e4m3(group[i] / scale)) * scale;
}
__global__ void widen_rows(const __nv_bfloat16* x, const int32_t* tokens, int64_t columns, float* out) {
  for (int64_t k = threadIdx.x; k < columns; k += blockDim.x)
    out[blockIdx.x * columns + k] = static_cast<float>(x[tokens[blockIdx.x] * columns + k]);
}
// out[r, n] = x[r] . w[n], one warp each.
__device__ float plain_product(const float* x, const WeightView& w, int64_t n) {
  float sum = 0;
  for (int64_t k = threadIdx.x % 32; k < w.columns; k += 32) sum += x[k] * weight_number(w, n, k);
  return warp_sum(sum);
}
__global__ void plain_linear(const float* x, WeightView w, float* out) {
  const int64_t n = blockIdx.x * int64_t{8} + threadIdx.x / 32, r = blockIdx.y;
  if (n >= w.rows) return;
  const float y = plain_product(x + r * w.columns, w, n);
  if (threadIdx.x % 32 == 0) out[r * w.rows + n] = y;
}
// hidden[r * k + j] of token tokens[r].
__global__ void plain_up(const float* x, const ExpertPointers* table, const int32_t* ids,
                         const int32_t* tokens, int64_t top_k, float* hidden) {
  const int64_t n = blockIdx.x * int64_t{8} + threadIdx.x / 32, r = blockIdx.y / top_k,
                j = blockIdx.y % top_k;
  const ExpertPointers& expert = table[ids[tokens[r] * top_k + j]];
  if (n >= expert.w1.rows) return;
  const float gate = plain_product(x + r * expert.w1.columns, expert.w1, n);
  const float up = plain_product(x + r * expert.w1.columns, expert.w3, n);
  if (threadIdx.x % 32 == 0) hidden[blockIdx.y * expert.w1.rows + n] = up * gate / (1 + expf(-gate));
}
__global__ void plain_down(const float* hidden, const ExpertPointers* table, const int32_t* ids,
                           const float* weights, const int32_t* tokens, int64_t top_k, float* out) {
  const int64_t n = blockIdx.x * int64_t{8} + threadIdx.x / 32, r = blockIdx.y;
  float sum = 0;
  int64_t rows = 0;
  for (int64_t j = 0; j < top_k; ++j) {
    const int64_t pair = tokens[r] * top_k + j;
    const WeightView& w = table[ids[pair]].w2;
    rows = w.rows;
    if (n >= rows) return;
    sum += weights[pair] * plain_product(hidden + (r * top_k + j) * w.columns, w, n);
  }
  if (threadIdx.x % 32 == 0) out[r * rows + n] = sum;
}

// Norm of the difference over norm of what is expected, over the sampled rows.
double error_of(const Buffer<__nv_bfloat16>& out, const std::vector<int32_t>& rows, int64_t columns,
                const Buffer<float>& expected) {
  std::vector<float> wanted(rows.size() * static_cast<size_t>(columns));
  check(cudaMemcpy(wanted.data(), expected.get(), wanted.size() * 4, cudaMemcpyDeviceToHost));
  std::vector<__nv_bfloat16> row(static_cast<size_t>(columns));
  double difference = 0, norm = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    check(cudaMemcpy(row.data(), out.get() + rows[r] * columns, row.size() * 2, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < row.size(); ++i) {
      const double w = wanted[r * row.size() + i], d = static_cast<float>(row[i]) - w;
      difference += d * d;
      norm += w * w;
    }
  }
  return std::sqrt(difference / norm);
}

struct RandomWeight {
  Buffer<__nv_fp8_e4m3> values;
  Buffer<float> scales;
  WeightView view;

  RandomWeight(int64_t rows, int64_t columns, uint64_t seed, bool has_blocks) {
    view.rows = rows;
    view.columns = columns;
    view.stride = columns;
    view.scalar = Scalar::kE4m3;
    view.block_rows = has_blocks ? kGroup : 1;
    view.block_columns = has_blocks ? kGroup : columns;
    const int64_t scale_rows = (rows + view.block_rows - 1) / view.block_rows;
    view.scale_stride = (columns + view.block_columns - 1) / view.block_columns;
    values = random_values<__nv_fp8_e4m3>(rows * columns, seed, 60);
    scales = random_values<float>(scale_rows * view.scale_stride, seed + 1, 1e-4F, 4e-4F);
    view.values = values.get();
    view.scales = scales.get();
  }
};

std::vector<int32_t> sample_rows(int64_t rows) {
  std::vector<int32_t> sampled;
  for (const int64_t row : {int64_t{0}, rows / 3, rows / 2 + 1, rows - 1})
    sampled.push_back(static_cast<int32_t>(std::min(row, rows - 1)));
  return sampled;
}

struct CodesBuffer {
  Buffer<uint8_t> codes;
  Buffer<float> scales;
  CodedRows rows;
  CodesBuffer(int64_t count, int64_t columns)
      : codes(allocate<uint8_t>(count * columns)),
        scales(allocate<float>((columns + kGroup - 1) / kGroup * count)) {
    rows = {codes.get(), scales.get(), count, columns, count};
  }
};

// architecture 0: as codes; else BF16 with the kernels for it.
void bench_dense(int64_t tokens, int64_t depth, int64_t outputs, bool has_blocks, int architecture,
                 double library) {
  const RandomWeight w(outputs, depth, 11, has_blocks);
  const auto x = random_values<__nv_bfloat16>(tokens * depth, 5, 1);
  const auto out = allocate<__nv_bfloat16>(tokens * outputs);
  const CodesBuffer codes(tokens, depth);
  const Matrix from = {x.get(), tokens, depth, depth, Scalar::kBF16};
  const Matrix to = {out.get(), tokens, outputs, outputs, Scalar::kBF16};
  check(cudaMemset(out.get(), 0xff, static_cast<size_t>(tokens * outputs * 2)));
  const auto multiply = [&](cudaStream_t stream) {
    if (architecture == 0) {
      launch_linear_codes(codes.rows, w.view, false, to, stream);
    } else {
      launch_linear_tiles(from, w.view, false, to, architecture, stream);
    }
  };
  launch_encode_rows(from, codes.rows, nullptr);
  multiply(nullptr);
  check(cudaDeviceSynchronize());
  const std::vector<int32_t> rows = sample_rows(tokens);
  const auto rows_on_device = upload(rows);
  const auto count = static_cast<unsigned>(rows.size());
  const auto plain_x = allocate<float>(count * depth), plain = allocate<float>(count * outputs);
  widen_rows<<<count, 256>>>(x.get(), rows_on_device.get(), depth, plain_x.get());
  if (architecture == 0) round_groups<<<count, 256>>>(plain_x.get(), count * depth / kGroup);
  plain_linear<<<dim3(static_cast<unsigned>((outputs + 7) / 8), count), 256>>>(plain_x.get(), w.view,
                                                                               plain.get());
  check(cudaDeviceSynchronize());
  const double error = error_of(out, rows, outputs, plain);
  const double product = time_calls(10, 7, multiply);
  const double both = time_calls(10, 7, [&](cudaStream_t s) {
    launch_encode_rows(from, codes.rows, s);
    multiply(s);
  });
  const double flops = 2.0 * static_cast<double>(tokens * depth) * static_cast<double>(outputs);
  std::printf(
      "dense %2d %6ld x %5ld -> %5ld %-6s  product %8.1f us %6.0f TFLOP/s %3.0f %%  with codes %8.1f us "
      "%6.0f  error %.2e\n",
      architecture, static_cast<long>(tokens), static_cast<long>(depth), static_cast<long>(outputs),
      has_blocks ? "blocks" : "rows", product, flops / product / 1e6, 100 * flops / product / 1e6 / library,
      both, flops / both / 1e6, error);
}

struct MoeShape {
  int64_t hidden, intermediate, experts, top_k;
};

class MoeBench {
 public:
  MoeBench(const MoeShape& shape, bool has_blocks)
      : s_(shape),
        w1_(shape.experts * shape.intermediate, shape.hidden, 21, has_blocks),
        w3_(shape.experts * shape.intermediate, shape.hidden, 31, has_blocks),
        w2_(shape.experts * shape.hidden, shape.intermediate, 41, has_blocks) {
    for (int64_t e = 0; e < s_.experts; ++e) {
      const auto part = [&](const WeightView& all, int64_t rows) {
        WeightView w = all;
        w.rows = rows;
        w.values = static_cast<const uint8_t*>(all.values) + e * rows * w.stride;
        w.scales = static_cast<const float*>(all.scales) + e * rows / w.block_rows * w.scale_stride;
        return w;
      };
      table_.push_back(
          {part(w1_.view, s_.intermediate), part(w3_.view, s_.intermediate), part(w2_.view, s_.hidden)});
    }
    device_table_ = upload(table_);
  }

  // `skew`: expert e is chosen about as often as exp(-skew e / experts).
  void run(int64_t tokens, double skew, int architecture, double library, bool is_hot = false) {
    const int64_t pairs = tokens * s_.top_k;
    std::mt19937 rng(7);
    std::vector<int32_t> ids;
    std::vector<std::pair<double, int32_t>> order(static_cast<size_t>(s_.experts));
    std::uniform_real_distribution<double> uniform(1e-9, 1);
    for (int64_t t = 0; t < tokens; ++t) {
      for (size_t e = 0; e < order.size(); ++e) {
        const double often = std::exp(-skew * static_cast<double>(e) / static_cast<double>(order.size()));
        order[e] = {std::log(uniform(rng)) / often, static_cast<int32_t>(e)};
      }
      std::partial_sort(order.begin(), order.begin() + s_.top_k, order.end(), std::greater<>());
      for (int64_t j = 0; j < s_.top_k; ++j) ids.push_back(order[static_cast<size_t>(j)].second);
    }
    const auto device_ids = upload(ids);
    const auto weights = random_values<float>(pairs, 3, 0.02F, 0.125F);
    const auto x = random_values<__nv_bfloat16>(tokens * s_.hidden, 5, 1);
    const auto out = allocate<__nv_bfloat16>(tokens * s_.hidden);
    const CodesBuffer x_codes(pairs, s_.hidden), hidden(pairs, s_.intermediate);
    const auto rows = allocate<__nv_bfloat16>(pairs * s_.hidden);
    const auto maps = allocate<uint8_t>(minimax::cuda::expert_map_bytes(s_.experts));
    const auto order_memory = allocate<int32_t>(2 * pairs + 3 * (s_.experts + 1) +
                                                minimax::cuda::expert_order_counts(pairs, s_.experts));
    MoeCodes codes;
    MoeArgs& a = codes.moe;
    a.x = {x.get(), tokens, s_.hidden, s_.hidden, Scalar::kBF16};
    a.ids = device_ids.get();
    a.weights = weights.get();
    a.top_k = s_.top_k;
    a.experts = s_.experts;
    a.intermediate = s_.intermediate;
    a.table = device_table_.get();
    a.first = table_.front();
    a.swiglu.limit = INFINITY;
    a.out = {out.get(), tokens, s_.hidden, s_.hidden, Scalar::kBF16};
    a.order.pairs = order_memory.get();
    a.order.places = a.order.pairs + pairs;
    a.order.starts = a.order.places + pairs;
    a.order.tiles = a.order.starts + s_.experts + 1;
    a.order.active = a.order.tiles + s_.experts + 1;
    a.order.counts = a.order.active + s_.experts + 1;
    codes.x = x_codes.rows;
    codes.hidden = hidden.rows;
    codes.rows = rows.get();
    codes.maps = maps.get();
    check(cudaMemset(out.get(), 0xff, static_cast<size_t>(tokens * s_.hidden * 2)));
    const auto partial = allocate<float>(architecture == 0 ? 1 : pairs * s_.hidden);
    const auto hidden_bf16 = allocate<__nv_bfloat16>(architecture == 0 ? 1 : pairs * s_.intermediate);
    a.partial = partial.get();
    a.hidden = hidden_bf16.get();
    const auto multiply = [&](cudaStream_t stream) {
      if (architecture == 0) {
        launch_moe_codes(codes, stream);
      } else {
        launch_moe_tiles(a, architecture, stream);
      }
    };
    const auto all = [&](cudaStream_t stream) {
      launch_expert_order(a, stream);
      if (architecture == 0) launch_encode_pairs(a, codes.x, stream);
      multiply(stream);
    };
    all(nullptr);
    check(cudaDeviceSynchronize());
    const double error = error_against_plain(a, x, out, architecture == 0);
    const double order_us = time_calls(5, 7, [&](cudaStream_t s) { launch_expert_order(a, s); });
    const double encode_us = time_calls(5, 7, [&](cudaStream_t s) { launch_encode_pairs(a, codes.x, s); });
    const double product_us = time_calls(3, 7, multiply);
    const double us = time_calls(3, 7, all);
    const double flops = 6.0 * static_cast<double>(pairs) * static_cast<double>(s_.hidden * s_.intermediate);
    std::printf(
        "moe %2d %6ld tokens, skew %.0f  all %8.1f us %6.0f TFLOP/s %3.0f %%  order %6.1f  codes %6.1f  "
        "products and sum %8.1f us %6.0f TFLOP/s  error %.2e\n",
        architecture, static_cast<long>(tokens), skew, us, flops / us / 1e6, 100 * flops / us / 1e6 / library,
        order_us, encode_us, product_us, flops / product_us / 1e6, error);
    std::fflush(stdout);
    if (!is_hot) return;
    Library<__nv_fp8_e4m3> cublas(kLibrarySize, true);
    time_hot({{"cuBLASLt 8192^3 FP8", cublas.flops(), [&](cudaStream_t s) { cublas.multiply(s); }, {}, {}},
              {"experts", flops, all, {}, {}},
              {"products and sum", flops, multiply, {}, {}}});
  }

 private:
  double error_against_plain(const MoeArgs& a, const Buffer<__nv_bfloat16>& x,
                             const Buffer<__nv_bfloat16>& out, bool rounds) const {
    const std::vector<int32_t> rows = sample_rows(a.x.rows);
    const auto tokens = upload(rows);
    const auto count = static_cast<unsigned>(rows.size()), k = static_cast<unsigned>(s_.top_k);
    const auto plain_x = allocate<float>(count * s_.hidden),
               hidden = allocate<float>(count * k * s_.intermediate),
               plain = allocate<float>(count * s_.hidden);
    widen_rows<<<count, 256>>>(x.get(), tokens.get(), s_.hidden, plain_x.get());
    if (rounds) round_groups<<<count, 256>>>(plain_x.get(), count * s_.hidden / kGroup);
    plain_up<<<dim3(static_cast<unsigned>(s_.intermediate / 8), count * k), 256>>>(
        plain_x.get(), a.table, a.ids, tokens.get(), s_.top_k, hidden.get());
    if (rounds) round_groups<<<count * k, 256>>>(hidden.get(), count * k * s_.intermediate / kGroup);
    plain_down<<<dim3(static_cast<unsigned>(s_.hidden / 8), count), 256>>>(
        hidden.get(), a.table, a.ids, a.weights, tokens.get(), s_.top_k, plain.get());
    check(cudaDeviceSynchronize());
    return error_of(out, rows, s_.hidden, plain);
  }

  MoeShape s_;
  RandomWeight w1_, w3_, w2_;
  std::vector<ExpertPointers> table_;
  Buffer<ExpertPointers> device_table_;
};

}  // namespace

int main(int argc, char** argv) {
  const auto wants = [&](const char* part) {
    return argc == 1 ||
           std::any_of(argv + 1, argv + argc, [&](const char* a) { return !std::strcmp(a, part); });
  };
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  library_rate<__nv_fp8_e4m3>(kLibrarySize, false);  // to warm up
  const double exact = library_rate<__nv_fp8_e4m3>(kLibrarySize, false),
               fast = library_rate<__nv_fp8_e4m3>(kLibrarySize, true),
               bf16 = library_rate<__nv_bfloat16>(kLibrarySize, false);
  const double library = std::max(exact, fast);
  std::printf("%s: cuBLASLt 8192^3 FP8 %.0f TFLOP/s, with fast sums %.0f, BF16 %.0f\n", properties.name,
              exact, fast, bf16);
  std::fflush(stdout);
  if (wants("dense")) {
    for (const bool has_blocks : {true, false}) {
      for (const auto& [tokens, depth, outputs] : {std::array<int64_t, 3>{8192, 8192, 8192},
                                                   {8192, 3072, 6144},
                                                   {8192, 3072, 1024},
                                                   {8192, 6144, 3072},
                                                   {2048, 3072, 6144},
                                                   {300, 3072, 6144},
                                                   {70, 3072, 6144}})
        bench_dense(tokens, depth, outputs, has_blocks, 0, library);
    }
  }
  if (wants("moe")) {
    MoeBench moe({3072, 1536, 256, 8}, true);
    for (const int64_t tokens : {8192, 4096, 2048, 512, 100}) moe.run(tokens, 0, 0, library);
    moe.run(8192, 2, 0, library);
  }
  if (wants("hot")) {
    MoeBench moe({3072, 1536, 256, 8}, true);
    for (const double skew : {0.0, 2.0}) moe.run(8192, skew, 0, library, true);
  }
  if (wants("unpacked")) {
    MoeBench moe({3072, 1536, 64, 8}, true);
    for (const int architecture : {80, 90}) {
      for (const int64_t tokens : {8192, 300}) bench_dense(tokens, 3072, 6144, true, architecture, bf16);
      moe.run(2048, 0, architecture, bf16);
    }
  }
  std::printf("cuBLASLt 8192^3 FP8 again %.0f TFLOP/s\n", library_rate<__nv_fp8_e4m3>(kLibrarySize, false));
  return 0;
}
