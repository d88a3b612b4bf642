// The weight formats and precisions that products are tested with.
#pragma once

#include "quant/fp8.h"
#include "tests/ops/op_test.h"

namespace minimax::ops {

constexpr DType kActivations[] = {DType::kF32, DType::kBF16};

// A weight format with, for kFp8, its block; 0: as long as the matrix.
struct Format {
  quant::WeightFormat format;
  quant::BlockShape block;
};

constexpr Format kFormats[] = {
    {quant::WeightFormat::kF32, {}},       {quant::WeightFormat::kBF16, {}},
    {quant::WeightFormat::kF16, {}},       {quant::WeightFormat::kFp8, {128, 128}},
    {quant::WeightFormat::kFp8, {1, 0}},   {quant::WeightFormat::kFp8, {0, 0}},
    {quant::WeightFormat::kFp8, {16, 24}}, {quant::WeightFormat::kMxfp8, {}},
};
constexpr Precision kPrecisions[] = {Precision::kF32, Precision::kBF16, Precision::kFp8};

inline bool rounds_activations(const Format& f, Precision precision) {
  return precision == Precision::kFp8 && quant::activation_group(f.format) > 0;
}
// What the oracle computes for a precision: rounding to 8 bits is part of the contract, to BF16 it is
// allowed.
inline Precision oracle_precision(Precision precision) {
  return precision == Precision::kFp8 ? Precision::kFp8 : Precision::kF32;
}

// What else a backend may compute where the oracle rounds activations: without that, as kBF16 allows.
// Undefined where there is no choice.
struct Unrounded {
  Tensor expected;
  double bound = 0;

  bool is_met(const BackendCase& backend, const Tensor& out) const {
    return expected.defined() && backend.cuda_architecture > 0 && relative_error(out, expected) <= bound;
  }
};

// What rounded products may be off by: Hopper's tensor cores keep some 13 bits of sums of e4m3 products.
inline double rounded_bound(const BackendCase& backend, double bound) {
  return backend.cuda_architecture >= 90 ? std::max(bound, 3e-4) : bound;
}

inline bool can_hold(const Format& f, int64_t in) {
  return f.format != quant::WeightFormat::kMxfp8 || in % 32 == 0;
}

inline quant::Weight make_weight(TensorMaker& make, const Format& f, int64_t out, int64_t in) {
  return make.weight(f.format, out, in,
                     {f.block.rows == 0 ? out : f.block.rows, f.block.columns == 0 ? in : f.block.columns});
}

}  // namespace minimax::ops
