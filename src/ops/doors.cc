// The checked doors and the contracts they check.
#include <algorithm>

#include "core/host_memory.h"
#include "ops/door.h"

namespace minimax::ops {

void Backend::upload(void*, const void*, int64_t) { MM_CHECK(false, "{} has no memory of its own", name()); }
void Backend::upload_rows(void*, const void*, int64_t, int64_t, int64_t) {
  MM_CHECK(false, "{} has no memory of its own", name());
}
void Backend::download(void*, const void*, int64_t) {
  MM_CHECK(false, "{} has no memory of its own", name());
}
void Backend::run(const Projections& args, Workspace workspace) {
  int64_t column = 0;
  for (size_t i = 0; i < args.parts().size(); ++i) {
    run(args.part(i, column), workspace);
    column += args.weights[i].out_features();
  }
}
int64_t Backend::workspace_bytes(const Projections& args) const {
  int64_t most = 0, column = 0;
  for (size_t i = 0; i < args.parts().size(); ++i) {
    most = std::max(most, workspace_bytes(args.part(i, column)));
    column += args.weights[i].out_features();
  }
  return most;
}
int64_t Backend::available_bytes() const { return available_memory_bytes(); }
std::unique_ptr<StepGraph> Backend::capture(const std::function<void()>&) { return nullptr; }

void check_operands(const OpContext& context, const OpRecord& record) {
  for (const auto& [role, tensor] : record.operands) {
    // A tensor without elements stands at the end of what is in use.
    MM_CHECK(tensor.numel() == 0 || context.arena.is_alive(tensor.raw()),
             "{}: {} ({}) is used after its scope ended", record.op, role, tensor.describe());
    // A tensor that is only planned has no memory, so it is nowhere.
    MM_CHECK(tensor.raw() == nullptr || tensor.device() == context.backend.device(),
             "{}: {} is on {}, the backend computes on {}", record.op, role, to_string(tensor.device()),
             to_string(context.backend.device()));
  }
}

void Embedding::check() const {
  MM_CHECK(table.rank() == 2, "embedding: table is {}, expected [rows, H]", table.describe());
  expect_index(kName, "ids", ids, ids.dim(0));
  MM_CHECK(is_activation(table.dtype()) || table.dtype() == DType::kF16,
           "embedding: table is {}, expected F32, BF16 or F16", table.describe());
  MM_CHECK(table.has_dense_rows(), "embedding: table has a strided last dimension");
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
  if (!squares.defined()) return;
  expect_shape(kName, "squares", squares, {x.dim(0), 1});
  expect_dtype(kName, "squares", squares, DType::kF32);
  MM_CHECK(norm_width >= x.dim(1) && norm_width > 0, "gated_rms_norm: x {} is no part of a width of {}",
           x.describe(), norm_width);
}

void SumOfSquares::check() const {
  MM_CHECK(x.rank() == 2, "sum_of_squares: x is {}, expected [T, N]", x.describe());
  expect_activation(kName, "x", x);
  expect_shape(kName, "out", out, {x.dim(0), 1});
  expect_dtype(kName, "out", out, DType::kF32);
}

Cost SumOfSquares::cost() const { return {bytes_of({&x, &out}), 2 * numel_of(x)}; }

Cost GatedRmsNorm::cost() const { return {bytes_of({&x, &gate, &weight, &out}), 9 * numel_of(x)}; }

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
  if (forced_ids.defined()) expect_index(kName, "forced_ids", forced_ids, rows);
  if (allowed_rows.defined()) {
    expect_index(kName, "allowed_rows", allowed_rows, rows);
    expect_dtype(kName, "allowed", allowed, DType::kI64);
    MM_CHECK(allowed.rank() == 2 && allowed.has_dense_rows() && allowed.dim(1) * 64 >= vocab_limit,
             "sample: masks {} for vocab_limit {}", allowed.describe(), vocab_limit);
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
void sum_of_squares(OpContext& context, const SumOfSquares& args) { dispatch(context, args); }
void gated_rms_norm(OpContext& context, const GatedRmsNorm& args) { dispatch(context, args); }
void sample(OpContext& context, const Sample& args) { dispatch(context, args); }

}  // namespace minimax::ops
