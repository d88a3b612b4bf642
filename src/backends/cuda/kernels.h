// Kernel launchers of the CUDA backend, as plain functions over pointers and sizes: what cuda_backend.cc
// calls, and all that nvcc sees of this project besides the kernels.
//
// The contracts are those of src/ops; shapes and dtypes have been checked by the doors. Strides count
// elements. Every launcher only enqueues work on its stream, allocates nothing and does not wait; its launch
// geometry follows from its arguments' shapes. A launch that fails shows in cudaGetLastError.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace minimax::cuda {

// Counters by which blocks that share a result find out which of them ends last; zeros between kernels.
constexpr int64_t kMostArrivals = 4096;

// The dtypes kernels read and write.
enum class Scalar : int { kF32, kBF16, kF16, kE4m3, kE8m0 };

// A matrix [rows, columns] with dense rows.
struct Matrix {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;  // between rows
  Scalar scalar = Scalar::kF32;
};

// [tokens, heads, head_dim], last dimension dense.
struct Heads {
  void* data = nullptr;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t dim = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  Scalar scalar = Scalar::kF32;
};

struct Vector {
  const void* data = nullptr;
  Scalar scalar = Scalar::kF32;
};

// A quant::Weight. `scales` is null for formats without.
struct WeightView {
  const void* values = nullptr;
  const void* scales = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;
  int64_t scale_stride = 0;
  int64_t block_rows = 1;
  int64_t block_columns = 1;
  int64_t row_offset = 0;
  int64_t column_offset = 0;
  Scalar scalar = Scalar::kBF16;
  Scalar scale_scalar = Scalar::kF32;
  bool operator==(const WeightView&) const = default;
};

// Paged keys and values [pages, page_size, kv_heads, dim], contiguous.
struct PagedKv {
  void* k = nullptr;
  void* v = nullptr;
  int64_t page_size = 0;
  int64_t kv_heads = 0;
  int64_t dim = 0;
  Scalar scalar = Scalar::kBF16;
};

// A ragged batch: sequence b owns query rows starts[b] .. starts[b + 1] - 1.
struct Ragged {
  const int32_t* query_starts = nullptr;  // [sequences + 1]
  const int32_t* seq_lens = nullptr;      // [sequences]
  const int32_t* block_table = nullptr;   // [sequences, table_stride]
  int64_t table_stride = 0;
  int64_t max_pages = 0;
  int64_t sequences = 0;
  int64_t tokens = 0;
};

struct SwigluParams {
  float alpha = 1;
  float limit = 0;
  float up_offset = 0;
};

// --- elementwise.cu
void launch_embedding(const int32_t* ids, const Matrix& table, const Matrix& out, int64_t first_id,
                      cudaStream_t);
void launch_mix_shared(const Matrix& routed, const Matrix& shared, const float* coefficient,
                       int64_t coefficient_stride, const Matrix& out, cudaStream_t);
void launch_rope(const Heads& x, const int32_t* positions, const float* inv_freq, int64_t half, cudaStream_t);
void launch_paged_kv_write(const Heads& k, const Heads& v, const int64_t* slots, const PagedKv& cache,
                           cudaStream_t);
void launch_convert(const Matrix& from, const Matrix& to, cudaStream_t);
void launch_silu(const Matrix& x, cudaStream_t);
void launch_swiglu(const Matrix& gate, const Matrix& up, const SwigluParams&, const Matrix& hidden,
                   cudaStream_t);
void launch_add(const Matrix& x, const Matrix& y, const Matrix& out, cudaStream_t);

// `lets_next_start`, of short kernels: the kernel after one may start before this one has waited for the one
// before (ptx::start_next_kernel).
struct QkNormRopeArgs {
  bool lets_next_start = false;
  Matrix qkv;
  Vector q_norm, k_norm, index_q_norm, index_k_norm;
  bool q_is_flat = false, k_is_flat = false;
  float weight_offset = 0, eps = 0;
  const int32_t* positions = nullptr;
  const float* inv_freq = nullptr;
  int64_t half = 0;
  const int64_t* slots = nullptr;
  Heads q_out, index_q_out;
  PagedKv cache;
  void* index_cache = nullptr;
  Scalar index_scalar = Scalar::kBF16;
  const float* squares = nullptr;  // [T, 2]
  int64_t q_norm_width = 0, k_norm_width = 0;
};
void launch_qk_norm_rope_kv_write(const QkNormRopeArgs&, cudaStream_t);

