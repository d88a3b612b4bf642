// Embedding, norms, linear layers and expert MLPs of every backend against the oracle, on random shapes.
#include <numeric>

#include "tests/ops/weight_formats.h"

namespace minimax::ops {
namespace {

TEST(Embedding, EqualsTheTableRowsExactly) {
  for (const DType table_dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const DType dtype : kActivations) {
      TensorMaker make(1);
      const Tensor table = make.uniform(table_dtype, {11, 37});
      const Tensor ids = make.ids({0, 10, 3, -1, 11, 3});
      const Tensor expected = make.poisoned(dtype, {6, 37});
      run_on_reference([&](OpContext& c) { embedding(c, {ids, table, expected}); });
      for (const BackendCase& backend : backend_cases()) {
        const Tensor out = make.poisoned(dtype, {6, 37});
        run_on(backend, [&](OpContext& c) { embedding(c, {ids, table, out}); });
        expect_close(out, expected, 0, backend.label);
      }
    }
  }
}

TEST(Norms, MatchTheOracle) {
  TensorMaker make(2);
  for (const int64_t rows : {0, 1, 3, 40}) {
    for (const int64_t n : {1, 7, 64, 129, 1024}) {
      for (const DType dtype : kActivations) {
        const DType weight_dtype = kActivations[make.pick(0, 1)];
        const Tensor x = make.uniform(dtype, {rows, n}, -3, 3);
        const Tensor branch = make.uniform(dtype, {rows, n}, -3, 3);
        const Tensor weight = make.uniform(weight_dtype, {n}, 0.5, 1.5);
        const auto offset = static_cast<float>(make.pick(0, 1));
        const auto outputs = [&] {
          std::vector<Tensor> t;
          for (int i = 0; i < 4; ++i) t.push_back(make.poisoned(dtype, {rows, n}));
          return t;
        };
        const auto call = [&](const std::vector<Tensor>& out) {
          return [&, out](OpContext& c) {
            rms_norm(c, {x, weight, 1e-5F, out[0], offset});
            residual_rms_norm(c, {x, branch, 3.5F, 0.5F, weight, 1e-6F, out[1], out[2], offset});
            gated_rms_norm(c, {x, branch, weight, 1e-6F, out[3]});
          };
        };
        const std::vector<Tensor> expected = outputs();
        run_on_reference(call(expected));
        for (const BackendCase& backend : backend_cases()) {
          const std::vector<Tensor> out = outputs();
          run_on(backend, call(out));
          for (size_t i = 0; i < out.size(); ++i) {
            expect_close(out[i], expected[i], tolerance(dtype),
                         fmt::format("{}: output {} of [{}, {}]", backend.label, i, rows, n));
          }
        }
      }
    }
  }
}

TEST(Norms, ResidualMayBeOverwritten) {
  TensorMaker make(3);
  for (const DType dtype : kActivations) {
    const Tensor residual = make.uniform(dtype, {5, 70});
    const Tensor branch = make.uniform(dtype, {5, 70});
    const Tensor weight = make.uniform(dtype, {70});
    const Tensor expected = make.poisoned(dtype, {5, 70});
    run_on_reference([&](OpContext& c) {
      residual_rms_norm(c, {residual, branch, 2, 1, weight, 1e-5F, {}, expected});
    });
    for (const BackendCase& backend : backend_cases()) {
      for (const bool over_residual : {true, false}) {
        const Tensor r = make.copy(residual);
        const Tensor b = make.copy(branch);
        const Tensor out = over_residual ? r : b;
        run_on(backend, [&](OpContext& c) { residual_rms_norm(c, {r, b, 2, 1, weight, 1e-5F, {}, out}); });
        expect_close(out, expected, tolerance(dtype), backend.label);
      }
    }
  }
}

bool is_8_bit(const Format& f) { return quant::activation_group(f.format) > 0; }

// One linear layer of every output dtype and precision, on every backend, against the oracle.
void check_linear(TensorMaker& make, const Format& f, DType dtype, int64_t rows, int64_t k, int64_t n,
                  int64_t padding = 3) {
  // A row stride larger than the row, as a slice of a wider tensor has.
  const Tensor x = make.uniform(dtype, {rows, k + padding}).slice(1, 0, k);
  const quant::Weight weight = make_weight(make, f, n, k);
  for (const DType out_dtype : kActivations) {
    const Activation activation = make.pick(0, 1) == 0 ? Activation::kNone : Activation::kSilu;
    for (const Precision precision : kPrecisions) {
      const Tensor expected = make.poisoned(out_dtype, {rows, n});
      run_on_reference([&](OpContext& c) {
        linear(c, {x, weight, activation, expected, oracle_precision(precision)});
      });
      const double bound =
          rounds_activations(f, precision) ? tolerance(out_dtype) : tolerance(out_dtype, precision);
      Unrounded unrounded;
      if (rounds_activations(f, precision)) {
        unrounded = {make.poisoned(out_dtype, {rows, n}), tolerance(out_dtype, precision)};
        run_on_reference([&](OpContext& c) { linear(c, {x, weight, activation, unrounded.expected}); });
      }
      for (const BackendCase& backend : product_cases()) {
        const Tensor out = make.poisoned(out_dtype, {rows, n});
        run_on(backend, [&](OpContext& c) { linear(c, {x, weight, activation, out, precision}); });
        if (unrounded.is_met(backend, out)) continue;
        expect_close(out, expected, rounds_activations(f, precision) ? rounded_bound(backend, bound) : bound,
                     fmt::format("{}: {}, precision {}, [{}, {}] x [{}, {}]", backend.label,
                                 quant::name(f.format), static_cast<int>(precision), rows, k, n, k));
      }
    }
  }
}

TEST(Linear, MatchesTheOracle) {
  TensorMaker make(4);
  const std::vector<std::array<int64_t, 3>> shapes = {
      {0, 5, 3},    {1, 1, 1},     {1, 33, 65},   {3, 100, 7},   {8, 64, 40},  {9, 31, 33},  {13, 129, 1},
      {25, 7, 100}, {70, 256, 97}, {200, 48, 16}, {1, 160, 130}, {2, 320, 45}, {5, 96, 150}, {30, 1056, 37}};
  for (const auto& [rows, k, n] : shapes) {
    for (const Format& format : kFormats) {
      if (!can_hold(format, k)) continue;
      for (const DType dtype : kActivations) check_linear(make, format, dtype, rows, k, n);
    }
  }
}

// Every number of rows that shares unpacked weights, and a stretch more than once through.
TEST(Linear, AnyFewRowsMatchTheOracle) {
  TensorMaker make(14);
  for (const Format& format : kFormats) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 32, 33})
      check_linear(make, format, DType::kF32, rows, 672, 35);
    // Whole chunks of 64 inputs, more than two stretches of them, and columns behind the last tile.
    for (const int64_t rows : {4, 6, 7, 8, 11, 16, 17, 25, 50})
      check_linear(make, format, DType::kBF16, rows, 1088, 37);
  }
}

