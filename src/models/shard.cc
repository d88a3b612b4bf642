#include "models/shard.h"

#include "core/error.h"

namespace minimax::models {
namespace {

// As many 8-bit weights as a vector register unpacks, and a divisor of every block that shares scales.
constexpr int64_t kWidthUnit = 64;

void expect_one_each(std::string_view what, int64_t n, int64_t ranks) {
  if (n < ranks) fail("{} {} cannot be cut over {} ranks; use {} at most", n, what, ranks, n);
}

ExpertCut cut_experts(const CommonConfig& config, const parallel::Grid& grid) {
  // A single expert is a dense MLP, which all ranks share.
  const bool is_dense = config.num_experts == 1;
  const int64_t ranks = is_dense ? grid.size() : grid.tensor_size;
  const int64_t rank = is_dense ? grid.rank : grid.tensor_rank();
  expect_one_each("columns of an expert", config.intermediate_size, ranks);
  const Range experts =
      is_dense ? Range{0, 1} : parallel::split(config.num_experts, grid.expert_size, grid.expert_rank());
  return {config.num_experts, experts,
          parallel::split_units(config.intermediate_size, ranks, rank, kWidthUnit)};
}

}  // namespace

Range Shard::width(int64_t n) const {
  expect_one_each("columns of an MLP", n, grid.size());
  return parallel::split_units(n, grid.size(), grid.rank, kWidthUnit);
}

Shard make_shard(const CommonConfig& config, const parallel::Parallel& parallel) {
  const parallel::Grid& grid = parallel.grid;
  if (grid.tensor_size < 1 || grid.expert_size < 1 || grid.rank < 0 || grid.rank >= grid.size())
    fail("rank {} of {} x {} ranks does not exist", grid.rank, grid.tensor_size, grid.expert_size);
  Shard shard;
  shard.grid = grid;
  if (grid.size() > 1 && parallel.comm != nullptr) {
    shard.comm = parallel.comm;
    MM_CHECK(shard.comm->size() == grid.size() && shard.comm->rank() == grid.rank,
             "rank {} of {} talks as rank {} of {}", grid.rank, grid.size(), shard.comm->rank(),
             shard.comm->size());
  }
  expect_one_each("rows of the vocabulary", config.vocab_size, grid.size());
  shard.vocab = parallel::split(config.vocab_size, grid.size(), grid.rank);
  shard.vocab_bounds = parallel::split_bounds(config.vocab_size, grid.size());
  shard.heads = parallel::split_heads(config.num_heads, config.num_kv_heads, grid.size(), grid.rank);
  shard.experts = cut_experts(config, grid);
  return shard;
}

}  // namespace minimax::models
