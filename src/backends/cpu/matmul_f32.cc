// F32 kernels on every SIMD target: row products for decode, packed products, and the unpacking of BF16.
#include <fmt/ranges.h>

#include <algorithm>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/matmul_kernels.h"
#include "hwy/cache_control.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/matmul_f32.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "backends/cpu/dot_fp8-inl.h"
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/weight_decode-inl.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

// Register tile: kMr rows by two vectors. 32 registers hold 12 x 2 sums, 16 hold 6 x 2.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kMr = 12;
#else
constexpr int kMr = 6;
#endif

int64_t PanelColumns() { return 2 * LanesF32(); }

// A vector of BF16 pairs holds its even elements in the low halves and its odd ones in the high halves of
// 32-bit lanes: a shift and a mask unpack both exactly, at half the instructions of widening. Rows of x are
// laid out to match (RowLayout::kPairs).
struct Pair {
  VF even;
  VF odd;
};

HWY_INLINE Pair UnpackPair(const bf16* p) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const auto bits = hn::LoadU(du, reinterpret_cast<const uint32_t*>(p));
  return {hn::BitCast(d, hn::ShiftLeft<16>(bits)), hn::BitCast(d, hn::And(bits, hn::Set(du, 0xffff0000U)))};
}
HWY_INLINE Pair UnpackPair(const float* p) { return {LoadF32(p), LoadF32(p + LanesF32())}; }

// Where the second vector of a pair stands in x: BF16 weights meet x as [even elements | odd elements], F32
// weights in order.
template <typename TW>
HWY_INLINE Pair LoadX(const float* x, int64_t i, int64_t half) {
  if constexpr (sizeof(TW) == sizeof(bf16)) return {LoadF32(x + i / 2), LoadF32(x + half + i / 2)};
  return {LoadF32(x + i), LoadF32(x + i + LanesF32())};
}

// out[m] = x[m] . w over k elements, for kColumns consecutive rows of W and kRows rows of x.
template <int kRows, int kColumns, typename TW>
HWY_INLINE void DotColumns(const float* HWY_RESTRICT x, int64_t x_stride, const TW* HWY_RESTRICT w,
                           int64_t w_stride, int64_t k, float* out, int64_t out_stride) {
  // Even and odd parts have sums of their own where there are registers for it: more independent chains.
  constexpr int kParts = kRows * kColumns <= 4 ? 2 : 1;
  const int64_t step = 2 * LanesF32();
  const int64_t half = x_stride / 2;
  VF sums[kParts][kRows][kColumns];
  for (auto& part : sums) {
    for (auto& row : part) {
      for (VF& sum : row) sum = hn::Zero(DF());
    }
  }
  const auto accumulate = [&](const TW* columns, int64_t stride, int64_t i) HWY_ATTR {
    Pair pairs[kColumns];
    HWY_UNROLL(2)
    for (int c = 0; c < kColumns; ++c) pairs[c] = UnpackPair(columns + c * stride);
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const Pair row = LoadX<TW>(x + r * x_stride, i, half);
      HWY_UNROLL(2)
      for (int c = 0; c < kColumns; ++c) {
        sums[0][r][c] = hn::MulAdd(row.even, pairs[c].even, sums[0][r][c]);
        sums[kParts - 1][r][c] = hn::MulAdd(row.odd, pairs[c].odd, sums[kParts - 1][r][c]);
      }
    }
  };
  int64_t i = 0;
  for (; i + step <= k; i += step) {
    if constexpr (kColumns > 1) {
      // Streams a row apart confuse the hardware's prefetchers: the next rows are asked for in memory order.
      for (int c = 0; c < kColumns; ++c) hwy::Prefetch(w + kColumns * w_stride + kColumns * i + c * step);
    }
    accumulate(w + i, w_stride, i);
  }
  if (const int64_t rest = k - i; rest > 0) {
    constexpr int64_t kTail = 2 * HWY_MAX_BYTES / sizeof(float);
    HWY_ALIGN TW tail[kColumns * kTail] = {};
    for (int c = 0; c < kColumns; ++c) {
      std::memcpy(tail + c * kTail, w + c * w_stride + i, static_cast<size_t>(rest) * sizeof(TW));
    }
    accumulate(tail, kTail, i);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      const VF sum = kParts == 2 ? hn::Add(sums[0][r][c], sums[kParts - 1][r][c]) : sums[0][r][c];
      out[r * out_stride + c] = SumOfLanes(sum);
    }
  }
}

