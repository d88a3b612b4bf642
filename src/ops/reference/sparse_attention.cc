// Reference indexer and block-sparse attention.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ops/reference/reference_backend.h"

namespace minimax::ops::reference {
namespace {

// Calls body(b, t, position) for every row of every sequence.
template <typename Op, typename Body>
void for_each_row(const Op& args, const Body& body) {
  const int32_t* starts = args.query_starts.template data<int32_t>();
  for (int64_t b = 0; b < args.seq_lens.dim(0); ++b) {
    const int64_t offset = args.seq_lens.template data<int32_t>()[b] - starts[b + 1];
    for (int64_t t = starts[b]; t < starts[b + 1]; ++t) body(b, t, offset + t);
  }
}

// Token `i` of sequence `b` in a flat cache.
template <typename Op>
int64_t slot_of(const Op& args, int64_t page_size, int64_t b, int64_t i) {
  return args.block_table.template row<int32_t>(b)[i / page_size] * page_size + i % page_size;
}

}  // namespace

void ReferenceBackend::run(const IndexBlockScores& args, Workspace) {
  const int64_t head_dim = args.index_q.dim(2);
  for (int64_t t = 0; t < args.scores.dim(0); ++t) {
    for (int64_t g = 0; g < args.scores.dim(1); ++g) {
      for (int64_t b = 0; b < args.scores.dim(2); ++b) store(args.scores, t, g, b, -INFINITY);
    }
  }
  for_each_row(args, [&](int64_t b, int64_t t, int64_t position) {
    for (int64_t g = 0; g < args.index_q.dim(1); ++g) {
      for (int64_t i = 0; i <= position; ++i) {
        const int64_t offset = slot_of(args, args.block_size(), b, i) * head_dim;
        double score = 0;
        for (int64_t d = 0; d < head_dim; ++d) {
          score += load(args.index_q, t, g, d) * load_at(args.index_cache, offset + d);
        }
        const int64_t block = i / args.block_size();
        store(args.scores, t, g, block, std::max(load(args.scores, t, g, block), score));
      }
    }
  });
}

namespace {

// The blocks of one row in the order in which they are taken: forced ones first.
std::vector<int64_t> ranked_blocks(const SelectBlocks& args, int64_t t, int64_t g, int64_t n_valid) {
  std::vector<std::pair<int, double>> rank;  // class, then what to have least of
  for (int64_t b = 0; b < n_valid; ++b) {
    const double score = load(args.scores, t, g, b);
    if (b < args.init_blocks) {
      rank.emplace_back(0, b);
    } else if (b >= n_valid - args.local_blocks) {
      rank.emplace_back(1, -b);
    } else {
      rank.emplace_back(2, std::isnan(score) ? INFINITY : -score);
    }
  }
  std::vector<int64_t> order(static_cast<size_t>(n_valid));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return rank[a] < rank[b]; });
  return order;
}

}  // namespace

void ReferenceBackend::run(const SelectBlocks& args, Workspace) {
  std::fill_n(args.selection.data<int32_t>(), args.selection.numel(), -1);
  const int64_t k = args.selection.dim(2);
  for_each_row(args, [&](int64_t, int64_t t, int64_t position) {
    for (int64_t g = 0; g < args.scores.dim(1); ++g) {
      std::vector<int64_t> blocks = ranked_blocks(args, t, g, position / args.block_size + 1);
      blocks.resize(std::min(blocks.size(), static_cast<size_t>(k)));
      std::sort(blocks.begin(), blocks.end());
      std::copy(blocks.begin(), blocks.end(), args.selection.row<int32_t>(t) + g * k);
    }
  });
}

namespace {

// The tokens that row `t` attends to for one kv head.
std::vector<int64_t> chosen_tokens(const SparsePagedAttention& args, int64_t t, int64_t kv_head,
                                   int64_t position) {
  const int64_t k = args.selection.dim(2);
  const int64_t block_size = args.k_cache.dim(1);
  const int32_t* blocks = args.selection.row<int32_t>(t) + kv_head * k;
  std::vector<int64_t> tokens;
  for (int64_t n = 0; n < k && blocks[n] >= 0; ++n) {
    const int64_t end = std::min((blocks[n] + 1) * block_size, position + 1);
    for (int64_t i = blocks[n] * block_size; i < end; ++i) tokens.push_back(i);
  }
  return tokens;
}

}  // namespace

void ReferenceBackend::run(const SparsePagedAttention& args, Workspace) {
  const int64_t head_dim = args.q.dim(2);
  const int64_t group = args.q.dim(1) / args.k_cache.dim(2);
  for (int64_t t = 0; t < args.out.dim(0); ++t) {
    for (int64_t h = 0; h < args.out.dim(1); ++h) {
      for (int64_t d = 0; d < head_dim; ++d) store(args.out, t, h, d, 0);
    }
  }
  for_each_row(args, [&](int64_t b, int64_t t, int64_t position) {
    for (int64_t h = 0; h < args.q.dim(1); ++h) {
      const std::vector<int64_t> tokens = chosen_tokens(args, t, h / group, position);
      std::vector<int64_t> offsets;
      std::vector<double> p;
      for (const int64_t i : tokens) {
        const int64_t slot = slot_of(args, args.k_cache.dim(1), b, i);
        offsets.push_back((slot * args.k_cache.dim(2) + h / group) * head_dim);
        double score = 0;
        for (int64_t d = 0; d < head_dim; ++d) {
          score += load(args.q, t, h, d) * load_at(args.k_cache, offsets.back() + d);
        }
        p.push_back(score * static_cast<double>(args.scale));
      }
      const double largest = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (double& x : p) sum += x = std::exp(x - largest);
      for (int64_t d = 0; d < head_dim; ++d) {
        double out = 0;
        for (size_t i = 0; i < p.size(); ++i) out += p[i] * load_at(args.v_cache, offsets[i] + d);
        store(args.out, t, h, d, out / sum);
      }
    }
  });
}

}  // namespace minimax::ops::reference
