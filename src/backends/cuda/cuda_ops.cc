// The ops but products: tensors to kernel arguments, and which kernel takes which shape.
#include "backends/cuda/cuda_ops.h"

#include <algorithm>

#include "backends/cuda/op_views.h"

namespace minimax::cuda {
namespace {

// Parts of a decode step's keys, and how many of them are a cluster. From shapes alone: graphs replay at any
// length.
struct AttentionParts {
  int64_t splits = 1;
  int64_t cluster = 1;
};
AttentionParts attention_parts(const ops::PagedAttention& args, int multiprocessors, int architecture) {
  // More parts take longer to add up than they save.
  constexpr int64_t kMostSplits = 32, kMostCluster = 8, kFewestKeys = 64;
  const int64_t sequences = args.block_table.dim(0);
  if (args.q.dim(0) > sequences || sequences * args.q.dim(1) > kMostArrivals) return {};
  const int64_t blocks = std::max<int64_t>(1, sequences * args.k_cache.dim(2));
  const int64_t most = std::min(kMostSplits, ceil_div(args.max_context(), kFewestKeys));
  // Two blocks run on a multiprocessor; clusters of more than two need room to find their places.
  const int64_t roomy = std::min(most, 3 * multiprocessors / 2 / blocks);
  if (architecture >= 90 && roomy >= kMostCluster) return {roomy / kMostCluster * kMostCluster, kMostCluster};
  const int64_t splits = std::clamp<int64_t>(2 * multiprocessors / blocks, 1, most);
  if (architecture < 90 || splits < 2) return {splits, 1};
  return {splits / 2 * 2, 2};
}

AttentionArgs attention_args(const ops::PagedAttention& args) {
  AttentionArgs a;
  a.q = heads(args.q);
  a.cache = paged(args.k_cache, args.v_cache);
  a.batch = ragged(args.block_table, args.query_starts, args.seq_lens, args.q.dim(0));
  a.scale = args.scale;
  a.out = heads(args.out);
  a.is_decode_shape = args.q.dim(0) <= args.block_table.dim(0);
  return a;
}

LightningPrefillArgs prefill_args(const ops::LightningPrefill& args, int architecture) {
  LightningPrefillArgs a;
  a.q = rows_of(args.q);
  a.k = rows_of(args.k);
  a.v = rows_of(args.v);
  a.out = rows_of(args.out);
  a.decay = args.decay.data<float>();
  a.state = args.state.data<float>();
  a.read_slots = args.read_slots.data<int32_t>();
  a.write_slots = args.write_slots.data<int32_t>();
  a.query_starts = args.query_starts.data<int32_t>();
  if (args.checkpoint_rows.defined()) {
    a.checkpoint_rows = args.checkpoint_rows.data<int32_t>();
    a.checkpoint_slots = args.checkpoint_slots.data<int32_t>();
    a.num_checkpoints = static_cast<int>(args.checkpoint_rows.dim(1));
  }
  a.num_tokens = args.q.dim(0);
  a.num_sequences = args.read_slots.dim(0);
  a.num_heads = static_cast<int>(args.q.dim(1));
  a.head_dim = static_cast<int>(args.q.dim(2));
  a.element = element_of(args.q);
  a.sm = architecture;
  return a;
}

}  // namespace

void CudaBackend::check_launch(std::string_view op) const { check(cudaGetLastError(), op); }

void CudaBackend::run(const ops::Embedding& args, ops::Workspace) {
  launch_embedding(args.ids.data<int32_t>(), matrix(args.table), matrix(args.out), args.first_id, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::RmsNorm& args, ops::Workspace) {
  NormArgs a;
  a.x = matrix(args.x);
  a.weight = vector(args.weight);
  a.out = matrix(args.out);
  a.eps = args.eps;
  a.weight_offset = args.weight_offset;
  a.lets_next_start = dense_streams_;
  launch_norm(a, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::ResidualRmsNorm& args, ops::Workspace) {
  NormArgs a;
  a.x = matrix(args.residual);
  a.branch = matrix(args.branch);
  a.alpha = args.alpha;
  a.beta = args.beta;
  a.weight = vector(args.weight);
  a.sum = matrix(args.sum);
  a.out = matrix(args.out);
  a.eps = args.eps;
  a.weight_offset = args.weight_offset;
  a.lets_next_start = dense_streams_;
  launch_norm(a, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::GatedRmsNorm& args, ops::Workspace) {
  NormArgs a;
  a.x = matrix(args.x);
  a.gate = matrix(args.gate);
  a.weight = vector(args.weight);
  a.out = matrix(args.out);
  a.eps = args.eps;
  if (args.squares.defined()) {
    a.squares = args.squares.data<float>();
    a.squares_stride = args.squares.stride(0);
    a.norm_width = args.norm_width;
  }
  a.lets_next_start = dense_streams_;
  launch_norm(a, stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::SumOfSquares& args, ops::Workspace) {
  launch_sum_of_squares(matrix(args.x), args.out.data<float>(), args.out.stride(0), stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::MixShared& args, ops::Workspace) {
  launch_mix_shared(matrix(args.routed), matrix(args.shared), args.coefficient.data<float>(),
                    args.coefficient.stride(0), matrix(args.out), stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::Rope& args, ops::Workspace) {
  launch_rope(heads(args.x), args.positions.data<int32_t>(), args.inv_freq.data<float>(),
              args.inv_freq.dim(0), stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::PagedKvWrite& args, ops::Workspace) {
  launch_paged_kv_write(heads(args.k), heads(args.v), args.slot_mapping.data<int64_t>(),
                        paged(args.k_cache, args.v_cache), stream());
  check_launch(args.kName);
}

void CudaBackend::run(const ops::QkNormRopeKvWrite& args, ops::Workspace) {
  QkNormRopeArgs a;
  a.qkv = matrix(args.qkv);
  a.q_norm = vector(args.q_norm);
  a.k_norm = vector(args.k_norm);
  a.index_q_norm = vector(args.index_q_norm);
  a.index_k_norm = vector(args.index_k_norm);
  // A weight of one head's length is shared by the heads.
  a.q_is_flat = args.squares.defined() || args.q_norm.dim(0) != args.head_dim();
  a.k_is_flat = args.squares.defined() || args.k_norm.dim(0) != args.head_dim();
  a.weight_offset = args.weight_offset;
  a.eps = args.eps;
  a.positions = args.positions.data<int32_t>();
  a.inv_freq = args.inv_freq.data<float>();
  a.half = args.inv_freq.dim(0);
  a.slots = args.slot_mapping.data<int64_t>();
  a.q_out = heads(args.q_out);
  a.index_q_out = heads(args.index_q_out);
  a.cache = paged(args.k_cache, args.v_cache);
  if (args.index_cache.defined()) {
    a.index_cache = args.index_cache.raw();
    a.index_scalar = scalar_of(args.index_cache.dtype());
  }
  a.squares = data_or_null<float>(args.squares);
  a.q_norm_width = args.q_norm_width;
  a.k_norm_width = args.k_norm_width;
  a.lets_next_start = dense_streams_;
  launch_qk_norm_rope_kv_write(a, stream());
  check_launch(args.kName);
}

int64_t CudaBackend::workspace_bytes(const ops::PagedAttention& args) const {
  const AttentionArgs a = attention_args(args);
  if (!can_attention_mma(a)) return 0;
  return attention_partial_bytes(args.q.dim(0), args.q.dim(1), args.q.dim(2),
                                 attention_parts(args, multiprocessors_, architecture_).splits);
}

void CudaBackend::run(const ops::PagedAttention& args, ops::Workspace workspace) {
  AttentionArgs a = attention_args(args);
  if (architecture_ >= 90 && can_attention_sm90(a)) {
    launch_attention_sm90(a, stream());
  } else if (can_attention_mma(a)) {
    const AttentionParts parts = attention_parts(args, multiprocessors_, architecture_);
    a.splits = parts.splits;
    a.cluster = parts.cluster;
    a.partial = reinterpret_cast<float*>(workspace.data);
    a.arrivals = reinterpret_cast<int32_t*>(arrivals_.data());
    a.lets_next_start = dense_streams_;
    launch_attention_mma(a, stream());
  } else {
    launch_attention_any(a, stream());
  }
  check_launch(args.kName);
}

// Up to so many rows a sequence, on average, reading the keys takes longer than multiplying them.
constexpr int64_t kFewScoredRows = 4;

void CudaBackend::run(const ops::IndexBlockScores& args, ops::Workspace) {
  IndexerArgs a;
  a.index_q = heads(args.index_q);
  a.batch = ragged(args.block_table, args.query_starts, args.seq_lens, args.index_q.dim(0));
  a.index_cache = args.index_cache.raw();
  a.index_scalar = scalar_of(args.index_cache.dtype());
  a.block_size = args.block_size();
  a.scores = heads(args.scores);
  if (!can_block_scores(a)) {
    launch_index_block_scores(a, stream());
  } else if (architecture_ >= 90 && a.scores.tokens > kFewScoredRows * a.batch.sequences) {
    launch_block_scores_sm90(a, multiprocessors_, stream());
  } else {
    launch_block_scores(a, multiprocessors_, stream());
  }
  check_launch(args.kName);
}

void CudaBackend::run(const ops::SelectBlocks& args, ops::Workspace) {
  IndexerArgs a;
  a.batch.query_starts = args.query_starts.data<int32_t>();
  a.batch.seq_lens = args.seq_lens.data<int32_t>();
  a.batch.sequences = args.seq_lens.dim(0);
  a.block_size = args.block_size;
  a.scores = heads(args.scores);
  a.selection = args.selection.data<int32_t>();
  a.top_k = args.selection.dim(2);
  a.init_blocks = args.init_blocks;
  a.local_blocks = args.local_blocks;
  can_choose_blocks(a) ? launch_choose_blocks(a, stream()) : launch_select_blocks(a, stream());
  check_launch(args.kName);
}

namespace {

AttentionArgs sparse_args(const ops::SparsePagedAttention& args) {
  AttentionArgs a;
  a.q = heads(args.q);
  a.cache = paged(args.k_cache, args.v_cache);
  a.batch = ragged(args.block_table, args.query_starts, args.seq_lens, args.q.dim(0));
  a.scale = args.scale;
  a.out = heads(args.out);
  a.selection = args.selection.data<int32_t>();
  a.selected = args.selection.dim(2);
  return a;
}

}  // namespace

int64_t CudaBackend::workspace_bytes(const ops::SparsePagedAttention& args) const {
  const AttentionArgs a = sparse_args(args);
  if (!can_sparse_attention(a)) return 0;
  if (architecture_ >= 90 && can_sparse_attention_sm90(a)) return sparse_attention_sm90_bytes(a);
  return sparse_partial_bytes(
      a.q.tokens, a.q.heads,
      sparse_attention_splits(a.q.tokens, a.cache.kv_heads, a.selected, multiprocessors_));
}

void CudaBackend::run(const ops::SparsePagedAttention& args, ops::Workspace workspace) {
  AttentionArgs a = sparse_args(args);
  a.partial = reinterpret_cast<float*>(workspace.data);
  if (architecture_ >= 90 && can_sparse_attention_sm90(a)) {
    launch_sparse_attention_sm90(a, multiprocessors_, stream());
  } else if (can_sparse_attention(a)) {
    a.splits = sparse_attention_splits(a.q.tokens, a.cache.kv_heads, a.selected, multiprocessors_);
    launch_sparse_attention(a, stream());
  } else {
    launch_attention_any(a, stream());
  }
  check_launch(args.kName);
}

std::string CudaBackend::describe(const ops::SparseShape& shape) const {
  IndexerArgs indexer;
  indexer.index_q.heads = shape.kv_heads;
  indexer.index_q.dim = shape.index_dim;
  indexer.index_q.token_stride = shape.kv_heads * shape.index_dim;
  indexer.index_q.head_stride = shape.index_dim;
  indexer.index_q.scalar = scalar_of(shape.index_q_dtype);
  indexer.index_scalar = scalar_of(shape.index_dtype);
  indexer.block_size = shape.block_size;
  indexer.batch.sequences = 1;
  AttentionArgs attention;
  attention.q = {nullptr,
                 1,
                 shape.heads,
                 shape.head_dim,
                 shape.heads * shape.head_dim,
                 shape.head_dim,
                 scalar_of(shape.q_dtype)};
  attention.out = attention.q;
  attention.cache = {nullptr,        nullptr,        shape.block_size,
                     shape.kv_heads, shape.head_dim, scalar_of(shape.kv_dtype)};
  const std::string_view fast =
      architecture_ >= 90 ? "tensor cores, those of warpgroups for prompts" : "tensor cores";
  const std::string_view scores = can_block_scores(indexer) ? fast : "plain kernels";
  const std::string_view attends = can_sparse_attention(attention) ? fast : "plain kernels";
  return fmt::format(
      "indexer on {} ({} index heads of {}, {} queries and {} keys), attention on {} ({} heads over {} of "
      "{}, {} "
      "cache), blocks of {}",
      scores, shape.kv_heads, shape.index_dim, minimax::name(shape.index_q_dtype),
      minimax::name(shape.index_dtype), attends, shape.heads, shape.kv_heads, shape.head_dim,
      minimax::name(shape.kv_dtype), shape.block_size);
}

int64_t CudaBackend::workspace_bytes(const ops::LightningPrefill& args) const {
  return lightning_prefill_workspace_bytes(args.q.dim(0), args.read_slots.dim(0),
                                           static_cast<int>(args.q.dim(1)), static_cast<int>(args.q.dim(2)),
                                           element_of(args.q), architecture_);
}

void CudaBackend::run(const ops::LightningPrefill& args, ops::Workspace workspace) {
  LightningPrefillArgs a = prefill_args(args, architecture_);
  a.workspace = workspace.data;
  a.workspace_bytes = workspace.bytes;
  check(lightning_prefill(a, stream()), args.kName);
}

void CudaBackend::run(const ops::LightningDecode& args, ops::Workspace) {
  LightningDecodeArgs a;
  a.q = rows_of(args.q);
  a.k = rows_of(args.k);
  a.v = rows_of(args.v);
  a.out = rows_of(args.out);
  a.decay = args.decay.data<float>();
  a.state = args.state.data<float>();
  a.read_slots = args.read_slots.data<int32_t>();
  a.write_slots = args.write_slots.data<int32_t>();
  a.batch = args.q.dim(0);
  a.num_heads = static_cast<int>(args.q.dim(1));
  a.head_dim = static_cast<int>(args.q.dim(2));
  a.element = element_of(args.q);
  a.is_uploaded = true;
  check(lightning_decode(a, stream()), args.kName);
}

int64_t CudaBackend::workspace_bytes(const ops::Sample& args) const {
  return 2 * aligned(args.logits.dim(0) * args.vocab_limit * 4);
}

void CudaBackend::run(const ops::Sample& args, ops::Workspace workspace) {
  SampleArgs a;
  a.logits = args.logits.data<float>();
  a.logits_stride = args.logits.stride(0);
  a.rows = args.logits.dim(0);
  a.vocab = args.vocab_limit;
  a.temperature = args.temperature.data<float>();
  a.top_k = args.top_k.data<int32_t>();
  a.top_p = args.top_p.data<float>();
  a.min_p = args.min_p.data<float>();
  a.repetition = args.repetition_penalty.data<float>();
  a.presence = args.presence_penalty.data<float>();
  a.frequency = args.frequency_penalty.data<float>();
  a.seed = args.seed.data<int64_t>();
  a.counter = args.counter.data<int64_t>();
  a.history_ids = args.history_ids.data<int32_t>();
  a.history_starts = args.history_starts.data<int64_t>();
  a.prompt_lens = args.prompt_lens.data<int64_t>();
  a.forced_ids = data_or_null<int32_t>(args.forced_ids);
  a.bias_ids = args.bias_ids.data<int32_t>();
  a.bias_values = args.bias_values.data<float>();
  a.bias_starts = args.bias_starts.data<int64_t>();
  if (args.allowed_rows.defined()) {
    a.allowed = args.allowed.data<int64_t>();
    a.allowed_words = args.allowed.stride(0);
    a.allowed_rows = args.allowed_rows.data<int32_t>();
  }
  a.tokens = args.tokens.data<int32_t>();
  a.logprobs = args.logprobs.data<float>();
  a.top_ids = args.top_ids.data<int32_t>();
  a.top_logprobs = args.top_logprobs.data<float>();
  a.num_top = args.top_ids.dim(1);
  a.work = reinterpret_cast<float*>(workspace.data);
  a.counts = reinterpret_cast<int32_t*>(workspace.data + aligned(a.rows * a.vocab * 4));
  launch_sample(a, stream());
  check_launch(args.kName);
}

}  // namespace minimax::cuda
