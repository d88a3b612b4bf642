// Root-mean-square norms (arXiv 1910.07467) and their fusions with DeepNorm residuals and gates.
//
// All are computed per row in F32 and rounded once, to out's dtype.
//
// A norm over a width of which every rank holds a part takes the sum of squares of the whole width as an
// operand: sum_of_squares of the part, added up over ranks.
#pragma once

#include "ops/op.h"

namespace minimax::ops {

// out = (weight_offset + weight) * x / sqrt(mean(x^2) + eps); an offset of 1 is Gemma's form
// x, out [T, N] F32 or BF16 with dense rows; weight [N] F32 or BF16. `out` may be `x`.
struct RmsNorm {
  static constexpr std::string_view kName = "rms_norm";
  Tensor x;
  Tensor weight;
  float eps = 0;
  Tensor out;
  float weight_offset = 0;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("x", x);
    v("weight", weight);
    v("eps", eps);
    v("out", out);
    v("weight_offset", weight_offset);
  }
};

// DeepNorm residual and the norm that follows it (arXiv 2203.00555):
//   sum = alpha * residual + beta * branch;  out = (weight_offset + weight) * sum / sqrt(mean(sum^2) + eps)
// With alpha = beta = 1 it is the plain residual of pre-norm models.
// residual, branch, sum, out [T, N] of one dtype, dense rows; weight [N]. `sum` may be undefined when nobody
// needs it (postnorm). `sum` and `out` may each be `residual` or `branch`, but not one another.
struct ResidualRmsNorm {
  static constexpr std::string_view kName = "residual_rms_norm";
  Tensor residual;
  Tensor branch;
  float alpha = 1;
  float beta = 1;
  Tensor weight;
  float eps = 0;
  Tensor sum;
  Tensor out;
  float weight_offset = 0;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("residual", residual);
    v("branch", branch);
    v("alpha", alpha);
    v("beta", beta);
    v("weight", weight);
    v("eps", eps);
    v("sum", sum);
    v("out", out);
    v("weight_offset", weight_offset);
  }
};

// out[t] = the sum over n of x[t, n]^2, in F32; 0 where N is 0.
// x [T, N] F32 or BF16, dense rows; out [T, 1] F32, any row stride.
struct SumOfSquares {
  static constexpr std::string_view kName = "sum_of_squares";
  Tensor x;
  Tensor out;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("x", x);
    v("out", out);
  }
};

// Output norm and gate of lightning attention: out = sigmoid(gate) * weight * x / sqrt(mean(x^2) + eps)
// x, gate, out [T, N] of one dtype, dense rows; weight [N]. `out` may be `x` or `gate`. With `squares` [T, 1]
// F32 mean(x^2) is squares / norm_width instead, and x a part of that width.
struct GatedRmsNorm {
  static constexpr std::string_view kName = "gated_rms_norm";
  Tensor x;
  Tensor gate;
  Tensor weight;
  float eps = 0;
  Tensor out;
  Tensor squares{};  // undefined: of x itself
  int64_t norm_width = 0;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("x", x);
    v("gate", gate);
    v("weight", weight);
    v("eps", eps);
    v("out", out);
    v("squares", squares);
    v("norm_width", static_cast<double>(norm_width));
  }
};

void rms_norm(OpContext& context, const RmsNorm& args);
void residual_rms_norm(OpContext& context, const ResidualRmsNorm& args);
void sum_of_squares(OpContext& context, const SumOfSquares& args);
void gated_rms_norm(OpContext& context, const GatedRmsNorm& args);

}  // namespace minimax::ops
