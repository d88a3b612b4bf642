// A backend of a device seen as one of the host, so that tests written for host tensors check it too: every
// op copies the memory of its operands there, runs, and copies all of it back.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "ops/backend.h"

namespace minimax::ops {

class MirrorBackend final : public Backend {
 public:
  explicit MirrorBackend(std::unique_ptr<Backend> device) : device_(std::move(device)) {}

  std::string_view name() const override { return device_->name(); }
  Device device() const override { return {}; }

  void run(const Embedding& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const RmsNorm& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const ResidualRmsNorm& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const SumOfSquares& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const GatedRmsNorm& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const Linear& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const Projections& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const RouteSoftmax& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const RouteSigmoid& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const Moe& args, Workspace workspace) override {
    std::vector<MlpWeights> experts(args.experts.begin(), args.experts.end());
    Moe copy = args;
    copy.experts = experts;
    mirror(copy, workspace, &experts);
  }
  void run(const Mlp& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const MixShared& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const Rope& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const PagedKvWrite& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const QkNormRopeKvWrite& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const PagedAttention& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const IndexBlockScores& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const SelectBlocks& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const SparsePagedAttention& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const LightningPrefill& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const LightningDecode& args, Workspace workspace) override { mirror(args, workspace); }
  void run(const Sample& args, Workspace workspace) override { mirror(args, workspace); }

 private:
  // A run of host memory and its copy.
  struct Block {
    std::byte* end = nullptr;
    Memory memory;
    std::byte* copy = nullptr;  // of the run's first byte, as aligned as that
  };
  using Blocks = std::map<std::byte*, Block>;

  static void add(Blocks& blocks, const Tensor& t) {
    if (!t.defined() || t.numel() == 0) return;
    int64_t last = 0;
    for (int axis = 0; axis < t.rank(); ++axis) last += (t.dim(axis) - 1) * t.stride(axis);
    auto* begin = static_cast<std::byte*>(t.raw());
    std::byte* end = begin + (last + 1) * size_of(t.dtype());
    // Views of one buffer overlap and become one run.
    auto at = blocks.begin();
    while (at != blocks.end()) {
      if (at->first < end && begin < at->second.end) {
        begin = std::min(begin, at->first);
        end = std::max(end, at->second.end);
        at = blocks.erase(at);
      } else {
        ++at;
      }
    }
    blocks[begin].end = end;
  }

  Tensor moved(const Blocks& blocks, const Tensor& t) const {
    if (!t.defined()) return t;
    auto* data = static_cast<std::byte*>(t.raw());
    auto at = blocks.upper_bound(data);
    std::byte* to = nullptr;
    if (t.numel() > 0) {
      --at;
      to = at->second.copy + (data - at->first);
    }
    return t.moved(to, device_->device());
  }

  template <typename Op>
  void mirror(const Op& args, Workspace workspace, std::vector<MlpWeights>* experts = nullptr) {
    static_cast<void>(workspace);
    Op copy = args;
    std::vector<Tensor*> tensors;
    const auto take = [&](const auto& operand) {
      using Operand = std::decay_t<decltype(operand)>;
      if constexpr (std::is_same_v<Operand, Tensor>) {
        tensors.push_back(const_cast<Tensor*>(&operand));
      } else if constexpr (std::is_same_v<Operand, quant::Weight>) {
        tensors.push_back(const_cast<Tensor*>(&operand.values));
        tensors.push_back(const_cast<Tensor*>(&operand.scales));
      }
    };
    copy.visit([&](std::string_view role, const auto& operand) {
      // The weights of experts come below, all of them.
      if (experts == nullptr || role != "w1 of the first expert") take(operand);
    });
    if (experts != nullptr) {
      for (const MlpWeights& expert : *experts) {
        take(expert.w1);
        take(expert.w3);
        take(expert.w2);
      }
    }
    Blocks blocks;
    for (const Tensor* t : tensors) add(blocks, *t);
    for (auto& [begin, block] : blocks) {
      constexpr int64_t kAlignment = 256;
      block.memory = device_->allocate(block.end - begin + kAlignment);
      block.copy = block.memory.data() + reinterpret_cast<uintptr_t>(begin) % kAlignment;
      device_->upload(block.copy, begin, block.end - begin);
    }
    for (Tensor* t : tensors) *t = moved(blocks, *t);
    const int64_t bytes = device_->workspace_bytes(copy);
    const Memory scratch = device_->allocate(bytes);
    device_->run(copy, {scratch.data(), bytes});
    for (auto& [begin, block] : blocks) device_->download(begin, block.copy, block.end - begin);
    device_->synchronize();
  }

  std::unique_ptr<Backend> device_;
};

}  // namespace minimax::ops
