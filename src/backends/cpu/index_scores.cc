// The indexer of block-sparse attention: scores of blocks and the choice among them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/paged_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/index_scores.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "backends/cpu/block_matmul-inl.h"

#ifndef MINIMAX_INDEX_SCORES_COMMON_
#define MINIMAX_INDEX_SCORES_COMMON_
namespace minimax::cpu {

constexpr int64_t kScoreRows = 64;  // (token, index head) pairs of a tile
constexpr int64_t kScoreKeys = 64;

constexpr int64_t round_up_to_16(int64_t n) { return (n + 15) / 16 * 16; }

inline int64_t score_tile_tokens(int64_t heads) { return std::max<int64_t>(1, kScoreRows / heads); }

inline int64_t score_scratch_floats(int64_t heads, int64_t head_dim) {
  const int64_t width = round_up_to_16(heads * score_tile_tokens(heads));
  const int64_t depth = round_up_to_16(head_dim);
  return (depth + kScoreKeys + 1) * width + kScoreKeys * depth;
}

// What the way over rows needs: offsets of this block's rows and the next one's, queries, scores.
inline int64_t score_rows_bytes(int64_t heads, int64_t head_dim, const RowKernel& kernel) {
  const int64_t rows = heads * score_tile_tokens(heads);
  return 2 * kRowKeys * int64_t{sizeof(int64_t)} +
         rows * (kernel.padded(head_dim) * kernel.query_element_bytes + kRowKeys * int64_t{sizeof(float)});
}

// Tokens [first_token, first_token + tokens) of sequence b against its blocks [first_block, end_block), none
// beyond the last token's.
struct ScoreTile {
  int64_t b;
  int64_t first_token;
  int64_t tokens;
  int64_t first_position;
  int64_t first_block;
  int64_t end_block;
};

}  // namespace minimax::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

// Calls body(pointer) with the element type of `dtype`.
template <typename Body>
HWY_INLINE void WithElements(DType dtype, const void* data, const Body& body) {
  switch (dtype) {
    case DType::kBF16:
      return body(static_cast<const bf16*>(data));
    case DType::kF8E4M3:
      return body(static_cast<const f8e4m3*>(data));
    default:
      return body(static_cast<const float*>(data));
  }
}

class ScoreBlocks {
 public:
  ScoreBlocks(const ops::IndexBlockScores& args, const ScoreTile& tile, float* memory)
      : args_(args), tile_(tile), heads_(args.index_q.dim(1)), head_dim_(args.index_q.dim(2)) {
    depth_ = round_up_to_16(head_dim_);
    width_ = round_up_to_16(tile.tokens * heads_);
    q_ = memory;
    scores_ = q_ + depth_ * width_;
    best_ = scores_ + kScoreKeys * width_;
    keys_ = best_ + width_;
  }

  void Run() {
    LoadQueries();
    for (int64_t block = tile_.first_block; block < tile_.end_block; ++block) {
      std::fill_n(best_, width_, -std::numeric_limits<float>::infinity());
      const int64_t begin = block * args_.block_size();
      const int64_t end = std::min(begin + args_.block_size(), tile_.first_position + tile_.tokens);
      for (int64_t first = begin; first < end; first += kScoreKeys) {
        Keys(first, std::min(kScoreKeys, end - first));
      }
      for (int64_t r = 0; r < tile_.tokens * heads_; ++r) {
        args_.scores.row<float>(tile_.first_token + r / heads_)[r % heads_ * args_.scores.stride(1) + block] =
            best_[r];
      }
    }
  }

 private:
  // Row r = token * heads + head, transposed.
  void LoadQueries() {
    std::fill_n(q_, depth_ * width_, 0.0F);
    WithElements(args_.index_q.dtype(), args_.index_q.raw(), [&](const auto* all) HWY_ATTR {
      for (int64_t r = 0; r < tile_.tokens * heads_; ++r) {
        const auto* row = all + (tile_.first_token + r / heads_) * args_.index_q.stride(0) +
                          r % heads_ * args_.index_q.stride(1);
        for (int64_t i = 0; i < head_dim_; ++i) q_[i * width_ + r] = to_float(row[i]);
      }
    });
  }