// Rows that begin at whole vectors, in every group of them; inputs that fill whole groups of loads and that
// do not.
TEST(Linear, AlignedFewRowsMatchTheOracle) {
  TensorMaker make(48);
  std::vector<std::array<int64_t, 3>> shapes = {{2, 1056, 33}, {9, 1024, 17}};
  // Every number of vectors that a GPU's kernels take at a time.
  if (!testing::cuda_architectures().empty())
    shapes.insert(shapes.end(), {{1, 3072, 40},
                                 {4, 1088, 70},
                                 {5, 1536, 17},
                                 {8, 3072, 30},
                                 {8, 1280, 49},
                                 {9, 1024, 40},
                                 {16, 1088, 33},
                                 {17, 768, 35},
                                 {32, 1056, 37}});
  for (const auto& [rows, k, n] : shapes) {
    for (const Format& format : kFormats) {
      if (!can_hold(format, k)) continue;
      for (const DType dtype : kActivations) check_linear(make, format, dtype, rows, k, n, 8);
    }
  }
}

// Inputs and outputs enough for several stages and tiles, and for products that are cut along their inputs.
TEST(Linear, FewRowsOfManyEightBitWeightsMatchTheOracle) {
  TensorMaker make(44);
  const std::vector<std::array<int64_t, 3>> shapes = {{1, 2048, 200}, {3, 1536, 97}, {4, 256, 330},
                                                      {7, 1280, 64},  {8, 768, 129}, {13, 1024, 70},
                                                      {32, 512, 65}};
  for (const auto& [rows, k, n] : shapes) {
    for (const Format& format : kFormats) {
      if (!is_8_bit(format) || !can_hold(format, k)) continue;
      for (const DType dtype : kActivations) {
        check_linear(make, format, dtype, rows, k, n);
        // Rows at whole vectors are what rings in shared memory take.
        if (!testing::cuda_architectures().empty()) check_linear(make, format, dtype, rows, k, n, 8);
      }
    }
  }
}

