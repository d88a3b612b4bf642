// The M3 model against transformers' MiniMaxM3SparseForConditionalGeneration run in float32 on small random
// models, its choice of key blocks included (tests/models/make_m3_parity.py).
#include <map>

#include "tests/models/parity.h"

namespace minimax {
namespace {

using testing::Parity;
using testing::parity_fixtures;

constexpr char kFixtures[] = "parity_m3";
constexpr int64_t kLengths[] = {1, 127, 128, 129, 600, 1100};
constexpr int64_t kChunks[] = {2048, 256, 101};

TEST(MiniMaxM3Parity, Float32LogitsAgreeTo1e4AtEveryLengthAndChunking) {
  testing::expect_agreement(kFixtures, {DType::kF32}, kLengths, kChunks, 1e-4);
}
TEST(MiniMaxM3Parity, BFloat16LogitsAgreeTo2e2) {
  testing::expect_agreement(kFixtures, {DType::kBF16}, kLengths, kChunks, 2e-2);
}
TEST(MiniMaxM3Parity, GreedyTokensAreEqualInFloat32) { testing::expect_equal_greedy_tokens(kFixtures, 2048); }
TEST(MiniMaxM3Parity, TheReferenceBackendAgreesToo) { testing::expect_reference_agreement(kFixtures, 300); }
TEST(MiniMaxM3Parity, Fp8CachesStayNearAndDoNotDependOnChunking) {
  testing::expect_near_with_fp8_caches(kFixtures);
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
  for (const auto& folder : parity_fixtures(kFixtures)) {
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
