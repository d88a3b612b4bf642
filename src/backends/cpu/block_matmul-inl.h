// Small dense F32 products inside attention kernels; included once per SIMD target.
#if defined(MINIMAX_BLOCK_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MINIMAX_BLOCK_MATMUL_INL_H_
#undef MINIMAX_BLOCK_MATMUL_INL_H_
#else
#define MINIMAX_BLOCK_MATMUL_INL_H_
#endif

#include "backends/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

// Element (i, k) of the left operand is data[i * row + k * column].
struct LeftOperand {
  const float* data;
  int64_t row;
  int64_t column;
};

template <int kRows, int kVectors>
HWY_INLINE void BlockTile(LeftOperand a, const float* HWY_RESTRICT b, int64_t ldb, int64_t k,
                          float* HWY_RESTRICT c, int64_t ldc) {
  const int64_t lanes = LanesF32();
  VF sums[kRows][kVectors];
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::LoadU(DF(), c + r * ldc + v * lanes);
  }
  for (int64_t i = 0; i < k; ++i) {
    VF columns[kVectors];
    HWY_UNROLL(16)
    for (int v = 0; v < kVectors; ++v) columns[v] = hn::LoadU(DF(), b + i * ldb + v * lanes);
    HWY_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      const VF left = hn::Set(DF(), a.data[r * a.row + i * a.column]);
      HWY_UNROLL(16)
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(left, columns[v], sums[r][v]);
    }
  }
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(16)
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[r][v], DF(), c + r * ldc + v * lanes);
  }
}

// Vectors of a register tile: 4 x 4 sums fit 32 registers, 4 x 2 fit 16.
constexpr int kWideVectors = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON ? 4 : 2;

template <int kRows>
HWY_INLINE void BlockRows(LeftOperand a, const float* b, int64_t ldb, int64_t n, int64_t k, float* c,
                          int64_t ldc) {
  const int64_t lanes = LanesF32();
  int64_t j = 0;
  for (; j + kWideVectors * lanes <= n; j += kWideVectors * lanes) {
    BlockTile<kRows, kWideVectors>(a, b + j, ldb, k, c + j, ldc);
  }
  for (; j < n; j += lanes) BlockTile<kRows, 1>(a, b + j, ldb, k, c + j, ldc);
}

// c[m, n] += a[m, k] b[k, n]. REQUIRES: n a multiple of the lanes.
inline void BlockMultiplyAdd(LeftOperand a, const float* b, int64_t ldb, int64_t m, int64_t n, int64_t k,
                             float* c, int64_t ldc) {
  int64_t i = 0;
  if (n == LanesF32()) {
    // One vector wide, as in decode: only more rows at once hide the latency of the multiply-adds.
    constexpr int kRows = 4 * kWideVectors;
    for (; i + kRows <= m; i += kRows) {
      BlockTile<kRows, 1>({a.data + i * a.row, a.row, a.column}, b, ldb, k, c + i * ldc, ldc);
    }
  }
  for (; i + 4 <= m; i += 4)
    BlockRows<4>({a.data + i * a.row, a.row, a.column}, b, ldb, n, k, c + i * ldc, ldc);
  for (; i < m; ++i) BlockRows<1>({a.data + i * a.row, a.row, a.column}, b, ldb, n, k, c + i * ldc, ldc);
}

// Converts a row of `n` elements to F32 and pads it with zeros to `padded`.
template <typename T>
HWY_INLINE void UnpackPadded(const T* row, int64_t n, int64_t padded, float* out) {
  ForVectors(n, [&](auto load, auto store) HWY_ATTR { store(load(row), out); });
  std::fill(out + n, out + padded, 0.0F);
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#endif
