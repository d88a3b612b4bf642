// Comm: how the ranks of one model talk to each other. A rank is one thread or process that runs the same
// steps as the others on its part of the weights.
//
// All ranks call the same functions in the same order with operands of the same shapes. Each call is a
// checked door like an op's: it takes the step's context, so that an implementation may enqueue on the
// backend's stream; it is recorded by the step's tracer; in a dry run it does nothing. None allocates.
#pragma once

#include <cstdint>
#include <span>

#include "ops/op.h"
#include "parallel/partition.h"

namespace minimax::parallel {

class Comm {
 public:
  virtual ~Comm() = default;

  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;

  // x = the sum of all ranks' x, element by element, summed in F32 in the order of ranks: the same bits on
  // every rank and in every run. x F32 or BF16, contiguous.
  // THROWS: Error when another rank has failed.
  void all_reduce_sum(ops::OpContext& context, const Tensor& x);

  // Rank r has written columns bounds[r] .. bounds[r + 1] of x; after the call every rank has all of them.
  // x [T, N] F32 or BF16, dense rows; bounds [size + 1], ascending from 0 to N.
  // THROWS: Error when another rank has failed.
  void all_gather_columns(ops::OpContext& context, const Tensor& x, std::span<const int64_t> bounds);

  // Returns when all ranks are here. THROWS: Error when another rank has failed.
  virtual void barrier() = 0;

 protected:
  Comm() = default;
  Comm(const Comm&) = default;
  Comm& operator=(const Comm&) = default;
  Comm(Comm&&) = default;
  Comm& operator=(Comm&&) = default;

 private:
  // The same, with operands that have been checked.
  virtual void run_all_reduce_sum(ops::OpContext& context, const Tensor& x) = 0;
  virtual void run_all_gather_columns(ops::OpContext& context, const Tensor& x,
                                      std::span<const int64_t> bounds) = 0;
};

// The place of a rank among the others, and its way to them. A single rank needs none; neither does a plan.
struct Parallel {
  Grid grid;
  Comm* comm = nullptr;
};

}  // namespace minimax::parallel