// More tiles than a GPU has room for at a time.
TEST(Linear, FewRowsOfManyOutputsMatchTheOracle) {
  if (testing::cuda_architectures().empty()) GTEST_SKIP() << "no GPU";
  TensorMaker make(46);
  for (const Format& format :
       {Format{quant::WeightFormat::kFp8, {128, 128}}, Format{quant::WeightFormat::kMxfp8, {}}}) {
    check_linear(make, format, DType::kBF16, 3, 256, 20000, 8);
    check_linear(make, format, DType::kBF16, 3, 1536, 4300, 8);
  }
}

// Outputs as many as heads over a vocabulary have.
TEST(Linear, FewRowsOfVeryManyOutputsMatchTheOracle) {
  if (testing::cuda_architectures().empty()) GTEST_SKIP() << "no GPU";
  TensorMaker make(48);
  check_linear(make, {quant::WeightFormat::kBF16, {}}, DType::kF32, 3, 320, 65'600, 8);
  check_linear(make, {quant::WeightFormat::kBF16, {}}, DType::kBF16, 11, 192, 65'600, 8);
}

// What is no number stays in its row, and none is lost.
TEST(Linear, FewRowsOfEightBitWeightsKeepNanInItsRow) {
  TensorMaker make(45);
  for (const Format& format : kFormats) {
    if (!is_8_bit(format)) continue;
    const Tensor x = make.uniform(DType::kF32, {5, 512});
    x.row<float>(1)[3] = NAN;
    x.row<float>(4)[200] = INFINITY;
    const quant::Weight weight = make_weight(make, format, 200, 512);
    for (const BackendCase& backend : product_cases()) {
      for (const Precision precision : {Precision::kBF16, Precision::kFp8}) {
        const Tensor out = make.poisoned(DType::kF32, {5, 200});
        run_on(backend, [&](OpContext& c) { linear(c, {x, weight, Activation::kNone, out, precision}); });
        for (int64_t t = 0; t < 4; ++t)
          EXPECT_EQ(std::isfinite(out.row<float>(t)[11]), t != 1) << backend.label << ", row " << t;
      }
    }
  }
}

// Rows enough for tiles: odd numbers of rows and outputs, short last groups of inputs, more rows than a tile
// has.
TEST(Linear, ManyRowsOfEightBitWeightsMatchTheOracle) {
  TensorMaker make(41);
  std::vector<std::array<int64_t, 3>> shapes = {{70, 256, 97},   {129, 384, 130}, {33, 144, 40},
                                                {300, 128, 264}, {137, 160, 24},  {560, 64, 136}};
  // What the library of a GPU takes.
  if (!testing::cuda_architectures().empty()) shapes.push_back({260, 512, 144});
  for (const auto& [rows, k, n] : shapes) {
    for (const Format& format : kFormats) {
      if (!is_8_bit(format) || !can_hold(format, k)) continue;
      for (const DType dtype : kActivations) check_linear(make, format, dtype, rows, k, n);
    }
  }
}

// Products in F32 of rows enough for tensor cores, at both widths of their tiles, of numbers of every size.
TEST(Linear, ManyRowsOfPlainWeightsMatchTheOracle) {
  TensorMaker make(47);
  for (const auto& [rows, k, n] : {std::array<int64_t, 3>{530, 192, 72}, {1700, 128, 1000}, {600, 100, 40}}) {
    const Tensor x = make.uniform(DType::kF32, {rows, k + 4}, -3, 3).slice(1, 0, k);
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t i = 0; i < k; ++i)
        x.row<float>(t)[i] *= std::ldexp(1.0F, static_cast<int>((i + t) % 13) - 12);
    }
    const quant::Weight weight = make.weight(quant::WeightFormat::kF32, n, k);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t c = 0; c < k; ++c)
        weight.values.row<float>(i)[c] *= std::ldexp(1.0F, static_cast<int>(i % 40) - 39);
    }
    for (const Activation activation : {Activation::kNone, Activation::kSilu}) {
      for (const DType out_dtype : kActivations) {
        const Tensor expected = make.poisoned(out_dtype, {rows, n});
        run_on_reference([&](OpContext& c) { linear(c, {x, weight, activation, expected}); });
        for (const BackendCase& backend : product_cases()) {
          const Tensor out = make.poisoned(out_dtype, {rows, n});
          run_on(backend, [&](OpContext& c) { linear(c, {x, weight, activation, out}); });
          expect_close(out, expected, tolerance(out_dtype), fmt::format("{}: {} rows", backend.label, rows));
          // The first column's outputs are the smallest.
          double error = 0, norm = 0;
          for (int64_t t = 0; t < rows; ++t) {
            error += std::pow(element(out, t * n) - element(expected, t * n), 2);
            norm += std::pow(element(expected, t * n), 2);
          }
          EXPECT_LE(std::sqrt(error / norm), tolerance(out_dtype))
              << backend.label << ", " << rows << " rows";
        }
      }
    }
  }
}

