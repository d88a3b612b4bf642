// The oracle: every op as plain loops with F64 sums. Slow, obviously correct, CPU memory only.
#pragma once

#include "ops/backend.h"

namespace minimax::ops::reference {

// Element access in F64, whatever the dtype.
inline double load_at(const Tensor& t, int64_t offset) {
  switch (t.dtype()) {
    case DType::kBF16:
      return to_float(t.data<bf16>()[offset]);
    case DType::kF16:
      return to_float(t.data<f16>()[offset]);
    case DType::kF8E4M3:
      return to_float(t.data<f8e4m3>()[offset]);
    default:
      return t.data<float>()[offset];
  }
}
inline void store_at(const Tensor& t, int64_t offset, double value) {
  const auto rounded = static_cast<float>(value);
  switch (t.dtype()) {
    case DType::kBF16:
      t.data<bf16>()[offset] = to_bf16(rounded);
      break;
    case DType::kF8E4M3:
      t.data<f8e4m3>()[offset] = to_e4m3(rounded);
      break;
    default:
      t.data<float>()[offset] = rounded;
  }
}
inline double load(const Tensor& t, int64_t i) { return load_at(t, i * t.stride(0)); }
inline double load(const Tensor& t, int64_t i, int64_t j) {
  return load_at(t, i * t.stride(0) + j * t.stride(1));
}
inline double load(const Tensor& t, int64_t i, int64_t j, int64_t k) {
  return load_at(t, i * t.stride(0) + j * t.stride(1) + k * t.stride(2));
}
inline void store(const Tensor& t, int64_t i, int64_t j, double value) {
  store_at(t, i * t.stride(0) + j * t.stride(1), value);
}
inline void store(const Tensor& t, int64_t i, int64_t j, int64_t k, double value) {
  store_at(t, i * t.stride(0) + j * t.stride(1) + k * t.stride(2), value);
}

// Row `t` of a matrix.
std::vector<double> row_of(const Tensor& x, int64_t t);
// weight x, of x rounded as `precision` demands.
std::vector<double> product(const quant::Weight& weight, std::vector<double> x, Precision precision);

class ReferenceBackend final : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  Device device() const override { return {}; }

  void run(const Embedding& args, Workspace workspace) override;
  void run(const RmsNorm& args, Workspace workspace) override;
  void run(const ResidualRmsNorm& args, Workspace workspace) override;
  void run(const SumOfSquares& args, Workspace workspace) override;
  void run(const GatedRmsNorm& args, Workspace workspace) override;
  void run(const Linear& args, Workspace workspace) override;
  void run(const RouteSoftmax& args, Workspace workspace) override;
  void run(const RouteSigmoid& args, Workspace workspace) override;
  void run(const Moe& args, Workspace workspace) override;
  void run(const Mlp& args, Workspace workspace) override;
  void run(const MixShared& args, Workspace workspace) override;
  void run(const Rope& args, Workspace workspace) override;
  void run(const PagedKvWrite& args, Workspace workspace) override;
  void run(const QkNormRopeKvWrite& args, Workspace workspace) override;
  void run(const PagedAttention& args, Workspace workspace) override;
  void run(const IndexBlockScores& args, Workspace workspace) override;
  void run(const SelectBlocks& args, Workspace workspace) override;
  void run(const SparsePagedAttention& args, Workspace workspace) override;
  void run(const LightningPrefill& args, Workspace workspace) override;
  void run(const LightningDecode& args, Workspace workspace) override;
  void run(const Sample& args, Workspace workspace) override;
};

}  // namespace minimax::ops::reference
