// The prefix cache on the bundled models: what a second request that shares 3,000 tokens computes again.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/engine/family_models.h"

namespace minimax::engine {
namespace {

using minimax::testing::Family;
using minimax::testing::LoadedModel;

constexpr int64_t kShared = 3000;

Request request_of(const LoadedModel& loaded, int32_t tail) {
  Request request;
  const int64_t vocab = std::min<int64_t>(loaded.model->vocab_size(), 900);
  for (int64_t i = 0; i < kShared; ++i)
    request.prompt.push_back(static_cast<int32_t>((i * i * 7 + i) % vocab));
  for (int32_t i = 0; i < 60; ++i)
    request.prompt.push_back((tail * 101 + i * 13) % static_cast<int32_t>(vocab));
  request.max_tokens = 8;
  request.sampling.temperature = 0;
  return request;
}

class SharedPrefix : public ::testing::TestWithParam<Family> {};

TEST_P(SharedPrefix, IsComputedOnceButForAPageAndTheSnapshotInterval) {
  LoadedModel loaded(minimax::testing::path_of(GetParam()), {DType::kF32});
  EngineOptions options;
  options.max_model_len = 4096;
  options.max_sequences = 4;
  options.snapshot_interval = 1024;
  options.share_prefixes = false;
  std::vector<int32_t> expected;
  {
    Engine alone(*loaded.model, *loaded.backend, options);
    expected = complete(alone, request_of(loaded, 2)).front().token_ids();
  }
  options.share_prefixes = true;
  Engine engine(*loaded.model, *loaded.backend, options);
  complete(engine, request_of(loaded, 1));
  int64_t before = engine.stats().computed_tokens;
  const auto computed_again = [&](int32_t tail) {
    const Completion answer = complete(engine, request_of(loaded, tail)).front();
    engine.drain();
    const int64_t computed = engine.stats().computed_tokens - before;
    before = engine.stats().computed_tokens;
    if (tail == 2) {
      EXPECT_EQ(answer.token_ids(), expected);
    }
    constexpr int64_t kOwn =
        60 + 8 + 1;  // its own prompt, its answer, and a row planned before the end was known
    return computed - kOwn;
  };
  const int64_t second = computed_again(2);
  const int64_t third = computed_again(3);
  std::printf("%s: of %ld shared tokens the second request computed %ld again, the third %ld\n",
              GetParam().name.c_str(), static_cast<long>(kShared), static_cast<long>(second),
              static_cast<long>(third));
  const bool has_states = loaded.model->cache_layout().num_state_layers > 0;
  EXPECT_LE(second, engine.plan().page_size + (has_states ? options.snapshot_interval : 0));
  EXPECT_LE(third, engine.plan().page_size);
}

INSTANTIATE_TEST_SUITE_P(Models, SharedPrefix,
                         ::testing::Values(Family{"m1", "models/demo-m1"}, Family{"m2", "models/demo-m2"},
                                           Family{"m3", "models/demo-m3"}),
                         [](const auto& family) { return family.param.name; });

}  // namespace
}  // namespace minimax::engine
