// The M1 model against transformers' MiniMaxForCausalLM and the released modeling code, both run in float32
// on small random models (tests/models/make_m1_parity.py).
#include "tests/models/parity.h"

namespace minimax {
namespace {

using testing::Parity;
using testing::parity_fixtures;

constexpr int64_t kLengths[] = {1, 255, 256, 257, 700};
constexpr int64_t kChunks[] = {1024, 256, 101};

void expect_agreement(DType dtype, double tolerance) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const auto& folder : parity_fixtures("parity")) {
    EXPECT_LE(Parity(folder, {dtype}).worst_error(*backend, kLengths, kChunks), tolerance) << folder;
  }
}

TEST(MiniMaxM1Parity, Float32LogitsAgreeTo1e4AtEveryLengthAndChunking) {
  expect_agreement(DType::kF32, 1e-4);
}

TEST(MiniMaxM1Parity, BFloat16LogitsAgreeTo2e2) { expect_agreement(DType::kBF16, 2e-2); }

TEST(MiniMaxM1Parity, GreedyTokensAreEqualInFloat32) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const auto& folder : parity_fixtures("parity")) {
    Parity parity(folder, {DType::kF32});
    EXPECT_EQ(parity.greedy(*backend, 1024), parity.integers("greedy")) << folder;
    EXPECT_EQ(parity.greedy(*backend, 37), parity.integers("greedy")) << folder;
  }
}

TEST(MiniMaxM1Parity, TheReferenceBackendAgreesToo) {
  const auto backend = ops::make_reference_backend();
  for (const auto& folder : parity_fixtures("parity")) {
    EXPECT_LE(Parity(folder, {DType::kF32}).error(*backend, 257, 100), 1e-4) << folder;
  }
}

}  // namespace
}  // namespace minimax