// What is no number stays in its row.
TEST(Linear, ManyRowsOfEightBitWeightsKeepNanInItsRow) {
  TensorMaker make(43);
  for (const Format& format : kFormats) {
    if (!is_8_bit(format)) continue;
    const Tensor x = make.uniform(DType::kF32, {150, 256});
    x.row<float>(7)[3] = NAN;
    x.row<float>(140)[200] = INFINITY;
    const quant::Weight weight = make_weight(make, format, 200, 256);
    for (const BackendCase& backend : product_cases()) {
      for (const Precision precision : {Precision::kBF16, Precision::kFp8}) {
        const Tensor out = make.poisoned(DType::kF32, {150, 200});
        run_on(backend, [&](OpContext& c) { linear(c, {x, weight, Activation::kNone, out, precision}); });
        for (int64_t t = 0; t < 150; ++t) {
          if (t == 140) continue;
          EXPECT_EQ(std::isfinite(out.row<float>(t)[11]), t != 7) << backend.label << ", row " << t;
        }
      }
    }
  }
}

// Every e4m3 code but NaN, with scales near both ends of what F32 holds, picked out by rows of x that are
// zero but for one element: exact in every precision.
TEST(Linear, EveryCodeIsUnpackedExactly) {
  constexpr int64_t kInputs = 128;
  constexpr std::array<uint8_t, 9> kScales = {127, 1, 2, 3, 100, 200, 239, 240, 245};
  TensorMaker make(19);
  for (const quant::WeightFormat format : {quant::WeightFormat::kFp8, quant::WeightFormat::kMxfp8}) {
    const quant::Weight weight = make.weight(format, 256, kInputs, {256, kInputs});
    for (int64_t n = 0; n < 256; ++n) {
      for (int64_t k = 0; k < kInputs; ++k) {
        const auto code = static_cast<uint8_t>(n + 37 * k);
        weight.values.row<f8e4m3>(n)[k].bits = (code & 0x7f) == 0x7f ? uint8_t{0x38} : code;
      }
      for (int64_t i = 0; i < 4 && format == quant::WeightFormat::kMxfp8; ++i)
        weight.scales.row<uint8_t>(n)[i] = kScales[static_cast<size_t>(n + i) % kScales.size()];
    }
    if (format == quant::WeightFormat::kFp8) weight.scales.data<float>()[0] = 0.25F;
    for (const int64_t rows : {1, 3, 8, 20}) {
      const Tensor x = make.uniform(DType::kF32, {rows, kInputs}, 0, 0);
      for (int64_t t = 0; t < rows; ++t) x.row<float>(t)[(t * 19 + rows) % kInputs] = 1;
      const Tensor expected = make.poisoned(DType::kF32, {rows, 256});
      run_on_reference([&](OpContext& c) { linear(c, {x, weight, Activation::kNone, expected}); });
      for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
        for (const BackendCase& backend : product_cases()) {
          const Tensor out = make.poisoned(DType::kF32, {rows, 256});
          run_on(backend, [&](OpContext& c) { linear(c, {x, weight, Activation::kNone, out, precision}); });
          expect_close(out, expected, 0,
                       fmt::format("{}: {}, {} rows", backend.label, quant::name(format), rows));
        }
      }
    }
  }
}

