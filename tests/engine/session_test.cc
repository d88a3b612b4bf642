// Sessions: planned memory, step invariance, independence from chunking, reuse.
#include "engine/session.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu_backend.h"
#include "engine/generate.h"
#include "formats/weight_source.h"

namespace minimax::engine {
namespace {

// A small model with random weights, both kinds of attention and a mixture of experts.
struct SmallModel {
  nlohmann::json config;
  std::unique_ptr<formats::WeightSource> weights;
  std::unique_ptr<models::Model> model;
  ThreadPool pool{2};
  std::unique_ptr<ops::Backend> backend = cpu::make_cpu_backend(pool);

  explicit SmallModel(DType dtype = DType::kF32) {
    config = {{"architectures", {"MiniMaxM1ForCausalLM"}},
              {"model_type", "minimax_m1"},
              {"attn_type_list", {0, 1, 0}},
              {"vocab_size", 50},
              {"hidden_size", 24},
              {"intermediate_size", 20},
              {"num_hidden_layers", 3},
              {"num_attention_heads", 4},
              {"num_key_value_heads", 2},
              {"head_dim", 10},
              {"rotary_dim", 6},
              {"rope_theta", 10000},
              {"num_local_experts", 4},
              {"num_experts_per_tok", 2},
              {"max_position_embeddings", 1000},
              {"rms_norm_eps", 1e-5},
              {"hidden_act", "silu"},
              {"postnorm", true},
              {"shared_intermediate_size", 0},
              {"tie_word_embeddings", false}};
    weights = models::make_dummy_weights(config, 3);
    formats::Progress silent;
    model = models::load_model(config, {dtype}, *weights, silent);
  }
};

std::vector<int32_t> tokens(int64_t count) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((7 * i + 3) % 50));
  return ids;
}

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

// Keeps the ops of a step.
class Recorder : public ops::Tracer {
 public:
  void on_op(const ops::OpRecord& record) override { records.push_back(record); }
  std::vector<ops::OpRecord> records;
};

// Two decode steps must differ in the content of buffers alone: a captured graph replays the first as the
// second.
TEST(Session, TwoDecodeStepsGiveTheSameTrace) {
  SmallModel small;
  Session session(*small.model, *small.backend, {64, 16, 1});
  session.append(tokens(20));
  Recorder first;
  Recorder second;
  const int32_t token = 5;
  session.set_tracer(&first);
  session.append({&token, 1});
  session.set_tracer(&second);
  session.append({&token, 1});

  ASSERT_EQ(first.records.size(), second.records.size());
  ASSERT_GT(first.records.size(), 20U);
  for (size_t i = 0; i < first.records.size(); ++i) {
    const ops::OpRecord& a = first.records[i];
    const ops::OpRecord& b = second.records[i];
    EXPECT_EQ(a.op, b.op);
    EXPECT_EQ(a.scalars, b.scalars) << a.op;
    ASSERT_EQ(a.operands.size(), b.operands.size()) << a.op;
    for (size_t j = 0; j < a.operands.size(); ++j) {
      const Tensor& x = a.operands[j].tensor;
      const Tensor& y = b.operands[j].tensor;
      EXPECT_EQ(x.raw(), y.raw()) << a.op << " " << a.operands[j].role;
      EXPECT_TRUE(std::ranges::equal(x.shape(), y.shape())) << a.op << " " << a.operands[j].role;
      for (int axis = 0; axis < x.rank(); ++axis) EXPECT_EQ(x.stride(axis), y.stride(axis)) << a.op;
    }
  }
}

TEST(Session, ChunkingDoesNotChangeTheResult) {
  SmallModel small;
  const std::vector<int32_t> prompt = tokens(130);
  Session whole(*small.model, *small.backend, {200, 200, 1});
  const std::vector<float> expected = copy(whole.append(prompt));
  for (const int64_t chunk : {1, 7, 64, 129}) {
    Session session(*small.model, *small.backend, {200, chunk, 1});
    const std::vector<float> logits = copy(session.append(prompt));
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(logits[i], expected[i], 2e-4) << "chunk " << chunk;
  }
}

