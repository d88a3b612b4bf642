// Dense layers.
#pragma once

#include "ops/op.h"

namespace minimax::ops {

enum class Activation : uint8_t {
  kNone,
  kSilu,  // z * sigmoid(z)
};

// What a matrix product may do to its inputs. Sums are F32 in all.
enum class Precision : uint8_t {
  kF32,   // inputs enter as they are: BF16 values and decoded 8-bit weights are F32 numbers
  kBF16,  // x and weights may be rounded to BF16 first, where that is what the hardware multiplies fastest
  kFp8,   // with 8-bit weights, x is rounded to e4m3 numbers as quant::round_activations says, and not
          // otherwise; with other weights as kBF16
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

void linear(OpContext& context, const Linear& args);

}  // namespace minimax::ops