// Several weights of one input, one of them narrower than a tile, beside each weight alone.
TEST(Linear, ProjectionsStandSideBySide) {
  TensorMaker make(29);
  for (const Format& format : kFormats) {
    for (const int64_t rows : {1, 5, 12, 31, 40}) {
      const Tensor x = make.uniform(DType::kF32, {rows, 192});
      Projections args{x,
                       {make_weight(make, format, 70, 192), make_weight(make, format, 5, 192),
                        make_weight(make, format, 33, 192)},
                       {}};
      for (const Precision precision : kPrecisions) {
        args.precision = oracle_precision(precision);
        const Tensor expected = args.out = make.poisoned(DType::kF32, {rows, 108});
        run_on_reference([&](OpContext& c) { projections(c, args); });
        Unrounded unrounded;
        if (rounds_activations(format, precision)) {
          unrounded = {args.out = make.poisoned(DType::kF32, {rows, 108}), tolerance(DType::kF32, precision)};
          args.precision = Precision::kF32;
          run_on_reference([&](OpContext& c) { projections(c, args); });
        }
        args.precision = precision;
        for (const BackendCase& backend : product_cases()) {
          const Tensor out = args.out = make.poisoned(DType::kF32, {rows, 108});
          run_on(backend, [&](OpContext& c) { projections(c, args); });
          if (unrounded.is_met(backend, out)) continue;
          expect_close(out, expected,
                       rounds_activations(format, precision) ? rounded_bound(backend, 1e-5)
                                                             : tolerance(DType::kF32, precision),
                       fmt::format("{}: {}, {} rows", backend.label, quant::name(format.format), rows));
        }
      }
    }
  }
}

// A slice of a fused tensor: rows of a larger matrix, from a block boundary on.
TEST(Linear, TakesRowsOfAFusedWeight) {
  TensorMaker make(15);
  const quant::Weight fused = make.weight(quant::WeightFormat::kFp8, 300, 200, {128, 128});
  const Tensor x = make.uniform(DType::kF32, {3, 200});
  const Tensor expected = make.poisoned(DType::kF32, {3, 300});
  run_on_reference([&](OpContext& c) { linear(c, {x, fused, Activation::kNone, expected}); });
  for (const BackendCase& backend : product_cases()) {
    const Tensor out = make.poisoned(DType::kF32, {3, 172});
    run_on(backend, [&](OpContext& c) { linear(c, {x, fused.rows(128, 300), Activation::kNone, out}); });
    for (int64_t t = 0; t < 3; ++t) {
      const Tensor tail = make.copy(expected.slice(0, t, t + 1).slice(1, 128, 300));
      expect_close(out.slice(0, t, t + 1), tail, 1e-5, backend.label);
    }
  }
}

TEST(Moe, RoutingMatchesTheOracle) {
  TensorMaker make(5);
  for (const int64_t rows : {0, 1, 50}) {
    for (const auto& [experts, k] : {std::pair<int64_t, int64_t>{1, 1}, {4, 2}, {32, 2}, {33, 33}}) {
      const Tensor logits = make.uniform(DType::kF32, {rows, experts}, -4, 4);
      if (rows > 0 && experts > 2)
        logits.row<float>(0)[2] = logits.row<float>(0)[1];  // a tie: the lower index first
      const auto outputs = [&] {
        return std::pair{make.copy(make.poisoned(DType::kF32, {rows, k})),
                         make.poisoned(DType::kF32, {rows, k})};
      };
      auto [expected_ids, expected_weights] = outputs();
      expected_ids = Tensor(expected_ids.raw(), DType::kI32, {rows, k});
      run_on_reference([&](OpContext& c) { route_softmax(c, {logits, expected_ids, expected_weights}); });
      for (const BackendCase& backend : backend_cases()) {
        auto [ids, weights] = outputs();
        ids = Tensor(ids.raw(), DType::kI32, {rows, k});
        run_on(backend, [&](OpContext& c) { route_softmax(c, {logits, ids, weights}); });
        expect_close(ids, expected_ids, 0, backend.label);
        expect_close(weights, expected_weights, 1e-6, backend.label);
      }
    }
  }
}

