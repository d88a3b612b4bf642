// Sampling of every backend against the oracle, and the properties of the draw.
#include <numeric>
#include <set>

#include "tests/ops/op_test.h"

namespace minimax::ops {
namespace {

// The tensors of one call, with defaults that do nothing.
struct SampleCase {
  TensorMaker make;
  Sample args;

  SampleCase(uint64_t seed, int64_t rows, int64_t vocab, int64_t limit, int64_t top) : make(seed) {
    const auto constant = [&](float value) {
      return make.floats(std::vector<float>(static_cast<size_t>(rows), value));
    };
    const auto zeros = [&](int64_t count) {
      return make.longs(std::vector<int64_t>(static_cast<size_t>(count), 0));
    };
    args.logits = make.uniform(DType::kF32, {rows, vocab}, -6, 6);
    args.vocab_limit = limit;
    args.temperature = constant(0);
    args.top_p = constant(1);
    args.min_p = constant(0);
    args.repetition_penalty = constant(1);
    args.presence_penalty = constant(0);
    args.frequency_penalty = constant(0);
    args.top_k = make.ids(std::vector<int32_t>(static_cast<size_t>(rows), 0));
    args.seed = zeros(rows);
    args.counter = zeros(rows);
    args.history_ids = make.ids({});
    args.history_starts = zeros(rows + 1);
    args.prompt_lens = zeros(rows);
    args.bias_ids = make.ids({});
    args.bias_values = make.floats({});
    args.bias_starts = zeros(rows + 1);
    fresh_outputs(top);
  }

  void fresh_outputs(int64_t top) {
    const int64_t rows = args.logits.dim(0);
    args.tokens = make.ids(std::vector<int32_t>(static_cast<size_t>(rows), -7));
    args.logprobs = make.poisoned(DType::kF32, {rows});
    args.top_ids = make.ids(std::vector<int32_t>(static_cast<size_t>(rows * top), -7)).reshape({rows, top});
    args.top_logprobs = make.poisoned(DType::kF32, {rows, top});
  }
};

void set(const Tensor& t, int64_t i, float value) { t.data<float>()[i] = value; }

TEST(Sample, MatchesTheOracle) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const auto vocab = static_cast<int64_t>(seed % 3 == 0 ? 1000 : 50);
    SampleCase c(seed, 5, vocab, vocab - 3, 4);
    std::vector<int32_t> history;
    std::vector<int64_t> starts = {0};
    std::vector<int32_t> bias_ids;
    std::vector<float> bias_values;
    std::vector<int64_t> bias_starts = {0};
    for (int64_t b = 0; b < 5; ++b) {
      for (int64_t i = 0; i < 10 * b; ++i) history.push_back(static_cast<int32_t>(c.make.pick(0, vocab - 1)));
      starts.push_back(static_cast<int64_t>(history.size()));
      c.args.prompt_lens.data<int64_t>()[b] = 4 * b;
      bias_ids.push_back(static_cast<int32_t>(c.make.pick(0, vocab - 1)));
      bias_values.push_back(b == 4 ? -100.0F : 3.0F);
      bias_starts.push_back(static_cast<int64_t>(bias_ids.size()));
      set(c.args.temperature, b, b == 0 ? 0.0F : 0.3F * static_cast<float>(b));
      set(c.args.top_p, b, b % 2 == 0 ? 1.0F : 0.8F);
      set(c.args.min_p, b, b == 3 ? 0.05F : 0.0F);
      set(c.args.repetition_penalty, b, b == 2 ? 1.3F : 1.0F);
      set(c.args.presence_penalty, b, b == 1 ? 0.7F : 0.0F);
      set(c.args.frequency_penalty, b, b == 4 ? 0.4F : 0.0F);
      c.args.top_k.data<int32_t>()[b] = b == 2 ? 0 : static_cast<int32_t>(7 * b);
      c.args.seed.data<int64_t>()[b] = static_cast<int64_t>(seed * 77) + b;
      c.args.counter.data<int64_t>()[b] = b;
    }
    if (seed % 2 == 0) {
      std::vector<int32_t> forced(5, -1);
      forced[1] = static_cast<int32_t>(c.make.pick(0, vocab - 4));
      forced[4] = static_cast<int32_t>(c.make.pick(0, vocab - 4));
      c.args.forced_ids = c.make.ids(forced);
    }
    if (seed % 2 == 1) {
      // Whole words, single ids, and rows without a mask; each allows more tokens than are reported.
      const int64_t words = (vocab + 63) / 64;
      std::vector<int64_t> masks(static_cast<size_t>(2 * words), 0);
      for (int64_t i = 0; i < vocab; ++i) {
        const int64_t bit = int64_t{1} << (i % 64);
        if (c.make.pick(0, 2) == 0 || i % 8 == 7) masks[i / 64] |= bit;
        if (i >= 64 || i % 5 == 0) masks[words + i / 64] |= bit;
      }
      c.args.allowed = c.make.longs(masks).reshape({2, words});
      c.args.allowed_rows = c.make.ids({-1, 1, 0, -1, 0});
    }
    c.args.history_ids = c.make.ids(history);
    c.args.history_starts = c.make.longs(starts);
    c.args.bias_ids = c.make.ids(bias_ids);
    c.args.bias_values = c.make.floats(bias_values);
    c.args.bias_starts = c.make.longs(bias_starts);

