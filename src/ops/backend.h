// Backend: one implementation of every op on one device.
//
// Called only by the checked doors, with arguments that have passed check(). One thread at a time.
#pragma once

#include <functional>
#include <memory>

#include "core/memory.h"
#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/lightning_attention.h"
#include "ops/linear.h"
#include "ops/moe.h"
#include "ops/norm.h"
#include "ops/sampling.h"
#include "ops/sparse_attention.h"

namespace minimax::ops {

// A recorded step: the same ops on the same buffers, launched as one.
class StepGraph {
 public:
  virtual ~StepGraph() = default;
  virtual void launch() = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;
  virtual Device device() const = 0;
  // Whether ops compute in memory of the host, where nothing needs to be copied.
  bool is_host() const { return device().type == DeviceType::kCpu; }

  // Memory of the device, zeroed, for ops alone to touch. THROWS: Error that says what was asked and is free.
  virtual Memory allocate(int64_t bytes) { return Memory::host(bytes); }
  // Memory of the host that is copied to and from the device at full speed.
  virtual Memory allocate_staging(int64_t bytes) { return Memory::host(bytes); }
  // Copies between host and device, in the order of the ops. They may still run when the call returns:
  // staging memory must stay as it is until synchronize(). Not called where is_host().
  virtual void upload(void* device, const void* host, int64_t bytes);
  // The fronts of `rows` rows that lie `stride_bytes` apart in both.
  virtual void upload_rows(void* device, const void* host, int64_t row_bytes, int64_t stride_bytes,
                           int64_t rows);
  virtual void download(void* host, const void* device, int64_t bytes);
  // Waits for everything begun. THROWS: Error when some of it failed.
  virtual void synchronize() {}
  // The values of `host` where ops read weights and constants, as long as the backend lives; `host` itself
  // where that is the host's memory, else dense rows. `host` may go once the call returns.
  virtual Tensor keep(const Tensor& host) { return host; }
  // Bytes the device could still give; of the host, what the system could without swapping.
  virtual int64_t available_bytes() const;
  // Records the ops of `step` without running them. RETURNS: null where the device has no such thing. What
  // an op needs besides its operands must be there already: run the step once before.
  virtual std::unique_ptr<StepGraph> capture(const std::function<void()>& step);

  // Most sequences of a decode step in which every row comes out, bit for bit, as it does alone.
  virtual int64_t invariant_decode_rows() const { return 1; }

  virtual void run(const Embedding& args, Workspace workspace) = 0;
  virtual void run(const RmsNorm& args, Workspace workspace) = 0;
  virtual void run(const ResidualRmsNorm& args, Workspace workspace) = 0;
  virtual void run(const SumOfSquares& args, Workspace workspace) = 0;
  virtual void run(const GatedRmsNorm& args, Workspace workspace) = 0;
  virtual void run(const Linear& args, Workspace workspace) = 0;
  virtual void run(const Projections& args, Workspace workspace);  // one by one
  virtual void run(const RouteSoftmax& args, Workspace workspace) = 0;
  virtual void run(const RouteSigmoid& args, Workspace workspace) = 0;
  virtual void run(const Moe& args, Workspace workspace) = 0;
  virtual void run(const Mlp& args, Workspace workspace) = 0;
  virtual void run(const MixShared& args, Workspace workspace) = 0;
  virtual void run(const Rope& args, Workspace workspace) = 0;
  virtual void run(const PagedKvWrite& args, Workspace workspace) = 0;
  virtual void run(const QkNormRopeKvWrite& args, Workspace workspace) = 0;
  virtual void run(const PagedAttention& args, Workspace workspace) = 0;
  virtual void run(const IndexBlockScores& args, Workspace workspace) = 0;
  virtual void run(const SelectBlocks& args, Workspace workspace) = 0;
  virtual void run(const SparsePagedAttention& args, Workspace workspace) = 0;
  virtual void run(const LightningPrefill& args, Workspace workspace) = 0;
  virtual void run(const LightningDecode& args, Workspace workspace) = 0;
  virtual void run(const Sample& args, Workspace workspace) = 0;

  // Scratch bytes an op needs; a function of shapes alone. Ops without an entry need none.
  virtual int64_t workspace_bytes(const Linear&) const { return 0; }
  virtual int64_t workspace_bytes(const Projections& args) const;
  virtual int64_t workspace_bytes(const Moe&) const { return 0; }
  virtual int64_t workspace_bytes(const Mlp&) const { return 0; }
  virtual int64_t workspace_bytes(const QkNormRopeKvWrite&) const { return 0; }
  virtual int64_t workspace_bytes(const PagedAttention&) const { return 0; }
  virtual int64_t workspace_bytes(const IndexBlockScores&) const { return 0; }
  virtual int64_t workspace_bytes(const SparsePagedAttention&) const { return 0; }
  virtual int64_t workspace_bytes(const LightningPrefill&) const { return 0; }
  virtual int64_t workspace_bytes(const Sample&) const { return 0; }
  template <typename Op>
  int64_t workspace_bytes(const Op&) const {
    return 0;
  }
};

// Plain loops over the contracts' formulas with F64 sums: it defines what the ops mean.
std::unique_ptr<Backend> make_reference_backend();

}  // namespace minimax::ops
