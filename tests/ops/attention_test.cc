// Rotary embedding, paged attention and lightning attention of every backend against the oracle.
#include <numeric>

#include "tests/ops/op_test.h"

namespace minimax::ops {
namespace {

constexpr DType kActivations[] = {DType::kF32, DType::kBF16};

TEST(Rope, MatchesTheOracle) {
  TensorMaker make(1);
  for (const DType dtype : kActivations) {
    for (const auto& [heads, head_dim, half] : {std::array<int64_t, 3>{1, 2, 1}, {3, 24, 7}, {8, 128, 32}}) {
      const Tensor x = make.uniform(dtype, {5, heads, head_dim});
      const Tensor positions = make.ids({0, 1, 600, 99'999, 1'000'000});
      const Tensor inv_freq = make.uniform(DType::kF32, {half}, 0, 1);
      const Tensor expected = make.copy(x);
      run_on_reference([&](OpContext& c) { rope(c, {expected, positions, inv_freq}); });
      for (const BackendCase& backend : backend_cases()) {
        const Tensor out = make.copy(x);
        run_on_cpu(backend, [&](OpContext& c) {
          if (!c.arena.is_planning()) rope(c, {out, positions, inv_freq});
        });
        expect_close(out, expected, tolerance(dtype), backend.label);
      }
    }
  }
}

struct PagedCase {
  int64_t heads, kv_heads, head_dim, page_size;
  std::vector<int32_t> query_lens;
  std::vector<int32_t> seq_lens;
};

TEST(PagedAttention, MatchesTheOracle) {
  TensorMaker make(2);
  const std::vector<PagedCase> cases = {
      {1, 1, 8, 4, {1}, {1}},
      {4, 2, 24, 16, {5, 1, 0, 3}, {5, 40, 7, 70}},
      {12, 3, 128, 16, {1, 1, 1}, {1, 200, 65}},
      {8, 1, 64, 128, {130}, {130}},
      {6, 2, 20, 1, {17, 33}, {17, 100}},
      {80, 1, 16, 8, {3}, {9}},
  };
  for (const PagedCase& p : cases) {
    for (const DType dtype : kActivations) {
      const auto num_seqs = static_cast<int64_t>(p.seq_lens.size());
      int64_t max_pages = 1;
      int64_t pages = 0;
      std::vector<int32_t> starts = {0};
      for (int64_t b = 0; b < num_seqs; ++b) {
        const int64_t needed = (p.seq_lens[b] + p.page_size - 1) / p.page_size;
        max_pages = std::max(max_pages, needed);
        pages += needed;
        starts.push_back(starts.back() + p.query_lens[b]);
      }
      // Pages in random order, unused table entries invalid: reading one would crash or differ.
      std::vector<int32_t> order(static_cast<size_t>(pages));
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), make.rng());
      std::vector<int32_t> table(static_cast<size_t>(num_seqs * max_pages), -1'000'000);
      size_t next = 0;
      for (int64_t b = 0; b < num_seqs; ++b) {
        for (int64_t i = 0; i * p.page_size < p.seq_lens[b]; ++i) table[b * max_pages + i] = order[next++];
      }
      const int64_t rows = starts.back() + 2;  // two padding rows
      const Tensor q = make.uniform(dtype, {rows, p.heads, p.head_dim}, -2, 2);
      const Tensor k_cache = make.uniform(dtype, {pages, p.page_size, p.kv_heads, p.head_dim}, -2, 2);
      const Tensor v_cache = make.uniform(dtype, {pages, p.page_size, p.kv_heads, p.head_dim});
      const Tensor block_table = make.ids(table).reshape({num_seqs, max_pages});
      const Tensor query_starts = make.ids(starts);
      const Tensor seq_lens = make.ids(p.seq_lens);
      const float scale = 1.0F / std::sqrt(static_cast<float>(p.head_dim));
      const auto call = [&](const Tensor& out) {
        return [&, out](OpContext& c) {
          paged_attention(c, {q, k_cache, v_cache, block_table, query_starts, seq_lens, scale, out});
        };
      };
      const Tensor expected = make.poisoned(dtype, {rows, p.heads, p.head_dim});
      run_on_reference(call(expected));
      for (const BackendCase& backend : backend_cases()) {
        const Tensor out = make.poisoned(dtype, {rows, p.heads, p.head_dim});
        run_on_cpu(backend, call(out));
        expect_close(out, expected, tolerance(dtype),
                     fmt::format("{}: {} heads of {}", backend.label, p.heads, p.head_dim));
      }
    }
  }
}

TEST(PagedKvWrite, WritesItsSlotsAndNoOthers) {
  TensorMaker make(3);
  for (const DType dtype : kActivations) {
    // Keys and values as strided slices of one fused projection.
    const Tensor fused = make.uniform(dtype, {4, 2 * 3 * 10});
    const Tensor k = fused.slice(1, 0, 30).split_last(3, 10);
    const Tensor v = fused.slice(1, 30, 60).split_last(3, 10);
    const Tensor slots = make.longs({7, -1, 0, 11});
    const Tensor start = make.uniform(dtype, {3, 4, 3, 10});
    const Tensor expected_k = make.copy(start);
    const Tensor expected_v = make.copy(start);
    run_on_reference([&](OpContext& c) { paged_kv_write(c, {k, v, slots, expected_k, expected_v}); });
    for (const BackendCase& backend : backend_cases()) {
      const Tensor out_k = make.copy(start);
      const Tensor out_v = make.copy(start);
      run_on_cpu(backend, [&](OpContext& c) { paged_kv_write(c, {k, v, slots, out_k, out_v}); });
      expect_close(out_k, expected_k, 0, backend.label);
      expect_close(out_v, expected_v, 0, backend.label);
    }
  }
}

struct LightningCase {
  int64_t heads, head_dim;
  std::vector<int32_t> lengths;
};

TEST(LightningPrefill, MatchesTheRecurrence) {
  TensorMaker make(4);
  const std::vector<LightningCase> cases = {
      {1, 1, {1}}, {3, 20, {5, 0, 64}}, {12, 24, {65, 1}}, {2, 64, {255, 256, 257}}, {1, 128, {700}},
  };
  for (const LightningCase& l : cases) {
    for (const DType dtype : kActivations) {
      std::vector<int32_t> starts = {0};
      for (const int32_t n : l.lengths) starts.push_back(starts.back() + n);
      const int64_t rows = starts.back() + 3;
      // q, k, v interleaved per head, as the fused projection leaves them.
      const Tensor qkv = make.uniform(dtype, {rows, l.heads * 3 * l.head_dim});
      const Tensor heads = qkv.split_last(l.heads, 3 * l.head_dim);
      const Tensor q = heads.slice(2, 0, l.head_dim);
      const Tensor k = heads.slice(2, l.head_dim, 2 * l.head_dim);
      const Tensor v = heads.slice(2, 2 * l.head_dim, 3 * l.head_dim);
      const Tensor decay = make.uniform(DType::kF32, {l.heads}, 0.0F, 0.95F);
      const auto num_seqs = static_cast<int64_t>(l.lengths.size());
      std::vector<int32_t> read;
      std::vector<int32_t> write;
      for (int64_t b = 0; b < num_seqs; ++b) {
        read.push_back(b % 2 == 0 ? -1 : static_cast<int32_t>(b));
        write.push_back(b == 2 ? -1 : static_cast<int32_t>(b + num_seqs));
      }
      const Tensor start = make.uniform(DType::kF32, {2 * num_seqs, l.heads, l.head_dim, l.head_dim});
      const auto call = [&](const Tensor& state, const Tensor& out) {
        return [&, state, out](OpContext& c) {
          lightning_prefill(c,
                            {q, k, v, decay, state, make.ids(read), make.ids(write), make.ids(starts), out});
        };
      };
      const Tensor expected_state = make.copy(start);
      const Tensor expected = make.poisoned(dtype, {rows, l.heads, l.head_dim});
      run_on_reference(call(expected_state, expected));
      for (const BackendCase& backend : backend_cases()) {
        const Tensor state = make.copy(start);
        const Tensor out = make.poisoned(dtype, {rows, l.heads, l.head_dim});
        run_on_cpu(backend, call(state, out));
        const std::string what = fmt::format("{}: {} heads of {}", backend.label, l.heads, l.head_dim);
        expect_close(out, expected, tolerance(dtype), what);
        expect_close(state, expected_state, 1e-5, what + ", state");
      }
    }
  }
}

TEST(LightningPrefill, AnyChunkSplitGivesTheSame) {
  TensorMaker make(5);
  constexpr int64_t kTokens = 333;
  const Tensor q = make.uniform(DType::kF32, {kTokens, 2, 32});
  const Tensor k = make.uniform(DType::kF32, {kTokens, 2, 32});
  const Tensor v = make.uniform(DType::kF32, {kTokens, 2, 32});
  const Tensor decay = make.floats({0.9F, 0.003F});
  const auto run_split = [&](const std::vector<int64_t>& cuts, const Tensor& state, const Tensor& out) {
    int64_t begin = 0;
    for (const int64_t end : cuts) {
      run_on_cpu({"", "auto", 2, true}, [&](OpContext& c) {
        lightning_prefill(c, {q.slice(0, begin, end), k.slice(0, begin, end), v.slice(0, begin, end), decay,
                              state, make.ids({begin == 0 ? -1 : 0}), make.ids({0}),
                              make.ids({0, static_cast<int32_t>(end - begin)}), out.slice(0, begin, end)});
      });
      begin = end;
    }
  };
  const Tensor whole_state = make.poisoned(DType::kF32, {1, 2, 32, 32});
  const Tensor whole = make.poisoned(DType::kF32, {kTokens, 2, 32});
  run_split({kTokens}, whole_state, whole);
  const Tensor state = make.poisoned(DType::kF32, {1, 2, 32, 32});
  const Tensor out = make.poisoned(DType::kF32, {kTokens, 2, 32});
  run_split({1, 63, 64, 130, 332, kTokens}, state, out);
  expect_close(out, whole, 1e-6, "chunked output");
  expect_close(state, whole_state, 1e-6, "chunked state");
}

TEST(LightningDecode, MatchesTheRecurrenceAndLeavesPaddingAlone) {
  TensorMaker make(6);
  for (const auto& [heads, head_dim] :
       {std::pair<int64_t, int64_t>{1, 1}, {3, 20}, {12, 24}, {2, 64}, {1, 128}}) {
    for (const DType dtype : kActivations) {
      const Tensor q = make.uniform(dtype, {4, heads, head_dim});
      const Tensor k = make.uniform(dtype, {4, heads, head_dim});
      const Tensor v = make.uniform(dtype, {4, heads, head_dim});
      const Tensor decay = make.uniform(DType::kF32, {heads}, 0.0F, 0.95F);
      const Tensor start = make.uniform(DType::kF32, {6, heads, head_dim, head_dim});
      const Tensor read = make.ids({2, -1, 0, 5});
      const Tensor write = make.ids({2, 3, 1, -1});
      const auto call = [&](const Tensor& state, const Tensor& out) {
        return [&, state, out](OpContext& c) {
          if (!c.arena.is_planning()) lightning_decode(c, {q, k, v, decay, state, read, write, out});
        };
      };
      const Tensor expected_state = make.copy(start);
      const Tensor expected = make.poisoned(dtype, {4, heads, head_dim});
      run_on_reference(call(expected_state, expected));
      for (const BackendCase& backend : backend_cases()) {
        const Tensor state = make.copy(start);
        const Tensor out = make.poisoned(dtype, {4, heads, head_dim});
        run_on_cpu(backend, call(state, out));
        expect_close(out, expected, tolerance(dtype), backend.label);
        expect_close(state, expected_state, 1e-6, backend.label + ", state");
      }
    }
  }
}

// One layer's op at small width over a million tokens.
TEST(LightningPrefill, AMillionTokensAgreeWithTheRecurrenceAtSampledPositions) {
  constexpr int64_t kTokens = 1'000'000;
  constexpr int64_t kHeads = 2;
  constexpr int64_t kDim = 8;
  TensorMaker make(7);
  const Tensor q = make.uniform(DType::kF32, {kTokens, kHeads, kDim});
  const Tensor k = make.uniform(DType::kF32, {kTokens, kHeads, kDim});
  const Tensor v = make.uniform(DType::kF32, {kTokens, kHeads, kDim});
  const Tensor decay = make.floats({0.5F, 1e-5F});
  const Tensor state = make.poisoned(DType::kF32, {1, kHeads, kDim, kDim});
  const Tensor out = make.poisoned(DType::kF32, {kTokens, kHeads, kDim});
  run_on_cpu({"", "auto", 2, true}, [&](OpContext& c) {
    lightning_prefill(c, {q, k, v, decay, state, make.ids({-1}), make.ids({0}), make.ids({0, kTokens}), out});
  });

  std::vector<double> s(kHeads * kDim * kDim);
  double error = 0;
  double norm = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    const bool sampled = t % 99'991 == 0 || t == kTokens - 1;
    for (int64_t h = 0; h < kHeads; ++h) {
      const double factor = std::exp(-static_cast<double>(decay.data<float>()[h]));
      for (int64_t j = 0; j < kDim; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < kDim; ++i) {
          double& x = s[(h * kDim + i) * kDim + j];
          x = factor * x + double{k.row<float>(t)[h * kDim + i]} * double{v.row<float>(t)[h * kDim + j]};
          sum += double{q.row<float>(t)[h * kDim + i]} * x;
        }
        if (!sampled) continue;
        const double difference = double{out.row<float>(t)[h * kDim + j]} - sum;
        error += difference * difference;
        norm += sum * sum;
      }
    }
  }
  EXPECT_LE(std::sqrt(error / norm), 1e-4);
}

}  // namespace
}  // namespace minimax::ops
