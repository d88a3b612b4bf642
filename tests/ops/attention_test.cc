// Rotary embedding, paged attention and lightning attention of every backend against the oracle.
#include "tests/ops/paged_batch.h"

namespace minimax::ops {
namespace {

constexpr DType kActivations[] = {DType::kF32, DType::kBF16};
constexpr DType kCaches[] = {DType::kF32, DType::kBF16, DType::kF8E4M3};

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
        run_on(backend, [&](OpContext& c) {
          if (!c.arena.is_planning()) rope(c, {out, positions, inv_freq});
        });
        expect_close(out, expected, tolerance(dtype), backend.label);
      }
    }
  }
}

void expect_paged_attention(TensorMaker& make, const std::vector<PagedCase>& cases);

TEST(PagedAttention, MatchesTheOracle) {
  TensorMaker make(2);
  expect_paged_attention(
      make, {
                {1, 1, 8, 4, {1}, {1}},
                {4, 2, 24, 16, {5, 1, 0, 3}, {5, 40, 7, 70}},
                {12, 3, 128, 16, {1, 1, 1}, {1, 200, 65}},
                {8, 1, 64, 128, {130}, {130}},
                {6, 2, 20, 1, {17, 33}, {17, 100}},
                {80, 1, 16, 8, {3}, {9}},
                {14, 2, 136, 32, {20, 1}, {900, 1700}},
                // Prompts of several tiles, behind cached tokens and without.
                {12, 2, 128, 32, {150, 1, 40}, {500, 300, 40}},
                // Decode steps with padded slots: keys split over blocks, groups of heads
                // wider than a tile.
                {12, 2, 128, 64, {1, 0, 1, 1, 0, 0}, {300, 5, 1000, 64, 9, 7}},
                {40, 2, 128, 16, {1, 1, 0, 0, 0}, {1, 700, 1, 1, 1}},
                {16, 8, 64, 32, {0, 1, 0, 0, 1, 1, 0}, {3, 130, 1, 1, 65, 64, 9}},
                // Sequences of several rows beside others of none; more than a warp looks at
                // at once.
                {6, 1, 128, 64, {5, 0, 0, 1, 0, 3, 0, 0, 0, 0}, {700, 3, 9, 2, 1, 65, 1, 1, 1, 1}},
                {4, 2, 128, 48, std::vector<int32_t>(40, 1), std::vector<int32_t>(40, 150)},
            });
}

