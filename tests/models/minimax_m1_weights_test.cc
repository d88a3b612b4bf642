#include "models/minimax_m1_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "formats/checkpoint.h"
#include "formats/dummy_weights.h"
#include "formats/safetensors_writer.h"
#include "models/minimax_m1_tensors.h"
#include "models/model.h"
#include "tests/formats/temp_dir.h"

namespace minimax::models {
namespace {

using formats::Checkpoint;
using formats::NamedTensor;
using formats::Progress;
using formats::TensorInfo;
using nlohmann::json;
using testing::expect_error;
using testing::TempDir;

const std::filesystem::path kFixtures = std::filesystem::path(MINIMAX_SOURCE_DIR) / "tests/fixtures";

json json_in(const char* fixture) { return formats::read_config(kFixtures / fixture); }

MiniMaxM1Config config_in(const char* fixture) { return MiniMaxM1Config::from_json(json_in(fixture)); }

// A small released-style model: lightning, full.
json small_json() {
  json config = json_in("minimax-m1");
  config.update({{"vocab_size", 20},
                 {"hidden_size", 8},
                 {"intermediate_size", 6},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"head_dim", 4},
                 {"rotary_dim", 2},
                 {"num_local_experts", 3},
                 {"num_experts_per_tok", 2},
                 {"attn_type_list", {0, 1}}});
  return config;
}

MiniMaxM1Config small_config() { return MiniMaxM1Config::from_json(small_json()); }

std::vector<TensorSpec> tensor_specs(const MiniMaxM1Config& config) {
  MiniMaxM1Weights places;
  std::vector<TensorSpec> specs;
  for (const TensorSlot& slot : tensor_table(config, nullptr, places).slots) specs.push_back(slot.spec);
  return specs;
}

MiniMaxM1Weights load_weights(const MiniMaxM1Config& config, formats::WeightSource& source) {
  MiniMaxM1Weights weights;
  Progress silent;
  load_table(tensor_table(config, &source, weights), source, silent);
  return weights;
}

// Tensors of a checkpoint under construction, with their memory.
struct TestModel {
  std::unique_ptr<formats::WeightSource> source;
  std::vector<NamedTensor> tensors;

