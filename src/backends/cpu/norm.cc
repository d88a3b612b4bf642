// RMSNorm, the DeepNorm residual with its norm, and the gated output norm.
#include <cmath>

#include "backends/cpu/cpu_ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/norm.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "backends/cpu/simd-inl.h"
#include "hwy/contrib/math/math-inl.h"

#ifndef MINIMAX_NORM_COMMON_
#define MINIMAX_NORM_COMMON_
namespace minimax::cpu {
struct NormParams {
  float eps;
  float weight_offset;
};
struct GatedNorm {
  float eps;
  int64_t width;         // of the norm
  const float* squares;  // their sum over that width; null: of the row
};
}  // namespace minimax::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

float RsqrtMean(VF sum_of_squares, int64_t n, float eps) {
  return 1.0F / std::sqrt(SumOfLanes(sum_of_squares) / static_cast<float>(n) + eps);
}

template <typename TX, typename TW, typename TO>
void RmsNormRow(const TX* x, const TW* weight, NormParams norm, TO* out, int64_t n) {
  VF squares = hn::Zero(DF());
  ForVectors(n, [&](auto load, auto) HWY_ATTR {
    const VF v = load(x);
    squares = hn::MulAdd(v, v, squares);
  });
  const VF scale = hn::Set(DF(), RsqrtMean(squares, n, norm.eps));
  const VF offset = hn::Set(DF(), norm.weight_offset);
  ForVectors(n, [&](auto load, auto store) HWY_ATTR {
    store(hn::Mul(hn::Mul(load(x), scale), hn::Add(offset, load(weight))), out);
  });
}

template <typename T, typename TW>
void ResidualRmsNormRow(const T* residual, const T* branch, float alpha, float beta, const TW* weight,
                        NormParams norm, T* sum, T* out, int64_t n) {
  const VF a = hn::Set(DF(), alpha);
  const VF b = hn::Set(DF(), beta);
  VF squares = hn::Zero(DF());
  ForVectors(n, [&](auto load, auto) HWY_ATTR {
    const VF v = hn::MulAdd(a, load(residual), hn::Mul(b, load(branch)));
    squares = hn::MulAdd(v, v, squares);
  });
  const VF scale = hn::Set(DF(), RsqrtMean(squares, n, norm.eps));
  const VF offset = hn::Set(DF(), norm.weight_offset);
  // The sum is formed again rather than kept: `sum` may be absent, and `out` may be either input.
  ForVectors(n, [&](auto load, auto store) HWY_ATTR {
    const VF v = hn::MulAdd(a, load(residual), hn::Mul(b, load(branch)));
    if (sum != nullptr) store(v, sum);
    store(hn::Mul(hn::Mul(v, scale), hn::Add(offset, load(weight))), out);
  });
}

template <typename T>
float SumOfSquares(const T* x, int64_t n) {
  VF squares = hn::Zero(DF());
  ForVectors(n, [&](auto load, auto) HWY_ATTR {
    const VF v = load(x);
    squares = hn::MulAdd(v, v, squares);
  });
  return SumOfLanes(squares);
}

float SumOfSquaresAny(DType dtype, const void* x, int64_t n) {
  return dtype == DType::kBF16 ? SumOfSquares(static_cast<const bf16*>(x), n)
                               : SumOfSquares(static_cast<const float*>(x), n);
}

template <typename T, typename TW>
void GatedRmsNormRow(const T* x, const T* gate, const TW* weight, GatedNorm norm, T* out, int64_t n) {
  const float sum = norm.squares != nullptr ? *norm.squares : SumOfSquares(x, n);
  const VF scale = hn::Set(DF(), 1.0F / std::sqrt(sum / static_cast<float>(norm.width) + norm.eps));
  const VF one = hn::Set(DF(), 1.0F);
  ForVectors(n, [&](auto load, auto store) HWY_ATTR {
    const VF normed = hn::Mul(hn::Mul(load(x), scale), load(weight));
    const VF sigmoid = hn::Div(one, hn::Add(one, hn::Exp(DF(), hn::Neg(load(gate)))));
    store(hn::Mul(normed, sigmoid), out);
  });
}

// `types` picks the instantiation: bit 0 activation is BF16, bit 1 weight is BF16, bit 2 output is BF16.
template <typename TW>
void RmsNormPick(int types, const void* x, const TW* weight, NormParams norm, void* out, int64_t n) {
  const auto* xf = static_cast<const float*>(x);
  const auto* xb = static_cast<const bf16*>(x);
  if ((types & 4) != 0) {
    auto* o = static_cast<bf16*>(out);
    (types & 1) != 0 ? RmsNormRow(xb, weight, norm, o, n) : RmsNormRow(xf, weight, norm, o, n);
  } else {
    auto* o = static_cast<float*>(out);
    (types & 1) != 0 ? RmsNormRow(xb, weight, norm, o, n) : RmsNormRow(xf, weight, norm, o, n);
  }
}

