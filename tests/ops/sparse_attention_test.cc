// Block scores, choice of blocks and block-sparse attention of every backend against the oracle.
#include <cstring>

#include "tests/ops/paged_batch.h"

namespace minimax::ops {
namespace {

// Ragged prefill from the start, a continued chunk, decode; blocks of one token to 128; padding rows always.
const std::vector<PagedCase>& paged_cases() {
  static const std::vector<PagedCase> cases = {
      {1, 1, 8, 4, {1}, {1}},
      {4, 2, 24, 4, {5, 1, 0, 3}, {5, 40, 7, 70}},
      {12, 3, 128, 16, {1, 1, 1}, {1, 200, 65}},
      {16, 4, 128, 128, {1, 1}, {1500, 128}},
      {32, 2, 20, 8, {9, 1}, {100, 333}},
      {8, 2, 64, 128, {130}, {600}},
      {6, 2, 20, 1, {17, 33}, {17, 100}},
      {40, 1, 16, 8, {3, 40}, {9, 90}},
      {4, 2, 8, 1, {3, 1}, {700, 1100}},
      {2, 1, 8, 1, {2, 3}, {5000, 900}},
  };
  return cases;
}

// MiniMax-M3's shapes: decode with mixed lengths and sequences that ask nothing, prompts from the start and
// over cached tokens, more blocks than are chosen.
const std::vector<PagedCase>& m3_cases() {
  static const std::vector<PagedCase> cases = {
      {64, 4, 128, 128, {1, 1, 0, 1}, {2500, 130, 70, 1}}, {64, 4, 128, 128, {1}, {4097}},
      {32, 2, 128, 128, {1, 9, 40}, {300, 9, 1000}},       {16, 1, 128, 128, {1, 1}, {900, 40}},
      {64, 4, 128, 128, {1, 20, 5}, {300, 20, 2500}},
  };
  return cases;
}
// Rows enough that CUDA brings those which chose the same block together.
const std::vector<PagedCase>& prompt_cases() {
  static const std::vector<PagedCase> cases = {
      {16, 1, 128, 128, {200}, {2700}},
      {32, 2, 128, 128, {1, 110, 100}, {2200, 110, 900}},
  };
  return cases;
}

// Makes what lies behind the sequences' ends in their last pages no number: reading it must not matter.
template <typename Case>
void poison_tails(const Case& p, const Tensor& block_table, const Tensor& cache) {
  const int64_t row = cache.numel() / (cache.dim(0) * cache.dim(1));
  for (int64_t b = 0; b < block_table.dim(0); ++b) {
    const int64_t length = p.seq_lens[static_cast<size_t>(b)];
    for (int64_t i = length; i % p.page_size != 0; ++i) {
      const int64_t slot = block_table.row<int32_t>(b)[i / p.page_size] * p.page_size + i % p.page_size;
      const int64_t bytes = row * size_of(cache.dtype());
      std::memset(static_cast<std::byte*>(cache.raw()) + slot * bytes, 0xff, static_cast<size_t>(bytes));
    }
  }
}

std::vector<PagedCase> with(const std::vector<PagedCase>& cases, const std::vector<PagedCase>& more) {
  std::vector<PagedCase> all = cases;
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::string describe(const BackendCase& backend, const PagedCase& p) {
  return fmt::format("{}: {} heads over {} of {}, blocks of {}", backend.label, p.heads, p.kv_heads,
                     p.head_dim, p.page_size);
}

// The same infinities in both, and close elsewhere.
void expect_close_scores(TensorMaker& make, const Tensor& out, const Tensor& expected, double bound,
                         const std::string& what) {
  const Tensor a = make.copy(out);
  const Tensor b = make.copy(expected);
  for (int64_t i = 0; i < a.numel(); ++i) {
    if (!std::isinf(b.data<float>()[i])) continue;
    ASSERT_EQ(a.data<float>()[i], b.data<float>()[i]) << what << ": element " << i;
    a.data<float>()[i] = b.data<float>()[i] = 0;
  }
  expect_close(a, b, bound, what);
}

TEST(IndexBlockScores, MatchesTheOracle) {
  TensorMaker make(20);
  const std::pair<DType, DType> dtypes[] = {{DType::kF32, DType::kF32},       {DType::kBF16, DType::kBF16},
                                            {DType::kF8E4M3, DType::kF8E4M3}, {DType::kF32, DType::kBF16},
                                            {DType::kBF16, DType::kF8E4M3},   {DType::kF8E4M3, DType::kF32},
                                            {DType::kF8E4M3, DType::kBF16}};
  for (const PagedCase& p : with(paged_cases(), m3_cases())) {
    for (const auto& [q_dtype, cache] : dtypes) {
      const PagedBatch batch(make, p, DType::kF32, cache);
      const Tensor index_q = make.uniform(q_dtype, {batch.rows, p.kv_heads, p.head_dim}, -2, 2);
      const Tensor index_cache = make.uniform(cache, {batch.pages, p.page_size, p.head_dim}, -2, 2);
      poison_tails(p, batch.block_table, index_cache);
      const auto call = [&](const Tensor& scores) {
        return [&, scores](OpContext& c) {
          index_block_scores(
              c, {index_q, index_cache, batch.block_table, batch.query_starts, batch.seq_lens, scores});
        };
      };
      const auto poisoned = [&] {
        return make.poisoned(DType::kF32, {batch.rows, p.kv_heads, batch.block_table.dim(1)});
      };
      const Tensor expected = poisoned();
      run_on_reference(call(expected));
      for (const BackendCase& backend : backend_cases()) {
        const Tensor scores = poisoned();
        run_on(backend, call(scores));
        expect_close_scores(make, scores, expected, 1e-6,
                            fmt::format("{}, {} and {}", describe(backend, p), name(q_dtype), name(cache)));
      }
    }
  }
}

// What one call of select_blocks chooses, on the oracle.
Tensor select_on_reference(TensorMaker& make, const PagedBatch& batch, const PagedCase& p,
                           const Tensor& scores, int64_t k, int64_t init_blocks, int64_t local_blocks) {
  const Tensor selection = make.poisoned_ids({batch.rows, p.kv_heads, k});
  run_on_reference([&](OpContext& c) {
    select_blocks(
        c, {scores, p.page_size, batch.query_starts, batch.seq_lens, init_blocks, local_blocks, selection});
  });
  return selection;
}

void expect_same_ids(const Tensor& out, const Tensor& expected, const std::string& what) {
  for (int64_t i = 0; i < out.numel(); ++i) {
    ASSERT_EQ(out.data<int32_t>()[i], expected.data<int32_t>()[i]) << what << ": element " << i;
  }
}

struct Choice {
  int64_t k, init_blocks, local_blocks;
};

TEST(SelectBlocks, ChoosesTheOraclesBlocks) {
  TensorMaker make(21);
  const Choice choices[] = {{1, 0, 0}, {4, 0, 1}, {3, 2, 2}, {16, 1, 1}, {40, 0, 3}, {5, 9, 9}, {2, 0, 5}};
  for (const PagedCase& p : paged_cases()) {
    const PagedBatch batch(make, p, DType::kF32, DType::kF32);
    // Few different values make ties; some are no numbers, some infinite.
    const Tensor scores = make.uniform(DType::kF32, {batch.rows, p.kv_heads, batch.block_table.dim(1)});
    for (int64_t i = 0; i < scores.numel(); ++i) {
      float& x = scores.data<float>()[i];
      x = std::round(x * 4);
      if (make.pick(0, 9) == 0) x = NAN;
      if (make.pick(0, 19) == 0) x = -INFINITY;
    }
    for (const Choice& choice : choices) {
      const Tensor expected =
          select_on_reference(make, batch, p, scores, choice.k, choice.init_blocks, choice.local_blocks);
      for (const BackendCase& backend : backend_cases()) {
        const Tensor selection = make.poisoned_ids({batch.rows, p.kv_heads, choice.k});
        run_on(backend, [&](OpContext& c) {
          select_blocks(c, {scores, p.page_size, batch.query_starts, batch.seq_lens, choice.init_blocks,
                            choice.local_blocks, selection});
        });
        expect_same_ids(selection, expected,
                        fmt::format("{}, {} of which {} and {}", describe(backend, p), choice.k,
                                    choice.init_blocks, choice.local_blocks));
      }
    }
  }
}

TEST(SelectBlocks, ForcesTheFirstAndNewestAndTakesTheLowestOfEqualBlocks) {
  TensorMaker make(22);
  const Tensor scores = make.floats({1, 7, 7, 7, 9, NAN, 0, 0, 5, 5}).reshape({1, 1, 10});
  const auto choose = [&](int32_t seq_len, int64_t k, int64_t init_blocks, int64_t local_blocks) {
    const Tensor selection = make.poisoned_ids({1, 1, k});
    run_on({"", "auto", 1, true}, [&](OpContext& c) {
      select_blocks(c,
                    {scores, 4, make.ids({0, 1}), make.ids({seq_len}), init_blocks, local_blocks, selection});
    });
    return std::vector<int32_t>(selection.data<int32_t>(), selection.data<int32_t>() + k);
  };
  EXPECT_EQ(choose(40, 3, 0, 0), (std::vector<int32_t>{1, 2, 4}));
  EXPECT_EQ(choose(40, 3, 1, 1), (std::vector<int32_t>{0, 4, 9}));
  EXPECT_EQ(choose(24, 3, 0, 1), (std::vector<int32_t>{1, 4, 5})) << "the newest block, though NaN";
  EXPECT_EQ(choose(40, 2, 1, 2), (std::vector<int32_t>{0, 9})) << "forced blocks count within k";
  EXPECT_EQ(choose(8, 4, 0, 1), (std::vector<int32_t>{0, 1, -1, -1}));
  EXPECT_EQ(choose(9, 2, 0, 1), (std::vector<int32_t>{1, 2})) << "position 8 begins block 2";
}

TEST(SparsePagedAttention, MatchesTheOracle) {
  TensorMaker make(23);
  for (const PagedCase& p : paged_cases()) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const DType cache : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
        const PagedBatch batch(make, p, dtype, cache);
        const Tensor scores = make.uniform(DType::kF32, {batch.rows, p.kv_heads, batch.block_table.dim(1)});
        for (const Choice& choice : {Choice{1, 0, 1}, {4, 0, 1}, {7, 1, 2}}) {
          const Tensor selection =
              select_on_reference(make, batch, p, scores, choice.k, choice.init_blocks, choice.local_blocks);
          const auto call = [&](const Tensor& out) {
            return [&, out](OpContext& c) {
              sparse_paged_attention(c, {batch.q, batch.k_cache, batch.v_cache, batch.block_table,
                                         batch.query_starts, batch.seq_lens, selection, batch.scale, out});
            };
          };
          const Tensor expected = batch.poisoned_out(make);
          run_on_reference(call(expected));
          for (const BackendCase& backend : backend_cases()) {
            const Tensor out = batch.poisoned_out(make);
            run_on(backend, call(out));
            expect_close(out, expected, tolerance(dtype),
                         fmt::format("{}, {} cache, {} chosen", describe(backend, p), name(cache), choice.k));
          }
        }
      }
    }
  }
}

