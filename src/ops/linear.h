// Dense layers.
#pragma once

#include <array>
#include <span>

#include "ops/op.h"

namespace minimax::ops {

enum class Activation : uint8_t {
  kNone,
  kSilu,  // z * sigmoid(z)
};

// What a matrix product may do to its inputs. Sums are F32 in all.
enum class Precision : uint8_t {
  kF32,   // inputs enter as they are: BF16 values and decoded 8-bit weights are F32 numbers. F32 numbers may
          // enter as two F16 terms, 22 bits, which is no further off than F32 sums in their usual order
  kBF16,  // x and weights may be rounded to BF16 first, where that is what the hardware multiplies fastest
  kFp8,   // with 8-bit weights, x may be rounded to e4m3 numbers as quant::round_activations says, all of it
          // or none, where that is what the hardware multiplies fastest (the CPU always does); else as kBF16.
          // Sums of 128 products may be kept to 13 bits, as tensor cores do with e4m3 numbers
};

// out = activation(x W^T), accumulated in F32, the activation in F32, rounded once to out's dtype; zero where
// K is 0, as on a rank that holds no head.
// x [T, K] F32 or BF16, dense rows; weight [N, K] of any weight format, dense rows; out [T, N] F32 or BF16,
// dense rows. No aliasing. The SiLU form is the QKV projection of lightning attention, whose heads are read
// as strided views of the result.
struct Linear {
  static constexpr std::string_view kName = "linear";
  Tensor x;
  quant::Weight weight;
  Activation activation = Activation::kNone;
  Tensor out;
  Precision precision = Precision::kF32;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("x", x);
    v("weight", weight);
    v("activation", static_cast<double>(activation));
    v("out", out);
    v("precision", static_cast<double>(precision));
  }
};

// out = x [W_0; W_1; ..]^T: products of one x side by side, as the projections of attention are, without an
// activation. Each is as in Linear; together they have out's columns, in the order of `weights`, of which the
// first undefined one ends the list.
struct Projections {
  static constexpr std::string_view kName = "projections";
  static constexpr int kMost = 5;
  Tensor x;
  std::array<quant::Weight, kMost> weights;
  Tensor out;
  Precision precision = Precision::kF32;

  std::span<const quant::Weight> parts() const;
  // The product of part i, whose outputs begin at `column`.
  Linear part(size_t i, int64_t column) const;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("x", x);
    for (const quant::Weight& weight : parts()) v("weight", weight);
    v("out", out);
    v("precision", static_cast<double>(precision));
  }
};

void linear(OpContext& context, const Linear& args);
void projections(OpContext& context, const Projections& args);

}  // namespace minimax::ops
