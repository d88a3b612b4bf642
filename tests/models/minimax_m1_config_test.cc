#include "models/minimax_m1_config.h"
#include "models/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "formats/checkpoint.h"
#include "tests/formats/temp_dir.h"
#include "tests/models/shared_config.h"

namespace minimax::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::expect_error;
using testing::shared_config;

const fs::path kSource = MINIMAX_SOURCE_DIR;

json released_json() { return formats::read_config(kSource / "tests/fixtures/minimax-m1"); }
json converted_json() { return formats::read_config(kSource / "tests/fixtures/hf-minimax"); }

json without(json object, const char* field) {
  object.erase(field);
  return object;
}

json with(json object, const char* field, json value) {
  object[field] = std::move(value);
  return object;
}

void expect_released_sizes(const MiniMaxM1Config& config) {
  EXPECT_EQ(config.vocab_size, 200064);
  EXPECT_EQ(config.hidden_size, 6144);
  EXPECT_EQ(config.intermediate_size, 9216);
  EXPECT_EQ(config.shared_intermediate_size, 0);
  EXPECT_EQ(config.num_layers, 80);
  EXPECT_EQ(config.num_heads, 64);
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.rotary_dim, 64);
  EXPECT_EQ(config.num_experts, 32);
  EXPECT_EQ(config.num_experts_per_tok, 2);
  EXPECT_EQ(config.max_position_embeddings, 10'240'000);
  EXPECT_EQ(config.rope_theta, 1e7);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5F);
  EXPECT_FLOAT_EQ(config.lightning_norm_eps, 1e-6F);
  for (const DeepNorm& factors : {config.full_attention, config.lightning_attention, config.mlp}) {
    EXPECT_FLOAT_EQ(factors.alpha, 3.5565588F);
    EXPECT_FLOAT_EQ(factors.beta, 1.0F);
  }
  EXPECT_TRUE(config.postnorm);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.count(AttentionKind::kLightning), 70);
  EXPECT_EQ(config.count(AttentionKind::kFull), 10);
  EXPECT_EQ(config.layer_kinds[6], AttentionKind::kLightning);
  EXPECT_EQ(config.layer_kinds[7], AttentionKind::kFull);
  EXPECT_EQ(config.layer_kinds[79], AttentionKind::kFull);
}

TEST(MiniMaxM1Config, ReadsTheReleasedFile) {
  const auto config = MiniMaxM1Config::from_json(released_json());
  EXPECT_EQ(config.architecture, "MiniMaxM1ForCausalLM");
  EXPECT_EQ(config.decay_rule, DecayRule::kReleased);
  expect_released_sizes(config);
}

TEST(MiniMaxM1Config, ReadsText01) {
  const auto file = shared_config("minimax-text-01.reconstructed.json");
  if (!file) GTEST_SKIP() << "shared data is not there; set MINIMAX_SHARED_DATA";
  const auto config = MiniMaxM1Config::from_json(*file);
  EXPECT_EQ(config.architecture, "MiniMaxText01ForCausalLM");
  expect_released_sizes(config);
}

TEST(MiniMaxM1Config, ReadsTheConvertedText01) {
  const auto file = shared_config("minimax-text-01-hf.excerpt.json");
  if (!file) GTEST_SKIP() << "shared data is not there; set MINIMAX_SHARED_DATA";
  const auto config = MiniMaxM1Config::from_json(with(*file, "model_type", "minimax"));
  EXPECT_EQ(config.architecture, "MiniMaxForCausalLM");
  EXPECT_EQ(config.decay_rule, DecayRule::kTransformers);
  expect_released_sizes(config);
}

TEST(MiniMaxM1Config, ReadsWhatTransformersWrites) {
  const auto config = MiniMaxM1Config::from_json(converted_json());
  EXPECT_EQ(config.architecture, "MiniMaxForCausalLM");
  EXPECT_EQ(config.rope_theta, 1e7);
  EXPECT_EQ(config.rotary_dim, 8);
  EXPECT_FLOAT_EQ(config.mlp.alpha, 1.6818F);
  EXPECT_TRUE(config.postnorm);
  EXPECT_EQ(config.count(AttentionKind::kFull), 1);
}

TEST(MiniMaxM1Config, ReadsTheTextConfigOfTheVisionModel) {
  json text = released_json();
  text["num_local_experts"] = json::array({32});
  text["shared_intermediate_size"] = json::array({0});
  const json file = {{"architectures", {"MiniMaxVL01ForConditionalGeneration"}}, {"text_config", text}};
  expect_released_sizes(MiniMaxM1Config::from_json(file));
}

TEST(MiniMaxM1Config, AcceptsOneNumberOfExpertsPerLayer) {
  const json lists = with(released_json(), "num_local_experts", std::vector<int>(80, 32));
  expect_released_sizes(MiniMaxM1Config::from_json(lists));
  std::vector<int> mixed(80, 32);
  mixed[3] = 16;
  expect_error([&] { MiniMaxM1Config::from_json(with(released_json(), "num_local_experts", mixed)); },
               "layers of different sizes are not supported");
}

