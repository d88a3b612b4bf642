// Tensors of MiniMax-Text-01 / M1 checkpoints: released names, those of MiniMax-VL-01 (prefix
// language_model.) and those of transformers' converted class.
#pragma once

#include "formats/weight_source.h"
#include "models/minimax_m1_config.h"
#include "models/minimax_m1_weights.h"
#include "models/tensor_table.h"
#include "parallel/comm.h"

namespace minimax::models {

// The table in the spelling of `source` (null: as released). Resizes `weights` and refers to its members, so
// `weights` must not be moved while the slots are used. The shared MLP's width is that of its tensor, since
// the released code and vLLM take it from different fields. Pieces are those of the rank.
TensorTable tensor_table(const MiniMaxM1Config& config, const formats::WeightSource* source,
                         MiniMaxM1Weights& weights, const parallel::Parallel& parallel = {});

}  // namespace minimax::models