  NamedTensor& at(std::string_view name) {
    for (auto& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    fail("no tensor {}", name);
  }
  void erase(std::string_view name) {
    std::erase_if(tensors, [name](const NamedTensor& t) { return t.name == name; });
  }
  void rename(std::string_view from, std::string_view to) {
    for (auto& tensor : tensors) {
      if (const auto at = tensor.name.find(from); at != std::string::npos)
        tensor.name.replace(at, from.size(), to);
    }
  }
};

TestModel model_of(std::vector<TensorSpec> specs) {
  std::vector<TensorInfo> infos;
  for (auto& spec : specs) infos.push_back({spec.name, spec.released_dtype, spec.shape, ""});
  TestModel model;
  model.source = std::make_unique<formats::DummyWeights>(std::move(infos), 7);
  for (const auto& info : model.source->tensors()) {
    model.tensors.push_back({info.name, model.source->tensor(info)});
  }
  return model;
}

Checkpoint written(const TempDir& dir, const TestModel& model) {
  formats::write_safetensors(dir.path() / "model.safetensors", model.tensors);
  return Checkpoint::open(dir.path());
}

void expect_load_error(const MiniMaxM1Config& config, const TestModel& model, std::string_view part) {
  const TempDir dir;
  Checkpoint checkpoint = written(dir, model);
  expect_error([&] { load_weights(config, checkpoint); }, part);
}

NameDifference differences(const MiniMaxM1Config& config, std::span<const TensorInfo> tensors) {
  MiniMaxM1Weights places;
  const TensorTable table = tensor_table(config, nullptr, places);
  return compare_names(table, TensorNames(tensors, table.canonical));
}

TEST(MiniMaxM1Weights, LoadsWhatTransformersSaved) {
  const MiniMaxM1Config config = config_in("hf-minimax");
  Checkpoint checkpoint = Checkpoint::open(kFixtures / "hf-minimax");
  const MiniMaxM1Weights weights = load_weights(config, checkpoint);
  ASSERT_EQ(weights.layers.size(), 4U);
  const auto& lightning = std::get<LightningWeights>(weights.layers[0].attention);
  EXPECT_EQ(lightning.qkv_proj.out_features(), 3 * 4 * 16);
  EXPECT_EQ(lightning.qkv_proj.values.name(), "model.layers.0.self_attn.qkv_proj.weight");
  EXPECT_EQ(lightning.qkv_proj.values.raw(),
            checkpoint.tensor("model.layers.0.self_attn.qkv_proj.weight").raw());
  EXPECT_EQ(std::get<FullAttentionWeights>(weights.layers[3].attention).k_proj.out_features(), 2 * 16);
  EXPECT_EQ(weights.layers[3].router.format, quant::WeightFormat::kBF16);
  EXPECT_EQ(weights.layers[1].experts[3].w2.values.name(),
            "model.layers.1.block_sparse_moe.experts.3.w2.weight");
  EXPECT_FALSE(weights.layers[0].shared_mlp.w1.defined());
  EXPECT_EQ(weights.lm_head.out_features(), 96);
}

TEST(MiniMaxM1Weights, TheReleasedIndexMapsWithNothingLeftOver) {
  const auto weight_map = formats::read_weight_map(kFixtures / "minimax-m1/model.safetensors.index.json");
  std::vector<TensorInfo> names;
  for (const auto& [name, file] : weight_map) names.push_back({name, DType::kBF16, {}, file});
  EXPECT_EQ(names.size(), 2U + 1U + 80U * (2 + 4 + 1 + 32 * 3));
  const NameDifference difference = differences(config_in("minimax-m1"), names);
  EXPECT_TRUE(difference.missing.empty()) << difference.missing.front();
  EXPECT_TRUE(difference.unexpected.empty()) << difference.unexpected.front();
}

TEST(MiniMaxM1Weights, CompareNamesReportsBothSides) {
  std::vector<TensorInfo> names;
  for (const auto& spec : tensor_specs(small_config())) names.push_back({spec.name, DType::kBF16, {}, ""});
  names.back().name = "model.layers.9.surprise";
  const NameDifference difference = differences(small_config(), names);
  EXPECT_EQ(difference.missing, std::vector<std::string>{"lm_head.weight"});
  EXPECT_EQ(difference.unexpected, std::vector<std::string>{"model.layers.9.surprise"});
}

TEST(MiniMaxM1Weights, CountsTheReleasedModel) {
  const ModelSummary summary = summarize_model(json_in("minimax-m1"), nullptr);
  EXPECT_EQ(summary.total_parameters, 456'089'655'296);
  EXPECT_EQ(summary.active_parameters, 45'944'920'064);
  EXPECT_EQ(summary.active_parameters_with_head, 47'174'113'280);
  EXPECT_EQ(summary.weight_bytes, 912'210'767'872);
  EXPECT_EQ(summary.layers[0].count, 70);
  EXPECT_EQ(summary.layers[1].count, 10);
  EXPECT_EQ(summary.caches.kv_bytes_per_token(), 40'960);
  EXPECT_EQ(summary.caches.state_bytes(1), 293'601'280);
  EXPECT_EQ(summary.max_position_embeddings, 10'240'000);
  EXPECT_EQ(summary.component(Component::kRouter).bytes, int64_t{80} * 32 * 6144 * 4);
  const int64_t sum = std::accumulate(summary.components.begin(), summary.components.end(), int64_t{0},
                                      [](int64_t n, const ComponentSize& c) { return n + c.parameters; });
  EXPECT_EQ(sum, summary.total_parameters);
}

TEST(MiniMaxM1Weights, ATiedHeadIsActiveWithoutBeingStored) {
  const ModelSummary untied = summarize_model(small_json(), nullptr);
  json config = small_json();
  config["tie_word_embeddings"] = true;
  const ModelSummary tied = summarize_model(config, nullptr);
  EXPECT_EQ(tied.total_parameters, untied.total_parameters - 20 * 8);
  EXPECT_EQ(tied.active_parameters, untied.active_parameters);
  EXPECT_EQ(tied.active_parameters_with_head, untied.active_parameters_with_head);
}

TEST(MiniMaxM1Weights, SummaryTakesDtypesFromTheCheckpoint) {
  const Checkpoint checkpoint = Checkpoint::open(kFixtures / "hf-minimax");
  const ModelSummary summary = summarize_model(json_in("hf-minimax"), &checkpoint);
  EXPECT_EQ(summary.weight_bytes, 2 * summary.total_parameters);  // the router is BF16 here
}

TEST(MiniMaxM1Weights, AFullSizeDummyModelIsPlannedWithoutMemory) {
  const auto source = make_dummy_weights(json_in("minimax-m1"), 1);
  int64_t bytes = 0;
  for (const auto& info : source->tensors()) bytes += info.size_bytes();
  EXPECT_EQ(bytes, 912'210'767'872);
}

TEST(MiniMaxM1Weights, LoadsDummyWeights) {
  const auto source = make_dummy_weights(small_json(), 1);
  const MiniMaxM1Weights weights = load_weights(small_config(), *source);
  EXPECT_EQ(weights.layers.size(), 2U);
  EXPECT_EQ(weights.layers[0].router.format, quant::WeightFormat::kF32);
  EXPECT_EQ(weights.layers[1].experts[2].w1.format, quant::WeightFormat::kBF16);
  EXPECT_NEAR(to_float(weights.norm.data<bf16>()[3]), 1.0F, 0.3F);
}

TEST(MiniMaxM1Weights, AcceptsFusedExperts) {
  MiniMaxM1Config config = small_config();
  std::vector<TensorSpec> specs = tensor_specs(config);
  std::erase_if(specs, [](const TensorSpec& spec) { return spec.component == Component::kExperts; });
  for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
    specs.push_back({std::string(layer) + "mlp.experts.gate_up_proj", {3, 12, 8}});
    specs.push_back({std::string(layer) + "mlp.experts.down_proj", {3, 8, 6}});
  }
  const TempDir dir;
  Checkpoint checkpoint = written(dir, model_of(specs));
  const MiniMaxM1Weights weights = load_weights(config, checkpoint);
  const Tensor gate_up = checkpoint.tensor("model.layers.1.mlp.experts.gate_up_proj");
  const Tensor down = checkpoint.tensor("model.layers.1.mlp.experts.down_proj");
  const MlpWeights& expert = weights.layers[1].experts[2];
  EXPECT_EQ(expert.w1.values.raw(), gate_up.data<bf16>() + 2 * 12 * 8);
  EXPECT_EQ(expert.w3.values.raw(), gate_up.data<bf16>() + (2 * 12 + 6) * 8);
  EXPECT_EQ(expert.w2.values.raw(), down.data<bf16>() + 2 * 8 * 6);
  EXPECT_EQ(expert.w3.out_features(), 6);
  EXPECT_EQ(expert.w2.out_features(), 8);
}

TEST(MiniMaxM1Weights, AcceptsMlpNamesAndTheVisionPrefix) {
  const MiniMaxM1Config config = small_config();
  TestModel model = model_of(tensor_specs(config));
  model.rename(".block_sparse_moe.", ".mlp.");
  model.rename("model.", "language_model.model.");
  model.rename("lm_head", "language_model.lm_head");
  const Tensor any = model.tensors.front().tensor;
  model.tensors.push_back({"vision_tower.patch.weight", any});
  const TempDir dir;
  Checkpoint checkpoint = written(dir, model);
  const MiniMaxM1Weights weights = load_weights(config, checkpoint);
  EXPECT_EQ(weights.layers[0].experts[1].w3.values.name(),
            "language_model.model.layers.0.mlp.experts.1.w3.weight");
}

TEST(MiniMaxM1Weights, OneExpertIsADenseMlp) {
  json one = small_json();
  one["num_local_experts"] = one["num_experts_per_tok"] = 1;
  const auto source = make_dummy_weights(one, 1);
  const MiniMaxM1Weights weights = load_weights(MiniMaxM1Config::from_json(one), *source);
  EXPECT_FALSE(weights.layers[0].router.defined());
  EXPECT_EQ(weights.layers[0].experts.front().w1.values.name(), "model.layers.0.mlp.gate_proj.weight");
}

TEST(MiniMaxM1Weights, TheSharedMlpWidthIsThatOfItsTensor) {
  json stored = small_json();
  stored["shared_intermediate_size"] = 10;
  const TempDir dir;
  Checkpoint checkpoint = written(dir, model_of(tensor_specs(MiniMaxM1Config::from_json(stored))));
  json config = stored;
  config["shared_intermediate_size"] = 6;
  const MiniMaxM1Weights weights = load_weights(MiniMaxM1Config::from_json(config), checkpoint);
  EXPECT_EQ(weights.layers[0].shared_mlp.w1.out_features(), 10);
  EXPECT_EQ(weights.layers[1].coefficient.values.dim(0), 1);
  EXPECT_EQ(summarize_model(config, &checkpoint).total_parameters,
            summarize_model(stored, nullptr).total_parameters);
}

TEST(MiniMaxM1Weights, TiedHeadIsTheEmbedding) {
  MiniMaxM1Config config = small_config();
  TestModel model = model_of(tensor_specs(config));  // with lm_head.weight, which is then ignored
  config.tie_word_embeddings = true;
  const TempDir dir;
  Checkpoint checkpoint = written(dir, model);
  const MiniMaxM1Weights weights = load_weights(config, checkpoint);
  EXPECT_EQ(weights.lm_head.values.raw(), weights.embed_tokens.raw());
}

TEST(MiniMaxM1Weights, IgnoresBuffers) {
  TestModel model = model_of(tensor_specs(small_config()));
  const Tensor any = model.at("model.norm.weight").tensor;
  for (const char* name :
       {"model.slopes", "model.layers.1.self_attn.rotary_emb.inv_freq", "model.layers.0.self_attn.slope_rate",
        "model.layers.0.self_attn.diagonal_decay"}) {
    model.tensors.push_back({name, any});
  }
  const TempDir dir;
  Checkpoint checkpoint = written(dir, model);
  EXPECT_NO_THROW(load_weights(small_config(), checkpoint));
}

TEST(MiniMaxM1Weights, ListsAllProblemsTogether) {
  TestModel model = model_of(tensor_specs(small_config()));
  model.erase("model.norm.weight");
  model.rename("layers.1.self_attn.k_proj", "layers.1.self_attn.key");
  NamedTensor& head = model.at("lm_head.weight");
  head.tensor = head.tensor.slice(0, 0, 19);
  expect_load_error(
      small_config(), model,
      "tensors do not match MiniMaxM1ForCausalLM: 4 problems: model.layers.1.self_attn.k_proj.weight "
      "is missing; model.norm.weight is missing; model.layers.1.self_attn.key.weight is unexpected; "
      "lm_head.weight is [19, 8], the configuration needs [20, 8]");
}

TEST(MiniMaxM1Weights, BoundsTheList) {
  expect_load_error(config_in("hf-minimax"), model_of(tensor_specs(small_config())),
                    "more. Check that config");
}

TEST(MiniMaxM1Weights, RefusesOtherDtypes) {
  TestModel model = model_of(tensor_specs(small_config()));
  Tensor& norm = model.at("model.norm.weight").tensor;
  norm = Tensor(norm.raw(), DType::kI16, norm.shape(), norm.name());
  expect_load_error(small_config(), model, "model.norm.weight is I16, supported are BF16, F32 and F16");
}

}  // namespace
}  // namespace minimax::models
