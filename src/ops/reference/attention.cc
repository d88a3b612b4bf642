// Reference rotary embedding, cache writes, paged attention and lightning attention.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/reference/reference_backend.h"

namespace minimax::ops::reference {

void ReferenceBackend::run(const Rope& args, Workspace) {
  const int64_t half = args.inv_freq.dim(0);
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    const auto position = static_cast<float>(args.positions.data<int32_t>()[t]);
    for (int64_t c = 0; c < half; ++c) {
      const float angle = position * args.inv_freq.data<float>()[c];
      const double cosine = std::cos(static_cast<double>(angle));
      const double sine = std::sin(static_cast<double>(angle));
      for (int64_t h = 0; h < args.x.dim(1); ++h) {
        const double a = load(args.x, t, h, c);
        const double b = load(args.x, t, h, c + half);
        store(args.x, t, h, c, a * cosine - b * sine);
        store(args.x, t, h, c + half, b * cosine + a * sine);
      }
    }
  }
}

namespace {

// The sum of squares over a wider norm than the row, and its width; 0: of each run of the row.
struct GivenSquares {
  double sum = 0;
  int64_t width = 0;
};

// RMSNorm over runs of the weight's width of the row, each value times (offset + weight) of its place.
void norm_row(std::vector<double>& x, const Tensor& weight, double offset, double eps, GivenSquares given) {
  const auto width = static_cast<size_t>(weight.dim(0));
  for (size_t first = 0; first < x.size(); first += width) {
    double squares = 0;
    for (size_t i = 0; i < width; ++i) squares += x[first + i] * x[first + i];
    const double mean =
        given.width > 0 ? given.sum / static_cast<double>(given.width) : squares / static_cast<double>(width);
    const double scale = 1 / std::sqrt(mean + eps);
    for (size_t i = 0; i < width; ++i) {
      x[first + i] *= scale * (offset + load(weight, static_cast<int64_t>(i)));
    }
  }
}

void rotate_row(std::vector<double>& x, int64_t head_dim, const Tensor& inv_freq, int32_t position) {
  const int64_t half = inv_freq.dim(0);
  for (int64_t first = 0; first < static_cast<int64_t>(x.size()); first += head_dim) {
    for (int64_t c = 0; c < half; ++c) {
      const float angle = static_cast<float>(position) * inv_freq.data<float>()[c];
      const double cosine = std::cos(static_cast<double>(angle));
      const double sine = std::sin(static_cast<double>(angle));
      double& a = x[static_cast<size_t>(first + c)];
      double& b = x[static_cast<size_t>(first + c + half)];
      const double turned = a * cosine - b * sine;
      b = b * cosine + a * sine;
      a = turned;
    }
  }
}

std::vector<double> load_row(const Tensor& x, int64_t t, int64_t begin, int64_t count) {
  std::vector<double> row(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) row[static_cast<size_t>(i)] = load(x, t, begin + i);
  return row;
}

void store_heads(const Tensor& out, int64_t t, const std::vector<double>& row) {
  for (int64_t i = 0; i < static_cast<int64_t>(row.size()); ++i) {
    store(out, t, i / out.dim(2), i % out.dim(2), row[static_cast<size_t>(i)]);
  }
}

void store_slot(const Tensor& cache, int64_t slot, const std::vector<double>& row) {
  if (slot < 0) return;
  const auto width = static_cast<int64_t>(row.size());
  for (int64_t i = 0; i < width; ++i) store_at(cache, slot * width + i, row[static_cast<size_t>(i)]);
}

}  // namespace

