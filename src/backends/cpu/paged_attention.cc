// Causal GQA over a paged cache, dense or over chosen blocks, by tiles of query rows and blocks of keys with
// a running softmax.
//
// Scores and outputs are held transposed, [keys, rows] and [head_dim, rows], so that the softmax runs along
// vectors of rows and neither keys nor values are ever transposed. A row is one (token, query head) pair; a
// tile holds the query heads of one kv head for as many tokens as fit.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/paged_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/paged_attention.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "backends/cpu/block_matmul-inl.h"
#include "hwy/cache_control.h"
#include "hwy/contrib/math/math-inl.h"

#ifndef MINIMAX_PAGED_ATTENTION_COMMON_
#define MINIMAX_PAGED_ATTENTION_COMMON_
namespace minimax::cpu {

constexpr int64_t kTileRows = 64;
constexpr int64_t kSparseTileRows = 16;
constexpr int64_t kKeyBlock = 64;

constexpr int64_t round_up_16(int64_t n) { return (n + 15) / 16 * 16; }

// Query heads beyond kTileRows per kv head get a tile of their own size.
inline int64_t max_tile_rows(int64_t group) { return std::max(kTileRows, round_up_16(group)); }

inline int64_t attention_scratch_floats(int64_t group, int64_t head_dim) {
  const int64_t rows = max_tile_rows(group);
  const int64_t d = round_up_16(head_dim);
  return 2 * d * rows + kKeyBlock * rows + 2 * kKeyBlock * d + 3 * rows;
}

}  // namespace minimax::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

template <typename T>
class TileAttention {
 public:
  TileAttention(const PagedView& args, const AttentionTile& tile, float* memory)
      : args_(args), tile_(tile), head_dim_(args.q.dim(2)), d_(round_up_16(head_dim_)) {
    group_ = args.q.dim(1) / args.k_cache.dim(2);
    rows_ = tile.tokens * group_;
    width_ = round_up_16(rows_);
    q_ = memory;
    out_ = q_ + d_ * width_;
    scores_ = out_ + d_ * width_;
    keys_ = scores_ + kKeyBlock * width_;
    values_ = keys_ + kKeyBlock * d_;
    largest_ = values_ + kKeyBlock * d_;
    sums_ = largest_ + width_;
    factors_ = sums_ + width_;
  }

  void Run() {
    LoadQueries();
    std::fill_n(out_, d_ * width_, 0.0F);
    // Finite, so that a row without keys so far keeps a factor of 1.
    std::fill_n(largest_, width_, std::numeric_limits<float>::lowest());
    std::fill_n(sums_, width_, 0.0F);
    if (args_.selection.defined()) {
      RunChosen();
    } else {
      RunKeys(0, tile_.first_position + tile_.tokens, [](int64_t) {});
    }
    StoreOutput();
  }

 private:
  // Keys [begin, end); mask(count) hides more scores of each block of `count` keys.
  template <typename Mask>
  void RunKeys(int64_t begin, int64_t end, const Mask& mask) {
    for (int64_t first = begin; first < end; first += kKeyBlock) {
      Block(first, std::min(kKeyBlock, end - first), mask);
    }
  }

  // The union of the tokens' lists in ascending order, each block for the tokens that chose it.
  void RunChosen() {
    const int64_t block_size = args_.k_cache.dim(1);
    const int64_t last = tile_.first_position + tile_.tokens;
    int64_t cursors[kTileRows] = {};
    for (;;) {
      int64_t block = std::numeric_limits<int64_t>::max();
      for (int64_t t = 0; t < tile_.tokens; ++t) block = std::min(block, NextChosen(t, cursors[t]));
      if (block == std::numeric_limits<int64_t>::max()) return;
      bool chose[kTileRows];
      for (int64_t t = 0; t < tile_.tokens; ++t) {
        chose[t] = NextChosen(t, cursors[t]) == block;
        if (chose[t]) ++cursors[t];
      }
      RunKeys(block * block_size, std::min(last, (block + 1) * block_size),
              [&](int64_t count) { MaskTokens(chose, count); });
    }
  }

  // Entry `n` of token `t`'s list, or the largest integer behind its end.
  int64_t NextChosen(int64_t t, int64_t n) const {
    const int64_t k = args_.selection.dim(2);
    const int32_t* chosen = args_.selection.row<int32_t>(tile_.first_token + t) + tile_.kv_head * k;
    return n < k && chosen[n] >= 0 ? chosen[n] : std::numeric_limits<int64_t>::max();
  }

  void MaskTokens(const bool* chose, int64_t count) {
    for (int64_t t = 0; t < tile_.tokens; ++t) {
      if (chose[t]) continue;
      for (int64_t i = 0; i < count; ++i) {
        std::fill_n(scores_ + i * width_ + t * group_, group_, -std::numeric_limits<float>::infinity());
      }
    }
  }

