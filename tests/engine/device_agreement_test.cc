// The bundled demo models give the same greedy tokens on the GPU as on the CPU, in float32: 200 prompts each.
#include <gtest/gtest.h>

#include <algorithm>

#include "backends/cpu/cpu_backend.h"
#include "engine/session.h"
#include "eval/eval.h"
#include "formats/checkpoint.h"
#include "tests/cuda_devices.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace minimax {
namespace {

struct Demo {
  std::string_view name;  // the folder below models/
  eval::DemoModel model;
};

constexpr int kPrompts = 200;
constexpr int64_t kMaxTokens = 64;
constexpr int64_t kMaxContext = 8192;

// A greedy answer, and how far its runners-up were behind.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<std::vector<float>> logits;  // one row a token
};

class Model {
 public:
  Model(const Demo& demo, ops::Backend& backend)
      : checkpoint_(formats::Checkpoint::open(folder(demo))), model_(load(demo, backend)) {
    session_ =
        std::make_unique<engine::Session>(*model_, backend, engine::SessionOptions{kMaxContext, 2048, 1});
  }

  Answer answer(const std::vector<int32_t>& prompt, int32_t eos) {
    session_->reset();
    Answer answer;
    std::span<const float> logits = session_->append(prompt);
    while (static_cast<int64_t>(answer.tokens.size()) < kMaxTokens) {
      const auto token =
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      answer.tokens.push_back(token);
      answer.logits.emplace_back(logits.begin(), logits.end());
      if (token == eos) break;
      logits = session_->append({&token, 1});
    }
    return answer;
  }

  static std::filesystem::path folder(const Demo& demo) {
    return std::filesystem::path(MINIMAX_SOURCE_DIR) / "models" / demo.name;
  }

 private:
  std::unique_ptr<models::Model> load(const Demo& demo, ops::Backend& backend) {
    models::ComputeOptions options = {DType::kF32};
    options.backend = &backend;
    formats::Progress silent;
    return models::load_model(formats::read_config(folder(demo)), options, checkpoint_, silent);
  }

  formats::Checkpoint checkpoint_;
  std::unique_ptr<models::Model> model_;
  std::unique_ptr<engine::Session> session_;
};

class DeviceAgreement : public ::testing::TestWithParam<Demo> {};

TEST_P(DeviceAgreement, GreedyTokensAreTheSameOrNearlyTied) {
  if (testing::cuda_architectures().empty()) GTEST_SKIP() << "no GPU";
  const Demo demo = GetParam();
  const auto tokenizer = tokenizer::Tokenizer::load(Model::folder(demo));
  const auto chat = tokenizer::ChatTemplate::load(Model::folder(demo));
  ThreadPool pool(4);
  const auto cpu_backend = cpu::make_cpu_backend(pool);
  Model cpu(demo, *cpu_backend);
  struct Device {
    int architecture = 0;
    std::unique_ptr<ops::Backend> backend;
    std::unique_ptr<Model> model;
    int differences = 0;
  };
  std::vector<Device> devices;
  for (const int architecture : testing::cuda_architectures()) {
    Device& device = devices.emplace_back();
    device.architecture = architecture;
    device.backend = testing::make_cuda_backend(architecture);
    device.model = std::make_unique<Model>(demo, *device.backend);
  }
  const std::vector<std::string>& skills = eval::skill_names(demo.model);
  for (int i = 0; i < kPrompts; ++i) {
    const std::string& skill = skills[static_cast<size_t>(i) % skills.size()];
    const eval::Case drawn = eval::draw(skill, 47, static_cast<uint64_t>(i), demo.model);
    const std::vector<int32_t> prompt =
        tokenizer.encode(chat.render(drawn.messages, drawn.tools, true, nullptr).text);
    const Answer want = cpu.answer(prompt, *tokenizer.eos_id());
    for (Device& device : devices) {
      const Answer got = device.model->answer(prompt, *tokenizer.eos_id());
      const auto [a, b] =
          std::mismatch(want.tokens.begin(), want.tokens.end(), got.tokens.begin(), got.tokens.end());
      if (a == want.tokens.end() && b == got.tokens.end()) continue;
      ++device.differences;
      ASSERT_TRUE(a != want.tokens.end() && b != got.tokens.end());
      const std::vector<float>& logits = want.logits[static_cast<size_t>(a - want.tokens.begin())];
      EXPECT_LT(logits[static_cast<size_t>(*a)] - logits[static_cast<size_t>(*b)], 1e-3F)
          << "SM" << device.architecture << ", " << skill << ", prompt " << i << ": token "
          << a - want.tokens.begin();
    }
  }
  for (const Device& device : devices) {
    std::printf("%s, SM%d: %d of %d answers the same, %d nearly tied\n", demo.name.data(),
                device.architecture, kPrompts - device.differences, kPrompts, device.differences);
  }
}

INSTANTIATE_TEST_SUITE_P(Bundled, DeviceAgreement,
                         ::testing::Values(Demo{"demo-m1", eval::DemoModel::kM1},
                                           Demo{"demo-m2", eval::DemoModel::kM2},
                                           Demo{"demo-m3", eval::DemoModel::kM3}),
                         [](const auto& test) {
                           return "M" + std::to_string(1 + static_cast<int>(test.param.model));
                         });

}  // namespace
}  // namespace minimax
