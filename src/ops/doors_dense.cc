// The doors of linear layers, routing and expert MLPs.
#include "ops/door.h"

namespace minimax::ops {
namespace {

int64_t blocks(int64_t size, int64_t block) { return (size + block - 1) / block; }

void expect_weight(std::string_view op, std::string_view role, const quant::Weight& weight, int64_t n,
                   int64_t k) {
  expect_shape(op, role, weight.values, {n, k});
  MM_CHECK(weight.values.has_dense_rows(), "{}: {} has a strided last dimension", op, role);
  if (!weight.scales.defined()) return;
  MM_CHECK(weight.block_rows > 0 && weight.block_columns > 0, "{}: {} {} has scales but no block shape", op,
           role, weight.values.describe());
  expect_shape(op, "scales", weight.scales,
               {blocks(n + weight.row_offset, weight.block_rows),
                blocks(k + weight.column_offset, weight.block_columns)});
}

void expect_same_format(std::string_view op, const quant::Weight& a, const quant::Weight& b) {
  MM_CHECK(a.format == b.format && a.block_rows == b.block_rows && a.block_columns == b.block_columns &&
               a.column_offset == b.column_offset,
           "{}: {} is {} in blocks of {} x {}, {} is {} in blocks of {} x {}", op, a.values.describe(),
           quant::name(a.format), a.block_rows, a.block_columns, b.values.describe(), quant::name(b.format),
           b.block_rows, b.block_columns);
}

void expect_mlp(std::string_view op, const MlpWeights& w, int64_t hidden, int64_t intermediate) {
  expect_weight(op, "w1", w.w1, intermediate, hidden);
  expect_weight(op, "w3", w.w3, intermediate, hidden);
  expect_weight(op, "w2", w.w2, hidden, intermediate);
  expect_same_format(op, w.w1, w.w3);
}

double mlp_bytes(const MlpWeights& w) {
  return static_cast<double>(w.w1.size_bytes() + w.w3.size_bytes() + w.w2.size_bytes());
}

double mlp_flops(double rows, const MlpWeights& w) { return 6 * rows * numel_of(w.w1.values); }

void expect_routing(std::string_view op, const Tensor& logits, const Tensor& expert_ids,
                    const Tensor& expert_weights) {
  MM_CHECK(logits.rank() == 2 && expert_ids.rank() == 2 && expert_ids.dim(1) <= logits.dim(1),
           "{}: logits {}, expert_ids {}", op, logits.describe(), expert_ids.describe());
  expect_dtype(op, "logits", logits, DType::kF32);
  MM_CHECK(logits.has_dense_rows(), "{}: logits has a strided last dimension", op);
  expect_shape(op, "expert_ids", expert_ids, {logits.dim(0), expert_ids.dim(1)});
  expect_dtype(op, "expert_ids", expert_ids, DType::kI32);
  expect_shape(op, "expert_weights", expert_weights, {logits.dim(0), expert_ids.dim(1)});
  expect_dtype(op, "expert_weights", expert_weights, DType::kF32);
}

}  // namespace

void Linear::check() const {
  MM_CHECK(x.rank() == 2 && weight.defined() && !weight.is_stacked(), "linear: x is {}, weight {}",
           x.describe(), weight.defined() ? weight.values.describe() : "undefined");
  MM_CHECK(x.dim(1) == weight.in_features(), "linear: x is {}, weight {} expects input {}", x.describe(),
           weight.values.describe(), weight.in_features());
  expect_weight(kName, "weight", weight, weight.out_features(), weight.in_features());
  expect_activation(kName, "x", x);
  expect_shape(kName, "out", out, {x.dim(0), weight.out_features()});
  expect_activation(kName, "out", out);
  expect_no_alias(kName, x, out);
}

Cost Linear::cost() const {
  return {bytes_of({&x, &out}) + static_cast<double>(weight.size_bytes()),
          2 * numel_of(x) * static_cast<double>(weight.out_features())};
}

std::span<const quant::Weight> Projections::parts() const {
  const auto end = std::find_if(weights.begin(), weights.end(), [](const auto& w) { return !w.defined(); });
  return {weights.begin(), end};
}

Linear Projections::part(size_t i, int64_t column) const {
  const quant::Weight& weight = weights[i];
  return {x, weight, Activation::kNone, out.slice(1, column, column + weight.out_features()), precision};
}

void Projections::check() const {
  MM_CHECK(out.rank() == 2, "projections: out is {}", out.describe());
  int64_t width = 0;
  for (const quant::Weight& weight : parts()) width += weight.out_features();
  MM_CHECK(width == out.dim(1), "projections: out is {}, the weights have {} outputs", out.describe(), width);
  int64_t column = 0;
  for (size_t i = 0; i < parts().size(); ++i) {
    part(i, column).check();
    column += weights[i].out_features();
  }
}

Cost Projections::cost() const {
  Cost cost{bytes_of({&x, &out}), 2 * static_cast<double>(x.dim(1)) * numel_of(out)};
  for (const quant::Weight& weight : parts()) cost.bytes += static_cast<double>(weight.size_bytes());
  return cost;
}

void RouteSoftmax::check() const { expect_routing(kName, logits, expert_ids, expert_weights); }

Cost RouteSoftmax::cost() const {
  return {bytes_of({&logits, &expert_ids, &expert_weights}), 4 * numel_of(logits)};
}

void RouteSigmoid::check() const {
  expect_routing(kName, logits, expert_ids, expert_weights);
  if (!bias.defined()) return;
  expect_shape(kName, "bias", bias, {logits.dim(1)});
  expect_activation(kName, "bias", bias);
}

Cost RouteSigmoid::cost() const {
  return {bytes_of({&logits, &bias, &expert_ids, &expert_weights}), 5 * numel_of(logits)};
}

void Moe::check() const {
  MM_CHECK(x.rank() == 2, "moe: x is {}", x.describe());
  expect_activation(kName, "x", x);
  expect_shape(kName, "out", out, {x.dim(0), x.dim(1)});
  expect_dtype(kName, "out", out, x.dtype());
  MM_CHECK(expert_ids.rank() == 2, "moe: expert_ids is {}", expert_ids.describe());
  expect_shape(kName, "expert_ids", expert_ids, {x.dim(0), expert_ids.dim(1)});
  expect_dtype(kName, "expert_ids", expert_ids, DType::kI32);
  expect_shape(kName, "expert_weights", expert_weights, {x.dim(0), expert_ids.dim(1)});
  expect_dtype(kName, "expert_weights", expert_weights, DType::kF32);
  expect_no_alias(kName, x, out);
  for (const MlpWeights& expert : experts) {
    expect_mlp(kName, expert, x.dim(1), intermediate_size());
    expect_same_format(kName, expert.w1, experts.front().w1);
    expect_same_format(kName, expert.w2, experts.front().w2);
  }
}

Cost Moe::cost() const {
  const double traffic = bytes_of({&x, &expert_ids, &expert_weights, &out});
  if (experts.empty()) return {traffic, 0};
  const double touched = static_cast<double>(std::min(expert_ids.numel(), num_experts()));
  return {traffic + touched * mlp_bytes(experts.front()), mlp_flops(numel_of(expert_ids), experts.front())};
}

void Mlp::check() const {
  MM_CHECK(x.rank() == 2, "mlp: x is {}", x.describe());
  expect_activation(kName, "x", x);
  expect_mlp(kName, weights, x.dim(1), weights.w1.out_features());
  expect_shape(kName, "out", out, {x.dim(0), x.dim(1)});
  expect_dtype(kName, "out", out, x.dtype());
  expect_no_alias(kName, x, out);
  if (!addend.defined()) return;
  expect_shape(kName, "addend", addend, {x.dim(0), x.dim(1)});
  expect_dtype(kName, "addend", addend, x.dtype());
  expect_activation(kName, "addend", addend);
}

Cost Mlp::cost() const {
  return {bytes_of({&x, &out, &addend}) + mlp_bytes(weights),
          mlp_flops(static_cast<double>(x.dim(0)), weights)};
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

void linear(OpContext& context, const Linear& args) { dispatch(context, args); }
void projections(OpContext& context, const Projections& args) { dispatch(context, args); }
void route_softmax(OpContext& context, const RouteSoftmax& args) { dispatch(context, args); }
void route_sigmoid(OpContext& context, const RouteSigmoid& args) { dispatch(context, args); }
void moe(OpContext& context, const Moe& args) { dispatch(context, args); }
void mlp(OpContext& context, const Mlp& args) { dispatch(context, args); }
void mix_shared(OpContext& context, const MixShared& args) { dispatch(context, args); }

}  // namespace minimax::ops
