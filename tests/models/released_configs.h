// The fields of the released M2.5 and M3 configurations that decide the model, as public reports quote them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace minimax::testing {

inline nlohmann::json released_m2() {
  return {
      {"architectures", {"MiniMaxM2ForCausalLM"}},
      {"model_type", "minimax_m2"},
      {"attn_type_list", std::vector<int>(62, 1)},
      {"hidden_size", 3072},
      {"num_hidden_layers", 62},
      {"num_attention_heads", 48},
      {"num_key_value_heads", 8},
      {"head_dim", 128},
      {"intermediate_size", 1536},
      {"num_local_experts", 256},
      {"num_experts_per_tok", 8},
      {"scoring_func", "sigmoid"},
      {"use_routing_bias", true},
      {"shared_intermediate_size", 0},
      {"use_qk_norm", true},
      {"qk_norm_type", "per_layer"},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 5000000},
      {"rotary_dim", 64},
      {"max_position_embeddings", 196608},
      {"hidden_act", "silu"},
      {"vocab_size", 200064},
      {"tie_word_embeddings", false},
      {"use_mtp", true},
      {"num_mtp_modules", 3},
      {"quantization_config",
       {{"activation_scheme", "dynamic"},
        {"fmt", "float8_e4m3fn"},
        {"quant_method", "fp8"},
        {"weight_block_size", {128, 128}},
        {"modules_to_not_convert", {"gate", "e_score_correction_bias", "lm_head"}}}},
  };
}

inline nlohmann::json released_m3() {
  std::vector<int> later(60, 1);
  later[0] = later[1] = later[2] = 0;
  return {
      {"architectures", {"MiniMaxM3SparseForConditionalGeneration"}},
      {"model_type", "minimax_m3_vl"},
      {"vision_config", {{"num_hidden_layers", 32}, {"hidden_size", 1280}}},
      {"text_config",
       {{"architectures", {"MiniMaxM3SparseForCausalLM"}},
        {"hidden_size", 6144},
        {"num_hidden_layers", 60},
        {"num_attention_heads", 64},
        {"num_key_value_heads", 4},
        {"head_dim", 128},
        {"intermediate_size", 3072},
        {"shared_intermediate_size", 3072},
        {"n_shared_experts", 1},
        {"dense_intermediate_size", 12288},
        {"moe_layer_freq", later},
        {"num_local_experts", 128},
        {"num_experts_per_tok", 4},
        {"scoring_func", "sigmoid"},
        {"use_routing_bias", true},
        {"routed_scaling_factor", 2.0},
        {"hidden_act", "swigluoai"},
        {"swiglu_alpha", 1.702},
        {"swiglu_limit", 7.0},
        {"rms_norm_eps", 1e-6},
        {"use_gemma_norm", true},
        {"use_qk_norm", true},
        {"qk_norm_type", "per_head"},
        {"rope_theta", 5000000},
        {"rotary_dim", 64},
        {"partial_rotary_factor", 0.5},
        {"max_position_embeddings", 1048576},
        {"attention_output_gate", false},
        {"tie_word_embeddings", false},
        {"vocab_size", 200064},
        {"num_mtp_modules", 7},
        {"sparse_attention_config",
         {{"use_sparse_attention", true},
          {"sparse_attention_freq", later},
          {"sparse_num_index_heads", 4},
          {"sparse_index_dim", 128},
          {"sparse_block_size", 128},
          {"sparse_topk_blocks", 16},
          {"sparse_init_block", 0},
          {"sparse_local_block", 1},
          {"sparse_score_type", "max"},
          {"sparse_disable_index_value", later}}}}},
  };
}

inline nlohmann::json released_m3_mxfp8() {
  nlohmann::json config = released_m3();
  std::vector<std::string> ignored = {"lm_head", "model.embed_tokens", "vision_tower"};
  for (int l = 3; l < 60; ++l) {
    ignored.push_back("model.layers." + std::to_string(l) + ".block_sparse_moe.gate");
  }
  config["quantization_config"] = {{"quant_method", "mxfp8"},
                                   {"activation_scheme", "dynamic"},
                                   {"weight_block_size", {1, 32}},
                                   {"ignored_layers", ignored}};
  return config;
}

// `config` with one field changed; a path such as "text_config.hidden_size" reaches inside.
inline nlohmann::json with(nlohmann::json config, const std::string& path, nlohmann::json value) {
  nlohmann::json* node = &config;
  size_t begin = 0;
  for (size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', begin)) {
    node = &(*node)[path.substr(begin, dot - begin)];
    begin = dot + 1;
  }
  (*node)[path.substr(begin)] = std::move(value);
  return config;
}

inline nlohmann::json without(nlohmann::json config, const std::string& field) {
  config.erase(field);
  return config;
}

}  // namespace minimax::testing
