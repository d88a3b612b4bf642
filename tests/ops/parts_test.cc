// What ops do on a rank's part of a model: parts of weights cut anywhere, experts and rows of other ranks,
// norms over a width of which there is a part here, and ranks that hold nothing.
#include "tests/ops/weight_formats.h"

namespace minimax::ops {
namespace {

constexpr int64_t kOut = 300;
constexpr int64_t kIn = 416;

void check_part(TensorMaker& make, const Format& f, const quant::Weight& weight, DType dtype, int64_t rows,
                Precision precision) {
  const Tensor x = make.uniform(dtype, {rows, weight.in_features() + 1}).slice(1, 0, weight.in_features());
  const Tensor expected = make.poisoned(DType::kF32, {rows, weight.out_features()});
  run_on_reference([&](OpContext& c) {
    linear(c, {x, weight, Activation::kNone, expected, oracle_precision(precision)});
  });
  const double bound =
      rounds_activations(f, precision) ? tolerance(DType::kF32) : tolerance(DType::kF32, precision);
  Unrounded unrounded;
  if (rounds_activations(f, precision)) {
    unrounded = {make.poisoned(DType::kF32, {rows, weight.out_features()}),
                 tolerance(DType::kF32, precision)};
    run_on_reference([&](OpContext& c) { linear(c, {x, weight, Activation::kNone, unrounded.expected}); });
  }
  for (const BackendCase& backend : backend_cases()) {
    const Tensor out = make.poisoned(DType::kF32, {rows, weight.out_features()});
    run_on(backend, [&](OpContext& c) { linear(c, {x, weight, Activation::kNone, out, precision}); });
    if (unrounded.is_met(backend, out)) continue;
    expect_close(out, expected, rounds_activations(f, precision) ? rounded_bound(backend, bound) : bound,
                 fmt::format("{}: {} in blocks of {} x {}, {} rows, {} columns, {} into a block",
                             backend.label, quant::name(f.format), weight.block_rows, weight.block_columns,
                             rows, weight.in_features(), weight.column_offset));
  }
}

TEST(Parts, LinearTakesRowsAndColumnsCutAnywhere) {
  TensorMaker make(31);
  const std::pair<Range, Range> cuts[] = {
      {{0, kOut}, {5, 133}},    // odd, over a block
      {{37, 171}, {0, kIn}},    // rows inside blocks
      {{128, 133}, {64, 256}},  // half a block, then whole ones
      {{100, 131}, {192, 384}}, {{7, 40}, {32, 112}}, {{280, kOut}, {415, kIn}}, {{60, 70}, {96, 104}},
  };
  for (const Format& f : kFormats) {
    const quant::Weight weight = make_weight(make, f, kOut, kIn);
    for (const auto& [rows, columns] : cuts) {
      for (const int64_t tokens : {1, 3, 40}) {
        for (const Precision precision : kPrecisions) {
          check_part(make, f, weight.part(rows, columns), kActivations[make.pick(0, 1)], tokens, precision);
        }
      }
    }
  }
}

// A rank without heads: nothing to sum over, or nothing to compute.
TEST(Parts, LinearWithoutInputsIsZeroAndWithoutOutputsNothing) {
  TensorMaker make(32);
  for (const Format& f : kFormats) {
    const quant::Weight weight = make_weight(make, f, 33, 64);
    for (const int64_t rows : {1, 50}) {
      for (const BackendCase& backend : backend_cases()) {
        const Tensor out = make.poisoned(DType::kF32, {rows, 33});
        const Tensor x = make.uniform(DType::kF32, {rows, 64});
        run_on(backend, [&](OpContext& c) {
          linear(c, {x.slice(1, 0, 0), weight.part({0, 33}, {64, 64}), Activation::kNone, out});
          linear(c, {x, weight.rows(5, 5), Activation::kNone, out.slice(1, 0, 0)});
        });
        for (int64_t i = 0; i < out.numel(); ++i) EXPECT_EQ(out.data<float>()[i], 0) << backend.label;
      }
    }
  }
}

struct ExpertParts {
  std::vector<MlpWeights> experts;
  int64_t first_expert;
};

// Experts [2, 5) of six, width [40, 72) of 96.
ExpertParts expert_parts(TensorMaker& make, const Format& f) {
  ExpertParts parts{{}, 2};
  const Range width = {40, 72};
  for (int64_t e = 0; e < 3; ++e) {
    parts.experts.push_back({make_weight(make, f, 96, 64).rows(width.begin, width.end),
                             make_weight(make, f, 96, 64).rows(width.begin, width.end),
                             make_weight(make, f, 64, 96).part({0, 64}, width)});
  }
  return parts;
}

TEST(Parts, MoeRunsTheExpertsThatAreHere) {
  TensorMaker make(33);
  for (const Format& f : kFormats) {
    const ExpertParts parts = expert_parts(make, f);
    for (const int64_t rows : {1, 5, 60}) {
      const DType dtype = kActivations[make.pick(0, 1)];
      const Tensor x = make.uniform(dtype, {rows, 64}, -2, 2);
      const Tensor weights = make.uniform(DType::kF32, {rows, 3}, 0.1F, 1.0F);
      std::vector<int32_t> picks;
      for (int64_t i = 0; i < 3 * rows; ++i) picks.push_back(static_cast<int32_t>(make.pick(-1, 5)));
      const Tensor ids = make.ids(picks).reshape({rows, 3});
      const auto call = [&](std::span<const MlpWeights> experts, const Tensor& out) {
        return [=](OpContext& c) {
          moe(c, {x, ids, weights, experts, out, Precision::kF32, {}, parts.first_expert});
        };
      };
      const Tensor expected = make.poisoned(dtype, {rows, 64});
      run_on_reference(call(parts.experts, expected));
      for (const BackendCase& backend : backend_cases()) {
        const Tensor out = make.poisoned(dtype, {rows, 64});
        run_on(backend, call(parts.experts, out));
        expect_close(out, expected, 1.5 * tolerance(dtype), backend.label);
        const Tensor nothing = make.poisoned(dtype, {rows, 64});
        run_on(backend, call({}, nothing));
        expect_close(nothing, make.uniform(dtype, {rows, 64}, 0, 0), 0, backend.label + ", no experts");
      }
    }
  }
}

// An id of this rank alone, of another, and of none.
TEST(Parts, MoeGivesZeroWhereNoChosenExpertIsHere) {
  TensorMaker make(34);
  const ExpertParts parts = expert_parts(make, kFormats[0]);
  const Tensor x = make.uniform(DType::kF32, {3, 64});
  const Tensor ids = make.ids({2, 1, 5}).reshape({3, 1});
  const Tensor weights = make.uniform(DType::kF32, {3, 1}, 1, 1);
  for (const BackendCase& backend : backend_cases()) {
    const Tensor out = make.poisoned(DType::kF32, {3, 64});
    run_on(backend, [&](OpContext& c) {
      moe(c, {x, ids, weights, parts.experts, out, Precision::kF32, {}, parts.first_expert});
    });
    EXPECT_NE(out.row<float>(0)[0], 0) << backend.label;
    for (int64_t i = 64; i < 3 * 64; ++i) EXPECT_EQ(out.data<float>()[i], 0) << backend.label;
  }
}

TEST(Parts, EmbeddingLooksUpTheRowsThatAreHere) {
  TensorMaker make(35);
  const Tensor table = make.uniform(DType::kBF16, {20, 37});
  const Tensor ids = make.ids({4, 5, 9, 10, -1, 19});
  const Tensor all = make.poisoned(DType::kF32, {6, 37});
  run_on_reference([&](OpContext& c) { embedding(c, {ids, table, all}); });
  const Tensor expected = make.poisoned(DType::kF32, {6, 37});
  run_on_reference([&](OpContext& c) { embedding(c, {ids, table.slice(0, 5, 10), expected, 5}); });
  for (int64_t t = 0; t < 6; ++t) {
    const bool is_here = t == 1 || t == 2;
    for (int64_t j = 0; j < 37; ++j) EXPECT_EQ(expected.row<float>(t)[j], is_here ? all.row<float>(t)[j] : 0);
  }
  for (const BackendCase& backend : backend_cases()) {
    const Tensor out = make.poisoned(DType::kF32, {6, 37});
    run_on(backend, [&](OpContext& c) { embedding(c, {ids, table.slice(0, 5, 10), out, 5}); });
    expect_close(out, expected, 0, backend.label);
  }
}

TEST(Parts, SumsOfSquaresMatchTheOracle) {
  TensorMaker make(36);
  for (const int64_t n : {0, 1, 37, 1024}) {
    for (const DType dtype : kActivations) {
      const Tensor x = make.uniform(dtype, {5, n + 3}, -3, 3).slice(1, 0, n);
      const Tensor expected = make.poisoned(DType::kF32, {5, 2});
      run_on_reference([&](OpContext& c) { sum_of_squares(c, {x, expected.slice(1, 1, 2)}); });
      for (const BackendCase& backend : backend_cases()) {
        const Tensor out = make.poisoned(DType::kF32, {5, 2});
        run_on(backend, [&](OpContext& c) { sum_of_squares(c, {x, out.slice(1, 1, 2)}); });
        expect_close(out, expected, 1e-5, backend.label);  // the column beside stays as it was
      }
    }
  }
}

// Two parts with the sum of both equal the whole.
TEST(Parts, GatedNormTakesTheSumOverAWiderWidth) {
  TensorMaker make(37);
  for (const DType dtype : kActivations) {
    const Tensor x = make.uniform(dtype, {7, 130}, -3, 3);
    const Tensor gate = make.uniform(dtype, {7, 130}, -3, 3);
    const Tensor weight = make.uniform(dtype, {130}, 0.5, 1.5);
    const Tensor whole = make.poisoned(dtype, {7, 130});
    run_on_reference([&](OpContext& c) { gated_rms_norm(c, {x, gate, weight, 1e-6F, whole}); });
    const auto call = [&](const Tensor& out) {
      return [&, out](OpContext& c) {
        const Tensor squares = make.poisoned(DType::kF32, {7, 1});
        sum_of_squares(c, {x, squares});
        for (const Range part : {Range{0, 33}, {33, 130}, {130, 130}}) {
          const auto columns = [&](const Tensor& t) { return t.slice(1, part.begin, part.end); };
          gated_rms_norm(c, {columns(x), columns(gate), weight.slice(0, part.begin, part.end), 1e-6F,
                             columns(out), squares, 130});
        }
      };
    };
    const Tensor expected = make.poisoned(dtype, {7, 130});
    run_on_reference(call(expected));
    expect_close(expected, whole, tolerance(dtype), "the oracle's parts");
    for (const BackendCase& backend : backend_cases()) {
      const Tensor out = make.poisoned(dtype, {7, 130});
      run_on(backend, call(out));
      expect_close(out, expected, tolerance(dtype), backend.label);
    }
  }
}

// Rows of six query heads and three KV heads, of which calls take some.
struct QkvRows {
  static constexpr int64_t kDim = 20;
  static constexpr int64_t kRows = 4;
  Tensor q, k, v, q_norm, k_norm, positions, inv_freq, slots;

