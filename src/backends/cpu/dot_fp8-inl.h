// Row products with e4m3 weights in F32, on every target; included once per SIMD target.
#if defined(MINIMAX_DOT_FP8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MINIMAX_DOT_FP8_INL_H_
#undef MINIMAX_DOT_FP8_INL_H_
#else
#define MINIMAX_DOT_FP8_INL_H_
#endif

#include <algorithm>

#include "backends/cpu/simd-inl.h"
#include "quant/fp8.h"

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

// Code kByte of each 32-bit lane. Brought to the top byte, an arithmetic shift leaves its sign where a float
// has it and moves exponent and mantissa to their places; the exponent is then 120 too small.
template <int kByte>
HWY_INLINE VF UnpackCode(hn::Vec<hn::RebindToSigned<DF>> codes) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const auto on_top = hn::ShiftLeft<24 - 8 * kByte>(codes);
  const auto bits = hn::And(hn::ShiftRight<4>(on_top), hn::Set(di, static_cast<int32_t>(0x87f00000U)));
  return hn::Mul(hn::BitCast(d, bits), hn::Set(d, 0x1p120F));
}

// The scales of one weight row, a vector for each 4 * lanes codes; asked for from left to right.
class BlockScales {
 public:
  BlockScales(const quant::Weight& weight, int64_t n)
      : scale_(weight.scales.row<float>(weight.scale_row(n))),
        width_(weight.block_columns),
        end_(width_ - weight.column_offset) {}

  HWY_INLINE VF At(int64_t i) {
    for (; i >= end_; end_ += width_) ++scale_;
    return hn::Set(DF(), *scale_);
  }

 private:
  const float* scale_;
  int64_t width_;
  int64_t end_;  // of the block
};

class MxScales {
 public:
  MxScales(const quant::Weight& weight, int64_t n)
      : scales_(weight.scales.row<uint8_t>(n)), last_(weight.scales.dim(1) - 1) {}

  HWY_INLINE VF At(int64_t i) const {
    const DF d;
    const int64_t first = i / quant::kMxBlock;
    const VF scale = hn::Set(d, to_float(f8e8m0{scales_[first]}));
    if (4 * LanesF32() <= quant::kMxBlock) return scale;
    const VF second = hn::Set(d, to_float(f8e8m0{scales_[std::min(first + 1, last_)]}));
    return hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(quant::kMxBlock / 4)), scale, second);
  }

 private:
  const uint8_t* scales_;
  int64_t last_;
};

// out[r * out_stride] = x[r] . weight row n, x in kQuads.
template <int kRows, typename Scales>
HWY_INLINE void DotQuads(const float* HWY_RESTRICT x, int64_t x_stride, const quant::Weight& weight,
                         int64_t n, float* out, int64_t out_stride) {
  const hn::RebindToSigned<DF> di;
  const int64_t k = weight.in_features();
  const int64_t step = 4 * LanesF32();
  const int64_t quarter = x_stride / 4;
  const auto* codes = weight.values.row<uint8_t>(n);
  Scales scales(weight, n);
  VF totals[kRows];
  for (VF& total : totals) total = hn::Zero(DF());
  const auto accumulate = [&](const uint8_t* from, int64_t i) HWY_ATTR {
    const auto bits = hn::LoadU(di, reinterpret_cast<const int32_t*>(from));
    const VF scale = scales.At(i);
    const VF w0 = UnpackCode<0>(bits);
    const VF w1 = UnpackCode<1>(bits);
    const VF w2 = UnpackCode<2>(bits);
    const VF w3 = UnpackCode<3>(bits);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const float* row = x + r * x_stride + i / 4;
      const VF low = hn::MulAdd(LoadF32(row + quarter), w1, hn::Mul(LoadF32(row), w0));
      const VF high = hn::MulAdd(LoadF32(row + 3 * quarter), w3, hn::Mul(LoadF32(row + 2 * quarter), w2));
      totals[r] = hn::MulAdd(hn::Add(low, high), scale, totals[r]);
    }
  };
  int64_t i = 0;
  for (; i + step <= k; i += step) accumulate(codes + i, i);
  if (i < k) {
    HWY_ALIGN uint8_t tail[HWY_MAX_BYTES] = {};
    std::memcpy(tail, codes + i, static_cast<size_t>(k - i));
    accumulate(tail, i);
  }
  for (int r = 0; r < kRows; ++r) out[r * out_stride] = SumOfLanes(totals[r]);
}

template <int kRows>
void DotQuadsColumns(const float* x, int64_t x_stride, const quant::Weight& weight, int64_t first,
                     int64_t columns, float* out, int64_t out_stride) {
  for (int64_t c = 0; c < columns; ++c) {
    if (weight.format == quant::WeightFormat::kMxfp8) {
      DotQuads<kRows, MxScales>(x, x_stride, weight, first + c, out + c, out_stride);
    } else {
      DotQuads<kRows, BlockScales>(x, x_stride, weight, first + c, out + c, out_stride);
    }
  }
}

// `rows` of up to 8, four at a time: their sums and the weights fit the registers.
void DotProductsQuads(const float* x, int64_t x_stride, int64_t rows, const quant::Weight& weight,
                      int64_t first, int64_t columns, float* out, int64_t out_stride) {
  switch (rows) {
    case 1:
      return DotQuadsColumns<1>(x, x_stride, weight, first, columns, out, out_stride);
    case 2:
      return DotQuadsColumns<2>(x, x_stride, weight, first, columns, out, out_stride);
    case 3:
      return DotQuadsColumns<3>(x, x_stride, weight, first, columns, out, out_stride);
    case 4:
      return DotQuadsColumns<4>(x, x_stride, weight, first, columns, out, out_stride);
    default:
      DotQuadsColumns<4>(x, x_stride, weight, first, columns, out, out_stride);
      return DotProductsQuads(x + 4 * x_stride, x_stride, rows - 4, weight, first, columns,
                              out + 4 * out_stride, out_stride);
  }
}

// out = four parts of padded / 4, of elements 0, 4, 8, ..; 1, 5, ..; and so on; zeros behind.
template <typename T>
void SplitQuads(const T* row, int64_t k, float* out, int64_t padded) {
  std::fill(out, out + padded, 0.0F);
  for (int64_t i = 0; i < k; ++i) out[(i % 4) * (padded / 4) + i / 4] = to_float(row[i]);
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#endif
