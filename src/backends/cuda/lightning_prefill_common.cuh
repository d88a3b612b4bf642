// What the prefill kernels for SM80 and SM90 share.
//
// A block owns one segment of one sequence, one head and 64 value columns, and walks the segment in chunks of
// 64 tokens. It keeps the state transposed, S^T [64 values, D keys] in F32, as accumulator fragments: 16
// values to a warp, all keys. Rounded to BF16, those fragments are also an operand of the output. Per chunk,
// with s the decay rate and i, j in it:
//   P[i][j] = exp(-s (i - j)) q_i . k_j for j <= i, else 0
//   O^T     = (S^T q^T) diag(exp(-s (i + 1))) + V^T P^T
//   S^T     = exp(-s n) S^T + (V^T diag(exp(-s (n - 1 - j)))) k        n: the chunk's rows
// No exponent is positive. S decays as S + S (exp(-s n) - 1), which loses nothing where s n is tiny. The
// decayed values enter as two BF16 terms: rounding them to one would cost the state, and with it every later
// output, 1.6e-3.
//
// Few heads leave most multiprocessors idle, so sequences are then cut into segments (lightning_prefill.cu).
// A first kernel sums each segment by itself into the workspace, and each block of the second begins with the
// decayed sum of the segments before its own.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "backends/cuda/ptx.cuh"

namespace minimax::cuda {

constexpr int kChunkTokens = 64;
constexpr int kBlockValues = 64;
constexpr int kTileBytes = 64 * 128;  // 64 rows of 64 BF16

struct PrefillParams {
  const __nv_bfloat16* q;
  const __nv_bfloat16* k;
  const __nv_bfloat16* v;
  __nv_bfloat16* out;
  int64_t q_token_stride, q_head_stride;
  int64_t k_token_stride, k_head_stride;
  int64_t v_token_stride, v_head_stride;
  int64_t out_token_stride, out_head_stride;
  const float* decay;
  float* state;
  const int32_t* read_slots;
  const int32_t* write_slots;
  const int32_t* query_starts;
  const int32_t* checkpoint_rows;   // [num_sequences, num_checkpoints]
  const int32_t* checkpoint_slots;  // the same
  int num_checkpoints;
  int64_t num_tokens;
  int num_sequences;
  int num_heads;
  int segment_tokens;  // a multiple of kChunkTokens
  int num_items;       // segments at most; blocks beyond the real number have nothing to do
  float* partial;      // [segments of cut sequences, heads, D (key), D (value)]
};

// One item of work: rows first_row .. first_row + rows - 1 of a sequence.
struct Segment {
  int first_row;
  int rows;
  int sequence;  // -1: no such segment
  int index;     // in its sequence
  int count;     // of its sequence
  int partial;   // place of the sequence's first segment in `partial`, if count > 1
};

// The item-th segment of all sequences, or of all that are cut (count > 1). Called by whole warps.
template <bool kCutOnly>
__device__ inline Segment find_segment(const PrefillParams& params, int item) {
  const int lane = threadIdx.x & 31;
  int before = 0;
  int partial_before = 0;
  for (int first = 0; first < params.num_sequences; first += 32) {
    const int sequence = first + lane;
    int start = 0;
    int rows = 0;
    int count = 0;
    if (sequence < params.num_sequences) {
      start = params.query_starts[sequence];
      rows = params.query_starts[sequence + 1] - start;
      count = rows > params.segment_tokens ? (rows - 1) / params.segment_tokens + 1 : 1;
    }
    const int cut = count > 1 ? count : 0;
    int sum = kCutOnly ? cut : count;
    int cut_sum = cut;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, sum, step);
      const int other_cut = __shfl_up_sync(0xffffffffu, cut_sum, step);
      if (lane >= step) {
        sum += other;
        cut_sum += other_cut;
      }
    }
    const unsigned reached = __ballot_sync(0xffffffffu, before + sum > item);
    if (reached != 0) {
      const int source = __ffs(reached) - 1;
      Segment segment;
      segment.count = __shfl_sync(0xffffffffu, count, source);
      segment.index = item - before - __shfl_sync(0xffffffffu, sum, source) + segment.count;
      const int offset = segment.index * params.segment_tokens;
      const int all_rows = __shfl_sync(0xffffffffu, rows, source);
      segment.first_row = __shfl_sync(0xffffffffu, start, source) + offset;
      segment.rows = min(all_rows - offset, params.segment_tokens);
      segment.sequence = first + source;
      segment.partial = partial_before + __shfl_sync(0xffffffffu, cut_sum, source) - segment.count;
      return segment;
    }
    before += __shfl_sync(0xffffffffu, sum, 31);
    partial_before += __shfl_sync(0xffffffffu, cut_sum, 31);
  }
  return {0, 0, -1, 0, 0, 0};
}