TEST(PagedAttention, MatchesTheOracleOverMoreKeysThanSplitsOfTheShortestKind) {
  TensorMaker make(12);
  expect_paged_attention(make, {{2, 1, 8, 64, {1}, {140'000}}});
}

void expect_paged_attention(TensorMaker& make, const std::vector<PagedCase>& cases) {
  for (const PagedCase& p : cases) {
    for (const DType dtype : kActivations) {
      for (const DType cache : kCaches) {
        const PagedBatch batch(make, p, dtype, cache);
        const auto call = [&](const Tensor& out) {
          return [&, out](OpContext& c) {
            paged_attention(c, {batch.q, batch.k_cache, batch.v_cache, batch.block_table, batch.query_starts,
                                batch.seq_lens, batch.scale, out});
          };
        };
        const Tensor expected = batch.poisoned_out(make);
        run_on_reference(call(expected));
        for (const BackendCase& backend : backend_cases()) {
          const Tensor out = batch.poisoned_out(make);
          run_on(backend, call(out));
          // Weights and result are rounded: over the sixteen outputs of the longest case both may be in full.
          const bool is_longest = dtype == DType::kBF16 && p.seq_lens.front() > 100'000;
          expect_close(
              out, expected, is_longest ? 0x1p-8 : tolerance(dtype),
              fmt::format("{}: {} heads of {}, {} cache", backend.label, p.heads, p.head_dim, name(cache)));
        }
      }
    }
  }
}

// Bit for bit: neither what else is in the batch nor the number of threads may change a token.
TEST(PagedAttention, ASequenceGivesTheSameInAnyBatchOnAnyNumberOfThreads) {
  TensorMaker make(11);
  for (const DType cache : kCaches) {
    PagedCase p = {8, 4, 64, 16, {}, {}};
    for (int b = 0; b < 9; ++b) {
      p.query_lens.push_back(1);
      p.seq_lens.push_back(static_cast<int32_t>(make.pick(1, 4000)));
    }
    const PagedBatch batch(make, p, DType::kBF16, cache);
    const auto attend = [&](int threads, int64_t first, int64_t count) {
      const Tensor out = make.poisoned(DType::kBF16, {count, p.heads, p.head_dim});
      std::vector<int32_t> starts(static_cast<size_t>(count) + 1);
      std::iota(starts.begin(), starts.end(), 0);
      run_on({"", "auto", threads, true}, [&](OpContext& c) {
        paged_attention(c, {batch.q.slice(0, first, first + count), batch.k_cache, batch.v_cache,
                            batch.block_table.slice(0, first, first + count), make.ids(starts),
                            batch.seq_lens.slice(0, first, first + count), batch.scale, out});
      });
      return out;
    };
    const Tensor together = attend(1, 0, 9);
    expect_close(attend(3, 0, 9), together, 0, "three threads");
    for (int64_t b = 0; b < 9; ++b) {
      expect_close(attend(2, b, 1), together.slice(0, b, b + 1), 0, fmt::format("sequence {} alone", b));
    }
  }
}

TEST(PagedKvWrite, WritesItsSlotsAndNoOthers) {
  TensorMaker make(3);
  for (const DType dtype : kActivations) {
    for (const DType cache : kCaches) {
      // Keys and values as strided slices of one fused projection; beyond 448 F8_E4M3 saturates.
      const Tensor fused = make.uniform(dtype, {4, 2 * 3 * 10}, -600, 600);
      const Tensor k = fused.slice(1, 0, 30).split_last(3, 10);
      const Tensor v = fused.slice(1, 30, 60).split_last(3, 10);
      const Tensor slots = make.longs({7, -1, 0, 11});
      const Tensor start = make.uniform(cache, {3, 4, 3, 10});
      const Tensor expected_k = make.copy(start);
      const Tensor expected_v = make.copy(start);
      run_on_reference([&](OpContext& c) { paged_kv_write(c, {k, v, slots, expected_k, expected_v}); });
      for (const BackendCase& backend : backend_cases()) {
        const Tensor out_k = make.copy(start);
        const Tensor out_v = make.copy(start);
        run_on(backend, [&](OpContext& c) { paged_kv_write(c, {k, v, slots, out_k, out_v}); });
        expect_close(out_k, expected_k, 0, backend.label);
        expect_close(out_v, expected_v, 0, backend.label);
      }
    }
  }
}

// Every F8_E4M3 value, the ties between them, and what saturates or is no number.
TEST(PagedKvWrite, RoundsToE4m3AsTheScalarConversionDoes) {
  TensorMaker make(8);
  std::vector<float> values = {0.0F, -0.0F, 0x1p-10F, 0x1.8p-10F, 448.0F, 464.0F, -1e30F, INFINITY, NAN};
  for (int bits = 0; bits < 0x7e; ++bits) {
    const float low = to_float(f8e4m3{static_cast<uint8_t>(bits)});
    const float high = to_float(f8e4m3{static_cast<uint8_t>(bits + 1)});
    for (const float x : {low, (low + high) / 2, 0.75F * low + 0.25F * high}) {
      values.push_back(x);
      values.push_back(-x);
    }
  }
  const auto n = static_cast<int64_t>(values.size());
  const Tensor x = make.floats(values).reshape({1, 1, n});
  for (const BackendCase& backend : backend_cases()) {
    const Tensor k = make.poisoned(DType::kF8E4M3, {1, 1, 1, n});
    const Tensor v = make.poisoned(DType::kF8E4M3, {1, 1, 1, n});
    run_on(backend, [&](OpContext& c) { paged_kv_write(c, {x, x, make.longs({0}), k, v}); });
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(k.data<f8e4m3>()[i].bits, to_e4m3(values[static_cast<size_t>(i)]).bits)
          << backend.label << ": " << values[static_cast<size_t>(i)];
    }
  }
}

struct QkvCase {
  int64_t heads, kv_heads, head_dim, half, index_heads, index_dim;
  bool is_flat;         // norms over the flattened width
  int64_t rows = 5;     // at least 5
  int64_t padding = 3;  // numbers between rows
};

struct QkvOutputs {
  Tensor q, index_q, k_cache, v_cache, index_cache;
};

// Poisoned queries, caches of zeros, so that a write to a wrong slot shows.
QkvOutputs make_outputs(TensorMaker& make, const QkvCase& s, DType q, DType index, DType cache) {
  const int64_t pages = s.rows / 4 + 4;
  QkvOutputs out;
  out.q = make.poisoned(q, {s.rows, s.heads, s.head_dim});
  out.k_cache = make.uniform(cache, {pages, 4, s.kv_heads, s.head_dim}, 0, 0);
  out.v_cache = make.uniform(cache, {pages, 4, s.kv_heads, s.head_dim}, 0, 0);
  if (s.index_heads > 0) {
    out.index_q = make.poisoned(index, {s.rows, s.index_heads, s.index_dim});
    out.index_cache = make.uniform(index, {pages, 4, s.index_dim}, 0, 0);
  }
  return out;
}

TEST(QkNormRopeKvWrite, MatchesTheOracle) {
  TensorMaker make(9);
  const std::vector<QkvCase> cases = {{1, 1, 2, 1, 0, 0, false},
                                      {6, 2, 20, 7, 0, 0, true},
                                      {8, 2, 128, 32, 0, 0, true},
                                      {8, 4, 128, 32, 4, 128, false},
                                      {3, 3, 24, 12, 2, 40, false},
                                      // Dense rows, in every way that heads are spread over threads.
                                      {48, 8, 128, 32, 0, 0, true, 5, 0},
                                      {30, 3, 128, 64, 0, 0, true, 7, 8},
                                      {12, 2, 128, 16, 2, 128, false, 6, 16},
                                      {10, 5, 128, 32, 0, 0, true, 70, 0},
                                      {9, 3, 128, 8, 3, 128, false, 66, 0}};
  for (const QkvCase& s : cases) {
    for (const DType dtype : kActivations) {
      for (const DType cache : kCaches) {
        const DType weight = cache == DType::kF32 ? DType::kF32 : DType::kBF16;
        const int64_t width = (s.heads + 2 * s.kv_heads) * s.head_dim +
                              (s.index_heads > 0 ? (s.index_heads + 1) * s.index_dim : 0);
        const Tensor qkv = make.uniform(dtype, {s.rows, width + s.padding}, -3, 3).slice(1, 0, width);
        const Tensor q_norm = make.uniform(weight, {s.is_flat ? s.heads * s.head_dim : s.head_dim});
        const Tensor k_norm = make.uniform(weight, {s.is_flat ? s.kv_heads * s.head_dim : s.head_dim});
        const Tensor index_q_norm = s.index_heads > 0 ? make.uniform(weight, {s.index_dim}) : Tensor();
        const Tensor index_k_norm = s.index_heads > 0 ? make.uniform(weight, {s.index_dim}) : Tensor();
        std::vector<int32_t> position = {0, 1, 77, 99'999, 1'000'000};
        std::vector<int64_t> slot = {7, -1, 0, 11, 4};
        for (int64_t t = 5; t < s.rows; ++t) {
          position.push_back(static_cast<int32_t>(t * t));
          slot.push_back(t + 7);
        }
        const Tensor positions = make.ids(position);
        const Tensor inv_freq = make.uniform(DType::kF32, {s.half}, 0, 1);
        const Tensor slots = make.longs(slot);
        const float offset = s.is_flat ? 0.0F : 1.0F;
        const auto call = [&](const QkvOutputs& out) {
          return [&, out](OpContext& c) {
            qk_norm_rope_kv_write(
                c, {qkv, q_norm, k_norm, index_q_norm, index_k_norm, offset, 1e-6F, positions, inv_freq,
                    slots, out.q, out.index_q, out.k_cache, out.v_cache, out.index_cache});
          };
        };
        const QkvOutputs expected = make_outputs(make, s, dtype, cache, cache);
        run_on_reference(call(expected));
        for (const BackendCase& backend : backend_cases()) {
          const QkvOutputs out = make_outputs(make, s, dtype, cache, cache);
          run_on(backend, call(out));
          const std::string what = fmt::format("{}: {} heads of {}", backend.label, s.heads, s.head_dim);
          expect_close(out.q, expected.q, tolerance(dtype), what);
          expect_close(out.k_cache, expected.k_cache, tolerance(cache), what + ", k");
          expect_close(out.v_cache, expected.v_cache, 0, what + ", v");
          if (s.index_heads == 0) continue;
          expect_close(out.index_q, expected.index_q, tolerance(cache), what + ", index q");
          expect_close(out.index_cache, expected.index_cache, tolerance(cache), what + ", index k");
        }
      }
    }
  }
}

TEST(QkNormRopeKvWrite, RefusesWhatDoesNotFit) {
  TensorMaker make(10);
  const QkvCase s = {4, 2, 8, 2, 0, 0, false};
  const QkvOutputs out = make_outputs(make, s, DType::kF32, DType::kF32, DType::kF32);
  QkNormRopeKvWrite args{make.uniform(DType::kF32, {5, 64}),
                         make.uniform(DType::kF32, {8}),
                         make.uniform(DType::kF32, {8}),
                         {},
                         {},
                         0,
                         1e-6F,
                         make.ids({0, 1, 2, 3, 4}),
                         make.uniform(DType::kF32, {2}),
                         make.longs({0, 1, 2, 3, 4}),
                         out.q,
                         {},
                         out.k_cache,
                         out.v_cache,
                         {}};
  EXPECT_NO_THROW(args.check());
  args.k_norm = make.uniform(DType::kF32, {24});
  EXPECT_THROW(args.check(), InternalError);
  args.k_norm = args.q_norm;
  args.index_q_norm = args.q_norm;
  EXPECT_THROW(args.check(), InternalError) << "half an indexer";
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
        run_on(backend, call(state, out));
        const std::string what = fmt::format("{}: {} heads of {}", backend.label, l.heads, l.head_dim);
        expect_close(out, expected, tolerance(dtype), what);
        expect_close(state, expected_state, 1e-5, what + ", state");
      }
    }
  }
}

TEST(LightningPrefill, LeavesTheStateAtCheckpoints) {
  TensorMaker make(8);
  struct Case {
    int64_t heads, head_dim;
    std::vector<int32_t> lengths;
    std::vector<std::vector<int32_t>> rows;  // of each sequence's checkpoints
  };
  constexpr int32_t kNever = INT32_MAX;
  const std::vector<Case> cases = {
      {3, 20, {5, 0, 64}, {{2, 5, kNever}, {1, 2, 3}, {1, 63, 64}}},
      {2, 64, {255, 1, 130}, {{64, 65, 192}, {1, kNever, kNever}, {127, 129, 131}}},
      // Few heads: long sequences are cut into segments.
      {1, 128, {1500, 700}, {{1, 511, 512, 513, 1000, 1499}, {512, 576, 640, 690, 700, kNever}}},
  };
  for (const Case& l : cases) {
    for (const DType dtype : kActivations) {
      std::vector<int32_t> starts = {0}, read, write, checkpoint_rows, checkpoint_slots;
      for (const int32_t n : l.lengths) starts.push_back(starts.back() + n);
      const auto sequences = static_cast<int32_t>(l.lengths.size());
      const auto checkpoints = static_cast<int32_t>(l.rows.front().size());
      int32_t slots = 2 * sequences;
      for (int32_t b = 0; b < sequences; ++b) {
        read.push_back(b % 2 == 0 ? b : -1);
        write.push_back(b == 1 ? -1 : b + sequences);
        for (int32_t i = 0; i < checkpoints; ++i) {
          checkpoint_rows.push_back(l.rows[static_cast<size_t>(b)][static_cast<size_t>(i)]);
          // One in five leaves nothing.
          checkpoint_slots.push_back((b * checkpoints + i) % 5 == 3 ? -1 : slots++);
        }
      }
      const int64_t rows = starts.back() + 2;
      const Tensor q = make.uniform(dtype, {rows, l.heads, l.head_dim});
      const Tensor k = make.uniform(dtype, {rows, l.heads, l.head_dim});
      const Tensor v = make.uniform(dtype, {rows, l.heads, l.head_dim});
      const Tensor decay = make.uniform(DType::kF32, {l.heads}, 0.0F, 0.1F);
      const Tensor start = make.uniform(DType::kF32, {slots, l.heads, l.head_dim, l.head_dim});
      const Tensor at = make.ids(checkpoint_rows).reshape({sequences, checkpoints});
      const Tensor to = make.ids(checkpoint_slots).reshape({sequences, checkpoints});
      const auto call = [&](const Tensor& state, const Tensor& out) {
        return [&, state, out](OpContext& c) {
          lightning_prefill(
              c, {q, k, v, decay, state, make.ids(read), make.ids(write), make.ids(starts), out, at, to});
        };
      };
      const Tensor expected_state = make.copy(start);
      const Tensor expected = make.poisoned(dtype, {rows, l.heads, l.head_dim});
      run_on_reference(call(expected_state, expected));
      for (const BackendCase& backend : backend_cases()) {
        const Tensor state = make.copy(start);
        const Tensor out = make.poisoned(dtype, {rows, l.heads, l.head_dim});
        run_on(backend, call(state, out));
        const std::string what = fmt::format("{}: {} heads of {}", backend.label, l.heads, l.head_dim);
        expect_close(out, expected, tolerance(dtype), what);
        for (int64_t slot = 0; slot < slots; ++slot)
          expect_close(state.slice(0, slot, slot + 1), expected_state.slice(0, slot, slot + 1), 1e-5,
                       fmt::format("{}, slot {}", what, slot));
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
      run_on({"", "auto", 2, true}, [&](OpContext& c) {
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
        run_on(backend, call(state, out));
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
  run_on({"", "auto", 2, true}, [&](OpContext& c) {
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