  // Row r = token * group + head within the group.
  T* RowPointer(const Tensor& t, int64_t r) const {
    return t.row<T>(tile_.first_token + r / group_) + (tile_.kv_head * group_ + r % group_) * t.stride(1);
  }

  void LoadQueries() {
    std::fill_n(q_, d_ * width_, 0.0F);
    for (int64_t r = 0; r < rows_; ++r) {
      const T* row = RowPointer(args_.q, r);
      for (int64_t i = 0; i < head_dim_; ++i) q_[i * width_ + r] = to_float(row[i]) * args_.scale;
    }
  }

  // One kv head's rows lie apart, which hides them from the hardware's prefetchers. Pages often follow one
  // another, and a prefetch of the wrong address does no harm.
  static constexpr int64_t kRowsAhead = 24;
  template <typename TC>
  void PrefetchRow(const TC* row) const {
    for (int64_t i = 0; i < head_dim_; i += 64 / static_cast<int64_t>(sizeof(TC))) hwy::Prefetch(row + i);
  }

  void LoadCache(const Tensor& cache, int64_t first, int64_t count, float* out) const {
    switch (cache.dtype()) {
      case DType::kBF16:
        return LoadCacheOf<bf16>(cache, first, count, out);
      case DType::kF8E4M3:
        return LoadCacheOf<f8e4m3>(cache, first, count, out);
      default:
        return LoadCacheOf<float>(cache, first, count, out);
    }
  }

  template <typename TC>
  void LoadCacheOf(const Tensor& cache, int64_t first, int64_t count, float* out) const {
    const int64_t page_size = cache.dim(1);
    const int64_t row_stride = cache.dim(2) * head_dim_;
    const int32_t* pages = args_.block_table.row<int32_t>(tile_.b);
    for (int64_t i = 0; i < count;) {
      const int64_t in_page = (first + i) % page_size;
      const int64_t rows = std::min(page_size - in_page, count - i);
      const int64_t slot = pages[(first + i) / page_size] * page_size + in_page;
      const TC* row = cache.data<TC>() + slot * row_stride + tile_.kv_head * head_dim_;
      for (int64_t r = 0; r < rows; ++r) {
        PrefetchRow(row + (r + kRowsAhead) * row_stride);
        UnpackPadded(row + r * row_stride, head_dim_, d_, out + (i + r) * d_);
      }
      i += rows;
    }
  }

  // Keys after a row's own position get a score of -inf.
  void MaskFuture(int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t hidden_tokens = std::clamp<int64_t>(first + i - tile_.first_position, 0, tile_.tokens);
      std::fill_n(scores_ + i * width_, hidden_tokens * group_, -std::numeric_limits<float>::infinity());
    }
  }

  void Softmax(int64_t count) {
    const DF d;
    const int64_t lanes = LanesF32();
    for (int64_t r = 0; r < width_; r += lanes) {
      const VF old = hn::LoadU(d, largest_ + r);
      VF largest = old;
      for (int64_t i = 0; i < count; ++i) largest = hn::Max(largest, hn::LoadU(d, scores_ + i * width_ + r));
      const VF factor = hn::Exp(d, hn::Sub(old, largest));
      VF sum = hn::Mul(hn::LoadU(d, sums_ + r), factor);
      for (int64_t i = 0; i < count; ++i) {
        const VF p = hn::Exp(d, hn::Sub(hn::LoadU(d, scores_ + i * width_ + r), largest));
        hn::StoreU(p, d, scores_ + i * width_ + r);
        sum = hn::Add(sum, p);
      }
      hn::StoreU(largest, d, largest_ + r);
      hn::StoreU(sum, d, sums_ + r);
      hn::StoreU(factor, d, factors_ + r);
    }
  }

  template <typename Mask>
  void Block(int64_t first, int64_t count, const Mask& mask) {
    LoadCache(args_.k_cache, first, count, keys_);
    LoadCache(args_.v_cache, first, count, values_);
    std::fill_n(scores_, count * width_, 0.0F);
    BlockMultiplyAdd({keys_, d_, 1}, q_, width_, count, width_, d_, scores_, width_);
    if (first + count > tile_.first_position) MaskFuture(first, count);
    mask(count);
    Softmax(count);
    for (int64_t i = 0; i < head_dim_; ++i) {
      for (int64_t r = 0; r < width_; ++r) out_[i * width_ + r] *= factors_[r];
    }
    BlockMultiplyAdd({values_, 1, d_}, scores_, width_, head_dim_, width_, count, out_, width_);
  }

  void StoreOutput() const {
    for (int64_t r = 0; r < rows_; ++r) {
      T* row = RowPointer(args_.out, r);
      const float scale = 1.0F / sums_[r];
      for (int64_t i = 0; i < head_dim_; ++i) row[i] = from_float<T>(out_[i * width_ + r] * scale);
    }
  }

  const PagedView& args_;
  const AttentionTile& tile_;
  int64_t head_dim_;
  int64_t d_;
  int64_t group_;
  int64_t rows_;
  int64_t width_;
  float* q_;        // [D, rows], scaled
  float* out_;      // [D, rows]
  float* scores_;   // [keys, rows]
  float* keys_;     // [keys, D]
  float* values_;   // [keys, D]
  float* largest_;  // [rows]
  float* sums_;     // [rows]
  float* factors_;  // [rows]
};

