// Mixture of experts: routing, expert MLPs with their weighted sum, and the shared expert's mixing.
#pragma once

#include <limits>
#include <span>

#include "ops/linear.h"
#include "ops/op.h"

namespace minimax::ops {

// ffn(x) = w2 swiglu(w1 x, w3 x): w1 gate [I, H], w3 up [I, H], w2 down [H, I]; w1 and w3 of one format.
struct MlpWeights {
  quant::Weight w1;
  quant::Weight w3;
  quant::Weight w2;
};

// swiglu(gate, up) = (u + up_offset) * g * sigmoid(alpha * g) with g = min(gate, limit) and
// u = clamp(up, -limit, limit). The default is SiLU(gate) * up; MiniMax-M3 takes {1.702, 7, 1}.
struct Swiglu {
  float alpha = 1.0F;
  float limit = std::numeric_limits<float>::infinity();
  float up_offset = 0.0F;
};

void visit_swiglu(const Swiglu& swiglu, auto&& v) {
  v("swiglu_alpha", static_cast<double>(swiglu.alpha));
  v("swiglu_limit", static_cast<double>(swiglu.limit));
  v("swiglu_up_offset", static_cast<double>(swiglu.up_offset));
}

// p = softmax(logits) over all experts in F32; the k largest (ties: lowest index), in descending order,
// divided by their sum.
// logits [T, E] F32; expert_ids [T, k] I32; expert_weights [T, k] F32. k <= E.
struct RouteSoftmax {
  static constexpr std::string_view kName = "route_softmax";
  Tensor logits;
  Tensor expert_ids;
  Tensor expert_weights;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("logits", logits);
    v("expert_ids", expert_ids);
    v("expert_weights", expert_weights);
  }
};

// p = sigmoid(logits) in F32; the k experts of largest p + bias (ties: lowest index), in descending order of
// p + bias; their weights are scale * p / (sum of the chosen p), without the bias (MiniMax-M2 and M3).
// logits [T, E] F32; bias [E] F32 or BF16, or undefined for none; expert_ids [T, k] I32; expert_weights [T,
// k] F32. k <= E.
struct RouteSigmoid {
  static constexpr std::string_view kName = "route_sigmoid";
  Tensor logits;
  Tensor bias;
  float scale = 1.0F;
  Tensor expert_ids;
  Tensor expert_weights;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("logits", logits);
    v("bias", bias);
    v("scale", static_cast<double>(scale));
    v("expert_ids", expert_ids);
    v("expert_weights", expert_weights);
  }
};

// out[t] = sum_j expert_weights[t, j] * ffn_{expert_ids[t, j]}(x[t]), summed in F32 in the order of j, so
// that the result does not depend on the other rows. swiglu(..) may be rounded to x's dtype, or as
// `precision` allows; kFp8 rounds it as it does x. x, out [T, H] of one dtype; expert_ids [T, k] I32;
// expert_weights [T, k] F32; experts: E sets of weights of one shape, format and scale block, those of the
// ids first_expert .. first_expert + E - 1. Other ids contribute nothing: -1, and those of experts that
// another rank holds. Without any expert out is zero. No aliasing.
struct Moe {
  static constexpr std::string_view kName = "moe";
  Tensor x;
  Tensor expert_ids;
  Tensor expert_weights;
  std::span<const MlpWeights> experts;
  Tensor out;
  Precision precision = Precision::kF32;
  Swiglu swiglu{};
  int64_t first_expert = 0;

  int64_t num_experts() const { return static_cast<int64_t>(experts.size()); }
  int64_t intermediate_size() const { return experts.front().w1.out_features(); }

  void check() const;
  Cost cost() const;  // experts touched: min(T * k, E)
  void visit(auto&& v) const {
    v("x", x);
    v("expert_ids", expert_ids);
    v("expert_weights", expert_weights);
    if (!experts.empty()) v("w1 of the first expert", experts.front().w1);
    v("out", out);
    v("precision", static_cast<double>(precision));
    visit_swiglu(swiglu, v);
    v("first_expert", static_cast<double>(first_expert));
  }
};

// out = ffn(x), the dense form; with an `addend`, addend + ffn(x): the shared expert beside routed ones.
// x, out, addend [T, H] of one dtype. `addend` may be `out`; otherwise no aliasing.
struct Mlp {
  static constexpr std::string_view kName = "mlp";
  Tensor x;
  MlpWeights weights;
  Tensor out;
  Precision precision = Precision::kF32;
  Swiglu swiglu{};
  Tensor addend{};

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("x", x);
    v("w1", weights.w1);
    v("w3", weights.w3);
    v("w2", weights.w2);
    v("out", out);
    v("precision", static_cast<double>(precision));
    visit_swiglu(swiglu, v);
    v("addend", addend);
  }
};

// out = routed * (1 - c) + shared * c with c = sigmoid(coefficient): the shared MLP of Text-01 variants.
// routed, shared, out [T, H] of one dtype; coefficient [T, 1] F32. `out` may be `routed` or `shared`.
struct MixShared {
  static constexpr std::string_view kName = "mix_shared";
  Tensor routed;
  Tensor shared;
  Tensor coefficient;
  Tensor out;

  void check() const;
  Cost cost() const;
  void visit(auto&& v) const {
    v("routed", routed);
    v("shared", shared);
    v("coefficient", coefficient);
    v("out", out);
  }
};

void route_softmax(OpContext& context, const RouteSoftmax& args);
void route_sigmoid(OpContext& context, const RouteSigmoid& args);
void moe(OpContext& context, const Moe& args);
void mlp(OpContext& context, const Mlp& args);
void mix_shared(OpContext& context, const MixShared& args);

}  // namespace minimax::ops
