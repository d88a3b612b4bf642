// The M2 model against transformers' MiniMaxM2ForCausalLM run in float32 on small random models, quantised
// twins included: their reference is the dequantised model (tests/models/make_m2_parity.py).
#include "tests/formats/temp_dir.h"
#include "tests/models/parity.h"
#include "tests/models/twin.h"

namespace minimax {
namespace {

using testing::Parity;
using testing::parity_fixtures;

constexpr char kFixtures[] = "parity_m2";
constexpr int64_t kLengths[] = {1, 127, 128, 129, 600, 1100};
constexpr int64_t kChunks[] = {2048, 256, 101};

TEST(MiniMaxM2Parity, Float32LogitsAgreeTo1e4AtEveryLengthAndChunking) {
  testing::expect_agreement(kFixtures, {DType::kF32}, kLengths, kChunks, 1e-4);
}
TEST(MiniMaxM2Parity, BFloat16LogitsAgreeTo2e2) {
  testing::expect_agreement(kFixtures, {DType::kBF16}, kLengths, kChunks, 2e-2);
}
TEST(MiniMaxM2Parity, GreedyTokensAreEqualInFloat32) { testing::expect_equal_greedy_tokens(kFixtures, 2048); }
TEST(MiniMaxM2Parity, TheReferenceBackendAgreesToo) { testing::expect_reference_agreement(kFixtures, 130); }
TEST(MiniMaxM2Parity, Fp8CachesStayNearAndDoNotDependOnChunking) {
  testing::expect_near_with_fp8_caches(kFixtures);
}

// Every BF16 tensor of the checkpoint as F16.
TEST(MiniMaxM2Parity, AnF16TwinAgrees) {
  const auto folder = parity_fixtures(kFixtures).back();
  const testing::TempDir dir;
  testing::write_twin<f16>(folder, dir.path(), DType::kF16);
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  EXPECT_LE(Parity(folder, dir.path(), {DType::kF32}).error(*backend, 1100, 256), 1e-4);
}

}  // namespace
}  // namespace minimax
