// Reference encoding of float32 values into any weight format; what tests make their weights with.
#pragma once

#include <span>

#include "quant/weight.h"

namespace minimax::quant {

// Writes `source` [N, K], row-major, into the tensors of `target`, each value rounded to nearest.
// kFp8: the scale of a block is max|w| / 448, of a block of zeros 1. kMxfp8: the smallest power of two that
// is at least that. REQUIRES: target is a matrix whose tensors have their shapes and memory.
void encode(std::span<const float> source, const Weight& target);

}  // namespace minimax::quant