// --- norm.cu
struct NormArgs {
  bool lets_next_start = false;
  Matrix x;       // residual
  Matrix branch;  // data null: none
  Matrix gate;    // data null: none
  Vector weight;
  Matrix sum;  // data null: not wanted
  Matrix out;
  const float* squares = nullptr;  // [rows], null: of x itself
  int64_t squares_stride = 1;
  int64_t norm_width = 0;
  float alpha = 1, beta = 1, eps = 0, weight_offset = 0;
};
void launch_norm(const NormArgs&, cudaStream_t);
void launch_sum_of_squares(const Matrix& x, float* out, int64_t out_stride, cudaStream_t);

// --- linear.cu: products in F32 arithmetic, for any format and shape
void launch_linear_f32(const Matrix& x, const WeightView& weight, bool silu, const Matrix& out,
                       bool lets_next_start, cudaStream_t);
// Codes of x rounded as quant::round_activations says, written as numbers of out's dtype.
void launch_round_e4m3(const Matrix& x, bool is_mx, const Matrix& out, cudaStream_t);

// --- linear_split_sm90.cu: F32 products of many rows on Hopper's tensor cores, as exact as F32 sums
bool can_linear_split(const Matrix& x, const WeightView& weight);
int64_t linear_split_bytes(const WeightView& weight);
void launch_linear_split(const Matrix& x, const WeightView& weight, bool silu, const Matrix& out,
                         void* workspace, cudaStream_t);

// --- linear_small.cu: BF16 and 8-bit products of few rows at the speed of the weights' memory
constexpr int64_t kMostSmallRows = 32;
constexpr int kMostSmallWeights = 5;
struct SmallLinearArgs {
  Matrix x;
  WeightView weights[kMostSmallWeights];  // of one format; their outputs stand side by side in out
  int count = 0;
  bool applies_silu = false;
  Matrix addend;  // data null: none; of out's dtype, may be out
  Matrix out;
};
bool can_linear_small(const Matrix& x, const WeightView& weight);
void launch_linear_small(const SmallLinearArgs&, cudaStream_t);

// --- linear_stream_sm90.cu: the same of BF16 weights of very many outputs, on Hopper
bool can_linear_stream_bf16(const Matrix& x, const WeightView& weight);
void launch_linear_stream_bf16(const Matrix& x, const WeightView& weight, bool silu, const Matrix& out,
                               int multiprocessors, cudaStream_t);

// --- mlp_small.cu: dense MLPs of few rows in two kernels
struct MlpSmallArgs {
  Matrix x;
  WeightView w1, w3, w2;
  SwigluParams swiglu;
  Matrix addend;  // data null: none
  Matrix hidden;  // [T, I] BF16
  Matrix out;
};
bool can_mlp_small(const MlpSmallArgs&);
void launch_mlp_small(const MlpSmallArgs&, cudaStream_t);

// --- linear_tiles.cu: 8-bit weights unpacked to BF16, of any grid of scales, with any number of rows in BF16
bool can_linear_tiles(const WeightView& weight);
// x: 16-byte aligned rows.
void launch_linear_tiles(const Matrix& x, const WeightView& weight, bool silu, const Matrix& out,
                         int architecture, cudaStream_t);
void launch_linear_tiles_sm90(const Matrix& x, const WeightView& weight, bool silu, const Matrix& out,
                              cudaStream_t);

// --- route.cu
struct RouteArgs {
  bool lets_next_start = false;
  const float* logits = nullptr;
  int64_t logits_stride = 0;
  Vector bias;
  float scale = 1;
  int64_t tokens = 0, experts = 0, top_k = 0;
  int32_t* ids = nullptr;
  float* weights = nullptr;
  int64_t ids_stride = 0, weights_stride = 0;
  bool is_sigmoid = false;
};
void launch_route(const RouteArgs&, cudaStream_t);

