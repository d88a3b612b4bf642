// Configuration, names and sizes of MiniMax-M3 checkpoints.
#include <gtest/gtest.h>

#include "models/minimax_m3_weights.h"
#include "models/model.h"
#include "tests/formats/temp_dir.h"
#include "tests/models/released_configs.h"
#include "tests/models/shared_config.h"

namespace minimax::models {
namespace {

using formats::TensorInfo;
using nlohmann::json;
using testing::expect_error;
using testing::released_m3;
using testing::released_m3_mxfp8;
using testing::with;

TEST(MiniMaxM3Config, ReadsTheReleasedFields) {
  const auto config = MiniMaxM3Config::from_json(released_m3());
  EXPECT_EQ(config.architecture, "MiniMaxM3SparseForConditionalGeneration");
  EXPECT_EQ(config.num_layers, 60);
  EXPECT_EQ(config.num_sparse_layers(), 57);
  EXPECT_FALSE(config.has_moe[2]);
  EXPECT_TRUE(config.has_moe[3]);
  EXPECT_EQ(config.dense_intermediate_size, 12288);
  EXPECT_EQ(config.shared_intermediate_size, 3072);
  EXPECT_EQ(config.routed_scale, 2.0F);
  EXPECT_EQ(config.indexer.topk_blocks, 16);
  EXPECT_EQ(config.indexer.block_size, 128);
  EXPECT_EQ(config.indexer.local_blocks, 1);
}

// What transformers saves: flat fields, words for the kinds of layers.
json converted_m3() {
  json config = released_m3();
  json& text = config["text_config"];
  const json nested = text["sparse_attention_config"];
  text.erase("sparse_attention_config");
  json layers = json::array();
  json mlps = json::array();
  for (const json& flag : text["moe_layer_freq"]) {
    layers.push_back(flag == 1 ? "minimax_m3_sparse" : "full_attention");
    mlps.push_back(flag == 1 ? "sparse" : "dense");
  }
  for (const char* field : {"moe_layer_freq", "rope_theta", "rotary_dim", "partial_rotary_factor",
                            "n_shared_experts", "use_gemma_norm", "qk_norm_type", "scoring_func"}) {
    text.erase(field);
  }
  text.update(
      {{"layer_types", layers},
       {"mlp_layer_types", mlps},
       {"hidden_act", "silu"},
       {"index_n_heads", 4},
       {"index_head_dim", 128},
       {"index_block_size", 128},
       {"index_topk_blocks", 16},
       {"index_local_blocks", 1},
       {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e6}, {"partial_rotary_factor", 0.5}}}});
  return config;
}

TEST(MiniMaxM3Config, BothShapesMeanTheSame) {
  const auto released = MiniMaxM3Config::from_json(released_m3());
  const auto converted = MiniMaxM3Config::from_json(converted_m3());
  EXPECT_EQ(converted.is_sparse, released.is_sparse);
  EXPECT_EQ(converted.has_moe, released.has_moe);
  EXPECT_EQ(converted.indexer.topk_blocks, released.indexer.topk_blocks);
  EXPECT_EQ(converted.rotary_dim, released.rotary_dim);
  EXPECT_EQ(converted.shared_intermediate_size, released.shared_intermediate_size);
  EXPECT_EQ(summarize_model(converted_m3(), nullptr).total_parameters,
            summarize_model(released_m3(), nullptr).total_parameters);
}

TEST(MiniMaxM3Config, ATextOnlyFileNeedsNoNesting) {
  json config = released_m3()["text_config"];
  EXPECT_EQ(MiniMaxM3Config::from_json(config).architecture, "MiniMaxM3SparseForCausalLM");
  config["architectures"] = {"MiniMaxM3VLForCausalLM"};
  EXPECT_EQ(describe_model(config).layers[1].count, 57);
}