  // Keys [first, first + count) of one block.
  void Keys(int64_t first, int64_t count) {
    const int64_t size = args_.block_size();
    const int64_t slot = args_.block_table.row<int32_t>(tile_.b)[first / size] * size + first % size;
    WithElements(args_.index_cache.dtype(), args_.index_cache.raw(), [&](const auto* all) HWY_ATTR {
      for (int64_t i = 0; i < count; ++i) {
        UnpackPadded(all + (slot + i) * head_dim_, head_dim_, depth_, keys_ + i * depth_);
      }
    });
    std::fill_n(scores_, count * width_, 0.0F);
    BlockMultiplyAdd({keys_, depth_, 1}, q_, width_, count, width_, depth_, scores_, width_);
    for (int64_t i = 0; i < count; ++i) {
      // Tokens before this key do not see it.
      const int64_t hidden = std::clamp<int64_t>(first + i - tile_.first_position, 0, tile_.tokens) * heads_;
      for (int64_t r = hidden; r < width_; ++r) best_[r] = std::max(best_[r], scores_[i * width_ + r]);
    }
  }

  const ops::IndexBlockScores& args_;
  const ScoreTile& tile_;
  int64_t heads_;
  int64_t head_dim_;
  int64_t depth_;
  int64_t width_;
  float* q_;       // [Di, rows]
  float* scores_;  // [keys, rows]
  float* best_;    // [rows]
  float* keys_;    // [keys, Di]
};

void ScoreTileBlocks(const ops::IndexBlockScores& args, const ScoreTile& tile, std::byte* memory) {
  ScoreBlocks(args, tile, reinterpret_cast<float*>(memory)).Run();
}

// The same by the products of attention_rows.cc, over keys as they lie in the cache.
class ScoreRows {
 public:
  ScoreRows(const ops::IndexBlockScores& args, const ScoreTile& tile, const RowKernel& kernel,
            std::byte* memory)
      : args_(args), tile_(tile), kernel_(kernel), head_dim_(args.index_q.dim(2)) {
    rows_ = tile.tokens * args.index_q.dim(1);
    query_bytes_ = kernel.padded(head_dim_) * kernel.query_element_bytes;
    offsets_ = reinterpret_cast<int64_t*>(memory);
    scores_ = reinterpret_cast<float*>(memory + 2 * kRowKeys * sizeof(int64_t));
    queries_ = reinterpret_cast<std::byte*>(scores_ + rows_ * kRowKeys);
  }

  void Run() {
    const int64_t heads = args_.index_q.dim(1);
    const int64_t element = size_of(args_.index_q.dtype());
    for (int64_t r = 0; r < rows_; ++r) {
      const int64_t at =
          (tile_.first_token + r / heads) * args_.index_q.stride(0) + r % heads * args_.index_q.stride(1);
      kernel_.prepare(static_cast<const std::byte*>(args_.index_q.raw()) + at * element,
                      args_.index_q.dtype(), head_dim_, queries_ + r * query_bytes_);
    }
    for (int64_t block = tile_.first_block; block < tile_.end_block; ++block) Block(block);
  }

 private:
  void Block(int64_t block) {
    for (int64_t r = 0; r < rows_; ++r) *Score(r, block) = -std::numeric_limits<float>::infinity();
    const int64_t begin = block * args_.block_size();
    const int64_t end = std::min(begin + args_.block_size(), tile_.first_position + tile_.tokens);
    for (int64_t first = begin; first < end; first += kRowKeys) {
      const int64_t count = std::min(kRowKeys, end - first);
      FindRows(first, count);
      kernel_.dot({static_cast<const std::byte*>(args_.index_cache.raw()), offsets_, offsets_ + kRowKeys,
                   count, head_dim_},
                  queries_, rows_, scores_);
      for (int64_t r = 0; r < rows_; ++r) {
        const int64_t position = tile_.first_position + r / args_.index_q.dim(1);
        float& best = *Score(r, block);
        best = Largest(scores_ + r * kRowKeys, std::min(count, position + 1 - first), best);
      }
    }
  }

  float* Score(int64_t r, int64_t block) const {
    const int64_t heads = args_.index_q.dim(1);
    return args_.scores.row<float>(tile_.first_token + r / heads) + r % heads * args_.scores.stride(1) +
           block;
  }

