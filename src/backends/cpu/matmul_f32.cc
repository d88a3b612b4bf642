// F32 kernels on every SIMD target: row products for decode, packed products, and the unpacking of BF16.
#include <fmt/ranges.h>

#include <algorithm>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/matmul_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/matmul_f32.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "backends/cpu/simd-inl.h"
#include "hwy/cache_control.h"
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

// out[m] = x[m] . w over k elements, for kColumns consecutive rows of W and kRows rows of x.
template <int kRows, int kColumns, typename TW>
HWY_INLINE void DotColumns(const float* HWY_RESTRICT x, int64_t x_stride, const TW* HWY_RESTRICT w,
                           int64_t w_stride, int64_t k, float* out, int64_t out_stride) {
  const int64_t lanes = LanesF32();
  VF sums[kRows][kColumns];
  for (auto& row : sums) {
    for (VF& sum : row) sum = hn::Zero(DF());
  }
  int64_t i = 0;
  for (; i + lanes <= k; i += lanes) {
    VF columns[kColumns];
    HWY_UNROLL(12)
    for (int c = 0; c < kColumns; ++c) columns[c] = LoadF32(w + c * w_stride + i);
    HWY_UNROLL(12)
    for (int r = 0; r < kRows; ++r) {
      const VF row = LoadF32(x + r * x_stride + i);
      HWY_UNROLL(12)
      for (int c = 0; c < kColumns; ++c) sums[r][c] = hn::MulAdd(row, columns[c], sums[r][c]);
    }
  }
  if (const int64_t rest = k - i; rest > 0) {
    for (int c = 0; c < kColumns; ++c) {
      const VF column = LoadTail(w + c * w_stride + i, rest);
      for (int r = 0; r < kRows; ++r)
        sums[r][c] = hn::MulAdd(LoadF32(x + r * x_stride + i), column, sums[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) out[r * out_stride + c] = SumOfLanes(sums[r][c]);
  }
}

// One row of x: the weight is read in memory order, as the prefetchers like it, with explicit prefetches that
// run ahead across the ends of rows.
template <typename TW>
HWY_INLINE float DotColumn(const float* HWY_RESTRICT x, const TW* HWY_RESTRICT w, int64_t k) {
  constexpr int64_t kAheadBytes = 4096;
  const int64_t lanes = LanesF32();
  VF sums[4];
  for (VF& sum : sums) sum = hn::Zero(DF());
  int64_t i = 0;
  for (; i + 4 * lanes <= k; i += 4 * lanes) {
    for (int64_t offset = 0; offset < 4 * lanes * static_cast<int64_t>(sizeof(TW)); offset += 64) {
      hwy::Prefetch(reinterpret_cast<const std::byte*>(w + i) + kAheadBytes + offset);
    }
    HWY_UNROLL(4)
    for (int u = 0; u < 4; ++u) {
      sums[u] = hn::MulAdd(LoadF32(x + i + u * lanes), LoadF32(w + i + u * lanes), sums[u]);
    }
  }
  for (; i + lanes <= k; i += lanes) sums[0] = hn::MulAdd(LoadF32(x + i), LoadF32(w + i), sums[0]);
  if (const int64_t rest = k - i; rest > 0) {
    sums[1] = hn::MulAdd(LoadF32(x + i), LoadTail(w + i, rest), sums[1]);
  }
  return SumOfLanes(hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3])));
}

template <int kRows, typename TW>
void DotRows(const float* x, int64_t x_stride, const TW* w, int64_t w_stride, int64_t k, int64_t columns,
             float* out, int64_t out_stride) {
  if constexpr (kRows == 1) {
    for (int64_t c = 0; c < columns; ++c) out[c] = DotColumn(x, w + c * w_stride, k);
    return;
  }
  constexpr int kColumns = 2;
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
  }
}

void UnpackRow(const void* row, DType dtype, int64_t k, float* out, int64_t padded) {
  if (dtype == DType::kBF16) {
    const auto* x = static_cast<const bf16*>(row);
    ForVectors(k, [&](auto load, auto store) HWY_ATTR { store(load(x), out); });
  } else {
    std::memcpy(out, row, static_cast<size_t>(k) * sizeof(float));
  }
  std::fill(out + k, out + padded, 0.0F);
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
  Interleave(columns, PanelColumns(), weight.in_features(), static_cast<float*>(panel),
             [&](int64_t c, auto copy) {
               if (weight.format == quant::WeightFormat::kBF16) {
                 copy(weight.values.row<bf16>(first + c));
               } else {
                 copy(weight.values.row<float>(first + c));
               }
             });
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

// Applies the output's activation to a [rows, columns] block of F32 results and stores it.
template <typename T>
void StoreBlock(const float* gate, const float* up, int64_t ld, int64_t rows, int64_t columns,
                const ProductOutput& output, int64_t first_row, int64_t first_column) {
  const VF one = hn::Set(DF(), 1.0F);
  for (int64_t r = 0; r < rows; ++r) {
    auto* out = reinterpret_cast<T*>(output.data + (first_row + r) * output.stride_bytes) + first_column;
    const float* z = gate + r * ld;
    const float* u = up + r * ld;
    ForVectors(columns, [&](auto load, auto store) HWY_ATTR {
      VF v = load(z);
      if (output.silu || output.gated) v = hn::Div(v, hn::Add(one, hn::Exp(DF(), hn::Neg(v))));
      if (output.gated) v = hn::Mul(v, load(u));
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

HWY_EXPORT(DotProducts);
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

void unpack_row(const void* row, DType dtype, int64_t k, float* out, int64_t padded) {
  HWY_DYNAMIC_DISPATCH(UnpackRow)(row, dtype, k, out, padded);
}

void store_block(const float* gate, const float* up, int64_t ld, int64_t rows, int64_t columns,
                 const ProductOutput& output, int64_t first_row, int64_t first_column) {
  HWY_DYNAMIC_DISPATCH(StoreBlockAny)(gate, up, ld, rows, columns, output, first_row, first_column);
}

double read_bytes(const void* data, int64_t bytes) { return HWY_DYNAMIC_DISPATCH(ReadBytes)(data, bytes); }

const PackedKernel& f32_kernel() { return HWY_DYNAMIC_DISPATCH(F32Kernel)(); }

}  // namespace minimax::cpu
#endif