void AttendTile(const PagedView& args, const AttentionTile& tile, float* memory) {
  if (args.q.dtype() == DType::kBF16) {
    TileAttention<bf16>(args, tile, memory).Run();
  } else {
    TileAttention<float>(args, tile, memory).Run();
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace minimax::cpu {
namespace {

HWY_EXPORT(AttendTile);

// Tokens of a tile. Neighbours share the keys of dense attention, but only some of their chosen blocks: there
// a tile has as many tokens as fill one vector. At 16 heads over 4 kv heads, 16 of 128 blocks chosen, 4
// tokens took 0.6 of the time of one and 64 rows as long as 16.
int64_t tile_tokens(const PagedView& view) {
  return std::max<int64_t>(1, (view.selection.defined() ? kSparseTileRows : kTileRows) / view.group());
}

PagedView view_of(const ops::PagedAttention& args) {
  return {args.q,        args.k_cache, args.v_cache, args.block_table, args.query_starts,
          args.seq_lens, {},           args.scale,   args.out};
}

PagedView view_of(const ops::SparsePagedAttention& args) {
  return {args.q,        args.k_cache,   args.v_cache, args.block_table, args.query_starts,
          args.seq_lens, args.selection, args.scale,   args.out};
}

void zero_rows(const Tensor& out, int64_t begin) {
  for (int64_t t = begin; t < out.dim(0); ++t) {
    for (int64_t h = 0; h < out.dim(1); ++h) {
      std::fill_n(
          static_cast<std::byte*>(out.raw()) + (t * out.stride(0) + h * out.stride(1)) * size_of(out.dtype()),
          out.dim(2) * size_of(out.dtype()), std::byte{0});
    }
  }
}

// Rows and tiles take turns in the same memory.
int64_t attention_bytes(const PagedView& view, const ThreadPool& pool, const CpuOptions& options) {
  const int64_t tiles = pool.num_threads() * attention_scratch_floats(view.group(), view.q.dim(2)) *
                        static_cast<int64_t>(sizeof(float));
  return std::max(tiles, rows_workspace_bytes(view, pool, options));
}

void attend_by_tiles(const PagedView& view, ThreadPool& pool, const CpuOptions& options, std::byte* memory) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(AttendTile);
  const int64_t kv_heads = view.k_cache.dim(2);
  const int64_t tokens_per_tile = tile_tokens(view);
  const int32_t* starts = view.query_starts.data<int32_t>();
  const int32_t* lengths = view.seq_lens.data<int32_t>();
  const int64_t num_seqs = view.seq_lens.dim(0);
  auto* scratch = reinterpret_cast<float*>(memory);

  for (int64_t b = 0; b < num_seqs; ++b) {
    const int64_t tokens = starts[b + 1] - starts[b];
    if (prefers_rows(view, tokens, options)) continue;
    const int64_t tiles = (tokens + tokens_per_tile - 1) / tokens_per_tile;
    const auto run_tile = [&](int64_t task, int thread) {
      // The last tiles have the most keys: they go first, so that threads finish together.
      const int64_t first = (tiles - 1 - task / kv_heads) * tokens_per_tile;
      const AttentionTile tile{b, task % kv_heads, starts[b] + first,
                               std::min(tokens_per_tile, tokens - first), lengths[b] - tokens + first};
      kernel(view, tile, scratch + thread * attention_scratch_floats(view.group(), view.q.dim(2)));
    };
    const int64_t keys = std::min<int64_t>(lengths[b], view.max_keys());
    pool.parallel_for(tiles * kv_heads, run_tile, tokens * view.q.dim(1) * view.q.dim(2) * keys);
  }
}

void attend(const PagedView& view, ThreadPool& pool, const CpuOptions& options, std::byte* memory) {
  attend_by_rows(view, pool, options, memory);
  attend_by_tiles(view, pool, options, memory);
  zero_rows(view.out, view.query_starts.data<int32_t>()[view.seq_lens.dim(0)]);
}

}  // namespace

int64_t CpuBackend::workspace_bytes(const ops::PagedAttention& args) const {
  return attention_bytes(view_of(args), pool_, options_);
}

void CpuBackend::run(const ops::PagedAttention& args, ops::Workspace workspace) {
  attend(view_of(args), pool_, options_, workspace.data);
}

int64_t CpuBackend::workspace_bytes(const ops::SparsePagedAttention& args) const {
  return attention_bytes(view_of(args), pool_, options_);
}

void CpuBackend::run(const ops::SparsePagedAttention& args, ops::Workspace workspace) {
  attend(view_of(args), pool_, options_, workspace.data);
}

}  // namespace minimax::cpu
#endif