// A walk over a segment's chunks: kChunkTokens rows each, fewer at the segment's end and, if kStops, up to a
// checkpoint.
template <bool kStops>
class ChunkWalk {
 public:
  __device__ ChunkWalk(const PrefillParams& params, const Segment& segment, int rows) : rows_(rows) {
    if constexpr (!kStops) return;
    offset_ = segment.index * params.segment_tokens;
    const int64_t place = int64_t{segment.sequence} * params.num_checkpoints;
    stops_ = params.checkpoint_rows + place;
    slots_ = params.checkpoint_slots + place;
    left_ = params.num_checkpoints;
    find_stop();
  }

  __device__ int first() const { return first_; }  // row of the chunk, in the segment
  __device__ int rows() const { return min((kStops ? stop_ : rows_) - first_, kChunkTokens); }
  __device__ bool is_done() const { return first_ >= rows_; }
  // Where the state after this chunk is to be left besides; -1: nowhere.
  __device__ int checkpoint_slot() const {
    return kStops && left_ > 0 && first_ + rows() == *stops_ - offset_ ? *slots_ : -1;
  }
  __device__ void advance() {
    first_ += kStops ? rows() : kChunkTokens;
    if (kStops && first_ == stop_) find_stop();
  }
  // Chunks from here to the end.
  __device__ int count() const {
    if constexpr (!kStops) return (rows_ - first_ + kChunkTokens - 1) / kChunkTokens;
    int chunks = 0;
    for (ChunkWalk walk = *this; !walk.is_done(); walk.find_stop()) {
      chunks += (walk.stop_ - walk.first_ + kChunkTokens - 1) / kChunkTokens;
      walk.first_ = walk.stop_;
    }
    return chunks;
  }

 private:
  __device__ void find_stop() {
    for (; left_ > 0 && *stops_ - offset_ <= first_; --left_) {
      ++stops_;
      ++slots_;
    }
    stop_ = left_ > 0 ? min(*stops_ - offset_, rows_) : rows_;
  }

  const int32_t* stops_ = nullptr;  // the next checkpoint's rows, in the sequence
  const int32_t* slots_ = nullptr;
  int left_ = 0;    // checkpoints to come
  int offset_ = 0;  // of the segment in its sequence
  int rows_;
  int first_ = 0;
  int stop_ = 0;  // the next checkpoint's row or the segment's end, in the segment
};

// The first of two neighbouring keys of accumulator tile `tile` that this lane holds.
__device__ inline int lane_key(int tile) { return tile * 8 + 2 * (threadIdx.x & 3); }

// One head's state [D (key), D (value)] as S^T fragments: this lane holds value columns `value` and value
// + 8.
template <int D>
__device__ inline void load_state(float (&s)[D / 2], const float* head_state, int value) {
#pragma unroll
  for (int tile = 0; tile < D / 8; ++tile) {
    const float* at = head_state + lane_key(tile) * D + value;
    s[4 * tile] = at[0];
    s[4 * tile + 1] = at[D];
    s[4 * tile + 2] = at[8];
    s[4 * tile + 3] = at[D + 8];
  }
}