template <int kRows, typename TW>
void DotRows(const float* x, int64_t x_stride, const TW* w, int64_t w_stride, int64_t k, int64_t columns,
             float* out, int64_t out_stride) {
  // One row of x: the weight is read strictly in memory order, which the hardware's prefetchers like best;
  // software prefetches only cost. More rows: two columns share the loads of x.
  constexpr int kColumns = kRows == 1 ? 1 : 2;
  int64_t c = 0;
  for (; c + kColumns <= columns; c += kColumns) {
    DotColumns<kRows, kColumns>(x, x_stride, w + c * w_stride, w_stride, k, out + c, out_stride);
  }
  for (; c < columns; ++c)
    DotColumns<kRows, 1>(x, x_stride, w + c * w_stride, w_stride, k, out + c, out_stride);
}

template <typename TW>
void DotRowsAny(const float* x, int64_t x_stride, int64_t rows, const TW* w, int64_t w_stride, int64_t k,
                int64_t columns, float* out, int64_t out_stride) {
  switch (rows) {
    case 1:
      return DotRows<1>(x, x_stride, w, w_stride, k, columns, out, out_stride);
    case 2:
      return DotRows<2>(x, x_stride, w, w_stride, k, columns, out, out_stride);
    case 3:
      return DotRows<3>(x, x_stride, w, w_stride, k, columns, out, out_stride);
    case 4:
      return DotRows<4>(x, x_stride, w, w_stride, k, columns, out, out_stride);
    case 5:
      return DotRows<5>(x, x_stride, w, w_stride, k, columns, out, out_stride);
    case 6:
      return DotRows<6>(x, x_stride, w, w_stride, k, columns, out, out_stride);
    case 7:
      return DotRows<7>(x, x_stride, w, w_stride, k, columns, out, out_stride);
    default:
      return DotRows<8>(x, x_stride, w, w_stride, k, columns, out, out_stride);
  }
}

// Weights that are decoded first, a stretch that stays in the nearest cache at a time.
void DotDecoded(const float* x, int64_t x_stride, int64_t rows, const quant::Weight& weight, int64_t first,
                int64_t columns, float* out, int64_t out_stride) {
  constexpr int64_t kStretch = 512;
  HWY_ALIGN float decoded[kStretch];
  float sums[kMaxDotRows];
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) out[r * out_stride + c] = 0;
    for (int64_t i = 0; i < weight.in_features(); i += kStretch) {
      const int64_t count = std::min(kStretch, weight.in_features() - i);
      DecodeWeight(weight, first + c, i, count, decoded);
      DotRowsAny(x + i, x_stride, rows, decoded, kStretch, count, 1, sums, 1);
      for (int64_t r = 0; r < rows; ++r) out[r * out_stride + c] += sums[r];
    }
  }
}

void DotProducts(const float* x, int64_t x_stride, int64_t rows, const quant::Weight& weight, int64_t first,
                 int64_t columns, float* out, int64_t out_stride) {
  const int64_t k = weight.in_features();
  const int64_t stride = weight.values.stride(0);
  switch (weight.format) {
    case quant::WeightFormat::kBF16:
      return DotRowsAny(x, x_stride, rows, weight.values.row<bf16>(first), stride, k, columns, out,
                        out_stride);
    case quant::WeightFormat::kF32:
      return DotRowsAny(x, x_stride, rows, weight.values.row<float>(first), stride, k, columns, out,
                        out_stride);
    default:
      return DotDecoded(x, x_stride, rows, weight, first, columns, out, out_stride);
  }
}

