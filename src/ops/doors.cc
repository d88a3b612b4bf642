// The checked doors and the contracts they check.
#include <algorithm>

#include "ops/backend.h"

namespace minimax::ops {
namespace {

void expect_shape(std::string_view op, std::string_view role, const Tensor& t,
                  std::initializer_list<int64_t> shape) {
  const bool equal =
      t.rank() == static_cast<int>(shape.size()) && std::equal(shape.begin(), shape.end(), t.shape().begin());
  MM_CHECK(equal, "{}: {} is {}, expected {}", op, role, t.defined() ? t.describe() : "undefined",
           shape_string({shape.begin(), shape.size()}));
}

void expect_dtype(std::string_view op, std::string_view role, const Tensor& t, DType dtype) {
  MM_CHECK(t.dtype() == dtype, "{}: {} is {}, expected {}", op, role, t.describe(), name(dtype));
}

void expect_activation(std::string_view op, std::string_view role, const Tensor& t) {
  MM_CHECK(is_activation(t.dtype()), "{}: {} is {}, expected F32 or BF16", op, role, t.describe());
  MM_CHECK(t.has_dense_rows(), "{}: {} has a strided last dimension", op, role);
}

void expect_index(std::string_view op, std::string_view role, const Tensor& t, int64_t count) {
  expect_shape(op, role, t, {count});
  expect_dtype(op, role, t, DType::kI32);
  MM_CHECK(t.is_contiguous(), "{}: {} is not contiguous", op, role);
}

void expect_norm_weight(std::string_view op, const Tensor& weight, int64_t n) {
  expect_shape(op, "weight", weight, {n});
  expect_activation(op, "weight", weight);
}

void expect_no_alias(std::string_view op, const Tensor& a, const Tensor& b) {
  MM_CHECK(a.raw() != b.raw() || a.numel() == 0, "{}: {} and {} must not be the same memory", op, a.name(),
           b.name());
}

double bytes_of(std::initializer_list<const Tensor*> tensors) {
  double sum = 0;
  for (const Tensor* t : tensors) sum += t->defined() ? static_cast<double>(t->size_bytes()) : 0.0;
  return sum;
}

double numel_of(const Tensor& t) { return static_cast<double>(t.numel()); }

template <typename Op>
void dispatch(OpContext& context, const Op& args) {
  args.check();
  Arena::Scope scope(context.arena);
  const int64_t bytes = context.backend.workspace_bytes(args);
  const Workspace workspace{bytes > 0 ? context.arena.bytes(bytes) : nullptr, bytes};
  const bool planning = context.arena.is_planning();
  if (context.tracer == nullptr && !planning) {
    context.backend.run(args, workspace);
    return;
  }
  RecordBuilder builder(Op::kName);
  args.visit(builder);
  builder.record().cost = args.cost();
  check_operands(context, builder.record());
  if (context.tracer != nullptr) context.tracer->on_op(builder.record());
  if (!planning) context.backend.run(args, workspace);
  if (context.tracer != nullptr) context.tracer->on_done(builder.record());
}

}  // namespace

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

void Rope::check() const {
  MM_CHECK(x.rank() == 3 && inv_freq.rank() == 1 && 2 * inv_freq.dim(0) <= x.dim(2),
           "rope: x {} and inv_freq {}; expected [T, heads, D] and at most D/2 frequencies", x.describe(),
           inv_freq.describe());
  expect_activation(kName, "x", x);
  expect_index(kName, "positions", positions, x.dim(0));
  expect_dtype(kName, "inv_freq", inv_freq, DType::kF32);
}

Cost Rope::cost() const {
  const double turned = static_cast<double>(x.dim(0) * x.dim(1) * 2 * inv_freq.dim(0));
  return {2 * turned * static_cast<double>(size_of(x.dtype())), 3 * turned};
}

void PagedKvWrite::check() const {
  MM_CHECK(k.rank() == 3 && k_cache.rank() == 4, "paged_kv_write: k {}, k_cache {}", k.describe(),
           k_cache.describe());
  expect_activation(kName, "k", k);
  expect_shape(kName, "v", v, {k.dim(0), k.dim(1), k.dim(2)});
  expect_dtype(kName, "v", v, k.dtype());
  expect_activation(kName, "v", v);
  expect_shape(kName, "slot_mapping", slot_mapping, {k.dim(0)});
  expect_dtype(kName, "slot_mapping", slot_mapping, DType::kI64);
  for (const auto& [role, t] : {std::pair{"k_cache", &k_cache}, {"v_cache", &v_cache}}) {
    expect_shape(kName, role, *t, {k_cache.dim(0), k_cache.dim(1), k.dim(1), k.dim(2)});
    expect_dtype(kName, role, *t, k.dtype());
    MM_CHECK(t->is_contiguous(), "paged_kv_write: {} is not contiguous", role);
  }
}

Cost PagedKvWrite::cost() const { return {2 * bytes_of({&k, &v}) + bytes_of({&slot_mapping}), 0}; }

void PagedAttention::check() const {
  MM_CHECK(q.rank() == 3 && k_cache.rank() == 4 && block_table.rank() == 2,
           "paged_attention: q {}, k_cache {}, block_table {}", q.describe(), k_cache.describe(),
           block_table.describe());
  const int64_t kv_heads = k_cache.dim(2);
  MM_CHECK(kv_heads > 0 && q.dim(1) % kv_heads == 0, "paged_attention: {} query heads over {} kv heads",
           q.dim(1), kv_heads);
  expect_activation(kName, "q", q);
  for (const auto& [role, t] : {std::pair{"k_cache", &k_cache}, {"v_cache", &v_cache}}) {
    expect_shape(kName, role, *t, {k_cache.dim(0), k_cache.dim(1), kv_heads, q.dim(2)});
    expect_dtype(kName, role, *t, q.dtype());
    MM_CHECK(t->is_contiguous(), "paged_attention: {} is not contiguous", role);
  }
  expect_dtype(kName, "block_table", block_table, DType::kI32);
  expect_index(kName, "query_starts", query_starts, block_table.dim(0) + 1);
  expect_index(kName, "seq_lens", seq_lens, block_table.dim(0));
  expect_shape(kName, "out", out, {q.dim(0), q.dim(1), q.dim(2)});
  expect_dtype(kName, "out", out, q.dtype());
  expect_activation(kName, "out", out);
  expect_no_alias(kName, q, out);
}

Cost PagedAttention::cost() const {
  const double context = static_cast<double>(max_context());
  const double kv_row = static_cast<double>(k_cache.dim(2) * k_cache.dim(3) * size_of(k_cache.dtype()));
  return {bytes_of({&q, &out}) + 2 * static_cast<double>(block_table.dim(0)) * context * kv_row,
          4 * numel_of(q) * context};
}

namespace {

template <typename Op>
void check_lightning(const Op& op, int64_t num_seqs) {
  MM_CHECK(op.q.rank() == 3 && op.state.rank() == 4, "{}: q {}, state {}", Op::kName, op.q.describe(),
           op.state.describe());
  const int64_t heads = op.q.dim(1);
  const int64_t head_dim = op.q.dim(2);
  for (const auto& [role, t] : {std::pair{"q", &op.q}, {"k", &op.k}, {"v", &op.v}, {"out", &op.out}}) {
    expect_shape(Op::kName, role, *t, {op.q.dim(0), heads, head_dim});
    expect_dtype(Op::kName, role, *t, op.q.dtype());
    expect_activation(Op::kName, role, *t);
  }
  expect_shape(Op::kName, "decay", op.decay, {heads});
  expect_dtype(Op::kName, "decay", op.decay, DType::kF32);
  expect_shape(Op::kName, "state", op.state, {op.state.dim(0), heads, head_dim, head_dim});
  expect_dtype(Op::kName, "state", op.state, DType::kF32);
  MM_CHECK(op.state.is_contiguous(), "{}: state is not contiguous", Op::kName);
  expect_index(Op::kName, "read_slots", op.read_slots, num_seqs);
  expect_index(Op::kName, "write_slots", op.write_slots, num_seqs);
  expect_no_alias(Op::kName, op.q, op.out);
}

template <typename Op>
Cost lightning_cost(const Op& op, int64_t num_seqs) {
  const double state = 2 * static_cast<double>(num_seqs) * numel_of(op.state) /
                       static_cast<double>(std::max<int64_t>(op.state.dim(0), 1));
  return {bytes_of({&op.q, &op.k, &op.v, &op.out}) + 4 * state,
          5 * numel_of(op.q) * static_cast<double>(op.q.dim(2))};
}

}  // namespace

void LightningPrefill::check() const {
  check_lightning(*this, read_slots.dim(0));
  expect_index(kName, "query_starts", query_starts, read_slots.dim(0) + 1);
}

Cost LightningPrefill::cost() const { return lightning_cost(*this, read_slots.dim(0)); }

void LightningDecode::check() const { check_lightning(*this, q.dim(0)); }

Cost LightningDecode::cost() const { return lightning_cost(*this, q.dim(0)); }

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
void rope(OpContext& context, const Rope& args) { dispatch(context, args); }
void paged_kv_write(OpContext& context, const PagedKvWrite& args) { dispatch(context, args); }
void paged_attention(OpContext& context, const PagedAttention& args) { dispatch(context, args); }
void lightning_prefill(OpContext& context, const LightningPrefill& args) { dispatch(context, args); }
void lightning_decode(OpContext& context, const LightningDecode& args) { dispatch(context, args); }
void sample(OpContext& context, const Sample& args) { dispatch(context, args); }

}  // namespace minimax::ops