TEST(MiniMaxM1Config, AcceptsTheOlderListOfLayerKinds) {
  json file = released_json();
  file["decoder_attention_types"] = file["attn_type_list"];
  expect_released_sizes(MiniMaxM1Config::from_json(without(file, "attn_type_list")));
  file["decoder_attention_types"][0] = 1;
  expect_error([&] { MiniMaxM1Config::from_json(file); },
               "attn_type_list and decoder_attention_types disagree");
}

TEST(MiniMaxM1Config, OptionalFieldsHaveTheirDefaults) {
  json file = released_json();
  for (const char* field :
       {"layernorm_mlp_alpha", "layernorm_mlp_beta", "rotary_dim", "shared_intermediate_size",
        "tie_word_embeddings", "hidden_act", "architectures"}) {
    file.erase(field);
  }
  const auto config = MiniMaxM1Config::from_json(file);
  EXPECT_EQ(config.mlp.alpha, 1.0F);
  EXPECT_EQ(config.mlp.beta, 1.0F);
  EXPECT_EQ(config.rotary_dim, 128);
  EXPECT_EQ(config.shared_intermediate_size, 0);
  EXPECT_EQ(config.architecture, "MiniMaxM1ForCausalLM");
}

TEST(MiniMaxM1Config, PostnormFalseIsHonouredInReleasedModelsOnly) {
  EXPECT_FALSE(MiniMaxM1Config::from_json(with(released_json(), "postnorm", false)).postnorm);
  EXPECT_TRUE(MiniMaxM1Config::from_json(with(converted_json(), "postnorm", false)).postnorm);
}

TEST(MiniMaxM1Config, AMissingSizeIsNeverGuessed) {
  for (const char* field :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "num_local_experts", "num_experts_per_tok",
        "max_position_embeddings", "rms_norm_eps", "rope_theta", "postnorm", "attn_type_list"}) {
    expect_error([&] { MiniMaxM1Config::from_json(without(released_json(), field)); },
                 fmt::format("config.json: {}", field));
    expect_error([&] { MiniMaxM1Config::from_json(with(released_json(), field, nullptr)); }, "is missing");
  }
}

TEST(MiniMaxM1Config, RefusesBadValuesByName) {
  struct Case {
    const char* field;
    json value;
    const char* message;
  };
  const Case cases[] = {
      {"vocab_size", "200064", "vocab_size is \"200064\"; expected an integer from 1 to 16777216"},
      {"vocab_size", 0, "vocab_size is 0; expected"},
      {"vocab_size", -5, "vocab_size is -5; expected"},
      {"hidden_size", 6144.5, "hidden_size is 6144.5; expected"},
      {"hidden_size", 6144.0, "hidden_size is 6144.0; expected"},
      {"hidden_size", int64_t{1} << 40, "hidden_size is 1099511627776; expected"},
      {"hidden_size", UINT64_MAX, "hidden_size is 18446744073709551615; expected"},
      {"head_dim", true, "head_dim is true; expected"},
      {"num_hidden_layers", json::array({80}), "num_hidden_layers is [80]; expected"},
      {"num_hidden_layers", 79, "attn_type_list has 80 elements; expected 79, one per layer"},
      {"num_key_value_heads", 7, "num_attention_heads 64 is no multiple of num_key_value_heads 7"},
      {"num_key_value_heads", 65, "num_key_value_heads is 65; expected an integer from 1 to 64"},
      {"num_experts_per_tok", 33, "num_experts_per_tok is 33; expected an integer from 1 to 32"},
      {"num_local_experts", 4000, "num_hidden_layers 80 times num_local_experts 4000 exceeds"},
      {"num_local_experts", json::array({32, 32}),
       "num_local_experts is [32,32]; expected one integer, or a list"},
      {"num_local_experts", json::array(), "num_local_experts is []; expected"},
      {"rotary_dim", 63, "rotary_dim is 63; expected an even number"},
      {"rotary_dim", 130, "rotary_dim is 130; expected an integer from 2 to 128"},
      {"rope_theta", "big", "rope_theta is \"big\"; expected a number"},
      {"rope_theta", -1, "rope_theta is -1; expected a number"},
      {"rope_scaling", {{"type", "yarn"}}, "rope_scaling is {\"type\":\"yarn\"}; expected null"},
      {"rope_parameters", 3, "rope_parameters is 3; expected an object"},
      {"rope_parameters",
       {{"rope_type", "yarn"}},
       "rope_parameters.rope_type is \"yarn\"; expected \"default\""},
      {"rope_parameters",
       {{"partial_rotary_factor", 1.0}},
       "rotary_dim is 64 but rope_parameters.partial_rotary"},
      {"rope_parameters",
       {{"rope_theta", 5e6}},
       "rope_theta is 10000000 but rope_parameters.rope_theta is 5000000"},
      {"rms_norm_eps", 0, "rms_norm_eps is 0; expected a number"},
      {"layernorm_mlp_alpha", json::array(), "layernorm_mlp_alpha is []; expected a number"},
      {"postnorm", 1, "postnorm is 1; expected true or false"},
      {"tie_word_embeddings", "no", "tie_word_embeddings is \"no\"; expected true or false"},
      {"hidden_act", "gelu", "hidden_act is \"gelu\"; expected \"silu\""},
      {"sliding_window", 4096, "sliding_window is 4096; expected null"},
      {"attn_type_list", 3, "attn_type_list is 3; expected a list"},
      {"attn_type_list", std::vector<int>(80, 2), "attn_type_list is 2; expected 0 or"},
      {"layer_types", std::vector<std::string>(80, "sliding_attention"),
       "layer_types is \"sliding_attention\""},
      {"architectures", json::array(), "architectures is []; expected a list of one class name"},
      {"architectures", json::array({"LlamaForCausalLM"}),
       "architecture LlamaForCausalLM is no MiniMax-Text-01"},
      {"quantization_config",
       {{"quant_method", "awq"}},
       "quantization_config.quant_method is \"awq\", which is not supported"},
      {"quantization_config", json::object(),
       "quantization_config.quant_method is \"\", which is not supported"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.field);
    expect_error([&] { MiniMaxM1Config::from_json(with(released_json(), c.field, c.value)); }, c.message);
  }
  expect_error([] { MiniMaxM1Config::from_json(json::array()); }, "holds a JSON array; expected an object");
}

