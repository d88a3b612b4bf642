// Rows of 8-bit weights on their way to a tile of BF16 numbers in shared memory: fetched into registers one
// step, unpacked, scaled and stored the next.
#pragma once

#include "backends/cuda/device.cuh"

namespace minimax::cuda {

// What a weight's rows are to a tile.
enum class RowKind : uint8_t {
  kBF16,
  kCodes,       // e4m3, no block of scales ends inside sixteen inputs that begin at a multiple of sixteen
  kCodesInAny,  // e4m3, in blocks of any shape
};
inline RowKind row_kind(const WeightView& w) {
  if (w.scalar == Scalar::kBF16) return RowKind::kBF16;
  const bool is_whole = (w.block_columns % 16 == 0 && w.column_offset % 16 == 0) ||
                        w.columns + w.column_offset <= w.block_columns;
  return is_whole ? RowKind::kCodes : RowKind::kCodesInAny;
}
// Calls f.operator()<kind>().
template <typename F>
void with_codes(RowKind kind, F&& f) {
  if (kind == RowKind::kCodes) return f.template operator()<RowKind::kCodes>();
  f.template operator()<RowKind::kCodesInAny>();
}
// With the kind of both weights.
template <typename F>
void with_rows(const WeightView& x, const WeightView& y, F&& f) {
  const RowKind kind = row_kind(x) > row_kind(y) ? row_kind(x) : row_kind(y);
  if (kind == RowKind::kBF16) return f.template operator()<RowKind::kBF16>();
  with_codes(kind, f);
}

// A row's codes and its row of the grid of scales; null codes: a row of zeros.
struct CodedRow {
  const uint8_t* codes = nullptr;
  const uint8_t* scales = nullptr;
};
__device__ inline CodedRow coded_row(const WeightView& w, int64_t n) {
  if (n >= w.rows) return {};
  const int64_t scale_bytes = w.scale_scalar == Scalar::kF32 ? 4 : 1;
  return {static_cast<const uint8_t*>(w.values) + n * w.stride,
          static_cast<const uint8_t*>(w.scales) +
              (n + w.row_offset) / w.block_rows * w.scale_stride * scale_bytes};
}

// Where the scale of an input stands in its row of the grid.
struct ScaleColumns {
  int block = 1;
  int offset = 0;
  bool is_e8m0 = false;

  __device__ explicit ScaleColumns(const WeightView& w)
      : block(static_cast<int>(w.block_columns)),
        offset(static_cast<int>(w.column_offset)),
        is_e8m0(w.scale_scalar == Scalar::kE8m0) {}
  __device__ float scale(const uint8_t* row, int k) const {
    const int at = (k + offset) / block;
    if (is_e8m0) return to_f32(e8m0_t{row[at]});
    return reinterpret_cast<const float*>(row)[at];
  }
};

// Four codes as two registers of BF16 numbers. Codes are BF16's sign, the low half of its exponent and three
// bits of its fraction, 120 powers of two too small; subnormals come out right because BF16 has them too.
// Only NaN has another pattern.
__device__ __forceinline__ uint2 unpack_codes(uint32_t codes) {
  const uint32_t low = __byte_perm(codes, 0, 0x1404), high = __byte_perm(codes, 0, 0x3424);
  constexpr uint32_t kPower = 0x7b807b80;  // 2^120, twice
  const auto scaled = [&](uint32_t pair) {
    const uint32_t small = (pair & 0x80008000U) | ((pair & 0x7f007f00U) >> 4);
    uint32_t exact;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(exact) : "r"(small), "r"(kPower), "r"(0x80008000U));
    return exact;
  };
  uint2 numbers = {scaled(low), scaled(high)};
  const uint32_t nans = ((codes & 0x7f7f7f7fU) + 0x01010101U) & 0x80808080U;
  if (nans != 0) {
    if ((nans & 0x80U) != 0) numbers.x |= 0x7fffU;
    if ((nans & 0x8000U) != 0) numbers.x |= 0x7fff0000U;
    if ((nans & 0x800000U) != 0) numbers.y |= 0x7fffU;
    if ((nans & 0x80000000U) != 0) numbers.y |= 0x7fff0000U;
  }
  return numbers;
}

// Rows of a tile as row(i) gives them, of matrices whose grids are alike.
template <RowKind kKind, typename Row>
struct CodedSource {
  Row row;
  ScaleColumns columns;
};

