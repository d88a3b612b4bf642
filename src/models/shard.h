// What one rank holds of a model, and the sums that make the ranks' parts a whole: the sharding rules that
// all families share.
//
//   embedding, head        rows of the vocabulary; looked-up rows are added up, logits gathered
//   softmax attention      heads (parallel::split_heads): q, k, v rows, o columns; outputs added up
//   lightning attention    heads, evenly
//   dense and shared MLP   gate and up rows, down columns; outputs added up
//   experts                ranges of experts, and of the width of each (parallel::Grid); outputs added up
//   norms, routers         repeated
//
// A norm over a width of which every rank has a part adds its sums of squares up. The residual stream is
// repeated: sums give every rank the same bits, so all ranks route alike.
#pragma once

#include <vector>

#include "models/common_config.h"
#include "models/table_builder.h"
#include "parallel/comm.h"

namespace minimax::models {

struct Shard {
  parallel::Grid grid;
  parallel::Comm* comm = nullptr;     // null: nothing to add up with
  Range vocab;                        // rows of embedding and head
  std::vector<int64_t> vocab_bounds;  // where the ranks' rows begin, and the vocabulary's size
  parallel::HeadPart heads;           // of softmax attention
  ExpertCut experts;

  bool is_whole() const { return grid.size() == 1; }
  // The rank's part of `count` heads of which none belongs to another one.
  Range independent_heads(int64_t count) const { return parallel::split(count, grid.size(), grid.rank); }
  // The rank's part of the width of an MLP that all ranks share.
  Range width(int64_t n) const;

  // x becomes the sum over ranks.
  void add_up(ops::OpContext& context, const Tensor& x) const {
    if (comm != nullptr) comm->all_reduce_sum(context, x);
  }
  // Columns `vocab` of logits [R, vocabulary] become all columns.
  void gather(ops::OpContext& context, const Tensor& logits) const {
    if (comm != nullptr) comm->all_gather_columns(context, logits, vocab_bounds);
  }
};

// THROWS: Error naming the size and the number of ranks when a rank would be left without vocabulary or
// without a part of an expert's width. A rank without heads or without experts adds nothing to their sums.
Shard make_shard(const CommonConfig& config, const parallel::Parallel& parallel);

}  // namespace minimax::models