TEST(MiniMaxM1Config, ASharedMlpNeedsTheSigmoidMixing) {
  const json file = with(released_json(), "shared_intermediate_size", 64);
  EXPECT_EQ(MiniMaxM1Config::from_json(file).shared_intermediate_size, 64);
  expect_error([&] { MiniMaxM1Config::from_json(with(file, "shared_moe_mode", "softmax")); },
               "shared_moe_mode is \"softmax\" with a shared MLP; expected \"sigmoid\"");
}

TEST(MiniMaxM1Config, CanBeCutToItsFirstLayers) {
  const auto cut = MiniMaxM1Config::from_json(with_first_layers(released_json(), 8));
  EXPECT_EQ(cut.num_layers, 8);
  EXPECT_EQ(cut.count(AttentionKind::kLightning), 7);
  EXPECT_EQ(cut.count(AttentionKind::kFull), 1);
  expect_error([&] { with_first_layers(released_json(), 81); }, "81 layers asked for; the model has 80");
  expect_error([&] { with_first_layers(released_json(), 0); }, "0 layers asked for");
}

MiniMaxM1Config decay_config(int64_t num_heads, int64_t num_layers, DecayRule rule) {
  MiniMaxM1Config config;
  config.num_heads = num_heads;
  config.num_layers = num_layers;
  config.decay_rule = rule;
  return config;
}

TEST(DecayRates, FollowTheReleasedFormula) {
  const auto config = decay_config(64, 80, DecayRule::kReleased);
  const auto first = decay_rates(config, 0);
  ASSERT_EQ(first.size(), 64U);
  EXPECT_FLOAT_EQ(first[0], static_cast<float>(std::exp2(-1.0 / 8) * 1.00001));
  EXPECT_FLOAT_EQ(first[63], static_cast<float>(0.00390625 * 1.00001));
  EXPECT_FLOAT_EQ(decay_rates(config, 78)[7], static_cast<float>(0.5 * (1.0 - 78.0 / 79 + 1e-5)));
}

TEST(DecayRates, RulesAgreeAtTheReleasedSizes) {
  for (const int64_t layer : {0, 1, 40, 78}) {
    const auto released = decay_rates(decay_config(64, 80, DecayRule::kReleased), layer);
    const auto converted = decay_rates(decay_config(64, 80, DecayRule::kTransformers), layer);
    for (size_t h = 0; h < released.size(); ++h) EXPECT_NEAR(released[h], converted[h], 2e-7) << h;
  }
}

TEST(DecayRates, InterpolateWhenHeadsAreNoPowerOfTwo) {
  const auto rates = decay_rates(decay_config(6, 1, DecayRule::kReleased), 0);
  const double expected[] = {0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125};
  ASSERT_EQ(rates.size(), 6U);
  for (size_t h = 0; h < 6; ++h) EXPECT_FLOAT_EQ(rates[h], static_cast<float>(expected[h] * 1.00001)) << h;
  const auto geometric = decay_rates(decay_config(6, 1, DecayRule::kTransformers), 0);
  for (size_t h = 0; h < 6; ++h) {
    EXPECT_FLOAT_EQ(geometric[h],
                    static_cast<float>(std::exp2(-8.0 * static_cast<double>(h + 1) / 6) * 1.00001));
  }
}

TEST(DecayRates, CheckTheLayer) {
  EXPECT_THROW(decay_rates(decay_config(4, 2, DecayRule::kReleased), 2), InternalError);
}

}  // namespace
}  // namespace minimax::models
