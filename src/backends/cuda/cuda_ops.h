// Internal to the CUDA backend: the class behind make_cuda_backend.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backends/cuda/cuda_backend.h"
#include "backends/cuda/cuda_error.h"
#include "backends/cuda/gemm.h"
#include "backends/cuda/kernels.h"

namespace minimax::cuda {

struct StreamDeleter {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
using Stream = std::unique_ptr<CUstream_st, StreamDeleter>;

struct EventDeleter {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using Event = std::unique_ptr<CUevent_st, EventDeleter>;

// Weights and constants, copied through pinned buffers into large blocks of device memory.
class WeightStore {
 public:
  explicit WeightStore(ops::Backend& backend, cudaStream_t stream) : backend_(backend), stream_(stream) {}
  Tensor keep(const Tensor& host);

 private:
  std::byte* place(int64_t bytes);
  void copy(std::byte* to, const Tensor& host);
  // The next pinned buffer, free to be written.
  std::byte* next_buffer();

  ops::Backend& backend_;
  cudaStream_t stream_;
  std::vector<Memory> blocks_;
  int64_t used_ = 0;  // of the last block
  Memory buffers_[2];
  Event done_[2];
  int next_ = 0;
};

// The experts of one layer, in device memory, for kernels that find them by number.
struct ExpertTable {
  std::vector<ExpertPointers> host;
  Memory device;
  Memory maps;  // for launch_moe_stream, where it takes them
};

// Whether inputs of 8-bit weights are rounded where the precision allows it; an MLP rounds before all of its
// products or before none.
enum class Rounding : uint8_t { kWhereFast, kAlways, kNever };

class CudaBackend final : public ops::Backend {
 public:
  explicit CudaBackend(const CudaOptions& options);
  ~CudaBackend() override;

  int architecture() const { return architecture_; }  // whose kernels run

  std::string_view name() const override { return "cuda"; }
  Device device() const override { return {DeviceType::kCuda, options_.device}; }

  Memory allocate(int64_t bytes) override;
  Memory allocate_staging(int64_t bytes) override;
  void upload(void* device, const void* host, int64_t bytes) override;
  void upload_rows(void* device, const void* host, int64_t row_bytes, int64_t stride_bytes,
                   int64_t rows) override;
  void download(void* host, const void* device, int64_t bytes) override;
  void synchronize() override;
  Tensor keep(const Tensor& host) override { return store_.keep(host); }
  int64_t available_bytes() const override;
  std::unique_ptr<ops::StepGraph> capture(const std::function<void()>& step) override;

  std::string describe(const ops::SparseShape& shape) const override;

  void run(const ops::Embedding& args, ops::Workspace workspace) override;
  void run(const ops::RmsNorm& args, ops::Workspace workspace) override;
  void run(const ops::ResidualRmsNorm& args, ops::Workspace workspace) override;
  void run(const ops::SumOfSquares& args, ops::Workspace workspace) override;
  void run(const ops::GatedRmsNorm& args, ops::Workspace workspace) override;
  void run(const ops::Linear& args, ops::Workspace workspace) override;
  void run(const ops::Projections& args, ops::Workspace workspace) override;
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
  int64_t workspace_bytes(const ops::PagedAttention& args) const override;
  int64_t workspace_bytes(const ops::SparsePagedAttention& args) const override;
  int64_t workspace_bytes(const ops::LightningPrefill& args) const override;
  int64_t workspace_bytes(const ops::Sample& args) const override;

  cudaStream_t stream() const { return stream_.get(); }

 private:
  const ExpertTable& table_of(std::span<const ops::MlpWeights> experts);
  MoeArgs moe_args(const ops::Moe& args, ops::Workspace workspace);
  void run_linear(const ops::Linear& args, ops::Workspace workspace, Rounding rounding);
  void multiply_codes(const CodedRows& x, const WeightView& weight, bool applies_silu, const Matrix& out);
  void check_launch(std::string_view op) const;

  CudaOptions options_;
  int architecture_ = 0;
  int multiprocessors_ = 0;
  Stream stream_;
  WeightStore store_;
  std::unique_ptr<Gemm> gemm_;
  Memory arrivals_;  // zeros between kernels
  // Whether the last product of 8-bit weights, dense and of experts, went through a ring in shared memory:
  // the next one will too, and gains from starting early. Kernels of many small blocks lose: those that are
  // placed while another kernel ends crowd the multiprocessors that are free first.
  bool dense_streams_ = false;
  bool experts_stream_ = false;
  std::vector<std::pair<const ops::MlpWeights*, std::unique_ptr<ExpertTable>>> tables_;
};

}  // namespace minimax::cuda
