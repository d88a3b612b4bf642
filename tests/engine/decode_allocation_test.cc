// A decode step takes no memory from the heap: this binary counts every operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/model_runner.h"
#include "engine/session.h"
#include "tests/engine/family_models.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

// Never inlined: where the compiler sees free() but not malloc(), it warns of a mismatched pair.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace minimax {
namespace {

TEST(DecodeStep, AllocatesNothing) {
  const testing::LoadedModel loaded(std::filesystem::path(MINIMAX_SOURCE_DIR) / "models/demo-m1",
                                    {DType::kBF16});
  engine::Session session(*loaded.model, *loaded.backend, {64, 32, 1});
  const int32_t prompt[] = {1, 2, 3, 4, 5};
  session.append(prompt);
  const int32_t token = 7;
  session.append({&token, 1});
  const int64_t before = allocations;
  ASSERT_GT(before, 0);
  for (int i = 0; i < 10; ++i) session.append({&token, 1});
  EXPECT_EQ(allocations, before);
}

// The engine's own part of a step: prepared and executed as the planning and step threads do.
TEST(RunnerStep, AllocatesNothingOnceTheLargestStepWasSeen) {
  const testing::LoadedModel loaded(std::filesystem::path(MINIMAX_SOURCE_DIR) / "models/demo-m1",
                                    {DType::kBF16});
  cache::HybridCacheOptions caching;
  caching.page_size = loaded.model->cache_layout().page_size;
  caching.num_pages = 64;
  caching.num_slots = 12;
  cache::HybridCache cache(caching);
  engine::SchedulerOptions scheduling;
  scheduling.max_sequences = 4;
  engine::Scheduler scheduler(scheduling, cache);
  engine::RunnerOptions options;
  options.max_model_len = 200;
  options.max_sequences = 4;
  options.num_pages = caching.num_pages;
  options.num_slots = caching.num_slots;
  options.vocab_limit = loaded.model->vocab_size();
  engine::ModelRunner runner(*loaded.model, *loaded.backend, options);
  const auto step = runner.make_buffers();
  engine::SamplingParams params;
  params.temperature = 0.7F;
  params.top_p = 0.9F;
  for (int i = 0; i < 4; ++i) scheduler.submit({{1, 2, 3, 4 + i}, 100, 0});

  int64_t most = 0;
  std::vector<engine::SequenceView> views;
  for (int n = 0; n < 60; ++n) {
    const engine::StepPlan plan = scheduler.plan_step();
    views.clear();
    for (const auto& s : plan.sequences) {
      engine::SequenceView view{scheduler.tokens(s.id), &scheduler.cached(s.id), &params};
      view.prompt_length = 4;
      views.push_back(view);
    }
    const int64_t before = allocations;
    runner.prepare(plan, views, nullptr, *step);
    runner.execute(*step);
    if (n >= 2) most = std::max(most, allocations - before);
    std::vector<engine::StepToken> tokens;
    for (size_t row = 0; row < step->rows.size(); ++row) {
      tokens.push_back({step->rows[row].id, step->sampling.token(static_cast<int64_t>(row)), false});
    }
    scheduler.finish_step(tokens);
  }
  EXPECT_EQ(most, 0);
}

}  // namespace
}  // namespace minimax
