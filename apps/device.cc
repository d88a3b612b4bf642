#include "apps/device.h"

#include <algorithm>
#include <charconv>

#include "backends/cpu/cpu_backend.h"
#ifdef MINIMAX_HAS_CUDA
#include "backends/cuda/cuda_backend.h"
#endif

namespace minimax::apps {
namespace {

constexpr int64_t kProbeBytes = int64_t{512} << 20U;

#ifdef MINIMAX_HAS_CUDA
// The number of "cuda" or "cuda:N".
int cuda_index(const std::string& name) {
  const std::string prefix = "cuda:";
  if (name == "cuda" || name == "auto") return 0;
  int index = -1;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + prefix.size(), end, index);
  if (!name.starts_with(prefix) || error != std::errc() || rest != end || index < 0)
    fail("--device is \"{}\"; expected auto, cpu, cuda or cuda:N", name);
  return index;
}
#endif

}  // namespace

ComputeDevice::ComputeDevice(const std::string& name, int architecture, ThreadPool& pool) : pool_(pool) {
#ifdef MINIMAX_HAS_CUDA
  const bool wants_gpu = name != "cpu" && (name != "auto" || cuda::cuda_problem().empty());
  if (wants_gpu) {
    const cuda::CudaOptions options = {cuda_index(name), architecture};
    backend_ = cuda::make_cuda_backend(options);
    description_ = cuda::describe_cuda(options);
    return;
  }
#else
  static_cast<void>(architecture);
  if (name != "cpu" && name != "auto")
    fail(
        "--device is \"{}\"; this build has no CUDA backend: build where a CUDA toolkit is, or use --device "
        "cpu",
        name);
#endif
  backend_ = cpu::make_cpu_backend(pool);
  description_ = fmt::format("{}, {} threads", cpu::describe_simd(), pool.num_threads());
}

double ComputeDevice::measure_bandwidth() {
#ifdef MINIMAX_HAS_CUDA
  if (!backend_->is_host()) return cuda::measure_copy_bandwidth(*backend_);
#endif
  if (probe_.data() == nullptr) {
    probe_ = Memory::host(kProbeBytes);
    std::fill_n(probe_.data(), kProbeBytes, std::byte{1});
  }
  return cpu::measure_read_bandwidth(pool_, probe_.data(), kProbeBytes);
}

std::string ComputeDevice::rate_name(bool has_codes) const {
#ifdef MINIMAX_HAS_CUDA
  if (!backend_->is_host()) return has_codes && cuda::multiplies_codes(*backend_) ? "FP8" : "BF16";
#endif
  static_cast<void>(has_codes);
  return "multiply-adds";
}

double ComputeDevice::measure_rate(bool has_codes) {
#ifdef MINIMAX_HAS_CUDA
  if (!backend_->is_host()) {
    const bool is_codes = has_codes && cuda::multiplies_codes(*backend_);
    std::function<double()>& rate = is_codes ? codes_rate_ : bf16_rate_;
    if (!rate) rate = cuda::make_gemm_probe(*backend_, is_codes ? DType::kF8E4M3 : DType::kBF16);
    return rate();
  }
#endif
  static_cast<void>(has_codes);
  return cpu::measure_multiply_rate(pool_);
}

}  // namespace minimax::apps