// What one of kThreads threads carries of a tile of kRows rows and 64 inputs: sixteen inputs of every
// kThreads / 4-th row.
template <int kRows, int kThreads, RowKind kKind>
class CodedChunks {
 public:
  template <typename Row>
  __device__ explicit CodedChunks(const CodedSource<kKind, Row>& source) : columns_(source.columns) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) rows_[i] = source.row(first_row() + kPass * i);
  }

  // Inputs k .. k + 63 of `depth`, a multiple of sixteen.
  __device__ __forceinline__ void fetch(int64_t k, int64_t depth) {
    k_ = static_cast<int>(k) + chunk() * 16;
    k_is_in_ = k_ < depth;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool is_there = k_is_in_ && rows_[i].codes != nullptr;
      codes_[i] = is_there ? *reinterpret_cast<const uint4*>(rows_[i].codes + k_) : uint4{0, 0, 0, 0};
      scales_[i] = is_there ? columns_.scale(rows_[i].scales, k_) : 0.0F;
    }
  }

  // To a swizzled tile with rows of 128 bytes.
  __device__ __forceinline__ void store(uint32_t tile) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const uint32_t parts[4] = {codes_[i].x, codes_[i].y, codes_[i].z, codes_[i].w};
      uint32_t numbers[8];
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        const uint2 pairs = unpack_codes(parts[p]);
        numbers[2 * p] = scaled(pairs.x, i, 4 * p);
        numbers[2 * p + 1] = scaled(pairs.y, i, 4 * p + 2);
      }
      const uint32_t row = static_cast<uint32_t>(first_row() + kPass * i);
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t to = tile + ptx::swizzled(row, 2 * static_cast<uint32_t>(chunk()) + half);
        const uint32_t* n = numbers + 4 * half;
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(n[0]), "r"(n[1]), "r"(n[2]),
                     "r"(n[3])
                     : "memory");
      }
    }
  }

 private:
  static constexpr int kPass = kThreads / 4;
  static constexpr int kCount = kRows / kPass;
  __device__ static int chunk() { return threadIdx.x % 4; }
  __device__ static int first_row() { return static_cast<int>(threadIdx.x) / 4; }

  // Numbers `at` and the next of chunk i, with their scale.
  __device__ __forceinline__ uint32_t scaled(uint32_t pair, int i, int at) const {
    float low = scales_[i], high = scales_[i];
    if (kKind == RowKind::kCodesInAny && k_is_in_ && rows_[i].codes != nullptr) {
      low = columns_.scale(rows_[i].scales, k_ + at);
      high = columns_.scale(rows_[i].scales, k_ + at + 1);
    }
    return pack_bf16(ptx::low_float(pair) * low, ptx::high_float(pair) * high);
  }

  ScaleColumns columns_;
  CodedRow rows_[kCount];
  uint4 codes_[kCount];
  float scales_[kCount];
  int k_ = 0;
  bool k_is_in_ = false;
};

// The same for rows that are BF16 already: row(i), 16-byte aligned, or null for a row of zeros. They are
// copied in the background when they are stored; depth is a multiple of eight.
template <int kRows, int kThreads>
class CopiedChunks {
 public:
  template <typename Row>
  __device__ explicit CopiedChunks(Row&& row) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      rows_[i] = row(first_row() + kPass * i);
      if (rows_[i] != nullptr) any_ = rows_[i];
    }
  }
  __device__ __forceinline__ void fetch(int64_t k, int64_t depth) {
    k_ = k + chunk() * 8;
    k_is_in_ = k_ < depth;
  }
  __device__ __forceinline__ void store(uint32_t tile) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool is_there = k_is_in_ && rows_[i] != nullptr;
      const auto row = static_cast<uint32_t>(first_row() + kPass * i);
      ptx::copy_async_16(tile + ptx::swizzled(row, static_cast<uint32_t>(chunk())),
                         is_there ? rows_[i] + k_ : any_, is_there);
    }
  }

 private:
  static constexpr int kPass = kThreads / 8;
  static constexpr int kCount = kRows / kPass;
  __device__ static int chunk() { return threadIdx.x % 8; }
  __device__ static int first_row() { return static_cast<int>(threadIdx.x) / 8; }

  const bf16_t* rows_[kCount];
  const bf16_t* any_ = nullptr;  // what a copy of zeros names and does not read
  int64_t k_ = 0;
  bool k_is_in_ = false;
};

// Which of both takes rows of this kind.
template <int kRows, int kThreads, typename Row>
struct ChunksOf {
  using Type = CopiedChunks<kRows, kThreads>;
};
template <int kRows, int kThreads, RowKind kKind, typename Row>
struct ChunksOf<kRows, kThreads, CodedSource<kKind, Row>> {
  using Type = CodedChunks<kRows, kThreads, kKind>;
};

// Row n of a weight, and what takes rows of it.
template <RowKind kKind>
__device__ auto weight_row(const WeightView& w, int64_t n) {
  if constexpr (kKind == RowKind::kBF16) {
    return n < w.rows ? static_cast<const bf16_t*>(w.values) + n * w.stride
                      : static_cast<const bf16_t*>(nullptr);
  } else {
    return coded_row(w, n);
  }
}
template <RowKind kKind, typename Row>
__device__ auto weight_rows(const WeightView& w, const Row& row) {
  if constexpr (kKind == RowKind::kBF16) {
    return row;
  } else {
    return CodedSource<kKind, Row>{row, ScaleColumns(w)};
  }
}

}  // namespace minimax::cuda