  // Rows of tokens [first, first + count) of one block, then those that follow, in the next block if need be.
  void FindRows(int64_t first, int64_t count) {
    const int64_t size = args_.block_size();
    const int64_t row_bytes = head_dim_ * size_of(args_.index_cache.dtype());
    const int32_t* pages = args_.block_table.row<int32_t>(tile_.b);
    const int64_t slot = pages[first / size] * size + first % size;
    for (int64_t i = 0; i < count; ++i) offsets_[i] = (slot + i) * row_bytes;
    int64_t next = first + count;
    if (next >= tile_.end_block * size) next = first;
    const int64_t next_slot = pages[next / size] * size + next % size;
    for (int64_t i = 0; i < kRowKeys; ++i) offsets_[kRowKeys + i] = (next_slot + i) * row_bytes;
  }

  static float Largest(const float* scores, int64_t count, float best) {
    const DF d;
    const int64_t lanes = LanesF32();
    VF most = hn::Set(d, best);
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) most = hn::Max(hn::LoadU(d, scores + i), most);
    best = hn::GetLane(hn::MaxOfLanes(d, most));
    for (; i < count; ++i) best = std::max(best, scores[i]);
    return best;
  }

  const ops::IndexBlockScores& args_;
  const ScoreTile& tile_;
  const RowKernel& kernel_;
  int64_t head_dim_;
  int64_t rows_;
  int64_t query_bytes_;
  int64_t* offsets_;    // [2 kRowKeys]
  float* scores_;       // [rows, kRowKeys]
  std::byte* queries_;  // [rows, padded]
};

