// Lightning attention: chunked prefill with the state carried along, and the one-token recurrence.
#include <algorithm>
#include <cmath>

#include "backends/cpu/cpu_ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/lightning_attention.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "backends/cpu/block_matmul-inl.h"

// Shared by all targets.
#ifndef MINIMAX_LIGHTNING_COMMON_
#define MINIMAX_LIGHTNING_COMMON_
namespace minimax::cpu {

// Tokens of a chunk. Work per token and head is about 2 C D + 4 D^2 operations; C = D balances them and 64
// keeps the scratch of D = 128 (230 KiB) inside the L2 cache.
constexpr int64_t kChunk = 64;

constexpr int64_t padded_head_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

constexpr int64_t lightning_scratch_floats(int64_t head_dim) {
  const int64_t d = padded_head_dim(head_dim);
  return 5 * kChunk * d + kChunk * kChunk + d * d + 2 * kChunk;
}

// The rows of one head, as strided views.
struct HeadRows {
  const std::byte* q;
  const std::byte* k;
  const std::byte* v;
  std::byte* out;
  int64_t q_stride;  // bytes between tokens
  int64_t k_stride;
  int64_t v_stride;
  int64_t out_stride;
};

// Where a sequence's state of one head is left on the way: after so many of its rows, ascending.
struct Checkpoints {
  const int32_t* rows = nullptr;
  const int32_t* slots = nullptr;
  int64_t count = 0;
  float* states = nullptr;  // of this head in slot 0
  int64_t slot_stride = 0;

  // The next one's row, beyond all rows when there is none.
  int64_t next(int64_t index) const { return index < count ? rows[index] : INT64_MAX; }
};

}  // namespace minimax::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

struct Scratch {
  float* q;       // [C, D]
  float* k;       // [C, D]
  float* kt;      // [D, C]
  float* v;       // [C, D]
  float* out;     // [C, D]
  float* scores;  // [C, C]
  float* state;   // [D, D]
  float* powers;  // [C + 1]: exp(-s i)

  Scratch(float* memory, int64_t d) {
    q = memory;
    k = q + kChunk * d;
    kt = k + kChunk * d;
    v = kt + d * kChunk;
    out = v + kChunk * d;
    scores = out + kChunk * d;
    state = scores + kChunk * kChunk;
    powers = state + d * d;
  }
};

template <typename T>
void LoadRows(const std::byte* rows, int64_t stride, int64_t first, int64_t count, int64_t head_dim,
              int64_t d, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    UnpackPadded(reinterpret_cast<const T*>(rows + (first + i) * stride), head_dim, d, out + i * d);
  }
}

// scores[i, j] = exp(-s (i - j)) q_i . k_j for j <= i, else 0.
void ChunkScores(const Scratch& s, int64_t m, int64_t d) {
  for (int64_t i = 0; i < m; i += 4) {
    const int64_t rows = std::min<int64_t>(4, m - i);
    const int64_t columns = std::min(kChunk, (i + rows + 15) / 16 * 16);
    for (int64_t r = i; r < i + rows; ++r) std::fill_n(s.scores + r * kChunk, columns, 0.0F);
    BlockMultiplyAdd({s.q + i * d, d, 1}, s.kt, kChunk, rows, columns, d, s.scores + i * kChunk, kChunk);
    for (int64_t r = i; r < i + rows; ++r) {
      float* row = s.scores + r * kChunk;
      for (int64_t j = 0; j <= r; ++j) row[j] *= s.powers[r - j];
      std::fill(row + r + 1, row + columns, 0.0F);
    }
  }
}

// One chunk of m <= C tokens: out = inter + intra, and the state moves on by m tokens.
void Chunk(const Scratch& s, int64_t m, int64_t d) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < d; ++j) s.kt[j * kChunk + i] = s.k[i * d + j];
  }
  for (int64_t j = 0; j < d; ++j) std::fill(s.kt + j * kChunk + m, s.kt + (j + 1) * kChunk, 0.0F);
  ChunkScores(s, m, d);
  std::fill_n(s.out, m * d, 0.0F);
  for (int64_t i = 0; i < m; i += 4) {
    const int64_t rows = std::min<int64_t>(4, m - i);
    BlockMultiplyAdd({s.scores + i * kChunk, kChunk, 1}, s.v, d, rows, d, i + rows, s.out + i * d, d);
  }
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < d; ++j) s.q[i * d + j] *= s.powers[i + 1];
  }
  BlockMultiplyAdd({s.q, d, 1}, s.state, d, m, d, d, s.out, d);

  for (int64_t j = 0; j < d; ++j) {
    for (int64_t i = 0; i < m; ++i) s.kt[j * kChunk + i] *= s.powers[m - 1 - i];
  }
  for (int64_t i = 0; i < d * d; ++i) s.state[i] *= s.powers[m];
  BlockMultiplyAdd({s.kt, kChunk, 1}, s.v, d, d, d, m, s.state, d);
}