  QkvRows(TensorMaker& make, DType dtype)
      : q(make.uniform(dtype, {kRows, 6 * kDim}, -3, 3)),
        k(make.uniform(dtype, {kRows, 3 * kDim}, -3, 3)),
        v(make.uniform(dtype, {kRows, 3 * kDim}, -3, 3)),
        q_norm(make.uniform(dtype, {6 * kDim})),
        k_norm(make.uniform(dtype, {3 * kDim})),
        positions(make.ids({0, 1, 77, 99'999})),
        inv_freq(make.uniform(DType::kF32, {7}, 0, 1)),
        slots(make.longs({3, -1, 0, 2})) {}

  // The op on some heads, with outputs of their own.
  QkNormRopeKvWrite write(TensorMaker& make, Range heads, Range kv_heads) const {
    const Range q_columns = heads.scaled(kDim);
    const Range kv_columns = kv_heads.scaled(kDim);
    QkNormRopeKvWrite args{};
    args.qkv = make.poisoned(q.dtype(), {kRows, q_columns.size() + 2 * kv_columns.size()});
    copy_columns(q, q_columns, args.qkv, 0);
    copy_columns(k, kv_columns, args.qkv, q_columns.size());
    copy_columns(v, kv_columns, args.qkv, q_columns.size() + kv_columns.size());
    args.q_norm = q_norm.slice(0, q_columns.begin, q_columns.end);
    args.k_norm = k_norm.slice(0, kv_columns.begin, kv_columns.end);
    args.eps = 1e-6F;
    args.positions = positions;
    args.inv_freq = inv_freq;
    args.slot_mapping = slots;
    args.q_out = make.poisoned(q.dtype(), {kRows, heads.size(), kDim});
    args.k_cache = make.uniform(DType::kF32, {1, kRows, kv_heads.size(), kDim}, 0, 0);
    args.v_cache = make.uniform(DType::kF32, {1, kRows, kv_heads.size(), kDim}, 0, 0);
    return args;
  }

  static void copy_columns(const Tensor& from, Range columns, const Tensor& to, int64_t first) {
    const int64_t element = size_of(from.dtype());
    for (int64_t t = 0; t < kRows; ++t) {
      std::memcpy(static_cast<std::byte*>(to.raw()) + (t * to.stride(0) + first) * element,
                  static_cast<std::byte*>(from.raw()) + (t * from.stride(0) + columns.begin) * element,
                  static_cast<size_t>(columns.size() * element));
    }
  }
};

// Query heads [2, 4) of six with the second of three KV heads, norms over all of them.
TEST(Parts, QkNormTakesTheSumsOverAllHeads) {
  TensorMaker make(38);
  constexpr int64_t kDim = QkvRows::kDim;
  for (const DType dtype : kActivations) {
    const QkvRows rows(make, dtype);
    const auto write_part = [&] {
      QkNormRopeKvWrite args = rows.write(make, {2, 4}, {1, 2});
      args.squares = make.poisoned(DType::kF32, {QkvRows::kRows, 2});
      args.q_norm_width = 6 * kDim;
      args.k_norm_width = 3 * kDim;
      return args;
    };
    const auto call = [&](const QkNormRopeKvWrite& args) {
      return [&rows, args](OpContext& c) {
        sum_of_squares(c, {rows.q, args.squares.slice(1, 0, 1)});
        sum_of_squares(c, {rows.k, args.squares.slice(1, 1, 2)});
        qk_norm_rope_kv_write(c, args);
      };
    };
    const QkNormRopeKvWrite whole = rows.write(make, {0, 6}, {0, 3});
    run_on_reference([&](OpContext& c) { qk_norm_rope_kv_write(c, whole); });
    const QkNormRopeKvWrite expected = write_part();
    run_on_reference(call(expected));
    for (int64_t t = 0; t < QkvRows::kRows; ++t) {
      for (int64_t i = 0; i < 2 * kDim; ++i)
        EXPECT_NEAR(element(expected.q_out, t * 2 * kDim + i), element(whole.q_out, (t * 6 + 2) * kDim + i),
                    dtype == DType::kF32 ? 1e-5 : 2e-2);
      for (int64_t i = 0; i < kDim; ++i)
        EXPECT_NEAR(element(expected.k_cache, t * kDim + i), element(whole.k_cache, (t * 3 + 1) * kDim + i),
                    1e-5);
    }
    for (const BackendCase& backend : backend_cases()) {
      const QkNormRopeKvWrite out = write_part();
      run_on(backend, call(out));
      expect_close(out.q_out, expected.q_out, tolerance(dtype), backend.label);
      expect_close(out.k_cache, expected.k_cache, 1e-5, backend.label + ", k");
      expect_close(out.v_cache, expected.v_cache, 0, backend.label + ", v");
    }
  }
}

}  // namespace
}  // namespace minimax::ops