void ScoreTileRows(const ops::IndexBlockScores& args, const ScoreTile& tile, const RowKernel& kernel,
                   std::byte* memory) {
  ScoreRows(args, tile, kernel, memory).Run();
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace minimax::cpu {
namespace {

HWY_EXPORT(ScoreTileBlocks);
HWY_EXPORT(ScoreTileRows);

constexpr int64_t kBlocksPerTask = 8;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void fill_scores(const Tensor& scores, int64_t t, int64_t first_block) {
  for (int64_t g = 0; g < scores.dim(1); ++g) {
    float* row = scores.row<float>(t) + g * scores.stride(1);
    std::fill(row + first_block, row + scores.dim(2), -std::numeric_limits<float>::infinity());
  }
}

int64_t score_thread_bytes(const ops::IndexBlockScores& args, const CpuOptions& options) {
  const RowKernel& kernel = row_kernel(args.index_q.dtype(), args.index_cache.dtype(), options);
  const int64_t heads = args.index_q.dim(1);
  const int64_t head_dim = args.index_q.dim(2);
  return (std::max(score_scratch_floats(heads, head_dim) * static_cast<int64_t>(sizeof(float)),
                   score_rows_bytes(heads, head_dim, kernel)) +
          63) /
         64 * 64;
}

float rank_of(float score) { return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score; }

// Adds the best of blocks [begin, end) to chosen[count .. k), best first.
int64_t take_best(const float* scores, int64_t begin, int64_t end, int32_t* chosen, int64_t count,
                  int64_t k) {
  const int64_t forced = count;
  for (int64_t b = begin; b < end; ++b) {
    const float score = rank_of(scores[b]);
    if (count == k && (k == forced || score <= rank_of(scores[chosen[k - 1]]))) continue;
    int64_t place = count < k ? count++ : k - 1;
    for (; place > forced && score > rank_of(scores[chosen[place - 1]]); --place) {
      chosen[place] = chosen[place - 1];
    }
    chosen[place] = static_cast<int32_t>(b);
  }
  return count;
}

void select_row(const ops::SelectBlocks& args, const float* scores, int64_t n_valid, int32_t* chosen) {
  const int64_t k = args.selection.dim(2);
  const int64_t init_end = std::min(args.init_blocks, n_valid);
  const int64_t local_begin = std::max(n_valid - args.local_blocks, init_end);
  int64_t count = 0;
  for (int64_t b = 0; b < init_end && count < k; ++b) chosen[count++] = static_cast<int32_t>(b);
  for (int64_t b = n_valid - 1; b >= local_begin && count < k; --b) chosen[count++] = static_cast<int32_t>(b);
  count = take_best(scores, init_end, local_begin, chosen, count, k);
  std::sort(chosen, chosen + count);
  std::fill(chosen + count, chosen + k, -1);
}

}  // namespace

int64_t CpuBackend::workspace_bytes(const ops::IndexBlockScores& args) const {
  return pool_.num_threads() * score_thread_bytes(args, options_);
}

void CpuBackend::run(const ops::IndexBlockScores& args, ops::Workspace workspace) {
  const RowKernel& kernel = row_kernel(args.index_q.dtype(), args.index_cache.dtype(), options_);
  const bool has_bf16_kernel = multiplies_bf16(kernel, args.index_cache.dtype());
  const int64_t heads = args.index_q.dim(1);
  const int64_t tile_tokens = score_tile_tokens(heads);
  const int64_t piece_tokens = kBlocksPerTask * args.block_size();
  const int32_t* starts = args.query_starts.data<int32_t>();
  const int32_t* lengths = args.seq_lens.data<int32_t>();
  const int64_t num_seqs = args.seq_lens.dim(0);
  for (int64_t t = starts[num_seqs]; t < args.scores.dim(0); ++t) fill_scores(args.scores, t, 0);

  const auto tokens_of = [&](int64_t b) { return int64_t{starts[b + 1]} - starts[b]; };
  const auto pieces_of = [&](int64_t b) { return ceil_div(lengths[b], piece_tokens); };
  const auto tasks_of = [&](int64_t b) { return ceil_div(tokens_of(b), tile_tokens) * pieces_of(b); };
  const auto run_piece = [&](int64_t b, int64_t task, int thread) {
    const int64_t first = task / pieces_of(b) * tile_tokens;
    const int64_t count = std::min(tile_tokens, tokens_of(b) - first);
    const int64_t position = lengths[b] - tokens_of(b) + first;
    const int64_t end_block = (position + count - 1) / args.block_size() + 1;
    const int64_t first_block = task % pieces_of(b) * kBlocksPerTask;
    const ScoreTile tile{b,        starts[b] + first, count,
                         position, first_block,       std::min(first_block + kBlocksPerTask, end_block)};
    std::byte* memory = workspace.data + thread * score_thread_bytes(args, options_);
    if (has_bf16_kernel || tokens_of(b) == 1) {
      HWY_DYNAMIC_DISPATCH(ScoreTileRows)(args, tile, kernel, memory);
    } else {
      HWY_DYNAMIC_DISPATCH(ScoreTileBlocks)(args, tile, memory);
    }
    if (first_block > 0) return;
    for (int64_t i = 0; i < count; ++i) fill_scores(args.scores, starts[b] + first + i, end_block);
  };
  // All sequences' pieces at once: in decode each has few.
  int64_t tasks = 0;
  int64_t work = 0;
  for (int64_t b = 0; b < num_seqs; ++b) {
    tasks += tasks_of(b);
    work += tokens_of(b) * heads * args.index_q.dim(2) * lengths[b];
  }
  const auto run_task = [&](int64_t task, int thread) {
    int64_t b = 0;
    for (; task >= tasks_of(b); ++b) task -= tasks_of(b);
    run_piece(b, task, thread);
  };
  pool_.parallel_for(tasks, run_task, work);
}

void CpuBackend::run(const ops::SelectBlocks& args, ops::Workspace) {
  const int64_t heads = args.scores.dim(1);
  const int64_t k = args.selection.dim(2);
  const int32_t* starts = args.query_starts.data<int32_t>();
  const int64_t num_seqs = args.seq_lens.dim(0);
  std::fill(args.selection.row<int32_t>(starts[num_seqs]), args.selection.row<int32_t>(args.scores.dim(0)),
            -1);

  for (int64_t b = 0; b < num_seqs; ++b) {
    const int64_t length = args.seq_lens.data<int32_t>()[b];
    const auto select = [&](int64_t row, int) {
      const int64_t t = starts[b] + row / heads;
      const int64_t position = length - starts[b + 1] + t;
      select_row(args, args.scores.row<float>(t) + row % heads * args.scores.stride(1),
                 position / args.block_size + 1, args.selection.row<int32_t>(t) + row % heads * k);
    };
    const int64_t rows = (starts[b + 1] - starts[b]) * heads;
    pool_.parallel_for(rows, select, 2 * rows * (length / args.block_size + 1));
  }
}

}  // namespace minimax::cpu
#endif