inline void StoreState(const Scratch& s, int64_t head_dim, int64_t d, float* to) {
  for (int64_t i = 0; i < head_dim; ++i) std::copy_n(s.state + i * d, head_dim, to + i * head_dim);
}

template <typename T>
void PrefillHead(const HeadRows& rows, int64_t begin, int64_t end, int64_t head_dim, float decay,
                 const float* read, float* write, const Checkpoints& checkpoints, float* memory) {
  const int64_t d = padded_head_dim(head_dim);
  const Scratch s(memory, d);
  for (int64_t i = 0; i <= kChunk; ++i) s.powers[i] = std::exp(-decay * static_cast<float>(i));
  std::fill_n(s.state, d * d, 0.0F);
  for (int64_t i = 0; read != nullptr && i < head_dim; ++i) {
    std::copy_n(read + i * head_dim, head_dim, s.state + i * d);
  }
  // Chunks end at checkpoints too.
  int64_t checkpoint = 0;
  for (int64_t t = begin, m = 0; t < end; t += m) {
    m = std::min({kChunk, end - t, checkpoints.next(checkpoint) - (t - begin)});
    LoadRows<T>(rows.q, rows.q_stride, t, m, head_dim, d, s.q);
    LoadRows<T>(rows.k, rows.k_stride, t, m, head_dim, d, s.k);
    LoadRows<T>(rows.v, rows.v_stride, t, m, head_dim, d, s.v);
    Chunk(s, m, d);
    for (int64_t i = 0; i < m; ++i) {
      auto* out = reinterpret_cast<T*>(rows.out + (t + i) * rows.out_stride);
      ForVectors(head_dim, [&](auto load, auto store) HWY_ATTR { store(load(s.out + i * d), out); });
    }
    for (; checkpoints.next(checkpoint) == t + m - begin; ++checkpoint) {
      const int64_t slot = checkpoints.slots[checkpoint];
      if (slot >= 0) StoreState(s, head_dim, d, checkpoints.states + slot * checkpoints.slot_stride);
    }
  }
  if (write != nullptr) StoreState(s, head_dim, d, write);
}

void PrefillHeadAny(DType dtype, const HeadRows& rows, int64_t begin, int64_t end, int64_t head_dim,
                    float decay, const float* read, float* write, const Checkpoints& checkpoints,
                    float* memory) {
  if (dtype == DType::kBF16) {
    PrefillHead<bf16>(rows, begin, end, head_dim, decay, read, write, checkpoints, memory);
  } else {
    PrefillHead<float>(rows, begin, end, head_dim, decay, read, write, checkpoints, memory);
  }
}

// S = exp(-s) S + k^T v; out = q S, for columns of kVectors vectors at a time.
template <int kVectors, typename T>
HWY_INLINE void DecodeColumns(const T* q, const T* k, const T* v, int64_t head_dim, float decay,
                              const float* read, float* write, T* out) {
  const int64_t lanes = LanesF32();
  const VF factor = hn::Set(DF(), decay);
  VF values[kVectors];
  VF sums[kVectors];
  HWY_UNROLL(12)
  for (int c = 0; c < kVectors; ++c) {
    values[c] = LoadF32(v + c * lanes);
    sums[c] = hn::Zero(DF());
  }
  for (int64_t i = 0; i < head_dim; ++i) {
    const VF key = hn::Set(DF(), to_float(k[i]));
    const VF query = hn::Set(DF(), to_float(q[i]));
    HWY_UNROLL(12)
    for (int c = 0; c < kVectors; ++c) {
      const VF old = hn::LoadU(DF(), read + i * head_dim + c * lanes);
      const VF state = hn::MulAdd(factor, old, hn::Mul(key, values[c]));
      if (write != nullptr) hn::StoreU(state, DF(), write + i * head_dim + c * lanes);
      sums[c] = hn::MulAdd(query, state, sums[c]);
    }
  }
  HWY_UNROLL(12)
  for (int c = 0; c < kVectors; ++c) StoreF32(sums[c], out + c * lanes);
}

template <typename T>
void DecodeHead(const T* q, const T* k, const T* v, int64_t head_dim, float decay, const float* read,
                float* write, T* out) {
  const int64_t lanes = LanesF32();
  int64_t j = 0;
  const auto columns = [&](auto count) HWY_ATTR {
    constexpr int kVectors = decltype(count)::value;
    for (; j + kVectors * lanes <= head_dim; j += kVectors * lanes) {
      DecodeColumns<kVectors>(q, k, v + j, head_dim, decay, read + j, write != nullptr ? write + j : nullptr,
                              out + j);
    }
  };
  columns(std::integral_constant<int, 4>());
  columns(std::integral_constant<int, 1>());
  for (; j < head_dim; ++j) {
    float sum = 0;
    for (int64_t i = 0; i < head_dim; ++i) {
      const float state = decay * read[i * head_dim + j] + to_float(k[i]) * to_float(v[j]);
      if (write != nullptr) write[i * head_dim + j] = state;
      sum += to_float(q[i]) * state;
    }
    out[j] = from_float<T>(sum);
  }
}

