// Sessions and engines on a device with memory of its own, without one: the same answers as on the host, and
// no more calls than the rules of devices allow.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/generate.h"
#include "tests/engine/family_models.h"
#include "tests/engine/pretended_device.h"

namespace minimax::engine {
namespace {

using minimax::testing::LoadedModel;
using minimax::testing::PretendedDevice;
using minimax::testing::prompt_of;

class DeviceOfFamily : public ::testing::TestWithParam<minimax::testing::Family> {
 protected:
  ThreadPool pool_{2};
  PretendedDevice device_{pool_};
  LoadedModel on_host_{minimax::testing::path_of(GetParam()), {DType::kF32}};
  LoadedModel on_device_{minimax::testing::path_of(GetParam()), options()};
  int64_t vocab_ = on_host_.model->vocab_size();

  models::ComputeOptions options() {
    models::ComputeOptions options = {DType::kF32};
    options.backend = &device_;
    return options;
  }

  // Greedy and drawn, with penalties, biases and likely tokens, of unequal lengths.
  std::vector<Request> requests() const {
    std::vector<Request> requests;
    for (int32_t i = 0; i < 12; ++i) {
      Request request;
      request.prompt = prompt_of(1 + 29 * i, i, vocab_);
      request.max_tokens = 8 + 3 * i;
      request.sampling.temperature = i % 3 == 0 ? 0.0F : 0.8F;
      request.sampling.seed = i;
      request.sampling.top_k = i % 4 == 1 ? 20 : 0;
      request.sampling.repetition_penalty = i % 4 == 2 ? 1.3F : 1.0F;
      request.sampling.top_logprobs = i == 7 ? 3 : 0;
      if (i == 5) request.sampling.logit_bias[3] = 2.0F;
      requests.push_back(request);
    }
    return requests;
  }

  static EngineOptions engine_options() {
    EngineOptions options;
    options.max_model_len = 700;
    options.max_sequences = 8;
    options.max_batched_tokens = 256;
    options.cache_tokens = 8 * 768;
    options.share_prefixes = false;
    return options;
  }
};

TEST_P(DeviceOfFamily, AnEngineAnswersAsOnTheHost) {
  const std::vector<Request> all = requests();
  std::vector<std::vector<int32_t>> expected;
  {
    Engine engine(*on_host_.model, *on_host_.backend, engine_options());
    for (const Request& request : all) expected.push_back(complete(engine, request).front().token_ids());
  }
  Engine engine(*on_device_.model, device_, engine_options());
  std::vector<std::vector<int32_t>> got(all.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < all.size(); ++i)
    threads.emplace_back([&, i] { got[i] = complete(engine, all[i]).front().token_ids(); });
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(got[i], expected[i]) << "request " << i;
  EXPECT_GT(device_.counts.launches, 0);
}

TEST_P(DeviceOfFamily, ADecodeStepOfAnEngineIsOneLaunchAndOneCopyBack) {
  Engine engine(*on_device_.model, device_, engine_options());
  const int64_t captures = device_.counts.captures;
  EXPECT_EQ(captures, 2 * 8) << "1 to 8 rows, for both sets of buffers";
  Request request;
  request.prompt = prompt_of(40, 1, vocab_);
  request.sampling.temperature = 0;
  request.max_tokens = 4;
  complete(engine, request);
  const PretendedDevice::Counts before = device_.counts;
  request.max_tokens = 64;
  complete(engine, request);
  const PretendedDevice::Counts& after = device_.counts;
  EXPECT_EQ(after.captures, captures);
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.launches - before.launches, 63) << "all tokens but the prompt's";
  EXPECT_EQ(after.downloads - before.downloads, 64);
  EXPECT_LE(after.uploads - before.uploads, 64 * 3) << "inputs, pages, what the rows ask for";
}

TEST_P(DeviceOfFamily, ADecodeStepOfASessionIsOneLaunchAndOneCopyBack) {
  Session session(*on_device_.model, device_, {200, 64, 1});
  session.append(prompt_of(100, 2, vocab_));
  const std::vector<int32_t> next = {1};
  for (int i = 0; i < 3; ++i) session.append(next);
  const PretendedDevice::Counts before = device_.counts;
  for (int i = 0; i < 10; ++i) session.append(next);
  const PretendedDevice::Counts& after = device_.counts;
  EXPECT_EQ(after.launches - before.launches, 10);
  EXPECT_EQ(after.downloads - before.downloads, 10);
  EXPECT_EQ(after.waits - before.waits, 10);
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.ops, before.ops);
  EXPECT_EQ(after.captures, before.captures);
}

INSTANTIATE_TEST_SUITE_P(Families, DeviceOfFamily, ::testing::ValuesIn(minimax::testing::small_families()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace minimax::engine
