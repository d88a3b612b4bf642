// Configuration of MiniMax-M2, M2.1, M2.5 and M2.7, as released and as transformers writes it.
#pragma once

#include "models/common_config.h"

namespace minimax::models {

enum class QkNorm : uint8_t {
  kFlattened,  // one variance over all heads ("per_layer")
  kPerHead,    // one a head, the weight shared by all heads ("per_head")
};

struct MiniMaxM2Config : CommonConfig {
  static const FamilyNames kNames;

  QkNorm qk_norm = QkNorm::kFlattened;
  bool routing_bias = true;  // e_score_correction_bias takes part in the choice of experts
  float routed_scale = 1;    // of the experts' weighted sum

  // THROWS: Error naming the field, its value and what is accepted.
  static MiniMaxM2Config from_json(const nlohmann::json& config);
};

}  // namespace minimax::models