void DecodeHeadAny(DType dtype, const HeadRows& rows, int64_t head_dim, float decay, const float* read,
                   float* write) {
  if (dtype == DType::kBF16) {
    DecodeHead(reinterpret_cast<const bf16*>(rows.q), reinterpret_cast<const bf16*>(rows.k),
               reinterpret_cast<const bf16*>(rows.v), head_dim, decay, read, write,
               reinterpret_cast<bf16*>(rows.out));
  } else {
    DecodeHead(reinterpret_cast<const float*>(rows.q), reinterpret_cast<const float*>(rows.k),
               reinterpret_cast<const float*>(rows.v), head_dim, decay, read, write,
               reinterpret_cast<float*>(rows.out));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace minimax::cpu {
namespace {

HWY_EXPORT(PrefillHeadAny);
HWY_EXPORT(DecodeHeadAny);

std::byte* head_data(const Tensor& t, int64_t row, int64_t h) {
  return static_cast<std::byte*>(t.raw()) + (row * t.stride(0) + h * t.stride(1)) * size_of(t.dtype());
}

template <typename Op>
HeadRows head_rows(const Op& args, int64_t row, int64_t h) {
  const int64_t element = size_of(args.q.dtype());
  return {head_data(args.q, row, h),   head_data(args.k, row, h),   head_data(args.v, row, h),
          head_data(args.out, row, h), args.q.stride(0) * element,  args.k.stride(0) * element,
          args.v.stride(0) * element,  args.out.stride(0) * element};
}

float* slot_state(const Tensor& state, int64_t slot, int64_t h) {
  return slot < 0 ? nullptr : state.data<float>() + slot * state.stride(0) + h * state.stride(1);
}

Checkpoints checkpoints_of(const ops::LightningPrefill& args, int64_t b, int64_t h) {
  if (!args.checkpoint_rows.defined()) return {};
  return {args.checkpoint_rows.row<int32_t>(b), args.checkpoint_slots.row<int32_t>(b),
          args.checkpoint_rows.dim(1), slot_state(args.state, 0, h), args.state.stride(0)};
}

void zero_head(const Tensor& out, int64_t row, int64_t h) {
  std::fill_n(head_data(out, row, h), out.dim(2) * size_of(out.dtype()), std::byte{0});
}

}  // namespace

int64_t CpuBackend::workspace_bytes(const ops::LightningPrefill& args) const {
  return pool_.num_threads() * lightning_scratch_floats(args.q.dim(2)) * static_cast<int64_t>(sizeof(float));
}

void CpuBackend::run(const ops::LightningPrefill& args, ops::Workspace workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(PrefillHeadAny);
  const int64_t heads = args.q.dim(1);
  const int64_t num_seqs = args.read_slots.dim(0);
  const int32_t* starts = args.query_starts.data<int32_t>();
  auto* scratch = reinterpret_cast<float*>(workspace.data);
  pool_.parallel_for(num_seqs * heads, [&](int64_t task, int thread) {
    const int64_t b = task / heads;
    const int64_t h = task % heads;
    kernel(args.q.dtype(), head_rows(args, 0, h), starts[b], starts[b + 1], args.q.dim(2),
           args.decay.data<float>()[h], slot_state(args.state, args.read_slots.data<int32_t>()[b], h),
           slot_state(args.state, args.write_slots.data<int32_t>()[b], h), checkpoints_of(args, b, h),
           scratch + thread * lightning_scratch_floats(args.q.dim(2)));
  });
  for (int64_t t = starts[num_seqs]; t < args.out.dim(0); ++t) {
    for (int64_t h = 0; h < heads; ++h) zero_head(args.out, t, h);
  }
}

void CpuBackend::run(const ops::LightningDecode& args, ops::Workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(DecodeHeadAny);
  const int64_t heads = args.q.dim(1);
  const auto head = [&](int64_t task, int) {
    const int64_t b = task / heads;
    const int64_t h = task % heads;
    const int32_t read = args.read_slots.data<int32_t>()[b];
    if (read < 0) {
      zero_head(args.out, b, h);
      return;
    }
    kernel(args.q.dtype(), head_rows(args, b, h), args.q.dim(2), std::exp(-args.decay.data<float>()[h]),
           slot_state(args.state, read, h), slot_state(args.state, args.write_slots.data<int32_t>()[b], h));
  };
  pool_.parallel_for(args.q.dim(0) * heads, head, args.q.numel() * args.q.dim(2));
}

}  // namespace minimax::cpu
#endif
