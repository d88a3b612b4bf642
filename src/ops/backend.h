// Backend: one implementation of every op on one device.
//
// Called only by the checked doors, with arguments that have passed check(). One thread at a time.
#pragma once

#include <memory>

#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/lightning_attention.h"
#include "ops/linear.h"
#include "ops/moe.h"
#include "ops/norm.h"
#include "ops/sampling.h"
#include "ops/sparse_attention.h"

namespace minimax::ops {

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;
  virtual Device device() const = 0;

  // Most sequences of a decode step in which every row comes out, bit for bit, as it does alone.
  virtual int64_t invariant_decode_rows() const { return 1; }

  virtual void run(const Embedding& args, Workspace workspace) = 0;
  virtual void run(const RmsNorm& args, Workspace workspace) = 0;
  virtual void run(const ResidualRmsNorm& args, Workspace workspace) = 0;
  virtual void run(const SumOfSquares& args, Workspace workspace) = 0;
  virtual void run(const GatedRmsNorm& args, Workspace workspace) = 0;
  virtual void run(const Linear& args, Workspace workspace) = 0;
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