template <int D>
__device__ inline void store_state(const float (&s)[D / 2], float* head_state, int value) {
#pragma unroll
  for (int tile = 0; tile < D / 8; ++tile) {
    float* at = head_state + lane_key(tile) * D + value;
    at[0] = s[4 * tile];
    at[D] = s[4 * tile + 1];
    at[8] = s[4 * tile + 2];
    at[D + 8] = s[4 * tile + 3];
  }
}

template <int D>
__device__ inline int64_t head_offset(const PrefillParams& params, int64_t slot, int head) {
  return (slot * params.num_heads + head) * (D * D);
}

template <int N>
__device__ inline void decay_state(float (&s)[N], float decay_minus_one) {
#pragma unroll
  for (int i = 0; i < N; ++i) s[i] = fmaf(s[i], decay_minus_one, s[i]);
}

template <int D>
__device__ inline void load_initial_state(float (&s)[D / 2], const PrefillParams& params,
                                          const Segment& segment, int head, int value) {
  const int slot = params.read_slots[segment.sequence];
  if (slot >= 0) {
    load_state<D>(s, params.state + head_offset<D>(params, slot, head), value);
  } else {
#pragma unroll
    for (int i = 0; i < D / 2; ++i) s[i] = 0.0F;
  }
}

// The state with which a block of the main kernel begins. In a cut sequence the first kernel left the sum of
// segment m (of segment 0: on top of the initial state) in place m, and the initial state itself, which the
// last segment's block may be overwriting by now, in the last place.
template <int D>
__device__ inline void load_entering_state(float (&s)[D / 2], const PrefillParams& params,
                                           const Segment& segment, int head, int value) {
  if (segment.count == 1) {
    load_initial_state<D>(s, params, segment, head, value);
    return;
  }
  const int first = segment.index == 0 ? segment.count - 1 : 0;
  load_state<D>(s, params.partial + head_offset<D>(params, segment.partial + first, head), value);
  const float decay_minus_one = expm1f(-params.decay[head] * static_cast<float>(params.segment_tokens));
  for (int m = 1; m < segment.index; ++m) {
    float sum[D / 2];
    load_state<D>(sum, params.partial + head_offset<D>(params, segment.partial + m, head), value);
#pragma unroll
    for (int i = 0; i < D / 2; ++i) s[i] = fmaf(s[i], decay_minus_one, s[i]) + sum[i];
  }
}

// The state with which a block of the first kernel begins.
template <int D>
__device__ inline void load_partial_state(float (&s)[D / 2], const PrefillParams& params,
                                          const Segment& segment, int head, int value) {
  if (segment.index == 0 || segment.index == segment.count - 1) {
    load_initial_state<D>(s, params, segment, head, value);
  } else {
#pragma unroll
    for (int i = 0; i < D / 2; ++i) s[i] = 0.0F;
  }
}

// Where a block leaves its state; null: nowhere.
template <int D, bool kPartial>
__device__ inline float* leaving_state(const PrefillParams& params, const Segment& segment, int head) {
  if (kPartial) return params.partial + head_offset<D>(params, segment.partial + segment.index, head);
  const int slot = segment.index == segment.count - 1 ? params.write_slots[segment.sequence] : -1;
  return slot < 0 ? nullptr : params.state + head_offset<D>(params, slot, head);
}

// decays[n] = exp(-rate n) for n up to a chunk.
__device__ inline void fill_decays(float (&decays)[kChunkTokens + 1], float rate) {
  for (int n = threadIdx.x; n <= kChunkTokens; n += blockDim.x)
    decays[n] = expf(-rate * static_cast<float>(n));
}

