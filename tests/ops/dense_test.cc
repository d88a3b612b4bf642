// Embedding, norms, linear layers and expert MLPs of every backend against the oracle, on random shapes.
#include <numeric>

#include "tests/ops/op_test.h"

namespace minimax::ops {
namespace {

constexpr DType kActivations[] = {DType::kF32, DType::kBF16};

TEST(Embedding, EqualsTheTableRowsExactly) {
  for (const DType table_dtype : kActivations) {
    for (const DType dtype : kActivations) {
      TensorMaker make(1);
      const Tensor table = make.uniform(table_dtype, {11, 37});
      const Tensor ids = make.ids({0, 10, 3, -1, 11, 3});
      const Tensor expected = make.poisoned(dtype, {6, 37});
      run_on_reference([&](OpContext& c) { embedding(c, {ids, table, expected}); });
      for (const BackendCase& backend : backend_cases()) {
        const Tensor out = make.poisoned(dtype, {6, 37});
        run_on_cpu(backend, [&](OpContext& c) { embedding(c, {ids, table, out}); });
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
        const auto outputs = [&] {
          std::vector<Tensor> t;
          for (int i = 0; i < 4; ++i) t.push_back(make.poisoned(dtype, {rows, n}));
          return t;
        };
        const auto call = [&](const std::vector<Tensor>& out) {
          return [&, out](OpContext& c) {
            rms_norm(c, {x, weight, 1e-5F, out[0]});
            residual_rms_norm(c, {x, branch, 3.5F, 0.5F, weight, 1e-6F, out[1], out[2]});
            gated_rms_norm(c, {x, branch, weight, 1e-6F, out[3]});
          };
        };
        const std::vector<Tensor> expected = outputs();
        run_on_reference(call(expected));
        for (const BackendCase& backend : backend_cases()) {
          const std::vector<Tensor> out = outputs();
          run_on_cpu(backend, call(out));
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
        run_on_cpu(backend, [&](OpContext& c) {
          residual_rms_norm(c, {r, b, 2, 1, weight, 1e-5F, {}, out});
        });
        expect_close(out, expected, tolerance(dtype), backend.label);
      }
    }
  }
}

TEST(Linear, MatchesTheOracle) {
  TensorMaker make(4);
  const std::vector<std::array<int64_t, 3>> shapes = {{0, 5, 3},     {1, 1, 1},    {1, 33, 65},  {3, 100, 7},
                                                      {8, 64, 40},   {9, 31, 33},  {13, 129, 1}, {25, 7, 100},
                                                      {70, 256, 97}, {200, 48, 16}};
  for (const auto& [rows, k, n] : shapes) {
    for (const DType dtype : kActivations) {
      for (const DType weight_dtype : kActivations) {
        for (const DType out_dtype : kActivations) {
          // A row stride larger than the row, as a slice of a wider tensor has.
          const Tensor x = make.uniform(dtype, {rows, k + 3}).slice(1, 0, k);
          const quant::Weight weight = make.weight(weight_dtype, n, k);
          const Activation activation = make.pick(0, 1) == 0 ? Activation::kNone : Activation::kSilu;
          const Tensor expected = make.poisoned(out_dtype, {rows, n});
          run_on_reference([&](OpContext& c) { linear(c, {x, weight, activation, expected}); });
          for (const BackendCase& backend : backend_cases()) {
            const Tensor out = make.poisoned(out_dtype, {rows, n});
            run_on_cpu(backend, [&](OpContext& c) { linear(c, {x, weight, activation, out}); });
            expect_close(out, expected, tolerance(out_dtype),
                         fmt::format("{}: [{}, {}] x [{}, {}]", backend.label, rows, k, n, k));
          }
        }
      }
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
        run_on_cpu(backend, [&](OpContext& c) { route_softmax(c, {logits, ids, weights}); });
        expect_close(ids, expected_ids, 0, backend.label);
        expect_close(weights, expected_weights, 1e-6, backend.label);
      }
    }
  }
}

TEST(Moe, ExpertsMatchTheOracle) {
  TensorMaker make(6);
  struct Shape {
    int64_t rows, hidden, intermediate, experts, k;
  };
  for (const Shape s : {Shape{0, 8, 8, 2, 1},
                        {1, 40, 24, 4, 2},
                        {7, 65, 33, 3, 3},
                        {60, 96, 50, 4, 2},
                        {130, 32, 17, 5, 1}}) {
    for (const DType dtype : kActivations) {
      for (const DType weight_dtype : kActivations) {
        std::vector<MlpWeights> experts;
        for (int64_t e = 0; e < s.experts; ++e) {
          experts.push_back({make.weight(weight_dtype, s.intermediate, s.hidden),
                             make.weight(weight_dtype, s.intermediate, s.hidden),
                             make.weight(weight_dtype, s.hidden, s.intermediate)});
        }
        std::vector<int32_t> picks;
        for (int64_t t = 0; t < s.rows; ++t) {
          std::vector<int32_t> order(static_cast<size_t>(s.experts));
          std::iota(order.begin(), order.end(), 0);
          std::shuffle(order.begin(), order.end(), make.rng());
          picks.insert(picks.end(), order.begin(), order.begin() + s.k);
        }
        if (!picks.empty()) picks.back() = -1;
        const Tensor x = make.uniform(dtype, {s.rows, s.hidden});
        const Tensor ids = make.ids(picks).reshape({s.rows, s.k});
        const Tensor weights = make.uniform(DType::kF32, {s.rows, s.k}, 0.1F, 1.0F);
        const auto call = [&](const Tensor& out, const Tensor& dense) {
          return [&, out, dense](OpContext& c) {
            moe(c, {x, ids, weights, experts, out});
            mlp(c, {x, experts[0], dense});
          };
        };
        const Tensor expected = make.poisoned(dtype, {s.rows, s.hidden});
        const Tensor expected_dense = make.poisoned(dtype, {s.rows, s.hidden});
        run_on_reference(call(expected, expected_dense));
        for (const BackendCase& backend : backend_cases()) {
          const Tensor out = make.poisoned(dtype, {s.rows, s.hidden});
          const Tensor dense = make.poisoned(dtype, {s.rows, s.hidden});
          run_on_cpu(backend, call(out, dense));
          expect_close(out, expected, tolerance(dtype),
                       fmt::format("{}: moe, {} rows", backend.label, s.rows));
          expect_close(dense, expected_dense, tolerance(dtype),
                       fmt::format("{}: mlp, {} rows", backend.label, s.rows));
        }
      }
    }
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
      run_on_cpu(backend, [&](OpContext& c) { mix_shared(c, {routed, shared, coefficient, out}); });
      expect_close(out, expected, tolerance(dtype), backend.label);
    }
  }
}

TEST(Doors, NameTheTensorAndBothShapes) {
  TensorMaker make(8);
  const Tensor x = make.uniform(DType::kF32, {2, 5});
  const Tensor out = make.poisoned(DType::kF32, {2, 4});
  const quant::Weight weight = make.weight(DType::kBF16, 4, 6);
  try {
    run_on_reference([&](OpContext& c) { linear(c, {x, weight, Activation::kNone, out}); });
    FAIL() << "a mis-shaped weight was accepted";
  } catch (const InternalError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("[2, 5]"), std::string::npos) << message;
    EXPECT_NE(message.find("expects input 6"), std::string::npos) << message;
  }
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
