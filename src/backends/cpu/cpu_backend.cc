#include "backends/cpu/cpu_backend.h"

#include <chrono>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/matmul_kernels.h"

namespace minimax::cpu {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

std::unique_ptr<ops::Backend> make_cpu_backend(ThreadPool& pool, const CpuOptions& options) {
  return std::make_unique<CpuBackend>(pool, options);
}

double measure_read_bandwidth(ThreadPool& pool, const std::byte* data, int64_t bytes) {
  constexpr int64_t kPiece = int64_t{1} << 20U;
  const int64_t pieces = bytes / kPiece;
  std::vector<double> sums(static_cast<size_t>(pool.num_threads()));
  const auto start = Clock::now();
  pool.parallel_for(pieces,
                    [&](int64_t i, int thread) { sums[thread] += read_bytes(data + i * kPiece, kPiece); });
  const double seconds = seconds_since(start);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total / seconds;
}

double measure_multiply_rate(ThreadPool& pool, const CpuOptions& options) {
  const quant::Weight bf16_weight{quant::WeightFormat::kBF16, {}, {}};
  const ProductPath path = product_path(DType::kBF16, ops::Precision::kBF16, bf16_weight, options);
  constexpr int64_t kIterations = 400000;
  constexpr int64_t kTileIterations = kIterations / 4;
  std::vector<double> sums(static_cast<size_t>(pool.num_threads()));
  const auto start = Clock::now();
  pool.parallel_for(8 * pool.num_threads(), [&](int64_t, int thread) {
    sums[thread] +=
        path.has_tiles ? multiply_tile_chain(kTileIterations) : path.kernel->multiply_chain(kIterations);
  });
  const double seconds = seconds_since(start);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total / seconds;
}

std::string describe_simd(const CpuOptions& options) {
  const bool dot = options.use_bf16_dot && bf16_kernel() != nullptr;
  const bool tiles = dot && options.use_tiles && has_tiles();
  return fmt::format("{}{}{}", simd_target_name(), dot ? " + BF16 dot product" : "",
                     tiles ? " + AMX tiles" : "");
}

}  // namespace minimax::cpu
