// Internal to the CPU backend: the class behind make_cpu_backend.
#pragma once

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/matmul.h"

namespace minimax::cpu {

class CpuBackend final : public ops::Backend {
 public:
  CpuBackend(ThreadPool& pool, const CpuOptions& options) : pool_(pool), options_(options) {}

  std::string_view name() const override { return "cpu"; }
  Device device() const override { return {}; }
  // Row products of more rows add up in another order.
  int64_t invariant_decode_rows() const override { return kInvariantRows; }

  void run(const ops::Embedding& args, ops::Workspace workspace) override;
  void run(const ops::RmsNorm& args, ops::Workspace workspace) override;
  void run(const ops::ResidualRmsNorm& args, ops::Workspace workspace) override;
  void run(const ops::SumOfSquares& args, ops::Workspace workspace) override;
  void run(const ops::GatedRmsNorm& args, ops::Workspace workspace) override;
  void run(const ops::Linear& args, ops::Workspace workspace) override;
  void run(const ops::RouteSoftmax& args, ops::Workspace workspace) override;
  void run(const ops::RouteSigmoid& args, ops::Workspace workspace) override;
  void run(const ops::Moe& args, ops::Workspace workspace) override;
  void run(const ops::Mlp& args, ops::Workspace workspace) override;
  void run(const ops::MixShared& args, ops::Workspace workspace) override;
  void run(const ops::Rope& args, ops::Workspace workspace) override;
  void run(const ops::PagedKvWrite& args, ops::Workspace workspace) override;
  void run(const ops::QkNormRopeKvWrite& args, ops::Workspace workspace) override;
  void run(const ops::PagedAttention& args, ops::Workspace workspace) override;
  void run(const ops::IndexBlockScores& args, ops::Workspace workspace) override;
  void run(const ops::SelectBlocks& args, ops::Workspace workspace) override;
  void run(const ops::SparsePagedAttention& args, ops::Workspace workspace) override;
  void run(const ops::LightningPrefill& args, ops::Workspace workspace) override;
  void run(const ops::LightningDecode& args, ops::Workspace workspace) override;
  void run(const ops::Sample& args, ops::Workspace workspace) override;

  using ops::Backend::workspace_bytes;
  int64_t workspace_bytes(const ops::Linear& args) const override;
  int64_t workspace_bytes(const ops::Moe& args) const override;
  int64_t workspace_bytes(const ops::Mlp& args) const override;
  int64_t workspace_bytes(const ops::QkNormRopeKvWrite& args) const override;
  int64_t workspace_bytes(const ops::PagedAttention& args) const override;
  int64_t workspace_bytes(const ops::IndexBlockScores& args) const override;
  int64_t workspace_bytes(const ops::SparsePagedAttention& args) const override;
  int64_t workspace_bytes(const ops::LightningPrefill& args) const override;
  int64_t workspace_bytes(const ops::Sample& args) const override;

 private:
  // Runs body(row) for all rows, on one thread when the work is too small to share.
  template <typename Body>
  void for_rows(int64_t rows, int64_t elements_per_row, Body&& body) {
    constexpr int64_t kElementsPerTask = 16384;
    const int64_t rows_per_task =
        std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, elements_per_row));
    pool_.parallel_for((rows + rows_per_task - 1) / rows_per_task, [&](int64_t task, int) {
      const int64_t end = std::min(rows, (task + 1) * rows_per_task);
      for (int64_t row = task * rows_per_task; row < end; ++row) body(row);
    });
  }

  ThreadPool& pool_;
  CpuOptions options_;
};

}  // namespace minimax::cpu
