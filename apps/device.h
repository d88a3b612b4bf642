// The one place that knows which backends this build has.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/thread_pool.h"
#include "ops/backend.h"

namespace minimax::apps {

// A backend and what it can do at best.
class ComputeDevice {
 public:
  // auto (a GPU where there is one), cpu, cuda or cuda:N; `architecture` 0 is the GPU's best kernels.
  // REQUIRES: `pool` outlives this. THROWS: Error when there is no such device.
  ComputeDevice(const std::string& name, int architecture, ThreadPool& pool);

  ops::Backend& backend() const { return *backend_; }
  // "NVIDIA H200, kernels for SM90"; "AVX3 + BF16 dot product, 2 threads".
  const std::string& description() const { return description_; }
  // Bytes a second that decode is held against: reads on the CPU, reads and writes of a copy on a GPU.
  double measure_bandwidth();
  // Operations a second that prefill is held against: of BF16, of F8_E4M3 where `has_codes` and the kernels
  // multiply such.
  double measure_rate(bool has_codes);
  // "BF16", "FP8", "multiply-adds": what that rate is one of.
  std::string rate_name(bool has_codes) const;

 private:
  ThreadPool& pool_;
  std::unique_ptr<ops::Backend> backend_;
  std::string description_;
  Memory probe_;                                    // of the CPU
  std::function<double()> bf16_rate_, codes_rate_;  // of a GPU, when asked for
};

}  // namespace minimax::apps