// What a call of sparse_paged_attention gives on every backend, for a choice that differs from row to row.
void expect_oracles_attention(TensorMaker& make, const PagedCase& p, DType cache, const Choice& choice) {
  const PagedBatch batch(make, p, DType::kBF16, cache);
  poison_tails(p, batch.block_table, batch.k_cache);
  poison_tails(p, batch.block_table, batch.v_cache);
  const Tensor scores = make.uniform(DType::kF32, {batch.rows, p.kv_heads, batch.block_table.dim(1)});
  const Tensor selection =
      select_on_reference(make, batch, p, scores, choice.k, choice.init_blocks, choice.local_blocks);
  const auto call = [&](const Tensor& out) {
    return [&, out](OpContext& c) {
      sparse_paged_attention(c, {batch.q, batch.k_cache, batch.v_cache, batch.block_table, batch.query_starts,
                                 batch.seq_lens, selection, batch.scale, out});
    };
  };
  const Tensor expected = batch.poisoned_out(make);
  run_on_reference(call(expected));
  for (const BackendCase& backend : backend_cases()) {
    const Tensor out = batch.poisoned_out(make);
    run_on(backend, call(out));
    expect_close(out, expected, tolerance(DType::kBF16),
                 fmt::format("{}, {} cache, {} chosen", describe(backend, p), name(cache), choice.k));
  }
}

