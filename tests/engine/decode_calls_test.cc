// What a decode step asks of the GPU's driver, counted by CUPTI at the runtime's door: one launch of a graph,
// one copy back to the host and one wait for it; no kernel by itself, no memory.
#include <cupti.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <string>

#include "engine/engine.h"
#include "tests/cuda_devices.h"
#include "tests/engine/family_models.h"

namespace minimax::engine {
namespace {

using minimax::testing::Family;
using minimax::testing::LoadedModel;
using minimax::testing::prompt_of;

using Counts = std::map<std::string, int64_t>;

// Counts the calls of the CUDA runtime of all threads, by name.
class CallCounter {
 public:
  CallCounter() {
    if (cuptiSubscribe(&subscriber_, &CallCounter::on_call, this) != CUPTI_SUCCESS) return;
    is_there_ = cuptiEnableDomain(1, subscriber_, CUPTI_CB_DOMAIN_RUNTIME_API) == CUPTI_SUCCESS;
  }
  ~CallCounter() {
    if (subscriber_ != nullptr) cuptiUnsubscribe(subscriber_);
  }
  CallCounter(const CallCounter&) = delete;
  CallCounter& operator=(const CallCounter&) = delete;

  bool is_there() const { return is_there_; }
  Counts counts() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  static void CUPTIAPI on_call(void* self, CUpti_CallbackDomain, CUpti_CallbackId, const void* data) {
    const auto* call = static_cast<const CUpti_CallbackData*>(data);
    if (call->callbackSite != CUPTI_API_ENTER) return;
    auto* counter = static_cast<CallCounter*>(self);
    const std::lock_guard lock(counter->mutex_);
    // Names carry the version that brought them: cudaGraphLaunch_v10000.
    const std::string name = call->functionName;
    ++counter->counts_[name.substr(0, name.find("_v"))];
  }

  CUpti_SubscriberHandle subscriber_ = nullptr;
  bool is_there_ = false;
  mutable std::mutex mutex_;
  Counts counts_;
};

class DecodeCalls : public ::testing::TestWithParam<Family> {};

TEST_P(DecodeCalls, AStepIsOneGraphOneCopyBackAndOneWait) {
  if (testing::cuda_architectures().empty()) GTEST_SKIP() << "no GPU";
  const CallCounter counter;
  if (!counter.is_there()) GTEST_SKIP() << "CUPTI may not be used here";
  const auto device = testing::make_cuda_backend(testing::cuda_architectures().back());
  models::ComputeOptions compute = {DType::kBF16};
  compute.backend = device.get();
  const LoadedModel loaded(minimax::testing::path_of(GetParam()), compute);
  EngineOptions options;
  options.max_model_len = 400;
  options.max_sequences = 4;
  options.cache_tokens = 4 * 512;
  Engine engine(*loaded.model, *device, options);
  Request request;
  request.prompt = prompt_of(40, 1, loaded.model->vocab_size());
  request.sampling.temperature = 0;

  const auto calls_of = [&](int64_t tokens) {
    request.max_tokens = tokens;
    const Counts before = counter.counts();
    complete(engine, request);
    Counts calls = counter.counts();
    for (const auto& [name, count] : before) calls[name] -= count;
    return calls;
  };
  calls_of(8);
  // The prompt's own calls cancel out.
  constexpr int64_t kSteps = 100;
  const Counts few = calls_of(20);
  Counts calls = calls_of(20 + kSteps);
  for (const auto& [name, count] : few) calls[name] -= count;
  std::erase_if(calls, [](const auto& entry) { return entry.second == 0; });
  std::printf("%s, %ld decode steps:", GetParam().name.c_str(), static_cast<long>(kSteps));
  for (const auto& [name, count] : calls) std::printf(" %s %ld", name.c_str(), static_cast<long>(count));
  std::printf("\n");

  EXPECT_EQ(calls["cudaGraphLaunch"], kSteps);
  EXPECT_EQ(calls["cudaStreamSynchronize"] + calls["cudaEventSynchronize"], kSteps);
  // Inputs, pages, what the row asks for; and the tokens back.
  EXPECT_LE(calls["cudaMemcpyAsync"] + calls["cudaMemcpy2DAsync"], 4 * kSteps);
  for (const char* name :
       {"cudaLaunchKernel", "cudaLaunchKernelExC", "cudaMalloc", "cudaMallocAsync", "cudaMallocHost",
        "cudaFree", "cudaMemcpy", "cudaDeviceSynchronize", "cudaGraphInstantiate", "cudaStreamBeginCapture"})
    EXPECT_EQ(calls[name], 0) << name;
}

INSTANTIATE_TEST_SUITE_P(Families, DecodeCalls, ::testing::ValuesIn(minimax::testing::small_families()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace minimax::engine
