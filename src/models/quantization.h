// What config.json says about quantised weights. What a tensor is, is decided by the file; this is what the
// file is checked against, and what dummy weights and memory plans of a configuration alone are made of.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "quant/weight.h"

namespace minimax::models {

struct QuantizationConfig {
  // kFp8 or kMxfp8; kBF16 when nothing is quantised.
  quant::WeightFormat format = quant::WeightFormat::kBF16;
  quant::BlockShape block;  // of the scales; {0, 0}: one scale a tensor or a channel
  std::vector<std::string> not_converted;

  // From `quantization_config` of config.json, at its top or in text_config.
  // THROWS: Error naming a method that is not supported (AWQ, GPTQ, NVFP4, Quark, ...) and those that are.
  static QuantizationConfig from_json(const nlohmann::json& config);

  // Whether the linear weight `name` ("model.layers.0.self_attn.q_proj.weight") is quantised in a checkpoint
  // of this configuration: no entry of not_converted is a run of its path components.
  bool converts(std::string_view name) const;
};

}  // namespace minimax::models