TEST(MiniMaxM3Config, RefusesWhatItCannotRunByName) {
  const std::string text = "text_config.";
  const std::string sparse = text + "sparse_attention_config.";
  const struct {
    std::string field;
    json value;
    const char* message;
  } cases[] = {
      {text + "attention_output_gate", true, "attention_output_gate is true; expected false"},
      {text + "use_gemma_norm", false, "use_gemma_norm is false; expected true"},
      {text + "qk_norm_type", "per_layer", "qk_norm_type is \"per_layer\"; expected \"per_head\""},
      {text + "scoring_func", "softmax", "scoring_func is \"softmax\""},
      {text + "swiglu_limit", nullptr, "swiglu_limit is missing"},
      {text + "n_shared_experts", 4000, "n_shared_experts 4000 of shared_intermediate_size 3072 are wider"},
      {text + "moe_layer_freq", nullptr, "moe_layer_freq (or mlp_layer_types) is missing"},
      {sparse + "sparse_disable_index_value", std::vector<int>(60, 0), "sparse_disable_index_value is 0 in"},
      {sparse + "sparse_score_type", "mean", "sparse_score_type is \"mean\"; expected \"max\""},
      {sparse + "sparse_num_index_heads", 2, "2 index heads for 4 kv heads"},
      {sparse + "sparse_block_size", 0, "sparse_block_size is 0"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.field);
    expect_error([&] { MiniMaxM3Config::from_json(with(released_m3(), c.field, c.value)); }, c.message);
  }
}

TEST(MiniMaxM3Weights, CountsTheReleasedModel) {
  const ModelSummary summary = summarize_model(released_m3(), nullptr);
  EXPECT_EQ(summary.total_parameters, 426'174'572'928);
  constexpr int64_t kFinalNorm = 6144;  // not in the published count
  EXPECT_EQ(summary.active_parameters, 23'504'081'280 + kFinalNorm);
  EXPECT_EQ(summary.active_parameters_with_head, 24'733'280'640);
  EXPECT_EQ(summary.weight_bytes, 852'438'813'696);
  EXPECT_EQ(summary.caches.page_size, 128);
  EXPECT_EQ(summary.caches.kv_bytes_per_token(), 122'880);
  EXPECT_EQ(summary.caches.index_bytes_per_token(), 14'592);
}

TEST(MiniMaxM3Weights, CountsTheMxfp8Model) {
  const ModelSummary summary = summarize_model(released_m3_mxfp8(), nullptr);
  EXPECT_EQ(summary.total_parameters, 426'174'572'928);
  EXPECT_NEAR(static_cast<double>(summary.weight_bytes), 442.0e9, 0.1e9);
  EXPECT_EQ(summary.component(Component::kRouter).bytes, int64_t{57} * 128 * (6144 + 1) * 4);
}

TEST(MiniMaxM3Weights, CountsTheRealFiles) {
  const auto released = testing::shared_config("minimax-m3.json");
  const auto mxfp8 = testing::shared_config("minimax-m3-mxfp8.reconstructed.json");
  if (!released || !mxfp8) GTEST_SKIP() << "shared data is not there; set MINIMAX_SHARED_DATA";
  EXPECT_EQ(summarize_model(*released, nullptr).weight_bytes, 852'438'813'696);
  EXPECT_EQ(summarize_model(*mxfp8, nullptr).weight_bytes,
            summarize_model(released_m3_mxfp8(), nullptr).weight_bytes);
}

TEST(MiniMaxM3Weights, TheReleasedTableHasAllTextTensorsOfTheCheckpoint) {
  constexpr size_t kAll = 23'416;
  constexpr size_t kVision = 523;
  EXPECT_EQ(make_dummy_weights(released_m3(), 1)->tensors().size(), kAll - kVision);
}

// Every spelling of a tensor's name finds its place.
TEST(MiniMaxM3Weights, EverySpellingMapsToTheSameTable) {
  MiniMaxM3Weights places;
  const TensorTable table = tensor_table(MiniMaxM3Config::from_json(released_m3()), nullptr, places);
  const auto finds = [&table](const char* spelling, const char* released) {
    const TensorInfo info = {spelling, DType::kBF16, {}, ""};
    return TensorNames({&info, 1}, table.canonical).has(released);
  };
  const std::string l = "language_model.model.layers.3.";
  EXPECT_TRUE(finds("model.language_model.layers.3.self_attn.indexer.q_proj.weight",
                    (l + "self_attn.index_q_proj.weight").c_str()));
  EXPECT_TRUE(
      finds("model.layers.3.self_attn.index_k_norm.weight", (l + "self_attn.index_k_norm.weight").c_str()));
  EXPECT_TRUE(finds("model.language_model.layers.3.mlp.gate.e_score_correction_bias",
                    (l + "block_sparse_moe.e_score_correction_bias").c_str()));
  EXPECT_TRUE(finds("language_model.model.layers.0.block_sparse_moe.gate_proj.weight",
                    "language_model.model.layers.0.mlp.gate_proj.weight"));
  EXPECT_TRUE(finds("lm_head.weight", "language_model.lm_head.weight"));
}

}  // namespace
}  // namespace minimax::models