void ReferenceBackend::run(const QkNormRopeKvWrite& args, Workspace) {
  for (int64_t t = 0; t < args.qkv.dim(0); ++t) {
    const int64_t slot = args.slot_mapping.data<int64_t>()[t];
    int64_t next = 0;
    const auto normed = [&](int64_t count, int64_t head_dim, const Tensor& weight, GivenSquares given = {}) {
      std::vector<double> row = load_row(args.qkv, t, next, count * head_dim);
      next += count * head_dim;
      norm_row(row, weight, static_cast<double>(args.weight_offset), static_cast<double>(args.eps), given);
      rotate_row(row, head_dim, args.inv_freq, args.positions.data<int32_t>()[t]);
      return row;
    };
    const auto given = [&](int64_t column, int64_t width) {
      return args.squares.defined() ? GivenSquares{load(args.squares, t, column), width} : GivenSquares{};
    };
    store_heads(args.q_out, t,
                normed(args.heads(), args.head_dim(), args.q_norm, given(0, args.q_norm_width)));
    store_slot(args.k_cache, slot,
               normed(args.kv_heads(), args.head_dim(), args.k_norm, given(1, args.k_norm_width)));
    const int64_t kv_width = args.kv_heads() * args.head_dim();
    store_slot(args.v_cache, slot, load_row(args.qkv, t, next, kv_width));
    next += kv_width;
    if (!args.index_q_out.defined()) continue;
    store_heads(args.index_q_out, t, normed(args.index_heads(), args.index_dim(), args.index_q_norm));
    store_slot(args.index_cache, slot, normed(1, args.index_dim(), args.index_k_norm));
  }
}

void ReferenceBackend::run(const PagedKvWrite& args, Workspace) {
  const int64_t row = args.k.dim(1) * args.k.dim(2);
  for (int64_t t = 0; t < args.k.dim(0); ++t) {
    const int64_t slot = args.slot_mapping.data<int64_t>()[t];
    if (slot < 0) continue;
    for (int64_t h = 0; h < args.k.dim(1); ++h) {
      for (int64_t d = 0; d < args.k.dim(2); ++d) {
        store_at(args.k_cache, slot * row + h * args.k.dim(2) + d, load(args.k, t, h, d));
        store_at(args.v_cache, slot * row + h * args.k.dim(2) + d, load(args.v, t, h, d));
      }
    }
  }
}

namespace {

// Offset of key `i` of sequence `b`, kv head `h` in the flat cache.
int64_t cache_offset(const PagedAttention& args, int64_t b, int64_t i, int64_t h) {
  const int64_t page_size = args.k_cache.dim(1);
  const int64_t slot = args.block_table.row<int32_t>(b)[i / page_size] * page_size + i % page_size;
  return (slot * args.k_cache.dim(2) + h) * args.k_cache.dim(3);
}

void attend(const PagedAttention& args, int64_t b, int64_t t, int64_t h, int64_t num_keys) {
  const int64_t head_dim = args.q.dim(2);
  const int64_t kv_head = h / (args.q.dim(1) / args.k_cache.dim(2));
  std::vector<double> p(static_cast<size_t>(num_keys));
  double largest = -INFINITY;
  for (int64_t i = 0; i < num_keys; ++i) {
    for (int64_t d = 0; d < head_dim; ++d) {
      p[i] += load(args.q, t, h, d) * load_at(args.k_cache, cache_offset(args, b, i, kv_head) + d);
    }
    p[i] *= static_cast<double>(args.scale);
    largest = std::max(largest, p[i]);
  }
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x - largest);
  for (int64_t d = 0; d < head_dim; ++d) {
    double out = 0;
    for (int64_t i = 0; i < num_keys; ++i)
      out += p[i] * load_at(args.v_cache, cache_offset(args, b, i, kv_head) + d);
    store(args.out, t, h, d, out / sum);
  }
}

void zero_rows(const Tensor& out, int64_t begin) {
  for (int64_t t = begin; t < out.dim(0); ++t) {
    for (int64_t h = 0; h < out.dim(1); ++h) {
      for (int64_t d = 0; d < out.dim(2); ++d) store(out, t, h, d, 0);
    }
  }
}

}  // namespace

void ReferenceBackend::run(const PagedAttention& args, Workspace) {
  const int32_t* starts = args.query_starts.data<int32_t>();
  const int64_t num_seqs = args.seq_lens.dim(0);
  for (int64_t b = 0; b < num_seqs; ++b) {
    const int64_t first_position = args.seq_lens.data<int32_t>()[b] - (starts[b + 1] - starts[b]);
    for (int64_t t = starts[b]; t < starts[b + 1]; ++t) {
      for (int64_t h = 0; h < args.q.dim(1); ++h) attend(args, b, t, h, first_position + (t - starts[b]) + 1);
    }
  }
  zero_rows(args.out, starts[num_seqs]);
}