// Zeros in this block's share of the rows that no sequence owns. 128 threads.
__device__ inline void clear_unowned_rows(const PrefillParams& params, int item, int head, int first_value,
                                          int thread) {
  const int64_t end = params.query_starts[params.num_sequences];
  for (int64_t row = end + item * 16 + thread / 8; row < params.num_tokens;
       row += int64_t{params.num_items} * 16) {
    __nv_bfloat16* at =
        params.out + row * params.out_token_stride + head * params.out_head_stride + first_value;
    reinterpret_cast<uint4*>(at)[thread % 8] = make_uint4(0, 0, 0, 0);
  }
}

// The factors exp(-rate (i - j)), or 0 where j > i, of a lane's elements of P: rows 16 warp + lane / 4 and 8
// further, columns as lane_key(). The distances of one row are those of the other shifted by a tile, and no
// chunk changes them: they stay in 18 registers.
struct PairDecays {
  float even[9];
  float odd[9];

  __device__ void fill(const float (&decays)[kChunkTokens + 1], int warp) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int m = 0; m < 9; ++m) {
      const int distance = 16 * warp + lane / 4 + 8 - lane_key(m);
      even[m] = distance < 0 || distance > kChunkTokens ? 0.0F : decays[distance];
      odd[m] = distance < 1 ? 0.0F : decays[distance - 1];
    }
  }
  // The four accumulators of a tile, scaled; products of rows that are not there may be anything, so 0
  // selects.
  __device__ void scale(float* p, int tile) const {
    p[0] = select(p[0], even[tile + 1]);
    p[1] = select(p[1], odd[tile + 1]);
    p[2] = select(p[2], even[tile]);
    p[3] = select(p[3], odd[tile]);
  }
  __device__ static float select(float product, float factor) {
    return factor > 0.0F ? product * factor : 0.0F;
  }
};

// v^T fragments [16 values, 64 tokens] of warp `warp` from a tile [64 tokens, 64 values].
__device__ __forceinline__ void load_values(uint32_t (&values)[4][4], uint32_t tile, int warp) {
  const int lane = threadIdx.x & 31;
  const uint32_t chunk = 2 * warp + (lane / 8 & 1);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    ptx::load_matrix_x4_trans(values[step],
                              tile + ptx::swizzled(16 * step + lane / 16 * 8 + lane % 8, chunk));
  }
}

// exp(-rate (rows - 1 - j)) for the tokens j whose values a lane holds.
struct ValueDecays {
  float even[8];
  float odd[8];

  __device__ __forceinline__ void fill(const float (&decays)[kChunkTokens + 1], int rows) {
#pragma unroll
    for (int tile = 0; tile < 8; ++tile) {
      const int left = rows - 1 - lane_key(tile);  // rows beyond the last hold zeros
      even[tile] = decays[max(left, 0)];
      odd[tile] = decays[max(left - 1, 0)];
    }
  }
};

// The same values decayed to the end of the chunk, rounded, and what the rounding left: their sum keeps the
// state accurate beyond BF16.
__device__ __forceinline__ void decay_values(uint32_t (&decayed)[4][4], uint32_t (&rest)[4][4],
                                             const uint32_t (&values)[4][4], const ValueDecays& decays) {
#pragma unroll
  for (int step = 0; step < 4; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float even = ptx::low_float(values[step][i]) * decays.even[2 * step + i / 2];
      const float odd = ptx::high_float(values[step][i]) * decays.odd[2 * step + i / 2];
      decayed[step][i] = ptx::pack_bf16(even, odd);
      rest[step][i] =
          ptx::pack_bf16(even - ptx::low_float(decayed[step][i]), odd - ptx::high_float(decayed[step][i]));
    }
  }
}

// Accumulators as left operand of the next product, rounded to BF16: 16 of their columns.
template <int N>
__device__ __forceinline__ void left_operand(uint32_t (&operand)[4], const float (&s)[N], int step) {
#pragma unroll
  for (int i = 0; i < 4; ++i) operand[i] = ptx::pack_bf16(s[8 * step + 2 * i], s[8 * step + 2 * i + 1]);
}

}  // namespace minimax::cuda