TEST(Moe, SigmoidRoutingMatchesTheOracle) {
  TensorMaker make(16);
  for (const int64_t rows : {0, 1, 50}) {
    for (const auto& [experts, k] :
         {std::pair<int64_t, int64_t>{1, 1}, {4, 2}, {256, 8}, {33, 33}, {128, 40}, {300, 70}}) {
      for (const bool has_bias : {true, false}) {
        const Tensor logits = make.uniform(DType::kF32, {rows, experts}, -4, 4);
        const Tensor bias = has_bias ? make.uniform(DType::kF32, {experts}, -0.3F, 0.3F) : Tensor();
        if (rows > 0 && experts > 2) {  // a tie: the lower index first
          logits.row<float>(0)[1] = logits.row<float>(0)[2] = 3.9F;
          if (has_bias) bias.data<float>()[1] = bias.data<float>()[2] = 0.25F;
        }
        const auto call = [&](const Tensor& ids, const Tensor& weights) {
          return [&, ids, weights](OpContext& c) { route_sigmoid(c, {logits, bias, 2.0F, ids, weights}); };
        };
        const std::vector<int32_t> unset(static_cast<size_t>(rows * k), -7);
        const Tensor expected_ids = make.ids(unset).reshape({rows, k});
        const Tensor expected_weights = make.poisoned(DType::kF32, {rows, k});
        run_on_reference(call(expected_ids, expected_weights));
        for (const BackendCase& backend : backend_cases()) {
          const Tensor ids = make.ids(unset).reshape({rows, k});
          const Tensor weights = make.poisoned(DType::kF32, {rows, k});
          run_on(backend, call(ids, weights));
          expect_close(ids, expected_ids, 0, backend.label);
          expect_close(weights, expected_weights, 1e-6, backend.label);
        }
      }
    }
  }
}

// Written out: two experts chosen by p + bias, weighed by p.
TEST(Moe, TheBiasChoosesButDoesNotWeigh) {
  TensorMaker make(17);
  const Tensor logits = make.floats({0.0F, 2.0F, -2.0F}).reshape({1, 3});
  const Tensor bias = make.floats({0.0F, -1.0F, 1.0F});
  const Tensor ids = make.ids({9, 9}).reshape({1, 2});
  const Tensor weights = make.poisoned(DType::kF32, {1, 2});
  run_on_reference([&](OpContext& c) { route_sigmoid(c, {logits, bias, 2.0F, ids, weights}); });
  EXPECT_EQ(ids.data<int32_t>()[0], 2);
  EXPECT_EQ(ids.data<int32_t>()[1], 0);
  const float p2 = 1 / (1 + std::exp(2.0F));
  EXPECT_NEAR(weights.data<float>()[0], 2 * p2 / (p2 + 0.5F), 1e-6);
  EXPECT_NEAR(weights.data<float>()[1], 2 * 0.5F / (p2 + 0.5F), 1e-6);
}

struct MoeShape {
  int64_t rows, hidden, intermediate, experts, k;
};

// A batch of rows, each with k different experts; the last choice is empty.
struct MoeInputs {
  MoeInputs(TensorMaker& make, const MoeShape& s, const Format& format, DType dtype) {
    for (int64_t e = 0; e < s.experts; ++e) {
      experts.push_back({make_weight(make, format, s.intermediate, s.hidden),
                         make_weight(make, format, s.intermediate, s.hidden),
                         make_weight(make, format, s.hidden, s.intermediate)});
    }
    std::vector<int32_t> picks;
    for (int64_t t = 0; t < s.rows; ++t) {
      std::vector<int32_t> order(static_cast<size_t>(s.experts));
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), make.rng());
      picks.insert(picks.end(), order.begin(), order.begin() + s.k);
    }
    if (!picks.empty()) picks.back() = -1;
    x = make.uniform(dtype, {s.rows, s.hidden}, -2, 2);
    ids = make.ids(picks).reshape({s.rows, s.k});
    weights = make.uniform(DType::kF32, {s.rows, s.k}, 0.1F, 1.0F);
  }

  std::vector<MlpWeights> experts;
  Tensor x;
  Tensor ids;
  Tensor weights;
};

