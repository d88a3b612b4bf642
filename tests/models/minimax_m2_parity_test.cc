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

constexpr int64_t kLengths[] = {1, 127, 128, 129, 600, 1100};
constexpr int64_t kChunks[] = {2048, 256, 101};

void expect_agreement(DType dtype, double tolerance) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const auto& folder : parity_fixtures("parity_m2")) {
    EXPECT_LE(Parity(folder, {dtype}).worst_error(*backend, kLengths, kChunks), tolerance) << folder;
  }
}

TEST(MiniMaxM2Parity, Float32LogitsAgreeTo1e4AtEveryLengthAndChunking) {
  expect_agreement(DType::kF32, 1e-4);
}

TEST(MiniMaxM2Parity, BFloat16LogitsAgreeTo2e2) { expect_agreement(DType::kBF16, 2e-2); }

// Caches in e4m3 round every key and value by 2^-4 at most: the logits stay near, and no chunking changes
// them.
TEST(MiniMaxM2Parity, Fp8CachesStayNearAndDoNotDependOnChunking) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const auto& folder : parity_fixtures("parity_m2")) {
    const models::ComputeOptions options = {DType::kF32, DType::kF8E4M3, DType::kF8E4M3};
    const double whole = Parity(folder, options).error(*backend, 1100, 2048);
    std::printf("%-40s FP8 caches relative error %.1e\n", folder.filename().c_str(), whole);
    EXPECT_LE(whole, 0.1) << folder;
    EXPECT_NEAR(Parity(folder, options).error(*backend, 1100, 101), whole, 0.02 * whole + 1e-4) << folder;
  }
}

TEST(MiniMaxM2Parity, GreedyTokensAreEqualInFloat32) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const auto& folder : parity_fixtures("parity_m2")) {
    Parity parity(folder, {DType::kF32});
    EXPECT_EQ(parity.greedy(*backend, 2048), parity.integers("greedy")) << folder;
    EXPECT_EQ(parity.greedy(*backend, 37), parity.integers("greedy")) << folder;
  }
}

// Every BF16 tensor of the checkpoint as F16.
TEST(MiniMaxM2Parity, AnF16TwinAgrees) {
  const auto folder = parity_fixtures("parity_m2").back();
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

TEST(MiniMaxM2Parity, TheReferenceBackendAgreesToo) {
  const auto backend = ops::make_reference_backend();
  for (const auto& folder : parity_fixtures("parity_m2")) {
    EXPECT_LE(Parity(folder, {DType::kF32}).error(*backend, 130, 100), 1e-4) << folder;
  }
}

}  // namespace
}  // namespace minimax
