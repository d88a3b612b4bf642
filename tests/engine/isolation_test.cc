// Isolation: requests of mixed lengths, cancelled at random and preempted for want of memory, get exactly the
// tokens that each gets alone.
//
// MINIMAX_ISOLATION_SEEDS sets how many seeds are run (1), MINIMAX_ISOLATION_FIRST the first (0),
// MINIMAX_ISOLATION_MODELS the models, as names of folders below models/ joined by commas (else small ones
// with random weights).
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <sstream>

#include "engine/engine.h"
#include "tests/engine/family_models.h"

namespace minimax::engine {
namespace {

using minimax::testing::Family;
using minimax::testing::LoadedModel;

constexpr int32_t kRequests = 64;

int64_t setting(const char* name, int64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::atoll(text);
}

int64_t num_seeds() { return setting("MINIMAX_ISOLATION_SEEDS", 1); }

std::vector<Family> families() {
  const char* text = std::getenv("MINIMAX_ISOLATION_MODELS");
  if (text == nullptr) return minimax::testing::small_families();
  std::vector<Family> result;
  std::istringstream names(text);
  for (std::string name; std::getline(names, name, ',');) result.push_back({name, "models/" + name});
  return result;
}

EngineOptions options(int64_t cache_tokens) {
  EngineOptions result;
  result.max_model_len = 512;
  result.max_sequences = 16;
  result.max_batched_tokens = 256;
  result.prompt_grid = 128;
  result.cache_tokens = cache_tokens;
  result.state_snapshots = 6;
  result.host_snapshots = 4;
  result.is_deterministic = true;
  return result;
}

// Requests of mixed lengths; half of them share the beginning of a text. The first few grow long enough that
// no two of them fit the cache to their ends.
std::vector<Request> make_requests(std::mt19937_64& rng, int64_t vocab) {
  const auto pick = [&rng](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng);
  };
  const auto add_text = [&](std::vector<int32_t>& text, int64_t count) {
    for (; count > 0; --count) text.push_back(static_cast<int32_t>(pick(0, vocab - 1)));
  };
  std::vector<int32_t> common;
  add_text(common, 300);
  std::vector<Request> requests(kRequests);
  for (int32_t i = 0; i < kRequests; ++i) {
    Request& request = requests[static_cast<size_t>(i)];
    const bool is_long = i < 8;
    if (!is_long) request.prompt.assign(common.begin(), common.begin() + pick(0, 1) * pick(1, 300));
    add_text(request.prompt, is_long ? 125 : pick(1, 60));
    request.max_tokens = is_long ? 140 : pick(1, 30);
    request.sampling.temperature = pick(0, 1) == 0 ? 0.0F : 1.0F;
    request.sampling.seed = pick(0, 1000);
    request.priority = is_long ? 3 : pick(0, 2);
  }
  return requests;
}

std::vector<std::vector<int32_t>> answers_alone(const LoadedModel& loaded,
                                                const std::vector<Request>& requests) {
  std::vector<std::vector<int32_t>> answers;
  EngineOptions alone = options(1024);
  alone.share_prefixes = false;
  Engine engine(*loaded.model, *loaded.backend, alone);
  for (const Request& request : requests) answers.push_back(complete(engine, request).front().token_ids());
  return answers;
}

class IsolationTest : public ::testing::TestWithParam<Family> {};

TEST_P(IsolationTest, RequestsNeverTouchEachOther) {
  const Family& family = GetParam();
  LoadedModel loaded(minimax::testing::path_of(family), {DType::kF32});
  int64_t preemptions = 0;
  int64_t cancelled = 0;
  const int64_t first_seed = setting("MINIMAX_ISOLATION_FIRST", 0);
  for (int64_t seed = first_seed; seed < first_seed + num_seeds(); ++seed) {
    std::mt19937_64 rng(static_cast<uint64_t>(seed));
    const std::vector<Request> requests = make_requests(rng, loaded.model->vocab_size());
    const auto expected = answers_alone(loaded, requests);

    std::mutex mutex;
    std::vector<std::vector<int32_t>> answers(kRequests);
    std::map<int32_t, FinishReason> reasons;
    std::uniform_int_distribution<int> chance(0, 99);
    {
      Engine engine(*loaded.model, *loaded.backend, options(512));
      std::vector<EngineRequestId> ids;
      for (int32_t i = 0; i < kRequests; ++i) {
        Callbacks callbacks;
        callbacks.on_token = [&, i](const TokenOutput& output) {
          const std::lock_guard lock(mutex);
          answers[static_cast<size_t>(i)].push_back(output.token.id);
          return true;
        };
        callbacks.on_finish = [&, i](const FinishedSample& finish) {
          const std::lock_guard lock(mutex);
          reasons[i] = finish.reason;
        };
        ids.push_back(engine.submit(requests[static_cast<size_t>(i)], callbacks));
        if (chance(rng) < 20) engine.cancel(ids[static_cast<size_t>(chance(rng)) % ids.size()]);
      }
      engine.drain();
      preemptions += engine.stats().num_preemptions;
      EXPECT_EQ(engine.stats().num_running, 0);
    }
    ASSERT_EQ(reasons.size(), kRequests);
    for (int32_t i = 0; i < kRequests; ++i) {
      auto alone = expected[static_cast<size_t>(i)];
      const auto& answer = answers[static_cast<size_t>(i)];
      if (reasons.at(i) == FinishReason::kCancelled) {
        ++cancelled;
        ASSERT_LE(answer.size(), alone.size());
        alone.resize(answer.size());
      }
      ASSERT_EQ(answer, alone) << "seed " << seed << ", request " << i;
    }
  }
  EXPECT_GT(preemptions, 0);
  EXPECT_GT(cancelled, 0);
  std::printf("%s: %ld seeds, %ld preemptions, %ld requests cancelled\n", family.name.c_str(),
              static_cast<long>(num_seeds()), static_cast<long>(preemptions), static_cast<long>(cancelled));
}

INSTANTIATE_TEST_SUITE_P(Models, IsolationTest, ::testing::ValuesIn(families()), [](const auto& family) {
  std::string name = family.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace minimax::engine