void check_moe(TensorMaker& make, const MoeShape& s, const Format& format, DType dtype) {
  // The limit of 1 binds often with inputs this large.
  const Swiglu swiglu = make.pick(0, 1) == 0 ? Swiglu{} : Swiglu{1.702F, 1.0F, 1.0F};
  const MoeInputs in(make, s, format, dtype);
  const Tensor addend = make.uniform(dtype, {s.rows, s.hidden});
  const auto outputs = [&] {
    return std::array{make.poisoned(dtype, {s.rows, s.hidden}), make.poisoned(dtype, {s.rows, s.hidden}),
                      make.copy(addend)};
  };
  const auto call = [&](const std::array<Tensor, 3>& out, Precision precision) {
    return [&, out, precision](OpContext& c) {
      moe(c, {in.x, in.ids, in.weights, in.experts, out[0], precision, swiglu});
      mlp(c, {in.x, in.experts[0], out[1], precision, swiglu});
      mlp(c, {in.x, in.experts[0], out[2], precision, swiglu, out[2]});
    };
  };
  for (const Precision precision : kPrecisions) {
    const std::array expected = outputs();
    run_on_reference(call(expected, oracle_precision(precision)));
    // The rounded product of gate and up may fall on another side of a tie: an e4m3 step, 2^-4, of one value.
    const double bound = rounds_activations(format, precision) ? 2e-2 : 1.5 * tolerance(dtype, precision);
    std::array<Unrounded, 3> unrounded;
    if (rounds_activations(format, precision)) {
      const std::array plain = outputs();
      run_on_reference(call(plain, Precision::kF32));
      for (size_t i = 0; i < plain.size(); ++i) unrounded[i] = {plain[i], 1.5 * tolerance(dtype, precision)};
    }
    for (const BackendCase& backend : product_cases()) {
      const std::array out = outputs();
      run_on(backend, call(out, precision));
      for (size_t i = 0; i < out.size(); ++i) {
        if (unrounded[i].is_met(backend, out[i])) continue;
        expect_close(out[i], expected[i], bound,
                     fmt::format("{}: output {} of {} rows, {}, precision {}", backend.label, i, s.rows,
                                 quant::name(format.format), static_cast<int>(precision)));
      }
    }
  }
}

TEST(Moe, ExpertsMatchTheOracle) {
  TensorMaker make(6);
  for (const MoeShape& s : {MoeShape{0, 8, 8, 2, 1},
                            {1, 192, 128, 6, 4},
                            {8, 128, 192, 5, 4},
                            {9, 256, 64, 4, 4},
                            {1, 40, 24, 4, 2},
                            {7, 65, 33, 3, 3},
                            {60, 96, 32, 4, 2},
                            {1, 160, 192, 4, 3},
                            {24, 128, 192, 5, 2},
                            {130, 32, 17, 5, 1}}) {
    for (const Format& format : kFormats) {
      if (!can_hold(format, s.hidden) || !can_hold(format, s.intermediate)) continue;
      for (const DType dtype : kActivations) check_moe(make, s, format, dtype);
    }
  }
}

// Several stages of inputs for kernels that have them.
TEST(Moe, ExpertsOfSeveralStagesMatchTheOracle) {
  if (testing::cuda_architectures().empty()) GTEST_SKIP() << "no GPU";
  TensorMaker make(49);
  for (const MoeShape& s :
       {MoeShape{1, 512, 256, 9, 4}, {4, 256, 512, 9, 8}, {11, 256, 256, 6, 4}, {32, 512, 256, 6, 2}}) {
    for (const Format& format : kFormats) {
      for (const DType dtype : kActivations) check_moe(make, s, format, dtype);
    }
  }
}