// --- moe.cu
struct ExpertPointers {
  WeightView w1, w3, w2;
  bool operator==(const ExpertPointers&) const = default;
};
// Pairs (token, j) in the order of their experts: where each expert's pairs begin, and which they are.
struct ExpertOrder {
  int32_t* starts = nullptr;  // [experts + 1]
  int32_t* pairs = nullptr;   // [tokens * top_k], pair t * top_k + j
  int32_t* places = nullptr;  // [tokens * top_k]: where a pair stands in `pairs`, -1 for none
  int32_t* active = nullptr;  // [experts + 1]: those that have pairs, ascending; last how many they are
  int32_t* tiles = nullptr;   // [experts + 1]: tiles of pairs before those of an expert
  int32_t* counts = nullptr;  // [expert_order_counts]: scratch
};
int64_t expert_order_counts(int64_t pairs, int64_t experts);
struct MoeArgs {
  bool lets_next_start = false;  // of the kernel that adds up
  Matrix x;
  const int32_t* ids = nullptr;    // [T, k], contiguous
  const float* weights = nullptr;  // [T, k], contiguous
  int64_t top_k = 0;
  int64_t experts = 0, first_expert = 0;
  int64_t intermediate = 0;
  const ExpertPointers* table = nullptr;  // [experts] on the device
  ExpertPointers first;                   // of the first expert, on the host: formats and shapes
  SwigluParams swiglu;
  Matrix out;
  ExpertOrder order;
  void* hidden = nullptr;      // [T * k, I] BF16, or F32 for the F32 path
  float* partial = nullptr;    // [T * k, H]
  void* x_bf16 = nullptr;      // [T, H] BF16, for the BF16 paths
  const void* maps = nullptr;  // [experts] of make_expert_maps on the device, or null
  bool rounds_hidden = false;  // to e4m3 numbers, as the inputs are
  bool is_mx = false;
};
void launch_expert_order(const MoeArgs&, cudaStream_t);
// F32 arithmetic, any format and shape.
void launch_moe_f32(const MoeArgs&, cudaStream_t);
bool can_moe_bf16(const MoeArgs&);
bool can_moe_tiles(const MoeArgs&);  // 8-bit weights, which tiles unpack
// Few enough tokens that the experts' weights, not the products, take the time.
constexpr int64_t kMostSmallMoeTokens = 32;
bool can_moe_small(const MoeArgs&);
bool needs_expert_order(const MoeArgs&);  // of launch_moe_small
// Whether launch_moe_small takes x as it is; else `x` must be a copy in BF16.
bool reads_inputs_as_they_are(const MoeArgs&);
// Products of few tokens with BF16 or 8-bit experts: reads the chosen ones alone.
void launch_moe_small(const MoeArgs&, int multiprocessors, cudaStream_t);
// BF16 products of many tokens on tiles, of weights for which can_moe_bf16 or can_moe_tiles holds.
void launch_moe_tiles(const MoeArgs&, int architecture, cudaStream_t);
void launch_moe_tiles_sm90(const MoeArgs&, cudaStream_t);  // without the weighted sum

// --- fp8_encode.cu
// Rows of e4m3 codes beside the scale of each group of 128 inputs, as quant::round_activations says; the
// scales stand as [groups, scale_stride].
struct CodedRows {
  void* codes = nullptr;  // [rows, columns]
  float* scales = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t scale_stride = 0;
};
void launch_encode_rows(const Matrix& x, const CodedRows& to, cudaStream_t);
// Each token's row at the place of every pair of it.
void launch_encode_pairs(const MoeArgs&, const CodedRows& to, cudaStream_t);

// --- fp8_sm90.cu: products of many rows as e4m3 codes, on Hopper
bool can_multiply_codes(const WeightView& weight);
void launch_linear_codes(const CodedRows& x, const WeightView& weight, bool silu, const Matrix& out,
                         cudaStream_t);
struct MoeCodes {
  MoeArgs moe;
  CodedRows x;           // [T * k, H], in the order of places
  CodedRows hidden;      // [T * k, I]
  void* rows = nullptr;  // [T * k, H] BF16
  void* maps = nullptr;  // expert_map_bytes, at a multiple of 128
};
int64_t expert_map_bytes(int64_t experts);
bool can_moe_codes(const MoeArgs&);
void launch_moe_codes(const MoeCodes&, cudaStream_t);

// --- fp8_stream_sm90.cu: few rows as e4m3 codes on Hopper, in two terms, with sums of 128 products kept to
// 13 bits
bool can_linear_stream(const SmallLinearArgs&);
void launch_linear_stream(const SmallLinearArgs&, int multiprocessors, cudaStream_t);
bool can_mlp_stream(const MlpSmallArgs&);
void launch_mlp_stream(const MlpSmallArgs&, int multiprocessors, cudaStream_t);
// What launch_moe_stream needs to know of the experts' weights besides the table, made on the host.
std::vector<std::byte> make_expert_maps(const ExpertPointers* experts, int64_t count);
bool can_stream_experts(const ExpertPointers&);  // whether maps can be made of their like
bool can_moe_stream(const MoeArgs&);
void launch_moe_stream(const MoeArgs&, int multiprocessors, cudaStream_t);

