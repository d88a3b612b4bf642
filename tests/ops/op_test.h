// Shared by the op tests: owned tensors with random content, every backend, comparison with the oracle.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "ops/backend.h"
#include "quant/encode.h"
#include "tests/cuda_devices.h"
#include "tests/ops/mirror_backend.h"

namespace minimax::ops {

// Owns the memory of the tensors it makes. Outputs are poisoned with NaN, so that a hole shows.
class TensorMaker {
 public:
  explicit TensorMaker(uint64_t seed) : rng_(seed) {}

  Tensor uniform(DType dtype, std::initializer_list<int64_t> shape, float low = -1.0F, float high = 1.0F) {
    Tensor t = memory(dtype, shape);
    std::uniform_real_distribution<float> distribution(low, high);
    for (int64_t i = 0; i < t.numel(); ++i) set(t, i, distribution(rng_));
    return t;
  }
  Tensor poisoned(DType dtype, std::initializer_list<int64_t> shape) {
    Tensor t = memory(dtype, shape);
    for (int64_t i = 0; i < t.numel(); ++i) set(t, i, NAN);
    return t;
  }
  // Integers that no op may leave behind.
  Tensor poisoned_ids(std::initializer_list<int64_t> shape) {
    Tensor t = memory(DType::kI32, shape);
    std::fill_n(t.data<int32_t>(), t.numel(), -7'777'777);
    return t;
  }
  template <typename T>
  Tensor integers(DType dtype, const std::vector<T>& values) {
    Tensor t = memory(dtype, {static_cast<int64_t>(values.size())});
    std::copy(values.begin(), values.end(), static_cast<T*>(t.raw()));
    return t;
  }
  Tensor ids(const std::vector<int32_t>& values) { return integers(DType::kI32, values); }
  Tensor longs(const std::vector<int64_t>& values) { return integers(DType::kI64, values); }
  Tensor floats(const std::vector<float>& values) { return integers(DType::kF32, values); }
  Tensor copy(const Tensor& source) {
    buffers_.emplace_back(static_cast<size_t>(source.size_bytes()) + 64);
    std::memcpy(aligned(buffers_.back()), source.raw(), static_cast<size_t>(source.size_bytes()));
    return Tensor(aligned(buffers_.back()), source.dtype(), source.shape(), source.name());
  }
  // Values up to +-2/sqrt(in), some of them zero or tiny (subnormal in 8 bits), encoded. A block is only
  // asked for by kFp8.
  quant::Weight weight(quant::WeightFormat format, int64_t out, int64_t in, quant::BlockShape block = {}) {
    const float bound = 2.0F / std::sqrt(static_cast<float>(std::max<int64_t>(in, 1)));
    const Tensor source = uniform(DType::kF32, {out, in}, -bound, bound);
    for (int64_t i = 13; i < source.numel(); i += 97) source.data<float>()[i] *= i % 2 == 0 ? 0.0F : 1e-5F;
    const quant::Weight result = unset_weight(format, out, in, block);
    quant::encode({source.data<float>(), static_cast<size_t>(source.numel())}, result);
    return result;
  }
  int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng_); }
  std::mt19937_64& rng() { return rng_; }

 private:
  static std::byte* aligned(std::vector<std::byte>& buffer) {
    const auto address = reinterpret_cast<uintptr_t>(buffer.data());
    return buffer.data() + (64 - address % 64) % 64;
  }
  Tensor memory(DType dtype, std::initializer_list<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t n : shape) count *= n;
    buffers_.emplace_back(static_cast<size_t>(count * size_of(dtype)) + 64);
    return Tensor(aligned(buffers_.back()), dtype, shape);
  }
  quant::Weight unset_weight(quant::WeightFormat format, int64_t out, int64_t in, quant::BlockShape block) {
    switch (format) {
      case quant::WeightFormat::kF32:
        return quant::plain_weight(memory(DType::kF32, {out, in}));
      case quant::WeightFormat::kBF16:
        return quant::plain_weight(memory(DType::kBF16, {out, in}));
      case quant::WeightFormat::kF16:
        return quant::plain_weight(memory(DType::kF16, {out, in}));
      case quant::WeightFormat::kMxfp8:
        return quant::quantized_weight(memory(DType::kF8E4M3, {out, in}), memory(DType::kU8, {out, in / 32}));
      case quant::WeightFormat::kFp8:
        break;
    }
    const int64_t rows = (out + block.rows - 1) / block.rows;
    const int64_t columns = (in + block.columns - 1) / block.columns;
    const Tensor scales = uniform(DType::kF32, {rows, columns}, 1, 1);
    return {format, memory(DType::kF8E4M3, {out, in}), scales, block.rows, block.columns};
  }
  static void set(const Tensor& t, int64_t i, float value) {
    switch (t.dtype()) {
      case DType::kBF16:
        t.data<bf16>()[i] = to_bf16(value);
        break;
      case DType::kF16:
        t.data<f16>()[i] = to_f16(value);
        break;
      case DType::kF8E4M3:
        t.data<f8e4m3>()[i] = to_e4m3(value);
        break;
      default:
        t.data<float>()[i] = value;
    }
  }

  std::mt19937_64 rng_;
  std::deque<std::vector<std::byte>> buffers_;
};