TEST(SparsePagedAttention, MatchesTheOracleAtM3sShapes) {
  TensorMaker make(25);
  for (const PagedCase& p : m3_cases()) {
    for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
      for (const Choice& choice : {Choice{16, 0, 1}, {3, 1, 1}})
        expect_oracles_attention(make, p, cache, choice);
    }
  }
  for (const PagedCase& p : prompt_cases()) {
    for (const DType cache : {DType::kBF16, DType::kF8E4M3})
      expect_oracles_attention(make, p, cache, {3, 0, 1});
  }
}

TEST(SparsePagedAttention, EqualsDenseAttentionWhenEveryBlockIsChosen) {
  TensorMaker make(24);
  for (const PagedCase& p : paged_cases()) {
    const PagedBatch batch(make, p, DType::kF32, DType::kBF16);
    const Tensor scores = make.uniform(DType::kF32, {batch.rows, p.kv_heads, batch.block_table.dim(1)});
    const Tensor selection = select_on_reference(make, batch, p, scores, batch.block_table.dim(1), 0, 1);
    for (const BackendCase& backend : backend_cases()) {
      const Tensor sparse = batch.poisoned_out(make);
      const Tensor dense = batch.poisoned_out(make);
      run_on(backend, [&](OpContext& c) {
        sparse_paged_attention(c, {batch.q, batch.k_cache, batch.v_cache, batch.block_table,
                                   batch.query_starts, batch.seq_lens, selection, batch.scale, sparse});
        paged_attention(c, {batch.q, batch.k_cache, batch.v_cache, batch.block_table, batch.query_starts,
                            batch.seq_lens, batch.scale, dense});
      });
      expect_close(sparse, dense, 1e-6, describe(backend, p));
    }
  }
}

}  // namespace
}  // namespace minimax::ops
