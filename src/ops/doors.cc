// The checked doors and the contracts they check.
#include <algorithm>

#include "ops/door.h"

namespace minimax::ops {

void check_operands(const OpContext& context, const OpRecord& record) {
  for (const auto& [role, tensor] : record.operands) {
    MM_CHECK(context.arena.is_alive(tensor.raw()), "{}: {} ({}) is used after its scope ended", record.op,
             role, tensor.describe());
    MM_CHECK(tensor.device() == context.backend.device(), "{}: {} is on {}, the backend computes on {}",
             record.op, role, to_string(tensor.device()), to_string(context.backend.device()));
  }
}

void Embedding::check() const {
  MM_CHECK(table.rank() == 2, "embedding: table is {}, expected [rows, H]", table.describe());
  expect_index(kName, "ids", ids, ids.dim(0));
  expect_activation(kName, "table", table);
  expect_shape(kName, "out", out, {ids.dim(0), table.dim(1)});
  expect_activation(kName, "out", out);
}

Cost Embedding::cost() const {
  const double row = numel_of(out) * static_cast<double>(size_of(table.dtype()));
  return {row + bytes_of({&ids, &out}), 0};
}

void RmsNorm::check() const {
  MM_CHECK(x.rank() == 2, "rms_norm: x is {}, expected [T, N]", x.describe());
  expect_activation(kName, "x", x);
  expect_norm_weight(kName, weight, x.dim(1));
  expect_shape(kName, "out", out, {x.dim(0), x.dim(1)});
  expect_activation(kName, "out", out);
}

Cost RmsNorm::cost() const { return {bytes_of({&x, &weight, &out}), 4 * numel_of(x)}; }

void ResidualRmsNorm::check() const {
  MM_CHECK(residual.rank() == 2, "residual_rms_norm: residual is {}, expected [T, N]", residual.describe());
  expect_norm_weight(kName, weight, residual.dim(1));
  for (const auto& [role, t] :
       {std::pair{"residual", &residual}, {"branch", &branch}, {"out", &out}, {"sum", &sum}}) {
    if (t == &sum && !sum.defined()) continue;
    expect_shape(kName, role, *t, {residual.dim(0), residual.dim(1)});
    expect_dtype(kName, role, *t, residual.dtype());
    expect_activation(kName, role, *t);
  }
  if (sum.defined()) expect_no_alias(kName, sum, out);
}

Cost ResidualRmsNorm::cost() const {
  return {bytes_of({&residual, &branch, &weight, &sum, &out}), 7 * numel_of(residual)};
}

void GatedRmsNorm::check() const {
  MM_CHECK(x.rank() == 2, "gated_rms_norm: x is {}, expected [T, N]", x.describe());
  expect_norm_weight(kName, weight, x.dim(1));
  for (const auto& [role, t] : {std::pair{"x", &x}, {"gate", &gate}, {"out", &out}}) {
    expect_shape(kName, role, *t, {x.dim(0), x.dim(1)});
    expect_dtype(kName, role, *t, x.dtype());
    expect_activation(kName, role, *t);
  }
}

Cost GatedRmsNorm::cost() const { return {bytes_of({&x, &gate, &weight, &out}), 9 * numel_of(x)}; }

void Linear::check() const {
  MM_CHECK(x.rank() == 2 && weight.defined(), "linear: x is {}, weight {}", x.describe(),
           weight.defined() ? weight.values.describe() : "undefined");
  MM_CHECK(x.dim(1) == weight.in_features(), "linear: x is {}, weight {} expects input {}", x.describe(),
           weight.values.describe(), weight.in_features());
  expect_activation(kName, "x", x);
  expect_shape(kName, "out", out, {x.dim(0), weight.out_features()});
  expect_activation(kName, "out", out);
  expect_no_alias(kName, x, out);
}

Cost Linear::cost() const {
  return {bytes_of({&x, &out}) + static_cast<double>(weight.size_bytes()),
          2 * numel_of(x) * static_cast<double>(weight.out_features())};
}

void RouteSoftmax::check() const {
  MM_CHECK(logits.rank() == 2 && expert_ids.rank() == 2 && expert_ids.dim(1) <= logits.dim(1),
           "route_softmax: logits {}, expert_ids {}", logits.describe(), expert_ids.describe());
  expect_dtype(kName, "logits", logits, DType::kF32);
  expect_shape(kName, "expert_ids", expert_ids, {logits.dim(0), expert_ids.dim(1)});
  expect_dtype(kName, "expert_ids", expert_ids, DType::kI32);
  expect_shape(kName, "expert_weights", expert_weights, {logits.dim(0), expert_ids.dim(1)});
  expect_dtype(kName, "expert_weights", expert_weights, DType::kF32);
}

Cost RouteSoftmax::cost() const {
  return {bytes_of({&logits, &expert_ids, &expert_weights}), 4 * numel_of(logits)};
}

namespace {

void check_mlp(std::string_view op, const MlpWeights& w, int64_t hidden, int64_t intermediate) {
  expect_shape(op, "w1", w.w1.values, {intermediate, hidden});
  expect_shape(op, "w3", w.w3.values, {intermediate, hidden});
  expect_shape(op, "w2", w.w2.values, {hidden, intermediate});
}

double mlp_bytes(const MlpWeights& w) {
  return static_cast<double>(w.w1.size_bytes() + w.w3.size_bytes() + w.w2.size_bytes());
}

double mlp_flops(double rows, const MlpWeights& w) { return 6 * rows * numel_of(w.w1.values); }

}  // namespace

void Moe::check() const {
  MM_CHECK(x.rank() == 2 && !experts.empty(), "moe: x is {} and there are {} experts", x.describe(),
           experts.size());
  expect_activation(kName, "x", x);
  expect_shape(kName, "out", out, {x.dim(0), x.dim(1)});
  expect_dtype(kName, "out", out, x.dtype());
  MM_CHECK(expert_ids.rank() == 2, "moe: expert_ids is {}", expert_ids.describe());
  expect_shape(kName, "expert_ids", expert_ids, {x.dim(0), expert_ids.dim(1)});
  expect_dtype(kName, "expert_ids", expert_ids, DType::kI32);
  expect_shape(kName, "expert_weights", expert_weights, {x.dim(0), expert_ids.dim(1)});
  expect_dtype(kName, "expert_weights", expert_weights, DType::kF32);
  expect_no_alias(kName, x, out);
  for (const MlpWeights& expert : experts) check_mlp(kName, expert, x.dim(1), intermediate_size());
}

Cost Moe::cost() const {
  const double touched = static_cast<double>(std::min(expert_ids.numel(), num_experts()));
  return {bytes_of({&x, &expert_ids, &expert_weights, &out}) + touched * mlp_bytes(experts.front()),
          mlp_flops(numel_of(expert_ids), experts.front())};
}

void Mlp::check() const {
  MM_CHECK(x.rank() == 2, "mlp: x is {}", x.describe());
  expect_activation(kName, "x", x);
  check_mlp(kName, weights, x.dim(1), weights.w1.out_features());
  expect_shape(kName, "out", out, {x.dim(0), x.dim(1)});
  expect_dtype(kName, "out", out, x.dtype());
  expect_no_alias(kName, x, out);
}

Cost Mlp::cost() const {
  return {bytes_of({&x, &out}) + mlp_bytes(weights), mlp_flops(static_cast<double>(x.dim(0)), weights)};
}

void MixShared::check() const {
  MM_CHECK(routed.rank() == 2, "mix_shared: routed is {}", routed.describe());
  expect_shape(kName, "coefficient", coefficient, {routed.dim(0), 1});
  expect_dtype(kName, "coefficient", coefficient, DType::kF32);
  for (const auto& [role, t] : {std::pair{"routed", &routed}, {"shared", &shared}, {"out", &out}}) {
    expect_shape(kName, role, *t, {routed.dim(0), routed.dim(1)});
    expect_dtype(kName, role, *t, routed.dtype());
    expect_activation(kName, role, *t);
  }
}

Cost MixShared::cost() const { return {bytes_of({&routed, &shared, &coefficient, &out}), 3 * numel_of(out)}; }

void Sample::check() const {
  MM_CHECK(logits.rank() == 2, "sample: logits is {}", logits.describe());
  const int64_t rows = logits.dim(0);
  expect_dtype(kName, "logits", logits, DType::kF32);
  MM_CHECK(logits.has_dense_rows() && vocab_limit > 0 && vocab_limit <= logits.dim(1),
           "sample: vocab_limit {} for logits {}", vocab_limit, logits.describe());
  for (const auto& [role, t] : {std::pair{"temperature", &temperature},
                                {"top_p", &top_p},
                                {"min_p", &min_p},
                                {"repetition_penalty", &repetition_penalty},
                                {"presence_penalty", &presence_penalty},
                                {"frequency_penalty", &frequency_penalty},
                                {"logprobs", &logprobs}}) {
    expect_shape(kName, role, *t, {rows});
    expect_dtype(kName, role, *t, DType::kF32);
  }
  expect_index(kName, "top_k", top_k, rows);
  expect_index(kName, "tokens", tokens, rows);
  for (const auto& [role, t, count] : {std::tuple{"seed", &seed, rows},
                                       {"counter", &counter, rows},
                                       {"history_starts", &history_starts, rows + 1},
                                       {"prompt_lens", &prompt_lens, rows},
                                       {"bias_starts", &bias_starts, rows + 1}}) {
    expect_shape(kName, role, *t, {count});
    expect_dtype(kName, role, *t, DType::kI64);
  }
  expect_index(kName, "history_ids", history_ids, history_ids.dim(0));
  expect_index(kName, "bias_ids", bias_ids, bias_ids.dim(0));
  expect_shape(kName, "bias_values", bias_values, {bias_ids.dim(0)});
  MM_CHECK(top_ids.rank() == 2 && top_ids.dim(1) <= vocab_limit, "sample: top_ids is {}", top_ids.describe());
  expect_shape(kName, "top_ids", top_ids, {rows, top_ids.dim(1)});
  expect_shape(kName, "top_logprobs", top_logprobs, {rows, top_ids.dim(1)});
  expect_dtype(kName, "top_ids", top_ids, DType::kI32);
  expect_dtype(kName, "top_logprobs", top_logprobs, DType::kF32);
}

Cost Sample::cost() const { return {bytes_of({&logits}), 0}; }

void embedding(OpContext& context, const Embedding& args) { dispatch(context, args); }
void rms_norm(OpContext& context, const RmsNorm& args) { dispatch(context, args); }
void residual_rms_norm(OpContext& context, const ResidualRmsNorm& args) { dispatch(context, args); }
void gated_rms_norm(OpContext& context, const GatedRmsNorm& args) { dispatch(context, args); }
void linear(OpContext& context, const Linear& args) { dispatch(context, args); }
void route_softmax(OpContext& context, const RouteSoftmax& args) { dispatch(context, args); }
void moe(OpContext& context, const Moe& args) { dispatch(context, args); }
void mlp(OpContext& context, const Mlp& args) { dispatch(context, args); }
void mix_shared(OpContext& context, const MixShared& args) { dispatch(context, args); }
void sample(OpContext& context, const Sample& args) { dispatch(context, args); }

}  // namespace minimax::ops