// out = [even elements | odd elements], each part padded / 2 long.
template <typename T>
void SplitPairs(const T* row, int64_t k, float* out, int64_t padded) {
  const int64_t half = padded / 2;
  const int64_t lanes = LanesF32();
  int64_t i = 0;
  for (; i + 2 * lanes <= k; i += 2 * lanes) {
    Pair pair;
    if constexpr (sizeof(T) == sizeof(bf16)) {
      pair = UnpackPair(row + i);
    } else {
      hn::LoadInterleaved2(DF(), row + i, pair.even, pair.odd);
    }
    hn::StoreU(pair.even, DF(), out + i / 2);
    hn::StoreU(pair.odd, DF(), out + half + i / 2);
  }
  std::fill(out + i / 2, out + half, 0.0F);
  std::fill(out + half + i / 2, out + padded, 0.0F);
  for (; i < k; ++i) out[i / 2 + (i % 2) * half] = to_float(row[i]);
}

template <typename T>
void LayOutRow(const T* row, int64_t k, RowLayout layout, float* out, int64_t padded) {
  if (layout == RowLayout::kPairs) return SplitPairs(row, k, out, padded);
  if (layout == RowLayout::kQuads) return SplitQuads(row, k, out, padded);
  ForVectors(k, [&](auto load, auto store) HWY_ATTR { store(load(row), out); });
  std::fill(out + k, out + padded, 0.0F);
}

void UnpackRow(const void* row, DType dtype, int64_t k, RowLayout layout, float* out, int64_t padded) {
  if (dtype == DType::kBF16) {
    LayOutRow(static_cast<const bf16*>(row), k, layout, out, padded);
  } else {
    LayOutRow(static_cast<const float*>(row), k, layout, out, padded);
  }
}

// Interleaves `count` rows into columns of `width`: out[i * width + r] = row r [i].
template <typename Row>
void Interleave(int64_t count, int64_t width, int64_t k, float* out, const Row& row) {
  for (int64_t r = 0; r < count; ++r) {
    row(r, [&](const auto* source) {
      for (int64_t i = 0; i < k; ++i) out[i * width + r] = to_float(source[i]);
    });
  }
  for (int64_t r = count; r < width; ++r) {
    for (int64_t i = 0; i < k; ++i) out[i * width + r] = 0.0F;
  }
}

void PackTile(const RowView& x, int64_t first, int64_t rows, int64_t k, void* tile) {
  Interleave(rows, kMr, k, static_cast<float*>(tile), [&](int64_t r, auto copy) {
    if (x.dtype == DType::kBF16) {
      copy(reinterpret_cast<const bf16*>(x.row(first + r)));
    } else {
      copy(reinterpret_cast<const float*>(x.row(first + r)));
    }
  });
}

void PackPanel(const quant::Weight& weight, int64_t first, int64_t columns, void* panel) {
  constexpr int64_t kStretch = 512;
  HWY_ALIGN float decoded[kStretch];
  for (int64_t i = 0; i < weight.in_features(); i += kStretch) {
    const int64_t count = std::min(kStretch, weight.in_features() - i);
    Interleave(columns, PanelColumns(), count, static_cast<float*>(panel) + i * PanelColumns(),
               [&](int64_t c, auto copy) {
                 DecodeWeight(weight, first + c, i, count, decoded);
                 copy(decoded);
               });
  }
}