namespace {

// One step of the recurrence for one head: S = exp(-s) S + k^T v; o = q S.
template <typename Op>
void recur(const Op& args, std::vector<double>& state, int64_t t, int64_t h) {
  const int64_t head_dim = args.q.dim(2);
  const double decay = std::exp(-static_cast<double>(args.decay.template data<float>()[h]));
  std::vector<double> out(static_cast<size_t>(head_dim));
  for (int64_t i = 0; i < head_dim; ++i) {
    for (int64_t j = 0; j < head_dim; ++j) {
      double& s = state[static_cast<size_t>(i * head_dim + j)];
      s = decay * s + load(args.k, t, h, i) * load(args.v, t, h, j);
      out[j] += load(args.q, t, h, i) * s;
    }
  }
  for (int64_t j = 0; j < head_dim; ++j) store(args.out, t, h, j, out[j]);
}

float* state_of(const Tensor& pool, int64_t slot, int64_t h) {
  return pool.data<float>() + (slot * pool.dim(1) + h) * pool.dim(2) * pool.dim(3);
}

// The state of one head from slot `read`, zero when -1.
std::vector<double> read_state(const Tensor& pool, int64_t read, int64_t h) {
  std::vector<double> state(static_cast<size_t>(pool.dim(2) * pool.dim(3)));
  if (read >= 0) std::copy_n(state_of(pool, read, h), state.size(), state.begin());
  return state;
}

// .. to slot `write`, dropped when -1.
void write_state(const std::vector<double>& state, const Tensor& pool, int64_t write, int64_t h) {
  if (write < 0) return;
  for (size_t i = 0; i < state.size(); ++i) state_of(pool, write, h)[i] = static_cast<float>(state[i]);
}

// Leaves the checkpoints of sequence b after so many of its rows.
void leave_checkpoints(const LightningPrefill& args, const std::vector<double>& state, int64_t b,
                       int64_t rows, int64_t h) {
  if (!args.checkpoint_rows.defined()) return;
  for (int64_t i = 0; i < args.checkpoint_rows.dim(1); ++i) {
    if (args.checkpoint_rows.row<int32_t>(b)[i] == rows)
      write_state(state, args.state, args.checkpoint_slots.row<int32_t>(b)[i], h);
  }
}

}  // namespace

void ReferenceBackend::run(const LightningPrefill& args, Workspace) {
  const int32_t* starts = args.query_starts.data<int32_t>();
  const int64_t num_seqs = args.read_slots.dim(0);
  for (int64_t b = 0; b < num_seqs; ++b) {
    for (int64_t h = 0; h < args.q.dim(1); ++h) {
      std::vector<double> state = read_state(args.state, args.read_slots.data<int32_t>()[b], h);
      for (int64_t t = starts[b]; t < starts[b + 1]; ++t) {
        recur(args, state, t, h);
        leave_checkpoints(args, state, b, t + 1 - starts[b], h);
      }
      write_state(state, args.state, args.write_slots.data<int32_t>()[b], h);
    }
  }
  zero_rows(args.out, starts[num_seqs]);
}

void ReferenceBackend::run(const LightningDecode& args, Workspace) {
  for (int64_t b = 0; b < args.q.dim(0); ++b) {
    const int32_t read = args.read_slots.data<int32_t>()[b];
    for (int64_t h = 0; h < args.q.dim(1); ++h) {
      if (read >= 0) {
        std::vector<double> state = read_state(args.state, read, h);
        recur(args, state, b, h);
        write_state(state, args.state, args.write_slots.data<int32_t>()[b], h);
      } else {
        for (int64_t d = 0; d < args.q.dim(2); ++d) store(args.out, b, h, d, 0);
      }
    }
  }
}

}  // namespace minimax::ops::reference
