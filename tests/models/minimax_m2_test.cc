// Configuration, names and sizes of MiniMax-M2 checkpoints, and their quantised weights.
#include <gtest/gtest.h>

#include "formats/checkpoint.h"
#include "formats/safetensors_writer.h"
#include "models/minimax_m2_weights.h"
#include "models/model.h"
#include "tests/formats/temp_dir.h"
#include "tests/models/released_configs.h"
#include "tests/models/shared_config.h"

namespace minimax::models {
namespace {

using formats::Checkpoint;
using formats::NamedTensor;
using formats::Progress;
using nlohmann::json;
using testing::expect_error;
using testing::released_m2;
using testing::TempDir;
using testing::with;
using testing::without;

TEST(MiniMaxM2Config, ReadsTheReleasedFields) {
  const auto config = MiniMaxM2Config::from_json(released_m2());
  EXPECT_EQ(config.num_heads, 48);
  EXPECT_EQ(config.rotary_dim, 64);
  EXPECT_EQ(config.num_experts, 256);
  EXPECT_EQ(config.qk_norm, QkNorm::kFlattened);
  EXPECT_TRUE(config.routing_bias);
  EXPECT_EQ(config.routed_scale, 1.0F);
  EXPECT_EQ(config.quantization.format, quant::WeightFormat::kFp8);
  EXPECT_TRUE(config.quantization.converts("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(config.quantization.converts("model.layers.0.mlp.gate_proj"));
  EXPECT_FALSE(config.quantization.converts("model.layers.0.block_sparse_moe.gate"));
  EXPECT_FALSE(config.quantization.converts("lm_head"));
}

TEST(MiniMaxM2Config, ReadsWhatTransformersWrites) {
  json config = released_m2();
  config.erase("rotary_dim");
  config.erase("rope_theta");
  config.erase("attn_type_list");
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e6}, {"partial_rotary_factor", 0.5}};
  config["num_experts"] = config["num_local_experts"];
  config.erase("num_local_experts");
  EXPECT_EQ(MiniMaxM2Config::from_json(config).rotary_dim, 64);
  EXPECT_EQ(MiniMaxM2Config::from_json(config).num_experts, 256);
}

TEST(MiniMaxM2Config, RefusesWhatItCannotRunByName) {
  const struct {
    const char* field;
    json value;
    const char* message;
  } cases[] = {
      {"attn_type_list", std::vector<int>(62, 0), "attn_type_list has a layer without full attention"},
      {"scoring_func", "softmax", "scoring_func is \"softmax\"; expected \"sigmoid\""},
      {"use_qk_norm", false, "use_qk_norm is false; expected true"},
      {"qk_norm_type", "multi_head",
       "qk_norm_type is \"multi_head\"; expected \"per_layer\" or \"per_head\""},
      {"shared_intermediate_size", 64, "shared_intermediate_size is 64; expected 0"},
      {"hidden_act", "gelu", "hidden_act is \"gelu\""},
      {"num_local_experts", nullptr, "num_local_experts is missing"},
      {"architectures", {"MiniMaxM9ForCausalLM"}, "architecture MiniMaxM9ForCausalLM is no MiniMax-M2 model"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.field);
    expect_error([&] { MiniMaxM2Config::from_json(with(released_m2(), c.field, c.value)); }, c.message);
  }
}

TEST(Quantization, UnsupportedMethodsAreRefusedByName) {
  for (const char* method : {"awq", "gptq", "modelopt", "quark", "compressed-tensors", "bitsandbytes"}) {
    expect_error(
        [&] { summarize_model(with(released_m2(), "quantization_config.quant_method", method), nullptr); },
        "quantization_config.quant_method is \"" + std::string(method) +
            "\", which is not supported; supported are fp8");
  }
  expect_error(
      [] { summarize_model(with(released_m2(), "quantization_config.weight_block_size", {128}), nullptr); },
      "quantization_config.weight_block_size is [128]; expected [rows, columns]");
}

TEST(MiniMaxM2Weights, CountsTheReleasedModel) {
  const ModelSummary summary = summarize_model(released_m2(), nullptr);
  EXPECT_EQ(summary.total_parameters, 228'689'764'864);
  constexpr int64_t kFinalNorm = 3072;  // not in the published count
  EXPECT_EQ(summary.active_parameters, 9'801'356'800 + kFinalNorm);
  EXPECT_EQ(summary.active_parameters_with_head, 10'415'956'480);
  EXPECT_EQ(summary.weight_bytes, 230'121'630'720);
  EXPECT_EQ(summary.caches.kv_bytes_per_token(), 253'952);
  EXPECT_EQ(summary.active_bytes_with_head, 11'180'080'128 + 2 * kFinalNorm);
  const ModelSummary plain = summarize_model(without(released_m2(), "quantization_config"), nullptr);
  EXPECT_EQ(plain.weight_bytes, 457'477'079'040);
}

TEST(MiniMaxM2Weights, CountsTheRealFiles) {
  for (const char* name : {"minimax-m2.5.json", "minimax-m2.7.json"}) {
    const auto file = testing::shared_config(name);
    if (!file) GTEST_SKIP() << "shared data is not there; set MINIMAX_SHARED_DATA";
    EXPECT_EQ(summarize_model(*file, nullptr).weight_bytes, 230'121'630'720) << name;
  }
}

TEST(MiniMaxM2Weights, TheFp8CacheTakesHalfTheBytes) {
  ComputeOptions options;
  options.kv_cache_dtype = DType::kF8E4M3;
  EXPECT_EQ(describe_model(released_m2(), options).caches.kv_bytes_per_token(), 126'976);
}

TEST(MiniMaxM2Weights, TheReleasedTableHasAllTensorsOfTheCheckpoint) {
  int64_t bytes = 0;
  const auto source = make_dummy_weights(released_m2(), 1);
  for (const auto& info : source->tensors()) bytes += info.size_bytes();
  EXPECT_EQ(source->tensors().size(), 96'103U);
  EXPECT_EQ(bytes, 230'121'630'720);
}

json small_json() {
  json config = released_m2();
  config.update({{"vocab_size", 20},
                 {"hidden_size", 160},
                 {"intermediate_size", 96},
                 {"num_hidden_layers", 2},
                 {"attn_type_list", {1, 1}},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"head_dim", 40},
                 {"rotary_dim", 20},
                 {"num_local_experts", 3},
                 {"num_experts_per_tok", 2}});
  return config;
}

// Tensors of a checkpoint under construction, with their memory.
struct TestModel {
  std::unique_ptr<formats::WeightSource> source;
  std::vector<NamedTensor> tensors;

  explicit TestModel(const json& config) : source(make_dummy_weights(config, 7)) {
    for (const auto& info : source->tensors()) tensors.push_back({info.name, source->tensor(info)});
  }
  NamedTensor& at(std::string_view name) {
    for (auto& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    fail("no tensor {}", name);
  }
  void erase(std::string_view name) {
    std::erase_if(tensors, [name](const NamedTensor& t) { return t.name == name; });
  }
};

// Records what a load says of tensors it leaves out.
class Notes : public Progress {
 public:
  void note(std::string_view line) override { lines.emplace_back(line); }
  std::vector<std::string> lines;
};

MiniMaxM2Weights load(const json& config, const TestModel& model, const TempDir& dir, Progress& progress) {
  formats::write_safetensors(dir.path() / "model.safetensors", model.tensors);
  Checkpoint checkpoint = Checkpoint::open(dir.path());
  MiniMaxM2Weights weights;
  load_table(tensor_table(MiniMaxM2Config::from_json(config), &checkpoint, weights), checkpoint, progress);
  return weights;
}

TEST(MiniMaxM2Weights, BlockFp8IsKeptPackedWithItsScales) {
  const TempDir dir;
  Progress silent;
  const MiniMaxM2Weights weights = load(small_json(), TestModel(small_json()), dir, silent);
  const quant::Weight& q = weights.layers[0].q_proj;
  EXPECT_EQ(q.format, quant::WeightFormat::kFp8);
  EXPECT_EQ(q.block_rows, 128);
  EXPECT_EQ(q.scales.dim(0), 2);  // 160 rows: a ragged second block
  EXPECT_EQ(weights.layers[1].router.format, quant::WeightFormat::kF32);
  EXPECT_EQ(weights.layers[1].routing_bias.dtype(), DType::kF32);
  EXPECT_EQ(weights.lm_head.format, quant::WeightFormat::kBF16);
}

TEST(MiniMaxM2Weights, MtpTensorsAreLeftOutWithOneLine) {
  TestModel model(small_json());
  const Tensor any = model.at("model.norm.weight").tensor;
  model.tensors.push_back({"model.layers.2.self_attn.q_norm.weight", any});
  model.tensors.push_back({"model.mtp.layers.0.enorm.weight", any});
  const TempDir dir;
  Notes notes;
  load(small_json(), model, dir, notes);
  EXPECT_EQ(notes.lines, std::vector<std::string>{"2 MTP tensors are not loaded"});
}

void expect_load_error(const TestModel& model, std::string_view part) {
  const TempDir dir;
  Progress silent;
  expect_error([&] { load(small_json(), model, dir, silent); }, part);
}

TEST(MiniMaxM2Weights, AMissingScaleIsAnError) {
  TestModel model(small_json());
  model.erase("model.layers.1.self_attn.o_proj.weight_scale_inv");
  expect_load_error(model, "model.layers.1.self_attn.o_proj.weight is F8_E4M3 and has no scales");
}

TEST(MiniMaxM2Weights, AScaleOfAnotherShapeIsAnError) {
  TestModel model(small_json());
  Tensor& scales = model.at("model.layers.1.self_attn.o_proj.weight_scale_inv").tensor;
  scales = scales.slice(0, 0, 1);
  expect_load_error(model, "model.layers.1.self_attn.o_proj.weight_scale_inv");
}

TEST(MiniMaxM2Weights, AScaleThatIsNoScaleIsAnError) {
  for (const float value :
       {0.0F, -1.0F, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    TestModel model(small_json());
    model.at("model.layers.0.self_attn.k_proj.weight_scale_inv").tensor.data<float>()[1] = value;
    expect_load_error(model, "model.layers.0.self_attn.k_proj.weight_scale_inv");
  }
}

TEST(MiniMaxM2Weights, AScaleBesideAnUnquantisedWeightIsAnError) {
  TestModel model(small_json());
  model.tensors.push_back({"lm_head.weight_scale_inv", model.at("model.norm.weight").tensor});
  expect_load_error(model, "lm_head.weight_scale_inv is unexpected");
}

}  // namespace
}  // namespace minimax::models
