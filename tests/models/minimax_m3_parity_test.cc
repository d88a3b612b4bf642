// The M3 model against transformers' MiniMaxM3SparseForConditionalGeneration run in float32 on small random
// models, its choice of key blocks included (tests/models/make_m3_parity.py).
#include <map>

#include "tests/models/parity.h"

namespace minimax {
namespace {

using testing::Parity;
using testing::parity_fixtures;

constexpr int64_t kLengths[] = {1, 127, 128, 129, 600, 1100};
constexpr int64_t kChunks[] = {2048, 256, 101};

void expect_agreement(const models::ComputeOptions& options, double tolerance) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const auto& folder : parity_fixtures("parity_m3")) {
    EXPECT_LE(Parity(folder, options).worst_error(*backend, kLengths, kChunks), tolerance) << folder;
  }
}

TEST(MiniMaxM3Parity, Float32LogitsAgreeTo1e4AtEveryLengthAndChunking) {
  expect_agreement({DType::kF32}, 1e-4);
}

TEST(MiniMaxM3Parity, BFloat16LogitsAgreeTo2e2) { expect_agreement({DType::kBF16}, 2e-2); }

// Caches in e4m3 round every key and value by 2^-4 at most: the logits stay near, and no chunking changes
// them.
TEST(MiniMaxM3Parity, Fp8CachesStayNearAndDoNotDependOnChunking) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const auto& folder : parity_fixtures("parity_m3")) {
    const models::ComputeOptions options = {DType::kF32, DType::kF8E4M3, DType::kF8E4M3};
    const double whole = Parity(folder, options).error(*backend, 1100, 2048);
    std::printf("%-40s FP8 caches relative error %.1e\n", folder.filename().c_str(), whole);
    EXPECT_LE(whole, 0.1) << folder;
    EXPECT_NEAR(Parity(folder, options).error(*backend, 1100, 101), whole, 0.02 * whole + 1e-4) << folder;
  }
}

TEST(MiniMaxM3Parity, GreedyTokensAreEqualInFloat32) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const auto& folder : parity_fixtures("parity_m3")) {
    Parity parity(folder, {DType::kF32});
    EXPECT_EQ(parity.greedy(*backend, 2048), parity.integers("greedy")) << folder;
    EXPECT_EQ(parity.greedy(*backend, 37), parity.integers("greedy")) << folder;
  }
}

TEST(MiniMaxM3Parity, TheReferenceBackendAgreesToo) {
  const auto backend = ops::make_reference_backend();
  for (const auto& folder : parity_fixtures("parity_m3")) {
    EXPECT_LE(Parity(folder, {DType::kF32}).error(*backend, 300, 100), 1e-4) << folder;
  }
}

// Keeps the block choices of every sparse layer, [tokens, index heads, k] flattened, in the order of tokens.
class SelectionTracer : public ops::Tracer {
 public:
  void on_op(const ops::OpRecord&) override {}
  void on_done(const ops::OpRecord& record) override {
    if (record.op == "paged_attention") ++layer_;
    if (record.op == "embedding" && record.operands.front().tensor.name() == "token_ids") layer_ = 0;
    if (record.op != "select_blocks") return;
    for (const auto& operand : record.operands) {
      if (operand.role != "selection") continue;
      const int32_t* ids = operand.tensor.data<int32_t>();
      k_ = operand.tensor.dim(2);
      auto& choices = selections_[layer_];
      choices.insert(choices.end(), ids, ids + operand.tensor.numel());
    }
    ++layer_;
  }

  const std::map<int64_t, std::vector<int32_t>>& selections() const { return selections_; }
  int64_t k() const { return k_; }

 private:
  int64_t layer_ = 0;
  int64_t k_ = 0;
  std::map<int64_t, std::vector<int32_t>> selections_;
};

// Rows of choices that differ, where the reference's margin says that it was no tie.
int64_t count_differences(const std::vector<int32_t>& chosen, int64_t k, const Tensor& expected,
                          const Tensor& margin) {
  int64_t differing = 0;
  const int64_t expected_k = expected.dim(2);
  for (int64_t row = 0; row < expected.dim(0) * expected.dim(1); ++row) {
    const auto present = [](const int32_t* ids, int64_t count) {
      std::vector<int32_t> set;
      for (int64_t j = 0; j < count && ids[j] >= 0; ++j) set.push_back(ids[j]);
      return set;
    };
    const auto ours = present(chosen.data() + row * k, k);
    const auto theirs = present(expected.data<int32_t>() + row * expected_k, expected_k);
    if (ours != theirs && margin.data<float>()[row] > 1e-5F) ++differing;
  }
  return differing;
}

TEST(MiniMaxM3Parity, TheChosenBlocksAreThoseOfTransformersOnEveryQuery) {
  ThreadPool pool(2);
  const auto backend = cpu::make_cpu_backend(pool);
  for (const auto& folder : parity_fixtures("parity_m3")) {
    for (const int64_t chunk : {2048, 101}) {
      Parity parity(folder, {DType::kF32});
      SelectionTracer tracer;
      parity.error(*backend, static_cast<int64_t>(parity.ids.size()), chunk, &tracer);
      ASSERT_FALSE(tracer.selections().empty()) << folder;
      for (const auto& [layer, chosen] : tracer.selections()) {
        const Tensor expected = parity.expected.tensor(fmt::format("selected_l{}", layer));
        const Tensor margin = parity.expected.tensor(fmt::format("margin_l{}", layer));
        ASSERT_EQ(chosen.size(), static_cast<size_t>(expected.dim(0) * expected.dim(1) * tracer.k()));
        EXPECT_EQ(count_differences(chosen, tracer.k(), expected, margin), 0) << folder << " layer " << layer;
      }
    }
  }
}

}  // namespace
}  // namespace minimax
