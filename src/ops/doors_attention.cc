// The checked doors of attention: rotary embedding, caches, softmax, block-sparse and lightning attention.
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
  if (squares.defined()) check_squares();
}

void QkNormRopeKvWrite::check_squares() const {
  expect_shape(kName, "squares", squares, {qkv.dim(0), 2});
  expect_dtype(kName, "squares", squares, DType::kF32);
  MM_CHECK(squares.is_contiguous(), "qk_norm_rope_kv_write: squares is not contiguous");
  for (const auto& [role, weight, count, width] : {std::tuple{"q_norm", &q_norm, heads(), q_norm_width},
                                                   {"k_norm", &k_norm, kv_heads(), k_norm_width}}) {
    MM_CHECK(weight->dim(0) == count * head_dim() && width >= weight->dim(0) && width > 0,
             "qk_norm_rope_kv_write: {} is {}, expected {} values, part of a width of {}", role,
             weight->describe(), count * head_dim(), width);
  }
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

namespace {

// What dense and block-sparse attention share.
template <typename Op>
void check_paged(const Op& op) {
  MM_CHECK(op.q.rank() == 3 && op.k_cache.rank() == 4 && op.block_table.rank() == 2,
           "{}: q {}, k_cache {}, block_table {}", Op::kName, op.q.describe(), op.k_cache.describe(),
           op.block_table.describe());
  const int64_t kv_heads = op.k_cache.dim(2);
  MM_CHECK(kv_heads > 0 && op.q.dim(1) % kv_heads == 0, "{}: {} query heads over {} kv heads", Op::kName,
           op.q.dim(1), kv_heads);
  expect_activation(Op::kName, "q", op.q);
  expect_kv_caches(Op::kName, op.k_cache, op.v_cache, kv_heads, op.q.dim(2));
  expect_dtype(Op::kName, "block_table", op.block_table, DType::kI32);
  expect_index(Op::kName, "query_starts", op.query_starts, op.block_table.dim(0) + 1);
  expect_index(Op::kName, "seq_lens", op.seq_lens, op.block_table.dim(0));
  expect_shape(Op::kName, "out", op.out, {op.q.dim(0), op.q.dim(1), op.q.dim(2)});
  expect_dtype(Op::kName, "out", op.out, op.q.dtype());
  expect_activation(Op::kName, "out", op.out);
  expect_no_alias(Op::kName, op.q, op.out);
}

void expect_selection(std::string_view op, const Tensor& selection, int64_t rows, int64_t heads) {
  MM_CHECK(selection.rank() == 3 && selection.dim(2) > 0, "{}: selection is {}", op, selection.describe());
  expect_shape(op, "selection", selection, {rows, heads, selection.dim(2)});
  expect_dtype(op, "selection", selection, DType::kI32);
  MM_CHECK(selection.is_contiguous(), "{}: selection is not contiguous", op);
}

// Attention of every row to `keys` keys; `read` different ones are read.
template <typename Op>
Cost paged_cost(const Op& op, int64_t keys, int64_t read) {
  const double kv_row =
      static_cast<double>(op.k_cache.dim(2) * op.k_cache.dim(3) * size_of(op.k_cache.dtype()));
  return {bytes_of({&op.q, &op.out}) + 2 * static_cast<double>(read) * kv_row,
          4 * numel_of(op.q) * static_cast<double>(keys)};
}

}  // namespace

void PagedAttention::check() const { check_paged(*this); }

Cost PagedAttention::cost() const {
  return paged_cost(*this, max_context(), block_table.dim(0) * max_context());
}

void SparsePagedAttention::check() const {
  check_paged(*this);
  expect_selection(kName, selection, q.dim(0), k_cache.dim(2));
}

Cost SparsePagedAttention::cost() const {
  const int64_t context = block_table.dim(1) * k_cache.dim(1);
  return paged_cost(*this, max_keys(), std::min(q.dim(0) * max_keys(), block_table.dim(0) * context));
}

void IndexBlockScores::check() const {
  MM_CHECK(index_q.rank() == 3 && index_cache.rank() == 3 && block_table.rank() == 2,
           "index_block_scores: index_q {}, index_cache {}, block_table {}", index_q.describe(),
           index_cache.describe(), block_table.describe());
  MM_CHECK(is_cache(index_q.dtype()) && index_q.has_dense_rows(),
           "index_block_scores: index_q is {}, expected F32, BF16 or F8_E4M3 with dense rows",
           index_q.describe());
  expect_cache(kName, "index_cache", index_cache, {index_cache.dim(0), block_size(), index_q.dim(2)});
  expect_dtype(kName, "block_table", block_table, DType::kI32);
  expect_index(kName, "query_starts", query_starts, block_table.dim(0) + 1);
  expect_index(kName, "seq_lens", seq_lens, block_table.dim(0));
  expect_shape(kName, "scores", scores, {index_q.dim(0), index_q.dim(1), block_table.dim(1)});
  expect_dtype(kName, "scores", scores, DType::kF32);
  MM_CHECK(scores.has_dense_rows(), "index_block_scores: scores has a strided last dimension");
}

Cost IndexBlockScores::cost() const {
  const auto context = static_cast<double>(block_table.dim(1) * block_size());
  const double keys = static_cast<double>(block_table.dim(0)) * context;
  const double key_bytes = static_cast<double>(index_q.dim(2) * size_of(index_cache.dtype()));
  return {bytes_of({&index_q, &scores}) + keys * key_bytes, 2 * numel_of(index_q) * context};
}

void SelectBlocks::check() const {
  MM_CHECK(scores.rank() == 3 && block_size > 0 && init_blocks >= 0 && local_blocks >= 0,
           "select_blocks: scores {}, blocks of {}, {} initial, {} local", scores.describe(), block_size,
           init_blocks, local_blocks);
  expect_dtype(kName, "scores", scores, DType::kF32);
  MM_CHECK(scores.has_dense_rows(), "select_blocks: scores has a strided last dimension");
  expect_index(kName, "query_starts", query_starts, seq_lens.dim(0) + 1);
  expect_index(kName, "seq_lens", seq_lens, seq_lens.dim(0));
  expect_selection(kName, selection, scores.dim(0), scores.dim(1));
}

Cost SelectBlocks::cost() const { return {bytes_of({&scores, &selection}), 0}; }

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
  MM_CHECK(checkpoint_rows.defined() == checkpoint_slots.defined(),
           "lightning_prefill: checkpoint_rows {}, checkpoint_slots {}; give both or none",
           checkpoint_rows.describe(), checkpoint_slots.describe());
  if (!checkpoint_rows.defined()) return;
  MM_CHECK(checkpoint_rows.rank() == 2, "lightning_prefill: checkpoint_rows {}, expected [{}, checkpoints]",
           checkpoint_rows.describe(), read_slots.dim(0));
  for (const auto& [role, t] :
       {std::pair{"checkpoint_rows", &checkpoint_rows}, {"checkpoint_slots", &checkpoint_slots}}) {
    expect_shape(kName, role, *t, {read_slots.dim(0), checkpoint_rows.dim(1)});
    expect_dtype(kName, role, *t, DType::kI32);
    MM_CHECK(t->is_contiguous(), "lightning_prefill: {} is not contiguous", role);
  }
}

Cost LightningPrefill::cost() const { return lightning_cost(*this, read_slots.dim(0)); }

void LightningDecode::check() const { check_lightning(*this, q.dim(0)); }

Cost LightningDecode::cost() const { return lightning_cost(*this, q.dim(0)); }

void rope(OpContext& context, const Rope& args) { dispatch(context, args); }
void paged_kv_write(OpContext& context, const PagedKvWrite& args) { dispatch(context, args); }
void qk_norm_rope_kv_write(OpContext& context, const QkNormRopeKvWrite& args) { dispatch(context, args); }
void paged_attention(OpContext& context, const PagedAttention& args) { dispatch(context, args); }
void index_block_scores(OpContext& context, const IndexBlockScores& args) { dispatch(context, args); }
void select_blocks(OpContext& context, const SelectBlocks& args) { dispatch(context, args); }
void sparse_paged_attention(OpContext& context, const SparsePagedAttention& args) { dispatch(context, args); }
void lightning_prefill(OpContext& context, const LightningPrefill& args) { dispatch(context, args); }
void lightning_decode(OpContext& context, const LightningDecode& args) { dispatch(context, args); }

}  // namespace minimax::ops
