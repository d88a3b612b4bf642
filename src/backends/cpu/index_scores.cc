// The indexer of block-sparse attention: scores of blocks and the choice among them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/cpu_ops.h"

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

void ScoreTileBlocks(const ops::IndexBlockScores& args, const ScoreTile& tile, float* memory) {
  ScoreBlocks(args, tile, memory).Run();
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace minimax::cpu {
namespace {

HWY_EXPORT(ScoreTileBlocks);

constexpr int64_t kBlocksPerTask = 8;

void fill_scores(const Tensor& scores, int64_t t, int64_t first_block) {
  for (int64_t g = 0; g < scores.dim(1); ++g) {
    float* row = scores.row<float>(t) + g * scores.stride(1);
    std::fill(row + first_block, row + scores.dim(2), -std::numeric_limits<float>::infinity());
  }
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
  return pool_.num_threads() * score_scratch_floats(args.index_q.dim(1), args.index_q.dim(2)) *
         static_cast<int64_t>(sizeof(float));
}

void CpuBackend::run(const ops::IndexBlockScores& args, ops::Workspace workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(ScoreTileBlocks);
  const int64_t heads = args.index_q.dim(1);
  const int64_t head_dim = args.index_q.dim(2);
  const int64_t tile_tokens = score_tile_tokens(heads);
  const int32_t* starts = args.query_starts.data<int32_t>();
  const int64_t num_seqs = args.seq_lens.dim(0);
  auto* scratch = reinterpret_cast<float*>(workspace.data);
  for (int64_t t = starts[num_seqs]; t < args.scores.dim(0); ++t) fill_scores(args.scores, t, 0);

  for (int64_t b = 0; b < num_seqs; ++b) {
    const int64_t length = args.seq_lens.data<int32_t>()[b];
    const int64_t tokens = starts[b + 1] - starts[b];
    const int64_t tiles = (tokens + tile_tokens - 1) / tile_tokens;
    const int64_t pieces =
        (length + kBlocksPerTask * args.block_size() - 1) / (kBlocksPerTask * args.block_size());
    const auto run_piece = [&](int64_t task, int thread) {
      const int64_t first = task / pieces * tile_tokens;
      const int64_t count = std::min(tile_tokens, tokens - first);
      const int64_t position = length - tokens + first;
      const int64_t last_block = (position + count - 1) / args.block_size();
      const int64_t first_block = task % pieces * kBlocksPerTask;
      const ScoreTile tile{b,           starts[b] + first,
                           count,       position,
                           first_block, std::min(first_block + kBlocksPerTask, last_block + 1)};
      kernel(args, tile, scratch + thread * score_scratch_floats(heads, head_dim));
      if (first_block > 0) return;
      for (int64_t i = 0; i < count; ++i) fill_scores(args.scores, starts[b] + first + i, last_block + 1);
    };
    pool_.parallel_for(tiles * pieces, run_piece, tokens * heads * head_dim * length);
  }
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
