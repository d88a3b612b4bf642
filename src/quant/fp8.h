// 8-bit weights: e4m3 values beside a grid of scales.
//
//   kFp8    values e4m3 [N, K], scales F32 [ceil(N/R), ceil(K/C)]:
//           w[n, k] = float(values[n, k]) * scales[n / R, k / C]
//           The last block of a row or column may be short. 128 x 128 blocks, one scale a row (1 x K) and one
//           for all (N x K) differ in R x C alone. Checkpoints call the tensor `weight_scale_inv`; it is
//           multiplied all the same.
//   kMxfp8  values e4m3 [N, K], K a multiple of 32, scales E8M0 [N, K/32]:
//           w[n, k] = float(values[n, k]) * 2^(scales[n, k / 32] - 127)
//
// A part of a weight keeps its blocks where they were: n and k count from the first block's begin, row_offset
// and column_offset before the part, whose K may then be any number.
//
// e4m3 to BF16 is exact, so is the product with a power of two; the product with an F32 scale rounds once.
#pragma once

#include <cstdint>
#include <span>

#include "quant/weight.h"

namespace minimax::quant {

constexpr int64_t kMxBlock = 32;
constexpr BlockShape kFp8Block = {128, 128};

static_assert(sizeof(f8e4m3) == 1 && sizeof(f8e8m0) == 1);

// Inputs of an 8-bit weight that share a scale when they are rounded to 8 bits too: 128 for kFp8, 32 for
// kMxfp8; 0 for other formats, whose inputs are not.
int64_t activation_group(WeightFormat weight);

// Dynamic 8-bit activations, as F32 numbers. Of one token, x[0], x[stride], .., each group of inputs (the
// last may be short) is replaced by e4m3(x / s) * s with s = max(max|x| / 448, 1e-10) in F32, which kMxfp8
// rounds up to a power of two. The e4m3 rounding is to nearest even and saturates. Does nothing where the
// group is 0.
void round_activations(float* x, int64_t count, int64_t stride, WeightFormat weight);

// The smallest power of two that is at least `x`, as an E8M0 number. REQUIRES: x > 0.
f8e8m0 power_of_two_above(float x);

// The scale of block (row, column) of the grid, as F32.
float scale_at(const Weight& weight, int64_t row, int64_t column);

void decode_fp8_row(const Weight& weight, int64_t i, std::span<float> out);

}  // namespace minimax::quant