void RmsNormAny(int types, const void* x, const void* weight, NormParams norm, void* out, int64_t n) {
  if ((types & 2) != 0) {
    RmsNormPick(types, x, static_cast<const bf16*>(weight), norm, out, n);
  } else {
    RmsNormPick(types, x, static_cast<const float*>(weight), norm, out, n);
  }
}

template <typename T>
void ResidualPick(int types, const T* residual, const T* branch, float alpha, float beta, const void* weight,
                  NormParams norm, T* sum, T* out, int64_t n) {
  if ((types & 2) != 0) {
    ResidualRmsNormRow(residual, branch, alpha, beta, static_cast<const bf16*>(weight), norm, sum, out, n);
  } else {
    ResidualRmsNormRow(residual, branch, alpha, beta, static_cast<const float*>(weight), norm, sum, out, n);
  }
}

void ResidualRmsNormAny(int types, const void* residual, const void* branch, float alpha, float beta,
                        const void* weight, NormParams norm, void* sum, void* out, int64_t n) {
  if ((types & 1) != 0) {
    ResidualPick(types, static_cast<const bf16*>(residual), static_cast<const bf16*>(branch), alpha, beta,
                 weight, norm, static_cast<bf16*>(sum), static_cast<bf16*>(out), n);
  } else {
    ResidualPick(types, static_cast<const float*>(residual), static_cast<const float*>(branch), alpha, beta,
                 weight, norm, static_cast<float*>(sum), static_cast<float*>(out), n);
  }
}

template <typename T>
void GatedPick(int types, const T* x, const T* gate, const void* weight, GatedNorm norm, T* out, int64_t n) {
  if ((types & 2) != 0) {
    GatedRmsNormRow(x, gate, static_cast<const bf16*>(weight), norm, out, n);
  } else {
    GatedRmsNormRow(x, gate, static_cast<const float*>(weight), norm, out, n);
  }
}

void GatedRmsNormAny(int types, const void* x, const void* gate, const void* weight, GatedNorm norm,
                     void* out, int64_t n) {
  if ((types & 1) != 0) {
    GatedPick(types, static_cast<const bf16*>(x), static_cast<const bf16*>(gate), weight, norm,
              static_cast<bf16*>(out), n);
  } else {
    GatedPick(types, static_cast<const float*>(x), static_cast<const float*>(gate), weight, norm,
              static_cast<float*>(out), n);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace minimax::cpu {
namespace {

HWY_EXPORT(RmsNormAny);
HWY_EXPORT(ResidualRmsNormAny);
HWY_EXPORT(SumOfSquaresAny);
HWY_EXPORT(GatedRmsNormAny);

int type_bits(DType activation, DType weight, DType out) {
  return (activation == DType::kBF16 ? 1 : 0) | (weight == DType::kBF16 ? 2 : 0) |
         (out == DType::kBF16 ? 4 : 0);
}

void* row_of(const Tensor& t, int64_t row) {
  return static_cast<std::byte*>(t.raw()) + row * t.stride(0) * size_of(t.dtype());
}

}  // namespace

void CpuBackend::run(const ops::RmsNorm& args, ops::Workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(RmsNormAny);
  const int types = type_bits(args.x.dtype(), args.weight.dtype(), args.out.dtype());
  for_rows(args.x.dim(0), args.x.dim(1), [&](int64_t t) {
    kernel(types, row_of(args.x, t), args.weight.raw(), {args.eps, args.weight_offset}, row_of(args.out, t),
           args.x.dim(1));
  });
}

void CpuBackend::run(const ops::ResidualRmsNorm& args, ops::Workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(ResidualRmsNormAny);
  const int types = type_bits(args.residual.dtype(), args.weight.dtype(), args.out.dtype());
  for_rows(args.residual.dim(0), args.residual.dim(1), [&](int64_t t) {
    kernel(types, row_of(args.residual, t), row_of(args.branch, t), args.alpha, args.beta, args.weight.raw(),
           {args.eps, args.weight_offset}, args.sum.defined() ? row_of(args.sum, t) : nullptr,
           row_of(args.out, t), args.residual.dim(1));
  });
}

void CpuBackend::run(const ops::SumOfSquares& args, ops::Workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(SumOfSquaresAny);
  for_rows(args.x.dim(0), args.x.dim(1), [&](int64_t t) {
    *args.out.row<float>(t) = kernel(args.x.dtype(), row_of(args.x, t), args.x.dim(1));
  });
}

void CpuBackend::run(const ops::GatedRmsNorm& args, ops::Workspace) {
  const auto kernel = HWY_DYNAMIC_DISPATCH(GatedRmsNormAny);
  const int types = type_bits(args.x.dtype(), args.weight.dtype(), args.out.dtype());
  const bool is_part = args.squares.defined();
  for_rows(args.x.dim(0), args.x.dim(1), [&](int64_t t) {
    const GatedNorm norm{args.eps, is_part ? args.norm_width : args.x.dim(1),
                         is_part ? args.squares.row<float>(t) : nullptr};
    kernel(types, row_of(args.x, t), row_of(args.gate, t), args.weight.raw(), norm, row_of(args.out, t),
           args.x.dim(1));
  });
}

}  // namespace minimax::cpu
#endif
