// The fast CPU backend: SIMD through Highway, the variant chosen at run time, one thread pool.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/thread_pool.h"
#include "ops/backend.h"

namespace minimax::cpu {

struct CpuOptions {
  // Use the BF16 dot-product instructions where the processor has them.
  bool use_bf16_dot = true;
  // Multiply some rows at a time with tiles (AMX-BF16), where the processor has them beside the dot product.
  bool use_tiles = true;
};

// REQUIRES: `pool` outlives the backend.
std::unique_ptr<ops::Backend> make_cpu_backend(ThreadPool& pool, const CpuOptions& options = {});

// What this machine can do at best, for shares of a floor: both use all threads of `pool`.
// RETURNS: bytes per second of reading `bytes` of memory (far larger than the caches).
double measure_read_bandwidth(ThreadPool& pool, const std::byte* data, int64_t bytes);
// RETURNS: operations per second (a multiply and an add are two) of multiply-add chains held in registers,
// in the type that matrix products of BF16 use here: no matrix product can be faster.
double measure_multiply_rate(ThreadPool& pool, const CpuOptions& options = {});

// SIMD targets of this build that this machine supports, best first, e.g. AVX3, AVX2, SCALAR.
std::vector<std::string> simd_targets();
// Makes every CPU backend of the process use one of them, or the best again with "auto". For tests and
// comparisons; call it while nothing runs. THROWS: Error for a name not in simd_targets().
void select_simd_target(std::string_view name);

// "AVX3 + BF16 dot product + AMX tiles": the instruction sets in use.
std::string describe_simd(const CpuOptions& options = {});

}  // namespace minimax::cpu