// --- attention.cu
struct AttentionArgs {
  bool lets_next_start = false;  // of decode
  Heads q;
  PagedKv cache;
  Ragged batch;
  float scale = 1;
  Heads out;
  float* partial = nullptr;            // split-KV workspace
  int32_t* arrivals = nullptr;         // [kMostArrivals] zeros, left as zeros
  int64_t splits = 1;                  // 1 unless is_decode_shape; times tiles at most kMostArrivals
  int64_t cluster = 1;                 // parts of a cluster: 2, 4 or 8 that divide splits, on Hopper
  bool is_decode_shape = false;        // as many rows as sequences: few rows each
  const int32_t* selection = nullptr;  // [tokens, kv_heads, selected] blocks, or null for all keys
  int64_t selected = 0;
};
void launch_attention_any(const AttentionArgs&, cudaStream_t);
bool can_attention_mma(const AttentionArgs&);
void launch_attention_mma(const AttentionArgs&, cudaStream_t);
void launch_attention_padding(const AttentionArgs&, cudaStream_t);  // zeros in rows of no sequence
// --- attention_decode.cu: what launch_attention_mma does with decode shapes
int64_t attention_partial_bytes(int64_t tokens, int64_t heads, int64_t dim, int64_t splits);
void launch_attention_decode(const AttentionArgs&, cudaStream_t);
// --- attention_sm90.cu: prompts on warpgroups
bool can_attention_sm90(const AttentionArgs&);
void launch_attention_sm90(const AttentionArgs&, cudaStream_t);

// --- sparse.cu
struct IndexerArgs {
  Heads index_q;  // of scores alone
  Ragged batch;
  const void* index_cache = nullptr;
  Scalar index_scalar = Scalar::kBF16;
  int64_t block_size = 0;
  Heads scores;                  // [T, groups, blocks] F32
  int32_t* selection = nullptr;  // [T, groups, top_k]
  int64_t top_k = 0, init_blocks = 0, local_blocks = 0;
};
void launch_index_block_scores(const IndexerArgs&, cudaStream_t);
void launch_select_blocks(const IndexerArgs&, cudaStream_t);

// --- sparse_scores.cu, sparse_select.cu, sparse_attention.cu: MiniMax-M3's shapes on tensor cores
bool can_block_scores(const IndexerArgs&);
void launch_block_scores(const IndexerArgs&, int multiprocessors, cudaStream_t);
bool can_choose_blocks(const IndexerArgs&);
void launch_choose_blocks(const IndexerArgs&, cudaStream_t);
bool can_sparse_attention(const AttentionArgs&);
// Parts that the chosen keys of a row and KV head are cut into.
int64_t sparse_attention_splits(int64_t rows, int64_t kv_heads, int64_t selected, int multiprocessors);
int64_t sparse_partial_bytes(int64_t rows, int64_t heads, int64_t splits);
void launch_sparse_attention(const AttentionArgs&, cudaStream_t);

// --- sparse_scores_sm90.cu, sparse_attention_sm90.cu: the same for prompts on Hopper
void launch_block_scores_sm90(const IndexerArgs&, int multiprocessors, cudaStream_t);
// Whether there are rows enough that those which chose the same block pay to be brought together.
bool can_sparse_attention_sm90(const AttentionArgs&);
int64_t sparse_attention_sm90_bytes(const AttentionArgs&);  // of `partial`
void launch_sparse_attention_sm90(const AttentionArgs&, int multiprocessors, cudaStream_t);

// --- sampling.cu
struct SampleArgs {
  const float* logits = nullptr;
  int64_t logits_stride = 0;
  int64_t rows = 0, vocab = 0;
  const float *temperature = nullptr, *top_p = nullptr, *min_p = nullptr, *repetition = nullptr,
              *presence = nullptr, *frequency = nullptr;
  const int32_t* top_k = nullptr;
  const int64_t *seed = nullptr, *counter = nullptr;
  const int32_t* history_ids = nullptr;
  const int64_t *history_starts = nullptr, *prompt_lens = nullptr;
  const int32_t* forced_ids = nullptr;
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
  const int64_t* bias_starts = nullptr;
  const int64_t* allowed = nullptr;
  int64_t allowed_words = 0;
  const int32_t* allowed_rows = nullptr;
  int32_t* tokens = nullptr;
  float* logprobs = nullptr;
  int32_t* top_ids = nullptr;
  float* top_logprobs = nullptr;
  int64_t num_top = 0;
  float* work = nullptr;      // [rows, vocab]
  int32_t* counts = nullptr;  // [rows, vocab]
};
void launch_sample(const SampleArgs&, cudaStream_t);

}  // namespace minimax::cuda
