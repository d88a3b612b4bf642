// Our BF16 matrix product against oneDNN's, same shapes, same memory, runs interleaved.
//
// Built where oneDNN is installed (Debian: libdnnl-dev). oneDNN gets its best case: weights already in the
// layout it chooses for itself, packed outside the timed part; ours packs them in every call.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <oneapi/dnnl/dnnl.hpp>
#include <random>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "core/host_memory.h"
#include "ops/backend.h"

namespace minimax {
namespace {

Tensor random_tensor(HostMemory& memory, std::initializer_list<int64_t> shape) {
  static std::mt19937_64 rng(1);
  const Tensor t(memory.data(), DType::kBF16, shape);
  for (int64_t i = 0; i < t.numel(); ++i)
    t.data<bf16>()[i] = to_bf16(static_cast<float>(rng() >> 40U) * 0x1.0p-23F - 1);
  return t;
}

template <typename Run>
double seconds_of(const Run& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// oneDNN's product with its own weight layout.
class Peer {
 public:
  Peer(const Tensor& x, const Tensor& weight, const Tensor& out)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using dnnl::memory;
    const memory::dims m_k = {x.dim(0), x.dim(1)};
    const memory::dims k_n = {weight.dim(1), weight.dim(0)};
    const memory::dims m_n = {out.dim(0), out.dim(1)};
    const memory::desc any(k_n, memory::data_type::bf16, memory::format_tag::any);
    const memory::desc given(k_n, memory::data_type::bf16, memory::format_tag::ba);
    const memory::desc x_desc(m_k, memory::data_type::bf16, memory::format_tag::ab);
    const memory::desc out_desc(m_n, memory::data_type::bf16, memory::format_tag::ab);
    const dnnl::matmul::primitive_desc description({x_desc, any, out_desc}, engine_);
    memory source(given, engine_, weight.raw());
    memory packed(description.weights_desc(), engine_);
    dnnl::reorder(source, packed).execute(stream_, source, packed);
    stream_.wait();
    product_ = dnnl::matmul(description);
    arguments_ = {{DNNL_ARG_SRC, memory(x_desc, engine_, x.raw())},
                  {DNNL_ARG_WEIGHTS, packed},
                  {DNNL_ARG_DST, memory(out_desc, engine_, out.raw())}};
  }
  void run() {
    product_.execute(stream_, arguments_);
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul product_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

void compare(ops::Backend& backend, ThreadPool& pool, int64_t m, int64_t n, int64_t k) {
  HostMemory x_memory(2 * m * k);
  HostMemory weight_memory(2 * n * k);
  HostMemory out_memory(2 * m * n);
  const Tensor x = random_tensor(x_memory, {m, k});
  const Tensor weight = random_tensor(weight_memory, {n, k});
  const Tensor out(out_memory.data(), DType::kBF16, {m, n});
  const ops::Linear args{x, quant::plain_weight(weight), ops::Activation::kNone, out, ops::Precision::kBF16};
  Arena plan;
  ops::OpContext planning{backend, plan, nullptr};
  ops::linear(planning, args);
  Arena arena(plan.peak_bytes());
  ops::OpContext context{backend, arena, nullptr};
  Peer peer(x, weight, out);

  const double flops = 2.0 * static_cast<double>(m * n * k);
  std::vector<double> ours;
  std::vector<double> theirs;
  for (int i = 0; i < 9; ++i) {
    ours.push_back(flops / seconds_of([&] { ops::linear(context, args); }));
    theirs.push_back(flops / seconds_of([&] { peer.run(); }));
  }
  const double peak = cpu::measure_multiply_rate(pool);
  fmt::print(
      "{:>5} x {:>5} x {:>5}: ours {:6.1f} GFLOP/s ({:.0f} % of {:.0f}), oneDNN {:6.1f} GFLOP/s; ratio "
      "{:.2f}\n",
      m, n, k, median(ours) / 1e9, 100 * median(ours) / peak, peak / 1e9, median(theirs) / 1e9,
      median(ours) / median(theirs));
}

}  // namespace
}  // namespace minimax

int main() {
  minimax::ThreadPool pool;
  const auto backend = minimax::cpu::make_cpu_backend(pool);
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{2048, 3072, 1024},
                                {2048, 1024, 1536},
                                {256, 1536, 1024},
                                {2048, 6144, 6144}}) {
    minimax::compare(*backend, pool, m, n, k);
  }
}
