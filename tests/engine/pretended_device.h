// A device that is none: memory of its own in the host's, ops of the CPU's backend, recorded steps as lists
// of calls. It shows without a GPU that engines keep to the rules of devices, and counts what they do.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "ops/backend.h"

namespace minimax::testing {

class PretendedDevice final : public ops::Backend {
 public:
  explicit PretendedDevice(ThreadPool& pool) : cpu_(cpu::make_cpu_backend(pool)) {}

  struct Counts {
    int64_t allocations = 0, uploads = 0, downloads = 0, waits = 0, ops = 0, launches = 0, captures = 0;
  };
  Counts counts;

  std::string_view name() const override { return "pretended"; }
  Device device() const override { return {DeviceType::kCuda, 0}; }
  Memory allocate(int64_t bytes) override {
    ++counts.allocations;
    auto memory = std::make_shared<Memory>(Memory::host(bytes));
    std::byte* data = memory->data();
    return {data, bytes, device(), [memory](std::byte*) {}};
  }
  Memory allocate_staging(int64_t bytes) override {
    ++counts.allocations;
    return Memory::host(bytes);
  }
  void upload(void* device, const void* host, int64_t bytes) override {
    ++counts.uploads;
    if (bytes > 0) std::memcpy(device, host, static_cast<size_t>(bytes));
  }
  void upload_rows(void* device, const void* host, int64_t row_bytes, int64_t stride_bytes,
                   int64_t rows) override {
    ++counts.uploads;
    for (int64_t row = 0; row < rows && row_bytes > 0; ++row) {
      std::memcpy(static_cast<std::byte*>(device) + row * stride_bytes,
                  static_cast<const std::byte*>(host) + row * stride_bytes, static_cast<size_t>(row_bytes));
    }
  }
  void download(void* host, const void* device, int64_t bytes) override {
    ++counts.downloads;
    if (bytes > 0) std::memcpy(host, device, static_cast<size_t>(bytes));
  }
  void synchronize() override { ++counts.waits; }
  Tensor keep(const Tensor& host) override {
    kept_.push_back(allocate(host.size_bytes()));
    std::memcpy(kept_.back().data(), host.raw(), static_cast<size_t>(host.size_bytes()));
    return Tensor(kept_.back().data(), host.dtype(), host.shape(), host.name(), device());
  }
  std::unique_ptr<ops::StepGraph> capture(const std::function<void()>& step) override {
    ++counts.captures;
    auto graph = std::make_unique<Graph>(*this);
    recording_ = &graph->calls;
    step();
    recording_ = nullptr;
    return graph;
  }

  void run(const ops::Embedding& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::RmsNorm& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::ResidualRmsNorm& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::SumOfSquares& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::GatedRmsNorm& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::Linear& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::RouteSoftmax& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::RouteSigmoid& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::Moe& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::Mlp& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::MixShared& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::Rope& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::PagedKvWrite& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::QkNormRopeKvWrite& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::PagedAttention& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::IndexBlockScores& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::SelectBlocks& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::SparsePagedAttention& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::LightningPrefill& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::LightningDecode& args, ops::Workspace w) override { call(args, w); }
  void run(const ops::Sample& args, ops::Workspace w) override { call(args, w); }

  int64_t workspace_bytes(const ops::Linear& args) const override { return cpu_->workspace_bytes(args); }
  int64_t workspace_bytes(const ops::Moe& args) const override { return cpu_->workspace_bytes(args); }
  int64_t workspace_bytes(const ops::Mlp& args) const override { return cpu_->workspace_bytes(args); }
  int64_t workspace_bytes(const ops::QkNormRopeKvWrite& args) const override {
    return cpu_->workspace_bytes(args);
  }
  int64_t workspace_bytes(const ops::PagedAttention& args) const override {
    return cpu_->workspace_bytes(args);
  }
  int64_t workspace_bytes(const ops::IndexBlockScores& args) const override {
    return cpu_->workspace_bytes(args);
  }
  int64_t workspace_bytes(const ops::SparsePagedAttention& args) const override {
    return cpu_->workspace_bytes(args);
  }
  int64_t workspace_bytes(const ops::LightningPrefill& args) const override {
    return cpu_->workspace_bytes(args);
  }
  int64_t workspace_bytes(const ops::Sample& args) const override { return cpu_->workspace_bytes(args); }

 private:
  using Calls = std::vector<std::function<void()>>;

  struct Graph final : ops::StepGraph {
    explicit Graph(PretendedDevice& owner) : device(owner) {}
    void launch() override {
      ++device.counts.launches;
      for (const auto& recorded : calls) recorded();
    }
    PretendedDevice& device;
    Calls calls;
  };

  template <typename Op>
  void call(const Op& args, ops::Workspace workspace) {
    if (recording_ != nullptr) {
      recording_->push_back([this, args, workspace] { cpu_->run(args, workspace); });
      return;
    }
    ++counts.ops;
    cpu_->run(args, workspace);
  }

  std::unique_ptr<ops::Backend> cpu_;
  std::vector<Memory> kept_;
  Calls* recording_ = nullptr;
};

}  // namespace minimax::testing
