// Products of up to eight rows with block-wise e4m3 weights, where shapes are whole: as rows_product.cuh, but
// with a ring of loads in registers. Each load that was used makes room for the one kAhead further, behind
// the last of a tile's inputs for the first of the next tile, so that a warp always waits for memory, never
// for its own products; activations and scales stand in shared memory, and no load has a condition.
#pragma once

#include "backends/cuda/rows_product.cuh"

namespace minimax::cuda {

constexpr int kChunk = 64;  // inputs that a warp takes at a time, of one scale

// Whether groups of `chunks` chunks fill the inputs, and a tile's sixteen rows share a row of scales.
inline bool can_ring(const WeightView& w, int chunks) {
  return w.scalar == Scalar::kE4m3 && w.scale_scalar == Scalar::kF32 && can_read_rows(w) &&
         w.columns % (kChunk * chunks) == 0 && w.block_rows % 16 == 0 && w.row_offset % 16 == 0;
}

// The rows of a tile as a lane takes them: row lane / 4, and the one eight further or the same of another
// weight.
struct CodeRows {
  const uint8_t* low;
  const uint8_t* high;
};
__device__ __forceinline__ const uint8_t* code_row(const WeightView& w, int64_t n) {
  return static_cast<const uint8_t*>(w.values) + n * w.stride;
}
__device__ __forceinline__ CodeRows tile_code_rows(const WeightView& w, int64_t first) {
  const int64_t row = first + static_cast<int64_t>(threadIdx.x) % 32 / 4;
  return {code_row(w, min(row, w.rows - 1)), code_row(w, min(row + 8, w.rows - 1))};
}

// The scale of chunk c of weight row n is at(c).
class RowScales {
 public:
  RowScales() = default;
  __device__ RowScales(const WeightView& w, int64_t n) : row_(w, n) {}
  __device__ float at(int c) const { return __ldg(row_.scales + row_.block_of(c * kChunk)); }

 private:
  WeightRow<RowFormat::kFp8> row_;
};

// kShare warps, of which this one is `rank`, take chunks of the inputs in turn. REQUIRES: kShare * kAhead
// divides how many there are.
template <int kAhead, int kShare>
class CodesRing {
 public:
  __device__ CodesRing(int rank, int64_t columns)
      : rank_(rank),
        chunks_(static_cast<int>(columns / kChunk)),
        first_(rank * kChunk + static_cast<int>(threadIdx.x % 4) * 16) {}

  __device__ __forceinline__ void fill(const CodeRows& rows) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) fetch(i, rows, first_);
  }

  // sums += the products of the share of a tile, whose loads are on their way, with eight activation rows:
  // inputs(c, b) gives the lane's of chunk c, scales(c) those of low and high rows. The loads of `next`
  // follow if there is one.
  template <typename Inputs, typename Scales>
  __device__ __forceinline__ void multiply(const CodeRows& own, const CodeRows& next, bool has_next,
                                           Inputs&& inputs, Scales&& scales, float (&sums)[4]) {
    constexpr int kGroup = kAhead * kShare;
#pragma unroll 1
    for (int c = rank_; c < chunks_; c += kGroup) {
      const bool is_last = c + kGroup >= chunks_;
      const CodeRows from = is_last ? next : own;
      const int at = is_last ? first_ : first_ + (c - rank_ + kGroup) * kChunk;
      const bool fetches = !is_last || has_next;
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        uint32_t a[4][4], b[8];
        inputs(c + i * kShare, b);
        const float2 scale = scales(c + i * kShare);
        unpack_rows(low_[i], high_[i], a);
        multiply_codes(a, b, scale.x, scale.y, sums);
        if (fetches) fetch(i, from, at);
      }
    }
  }

 private:
  __device__ __forceinline__ void fetch(int i, const CodeRows& rows, int at) {
    low_[i] = load_stream_16(rows.low + at + i * kShare * kChunk);
    high_[i] = load_stream_16(rows.high + at + i * kShare * kChunk);
  }

  int rank_, chunks_, first_;
  uint4 low_[kAhead], high_[kAhead];
};

// Activation rows in shared memory as BF16 numbers, in the order in which lanes read them: of each chunk the
// first eight inputs of every quarter of all rows, then the other eight.
class SharedInputs {
 public:
  __host__ __device__ static int bytes(int64_t rows, int64_t columns) {
    return static_cast<int>(2 * rows * columns);
  }
  __device__ SharedInputs(uint8_t* room, int rows) : room_(room), rows_(rows) {}

  // All threads call it; a barrier must follow.
  template <int kThreads, typename X>
  __device__ __forceinline__ void fill(const X* x, int64_t stride, int columns) const {
    for (int t = 0; t < rows_; ++t) {
#pragma unroll 4
      for (int i = threadIdx.x; i < columns / 4; i += kThreads) {
        const float4 v = load_four(x + t * stride + 4 * i);
        const int half = i / 16 * 2 + i / 2 % 2, quarter = i / 4 % 4;
        *reinterpret_cast<uint2*>(room_ + (half * rows_ + t) * 64 + quarter * 16 + i % 2 * 8) = {
            pack_bf16(v.x, v.z), pack_bf16(v.y, v.w)};
      }
    }
  }

  // This lane's of row t.
  __device__ const uint8_t* row(int t) const { return room_ + t * 64 + threadIdx.x % 4 * 16; }
  __device__ __forceinline__ void load(const uint8_t* row, int c, uint32_t (&b)[8]) const {
    const uint8_t* from = row + c * rows_ * 128;
    const uint4 low = *reinterpret_cast<const uint4*>(from);
    const uint4 high = *reinterpret_cast<const uint4*>(from + rows_ * 64);
    b[0] = low.x;
    b[1] = low.y;
    b[2] = low.z;
    b[3] = low.w;
    b[4] = high.x;
    b[5] = high.y;
    b[6] = high.z;
    b[7] = high.w;
  }

 private:
  uint8_t* room_;
  int rows_;
};

}  // namespace minimax::cuda
