// The checked doors of attention: rotary embedding, caches, softmax and lightning attention.
#include "ops/door.h"

namespace minimax::ops {

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
  expect_slots(kName, slot_mapping, k.dim(0));
  expect_kv_caches(kName, k_cache, v_cache, k.dim(1), k.dim(2));
}

Cost PagedKvWrite::cost() const {
  const double written = 2 * numel_of(k) * static_cast<double>(size_of(k_cache.dtype()));
  return {bytes_of({&k, &v, &slot_mapping}) + written, 0};
}

void QkNormRopeKvWrite::check() const {
  MM_CHECK(q_out.rank() == 3 && k_cache.rank() == 4 && qkv.rank() == 2,
           "qk_norm_rope_kv_write: qkv {}, q_out {}, k_cache {}", qkv.describe(), q_out.describe(),
           k_cache.describe());
  const int64_t rows = qkv.dim(0);
  const bool has_indexer = index_q_out.defined();
  const int64_t index_width = has_indexer ? (index_heads() + 1) * index_dim() : 0;
  expect_shape(kName, "qkv", qkv, {rows, (heads() + 2 * kv_heads()) * head_dim() + index_width});
  expect_activation(kName, "qkv", qkv);
  expect_shape(kName, "q_out", q_out, {rows, heads(), head_dim()});
  expect_activation(kName, "q_out", q_out);
  expect_kv_caches(kName, k_cache, v_cache, kv_heads(), head_dim());
  for (const auto& [role, weight, count] :
       {std::tuple{"q_norm", &q_norm, heads()}, {"k_norm", &k_norm, kv_heads()}}) {
    MM_CHECK(weight->rank() == 1 && (weight->dim(0) == head_dim() || weight->dim(0) == count * head_dim()),
             "qk_norm_rope_kv_write: {} is {}, expected {} or {} values", role, weight->describe(),
             head_dim(), count * head_dim());
    expect_activation(kName, role, *weight);
  }
  expect_index(kName, "positions", positions, rows);
  expect_slots(kName, slot_mapping, rows);
  MM_CHECK(inv_freq.rank() == 1 && 2 * inv_freq.dim(0) <= head_dim() &&
               (!has_indexer || 2 * inv_freq.dim(0) <= index_dim()),
           "qk_norm_rope_kv_write: inv_freq is {} for heads of {} and {}", inv_freq.describe(), head_dim(),
           index_dim());
  expect_dtype(kName, "inv_freq", inv_freq, DType::kF32);
  MM_CHECK(index_q_norm.defined() == has_indexer && index_k_norm.defined() == has_indexer &&
               index_cache.defined() == has_indexer,
           "qk_norm_rope_kv_write: an indexer needs both norms, index_q_out and index_cache");
  if (has_indexer) check_indexer();
}

void QkNormRopeKvWrite::check_indexer() const {
  expect_norm_weight(kName, index_q_norm, index_dim());
  expect_norm_weight(kName, index_k_norm, index_dim());
  expect_shape(kName, "index_q_out", index_q_out, {qkv.dim(0), index_heads(), index_dim()});
  MM_CHECK(is_cache(index_q_out.dtype()) && index_q_out.has_dense_rows(),
           "qk_norm_rope_kv_write: index_q_out is {}, expected F32, BF16 or F8_E4M3 with dense rows",
           index_q_out.describe());
  expect_cache(kName, "index_cache", index_cache, {k_cache.dim(0), k_cache.dim(1), index_dim()});
}

Cost QkNormRopeKvWrite::cost() const {
  const auto rows = static_cast<double>(qkv.dim(0));
  const double written =
      rows * static_cast<double>(2 * kv_heads() * head_dim() * size_of(k_cache.dtype()) +
                                 (index_cache.defined() ? index_dim() * size_of(index_cache.dtype()) : 0));
  return {bytes_of({&qkv, &q_norm, &k_norm, &index_q_norm, &index_k_norm, &positions, &slot_mapping, &q_out,
                    &index_q_out}) +
              written,
          6 * numel_of(qkv)};
}

void PagedAttention::check() const {
  MM_CHECK(q.rank() == 3 && k_cache.rank() == 4 && block_table.rank() == 2,
           "paged_attention: q {}, k_cache {}, block_table {}", q.describe(), k_cache.describe(),
           block_table.describe());
  const int64_t kv_heads = k_cache.dim(2);
  MM_CHECK(kv_heads > 0 && q.dim(1) % kv_heads == 0, "paged_attention: {} query heads over {} kv heads",
           q.dim(1), kv_heads);
  expect_activation(kName, "q", q);
  expect_kv_caches(kName, k_cache, v_cache, kv_heads, q.dim(2));
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

void rope(OpContext& context, const Rope& args) { dispatch(context, args); }
void paged_kv_write(OpContext& context, const PagedKvWrite& args) { dispatch(context, args); }
void qk_norm_rope_kv_write(OpContext& context, const QkNormRopeKvWrite& args) { dispatch(context, args); }
void paged_attention(OpContext& context, const PagedAttention& args) { dispatch(context, args); }
void lightning_prefill(OpContext& context, const LightningPrefill& args) { dispatch(context, args); }
void lightning_decode(OpContext& context, const LightningDecode& args) { dispatch(context, args); }

}  // namespace minimax::ops
