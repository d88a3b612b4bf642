// The M1 model against transformers' MiniMaxForCausalLM and the released modeling code, both run in float32
// on small random models (tests/models/make_m1_parity.py).
#include "tests/models/parity.h"

namespace minimax {
namespace {

constexpr char kFixtures[] = "parity";
constexpr int64_t kLengths[] = {1, 255, 256, 257, 700};
constexpr int64_t kChunks[] = {1024, 256, 101};

TEST(MiniMaxM1Parity, Float32LogitsAgreeTo1e4AtEveryLengthAndChunking) {
  testing::expect_agreement(kFixtures, {DType::kF32}, kLengths, kChunks, 1e-4);
}
TEST(MiniMaxM1Parity, BFloat16LogitsAgreeTo2e2) {
  testing::expect_agreement(kFixtures, {DType::kBF16}, kLengths, kChunks, 2e-2);
}
TEST(MiniMaxM1Parity, GreedyTokensAreEqualInFloat32) { testing::expect_equal_greedy_tokens(kFixtures, 1024); }
TEST(MiniMaxM1Parity, TheReferenceBackendAgreesToo) { testing::expect_reference_agreement(kFixtures, 257); }

}  // namespace
}  // namespace minimax