inline double element(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::kBF16:
      return to_float(t.data<bf16>()[i]);
    case DType::kF8E4M3:
      return to_float(t.data<f8e4m3>()[i]);
    case DType::kI32:
      return t.data<int32_t>()[i];
    default:
      return t.data<float>()[i];
  }
}

// ||out - expected|| / ||expected||, after requiring that NaN stand in the same places.
inline void expect_close(const Tensor& out, const Tensor& expected, double tolerance,
                         const std::string& what) {
  ASSERT_EQ(out.numel(), expected.numel()) << what;
  double error = 0;
  double norm = 0;
  double worst = 0;
  int64_t worst_at = 0;
  for (int64_t i = 0; i < out.numel(); ++i) {
    const double a = element(out, i);
    const double b = element(expected, i);
    ASSERT_EQ(std::isnan(a), std::isnan(b)) << what << ": element " << i << " is " << a << ", expected " << b;
    if (std::isnan(b)) continue;
    error += (a - b) * (a - b);
    norm += b * b;
    if (std::abs(a - b) > worst) {
      worst = std::abs(a - b);
      worst_at = i;
    }
  }
  const double relative = std::sqrt(error) / std::max(std::sqrt(norm), 1e-20);
  EXPECT_LE(relative, tolerance) << what << ": worst at " << worst_at << ": "
                                 << (out.numel() > 0 ? element(out, worst_at) : 0) << " against "
                                 << (out.numel() > 0 ? element(expected, worst_at) : 0);
}

inline double relative_error(const Tensor& out, const Tensor& expected) {
  double error = 0, norm = 0;
  for (int64_t i = 0; i < out.numel(); ++i) {
    error += std::pow(element(out, i) - element(expected, i), 2);
    norm += std::pow(element(expected, i), 2);
  }
  return std::sqrt(error) / std::max(std::sqrt(norm), 1e-20);
}

// F32 sums of a few thousand terms stay within 1e-5; one rounding to BF16 (2^-9 at most) averages 1.2e-3, two
// less than 3e-3.
// The same value an F8_E4M3 step apart (2^-4) is rare: where F32 and F64 sums fall on two sides of a tie.
inline double tolerance(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return 3e-3;
    case DType::kF8E4M3:
      return 1e-2;
    default:
      return 1e-5;
  }
}
// Rounding both factors of every product as well adds their errors, more where terms cancel.
inline double tolerance(DType dtype, Precision precision) {
  return precision == Precision::kF32 ? tolerance(dtype) : 8e-3;
}

// A backend under test.
struct BackendCase {
  std::string label;
  std::string simd = "auto";
  int threads = 1;
  bool use_bf16_dot = true;
  bool use_tiles = true;
  int cuda_architecture = 0;  // 80 or 90: the CUDA backend with those kernels
};

// Under compute-sanitizer a kernel takes a hundred times as long. MINIMAX_TEST_EVERY=n is for that: tests run
// on devices alone, and of the shapes they go through one of n. 0: everything everywhere.
inline int test_every() {
  static const int every = [] {
    const char* text = std::getenv("MINIMAX_TEST_EVERY");
    return text == nullptr ? 0 : std::max(std::atoi(text), 1);
  }();
  return every;
}

inline std::vector<BackendCase> backend_cases() {
  std::vector<BackendCase> cases;
  if (test_every() == 0) {
    cases.push_back({"cpu, 3 threads", "auto", 3});
    for (const std::string& target : cpu::simd_targets())
      cases.push_back({"cpu, " + target, target, 1, false, false});
  } else {
    static int shapes = 0;
    if (shapes++ % test_every() != 0) return {};
  }
  for (const int architecture : testing::cuda_architectures())
    cases.push_back({fmt::format("cuda, SM{}", architecture), "auto", 1, true, true, architecture});
  return cases;
}
// Those of matrix products, which tiles may do too.
inline std::vector<BackendCase> product_cases() {
  std::vector<BackendCase> cases = backend_cases();
  if (test_every() == 0) cases.push_back({"cpu, no tiles", "auto", 1, true, false});
  return cases;
}

// Backends are made once: a GPU takes a while to start.
inline Backend& cuda_backend(int architecture) {
  static std::map<int, std::unique_ptr<Backend>> backends;
  std::unique_ptr<Backend>& backend = backends[architecture];
  if (backend == nullptr) backend = std::make_unique<MirrorBackend>(testing::make_cuda_backend(architecture));
  return *backend;
}

// Runs `call(context)` on a backend of the case, scratch memory planned by a dry run of the same call.
template <typename Call>
void run_on(const BackendCase& c, const Call& call) {
  if (c.cuda_architecture > 0) {
    Arena arena(1);
    OpContext context{cuda_backend(c.cuda_architecture), arena, nullptr};
    return call(context);
  }
  cpu::select_simd_target(c.simd);
  ThreadPool pool(c.threads);
  const auto backend = cpu::make_cpu_backend(pool, {c.use_bf16_dot, c.use_tiles});
  Arena plan;
  OpContext planning{*backend, plan, nullptr};
  call(planning);
  Arena arena(plan.peak_bytes());
  OpContext context{*backend, arena, nullptr};
  call(context);
  cpu::select_simd_target("auto");
}

template <typename Call>
void run_on_reference(const Call& call) {
  const auto backend = make_reference_backend();
  Arena arena(1);
  OpContext context{*backend, arena, nullptr};
  call(context);
}

}  // namespace minimax::ops