    run_on_reference([&](OpContext& context) { sample(context, c.args); });
    const Sample expected = c.args;
    for (const BackendCase& backend : backend_cases()) {
      c.fresh_outputs(4);
      run_on(backend, [&](OpContext& context) { sample(context, c.args); });
      expect_close(c.args.tokens, expected.tokens, 0, backend.label);
      expect_close(c.args.logprobs, expected.logprobs, 1e-5, backend.label);
      expect_close(c.args.top_ids, expected.top_ids, 0, backend.label);
      expect_close(c.args.top_logprobs, expected.top_logprobs, 1e-5, backend.label);
    }
  }
}

TEST(Sample, GreedyTakesTheLowestIdOfATieAndNeverAPaddingRow) {
  SampleCase c(1, 1, 10, 8, 1);
  for (int64_t i = 0; i < 10; ++i) set(c.args.logits, i, i >= 8 ? 100.0F : (i == 3 || i == 5 ? 2.0F : 1.0F));
  run_on(backend_cases()[0], [&](OpContext& context) { sample(context, c.args); });
  EXPECT_EQ(c.args.tokens.data<int32_t>()[0], 3);
}

TEST(Sample, WhatTheMaskBansIsNeverDrawn) {
  SampleCase c(4, 1, 130, 130, 1);
  set(c.args.temperature, 0, 5.0F);
  std::vector<int64_t> mask{0, int64_t{1} << 3, 2};
  c.args.allowed = c.make.longs(mask).reshape({1, 3});
  c.args.allowed_rows = c.make.ids({0});
  std::set<int32_t> drawn;
  run_on({"", "auto", 1, true}, [&](OpContext& context) {
    for (int i = 0; i < (context.arena.is_planning() ? 1 : 200); ++i) {
      c.args.counter.data<int64_t>()[0] = i;
      sample(context, c.args);
      drawn.insert(c.args.tokens.data<int32_t>()[0]);
    }
  });
  drawn.erase(-7);
  EXPECT_EQ(drawn, (std::set<int32_t>{67, 129}));
}

TEST(Sample, DrawsFollowTheProbabilities) {
  SampleCase c(2, 1, 4, 4, 1);
  const float probabilities[] = {0.5F, 0.25F, 0.15F, 0.1F};
  for (int64_t i = 0; i < 4; ++i) set(c.args.logits, i, std::log(probabilities[i]));
  set(c.args.temperature, 0, 1.0F);
  constexpr int kDraws = 20000;
  std::array<int, 4> counts{};
  run_on({"", "auto", 1, true}, [&](OpContext& context) {
    if (context.arena.is_planning()) return sample(context, c.args);
    for (int i = 0; i < kDraws; ++i) {
      c.args.counter.data<int64_t>()[0] = i;
      sample(context, c.args);
      ++counts[static_cast<size_t>(c.args.tokens.data<int32_t>()[0])];
    }
  });
  for (size_t i = 0; i < 4; ++i) {
    // Four standard deviations of a binomial count.
    const double p = static_cast<double>(probabilities[i]);
    EXPECT_NEAR(counts[i], kDraws * p, 4 * std::sqrt(kDraws * p * (1 - p)));
  }
}

TEST(Sample, AllLogitsNaNStillGivesAToken) {
  SampleCase c(3, 1, 6, 6, 1);
  for (int64_t i = 0; i < 6; ++i) set(c.args.logits, i, NAN);
  run_on(backend_cases()[0], [&](OpContext& context) { sample(context, c.args); });
  EXPECT_EQ(c.args.tokens.data<int32_t>()[0], 0);
}

}  // namespace
}  // namespace minimax::ops