// Experts with no pair, with one, and with more than a tile or a pair of tiles holds.
TEST(Moe, ManyPairsOfEightBitExpertsMatchTheOracle) {
  TensorMaker make(42);
  for (const MoeShape s : {MoeShape{130, 128, 144, 70, 1},
                           {129, 256, 128, 1, 1},
                           {150, 144, 272, 3, 2},
                           {290, 64, 48, 1, 1},
                           {600, 32, 16, 2, 1}}) {
    for (const Format& format : kFormats) {
      if (!is_8_bit(format) || !can_hold(format, s.hidden) || !can_hold(format, s.intermediate)) continue;
      for (const DType dtype : kActivations) check_moe(make, s, format, dtype);
    }
  }
}

// More tiles than a GPU has room for at a time, of one token and of several.
TEST(Moe, FewTokensOfWideEightBitExpertsMatchTheOracle) {
  if (testing::cuda_architectures().empty()) GTEST_SKIP() << "no GPU";
  TensorMaker make(47);
  for (const MoeShape s :
       {MoeShape{1, 768, 1024, 12, 9}, MoeShape{6, 512, 1280, 10, 8}, MoeShape{3, 1536, 640, 10, 8},
        MoeShape{1, 1536, 1024, 5, 4}, MoeShape{1, 768, 1024, 4, 2}}) {
    for (const Format& format :
         {Format{quant::WeightFormat::kFp8, {128, 128}}, Format{quant::WeightFormat::kMxfp8, {}}})
      check_moe(make, s, format, DType::kBF16);
  }
}

TEST(Moe, SharedExpertIsMixedByItsCoefficient) {
  TensorMaker make(7);
  for (const DType dtype : kActivations) {
    const Tensor routed = make.uniform(dtype, {9, 50});
    const Tensor shared = make.uniform(dtype, {9, 50});
    const Tensor coefficient = make.uniform(DType::kF32, {9, 1}, -3, 3);
    const Tensor expected = make.poisoned(dtype, {9, 50});
    run_on_reference([&](OpContext& c) { mix_shared(c, {routed, shared, coefficient, expected}); });
    for (const BackendCase& backend : backend_cases()) {
      const Tensor out = make.poisoned(dtype, {9, 50});
      run_on(backend, [&](OpContext& c) { mix_shared(c, {routed, shared, coefficient, out}); });
      expect_close(out, expected, tolerance(dtype), backend.label);
    }
  }
}

TEST(Doors, NameTheTensorAndBothShapes) {
  TensorMaker make(8);
  const Tensor x = make.uniform(DType::kF32, {2, 5});
  const Tensor out = make.poisoned(DType::kF32, {2, 4});
  const quant::Weight weight = make.weight(quant::WeightFormat::kBF16, 4, 6);
  try {
    run_on_reference([&](OpContext& c) { linear(c, {x, weight, Activation::kNone, out}); });
    FAIL() << "a mis-shaped weight was accepted";
  } catch (const InternalError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("[2, 5]"), std::string::npos) << message;
    EXPECT_NE(message.find("expects input 6"), std::string::npos) << message;
  }
}

TEST(Doors, RefuseAScaleGridThatDoesNotFit) {
  TensorMaker make(18);
  const Tensor x = make.uniform(DType::kF32, {2, 256});
  const Tensor out = make.poisoned(DType::kF32, {2, 128});
  quant::Weight weight = make.weight(quant::WeightFormat::kFp8, 128, 256, {128, 128});
  weight.scales = weight.scales.slice(1, 0, 1);
  EXPECT_THROW(run_on_reference([&](OpContext& c) {
                 linear(c, {x, weight, Activation::kNone, out});
               }),
               InternalError);
  weight.block_columns = 0;
  EXPECT_THROW(run_on_reference([&](OpContext& c) {
                 linear(c, {x, weight, Activation::kNone, out});
               }),
               InternalError);
}

TEST(Doors, RefuseABufferWhoseScopeHasEnded) {
  TensorMaker make(9);
  const auto backend = make_reference_backend();
  Arena plan;
  OpContext context{*backend, plan, nullptr};
  Tensor stale;
  {
    Arena::Scope scope(plan);
    stale = plan.tensor("stale", DType::kF32, {2, 4});
  }
  const Tensor weight = make.uniform(DType::kF32, {4});
  const Tensor out = make.poisoned(DType::kF32, {2, 4});
  EXPECT_THROW(rms_norm(context, {stale, weight, 1e-5F, out}), InternalError);
}

}  // namespace
}  // namespace minimax::ops