TEST(Session, ResetLeavesNothingOfTheSequenceBefore) {
  SmallModel small;
  Session fresh(*small.model, *small.backend, {100, 32, 1});
  const std::vector<float> expected = copy(fresh.append(tokens(40)));
  Session used(*small.model, *small.backend, {100, 32, 1});
  used.append(tokens(77));
  used.reset();
  EXPECT_EQ(copy(used.append(tokens(40))), expected);
  EXPECT_EQ(used.length(), 40);
}

TEST(Session, ThePlanIsWhatASessionTakes) {
  SmallModel small;
  const SessionOptions options{100, 32, 4};
  const MemoryPlan plan = Session::plan(*small.model, *small.backend, options);
  Session session(*small.model, *small.backend, options);
  EXPECT_EQ(plan.total_bytes(), session.memory_plan().total_bytes());
  // 2 lightning layers, 4 heads of 10 x 10 F32; 7 pages of 16 tokens, K and V, 2 heads of 10, F32.
  EXPECT_EQ(plan.linear_state_bytes, 2 * 4 * 10 * 10 * 4);
  EXPECT_EQ(plan.kv_cache_bytes, 2 * 7 * 16 * 2 * 10 * 4);
  // A planned model needs no weights to say the same.
  const auto planned = models::plan_model(small.config, {DType::kF32});
  EXPECT_EQ(Session::plan(*planned, *small.backend, options).total_bytes(), plan.total_bytes());
}

TEST(Session, AFullContextAndAForeignTokenAreClearErrors) {
  SmallModel small;
  Session session(*small.model, *small.backend, {10, 10, 1});
  const auto message = [&](const std::vector<int32_t>& ids) -> std::string {
    try {
      session.append(ids);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message(tokens(11)).find("10 is the limit"), std::string::npos);
  EXPECT_NE(message({1, 50}).find("token id 50 is outside the model's vocabulary of 50"), std::string::npos);
  EXPECT_EQ(session.length(), 0);
  EXPECT_THROW(Session(*small.model, *small.backend, {1001, 10, 1}), Error);
}

TEST(Generate, StopsAtAStopTokenAtTheLimitAndWhenTold) {
  SmallModel small;
  GenerationRequest request;
  request.prompt = tokens(12);
  request.sampling.temperature = 0;
  request.max_tokens = 8;
  const auto run = [&](const TokenCallback& callback) {
    Session session(*small.model, *small.backend, {64, 64, 1});
    return generate(session, *small.model, *small.backend, request, callback);
  };
  const auto go_on = [](const SampledToken&) { return true; };
  const GenerationResult all = run(go_on);
  EXPECT_EQ(all.finish_reason, FinishReason::kLength);
  ASSERT_EQ(all.token_ids.size(), 8U);

  EXPECT_EQ(run([](const SampledToken&) { return false; }).finish_reason, FinishReason::kCancelled);

  request.stop_token_ids = {all.token_ids[3]};
  const GenerationResult stopped = run(go_on);
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_LE(stopped.token_ids.size(), 3U);
}

TEST(Generate, TheSameSeedGivesTheSameTokensAndBiasForbids) {
  SmallModel small;
  GenerationRequest request;
  request.prompt = tokens(12);
  request.sampling.seed = 9;
  request.max_tokens = 20;
  const auto run = [&] {
    Session session(*small.model, *small.backend, {64, 64, 1});
    return generate(session, *small.model, *small.backend, request, [](const SampledToken&) { return true; })
        .token_ids;
  };
  const std::vector<int32_t> first = run();
  EXPECT_EQ(first, run());
  request.sampling.logit_bias[first[0]] = -1000;
  for (const int32_t id : run()) EXPECT_NE(id, first[0]);
  request.sampling.top_p = 1.5F;
  EXPECT_THROW(run(), Error);
}

}  // namespace
}  // namespace minimax::engine