template <int kRows>
void MultiplyRows(const float* HWY_RESTRICT tile, const float* HWY_RESTRICT panel, int64_t k,
                  float* HWY_RESTRICT out) {
  const int64_t lanes = LanesF32();
  VF sums[kRows][2];
  for (auto& row : sums) row[0] = row[1] = hn::Zero(DF());
  for (int64_t i = 0; i < k; ++i) {
    const VF b0 = hn::LoadU(DF(), panel + i * 2 * lanes);
    const VF b1 = hn::LoadU(DF(), panel + i * 2 * lanes + lanes);
    HWY_UNROLL(12)
    for (int r = 0; r < kRows; ++r) {
      const VF a = hn::Set(DF(), tile[i * kMr + r]);
      sums[r][0] = hn::MulAdd(a, b0, sums[r][0]);
      sums[r][1] = hn::MulAdd(a, b1, sums[r][1]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    hn::StoreU(sums[r][0], DF(), out + r * 2 * lanes);
    hn::StoreU(sums[r][1], DF(), out + r * 2 * lanes + lanes);
  }
}

void Multiply(const void* tile, const void* panel, int64_t k, int64_t rows, float* out) {
  const auto* a = static_cast<const float*>(tile);
  const auto* b = static_cast<const float*>(panel);
  if (rows > 2 * kMr / 3) return MultiplyRows<kMr>(a, b, k, out);
  if (rows > kMr / 3) return MultiplyRows<2 * kMr / 3>(a, b, k, out);
  MultiplyRows<kMr / 3>(a, b, k, out);
}

double MultiplyChain(int64_t iterations) {
  constexpr int kChains = 2 * kMr;
  const VF a = hn::Set(DF(), 0.5F);
  VF sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = hn::Set(DF(), static_cast<float>(i));
  for (int64_t n = 0; n < iterations; ++n) {
    HWY_UNROLL(24)
    for (int i = 0; i < kChains; ++i) sums[i] = hn::MulAdd(sums[i], a, a);
  }
  VF total = hn::Zero(DF());
  for (const VF& sum : sums) total = hn::Add(total, sum);
  // The sum is folded in so that the chain cannot be optimised away; it is about kChains in all.
  const double operations = 2.0 * static_cast<double>(iterations * kChains * LanesF32());
  return operations + 1e-30 * static_cast<double>(SumOfLanes(total));
}

// NaN stays NaN, which Min and Max do not promise.
HWY_INLINE VF AtMost(VF x, VF limit) { return hn::IfThenElse(hn::Gt(x, limit), limit, x); }

// (u + offset) * g * sigmoid(alpha * g) of the clamped g and u.
HWY_INLINE VF Gated(const ops::Swiglu& swiglu, VF gate, VF up) {
  const DF d;
  const VF limit = hn::Set(d, swiglu.limit);
  const VF g = AtMost(gate, limit);
  const VF u = hn::Neg(AtMost(hn::Neg(AtMost(up, limit)), limit));
  const VF exponential = hn::Exp(d, hn::Neg(hn::Mul(hn::Set(d, swiglu.alpha), g)));
  const VF silu = hn::Div(g, hn::Add(hn::Set(d, 1.0F), exponential));
  return hn::Mul(silu, hn::Add(u, hn::Set(d, swiglu.up_offset)));
}

// Applies the output's activation to a [rows, columns] block of F32 results and stores it.
template <typename T>
void StoreBlock(const float* gate, const float* up, int64_t ld, int64_t rows, int64_t columns,
                const ProductOutput& output, int64_t first_row, int64_t first_column) {
  const VF one = hn::Set(DF(), 1.0F);
  for (int64_t r = 0; r < rows; ++r) {
    auto* out = reinterpret_cast<T*>(output.data + (first_row + r) * output.stride_bytes) + first_column;
    const T* addend = nullptr;
    if (output.addend != nullptr) {
      addend = reinterpret_cast<const T*>(output.addend + (first_row + r) * output.addend_stride_bytes) +
               first_column;
    }
    const float* z = gate + r * ld;
    const float* u = up + r * ld;
    ForVectors(columns, [&](auto load, auto store) HWY_ATTR {
      VF v = load(z);
      if (output.silu) v = hn::Div(v, hn::Add(one, hn::Exp(DF(), hn::Neg(v))));
      if (output.gated) v = Gated(output.swiglu, v, load(u));
      if (output.addend != nullptr) v = hn::Add(v, load(addend));
      store(v, out);
    });
  }
}

void StoreBlockAny(const float* gate, const float* up, int64_t ld, int64_t rows, int64_t columns,
                   const ProductOutput& output, int64_t first_row, int64_t first_column) {
  if (output.dtype == DType::kBF16) {
    StoreBlock<bf16>(gate, up, ld, rows, columns, output, first_row, first_column);
  } else {
    StoreBlock<float>(gate, up, ld, rows, columns, output, first_row, first_column);
  }
}

double ReadBytes(const void* data, int64_t bytes) {
  const DF d;
  const auto* p = static_cast<const float*>(data);
  const int64_t lanes = LanesF32();
  const hn::RebindToUnsigned<DF> du;
  auto a = hn::Zero(du);
  auto b = a;
  auto c = a;
  auto e = a;
  const int64_t count = bytes / static_cast<int64_t>(sizeof(float));
  for (int64_t i = 0; i + 4 * lanes <= count; i += 4 * lanes) {
    a = hn::Xor(a, hn::BitCast(du, hn::LoadU(d, p + i)));
    b = hn::Xor(b, hn::BitCast(du, hn::LoadU(d, p + i + lanes)));
    c = hn::Xor(c, hn::BitCast(du, hn::LoadU(d, p + i + 2 * lanes)));
    e = hn::Xor(e, hn::BitCast(du, hn::LoadU(d, p + i + 3 * lanes)));
  }
  const auto all = hn::Xor(hn::Xor(a, b), hn::Xor(c, e));
  return 1e-30 * static_cast<double>(hn::GetLane(all)) + static_cast<double>(bytes);
}

const char* TargetName() { return hwy::TargetName(HWY_TARGET); }

const PackedKernel& F32Kernel() {
  static const PackedKernel kernel = {"f32",     kMr,        2 * LanesF32(), sizeof(float), 1,
                                      &PackTile, &PackPanel, &Multiply,      &MultiplyChain};
  return kernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace minimax::cpu {
namespace {

HWY_EXPORT(DecodeWeight);
HWY_EXPORT(DotProducts);
HWY_EXPORT(DotProductsQuads);
HWY_EXPORT(UnpackRow);
HWY_EXPORT(StoreBlockAny);
HWY_EXPORT(ReadBytes);
HWY_EXPORT(TargetName);
HWY_EXPORT(F32Kernel);

}  // namespace

std::vector<std::string> simd_targets() {
  std::vector<std::string> names;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets())
    names.emplace_back(hwy::TargetName(target));
  return names;
}

void select_simd_target(std::string_view name) {
  hwy::SetSupportedTargetsForTest(0);
  if (name != "auto") {
    const auto targets = hwy::SupportedAndGeneratedTargets();
    const auto chosen = std::find_if(targets.begin(), targets.end(),
                                     [name](int64_t target) { return hwy::TargetName(target) == name; });
    if (chosen == targets.end())
      fail("this machine has no SIMD target {}; it has {}", name, fmt::join(simd_targets(), ", "));
    hwy::SetSupportedTargetsForTest(*chosen);
  }
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

const char* simd_target_name() { return HWY_DYNAMIC_DISPATCH(TargetName)(); }

void dot_products(const float* x, int64_t x_stride, int64_t rows, const quant::Weight& weight, int64_t first,
                  int64_t columns, float* out, int64_t out_stride) {
  HWY_DYNAMIC_DISPATCH(DotProducts)(x, x_stride, rows, weight, first, columns, out, out_stride);
}

void decode_weight(const quant::Weight& weight, int64_t row, int64_t first, int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(DecodeWeight)(weight, row, first, count, out);
}

void dot_products_quads(const float* x, int64_t x_stride, int64_t rows, const quant::Weight& weight,
                        int64_t first, int64_t columns, float* out, int64_t out_stride) {
  HWY_DYNAMIC_DISPATCH(DotProductsQuads)(x, x_stride, rows, weight, first, columns, out, out_stride);
}

void unpack_row(const void* row, DType dtype, int64_t k, RowLayout layout, float* out, int64_t padded) {
  HWY_DYNAMIC_DISPATCH(UnpackRow)(row, dtype, k, layout, out, padded);
}

void store_block(const float* gate, const float* up, int64_t ld, int64_t rows, int64_t columns,
                 const ProductOutput& output, int64_t first_row, int64_t first_column) {
  HWY_DYNAMIC_DISPATCH(StoreBlockAny)(gate, up, ld, rows, columns, output, first_row, first_column);
}

double read_bytes(const void* data, int64_t bytes) { return HWY_DYNAMIC_DISPATCH(ReadBytes)(data, bytes); }

const PackedKernel& f32_kernel() { return HWY_DYNAMIC_DISPATCH(F32Kernel)(); }

}  // namespace minimax::cpu
#endif
