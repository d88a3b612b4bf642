// The M2 model against transformers' MiniMaxM2ForCausalLM run in float32 on small random models, quantised
// twins included: their reference is the dequantised model (tests/models/make_m2_parity.py).
#include <deque>

#include "formats/safetensors_writer.h"
#include "tests/formats/temp_dir.h"
#include "tests/models/parity.h"

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
  formats::Checkpoint original = formats::Checkpoint::open(folder);
  std::deque<std::vector<f16>> memory;
  std::vector<formats::NamedTensor> tensors;
  for (const auto& info : original.tensors()) {
    Tensor tensor = original.tensor(info);
    if (info.dtype == DType::kBF16) {
      auto& values = memory.emplace_back(static_cast<size_t>(tensor.numel()));
      for (size_t i = 0; i < values.size(); ++i) values[i] = to_f16(to_float(tensor.data<bf16>()[i]));
      tensor = Tensor(values.data(), DType::kF16, info.shape);
    }
    tensors.push_back({info.name, tensor});
  }
  const testing::TempDir dir;
  formats::write_safetensors(dir.path() / "model.safetensors", tensors);
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  EXPECT_LE(Parity(folder, dir.path(), {DType::kF32}).error(*backend, 1100, 256), 1e-4);
}

}  // namespace
}  // namespace minimax
