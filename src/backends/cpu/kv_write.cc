// What goes into the caches: converted rows, and the fused path from a projection to queries and caches.
#include <algorithm>
#include <cmath>

#include "backends/cpu/cpu_ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/kv_write.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h:
#include "backends/cpu/simd-inl.h"

#ifndef MINIMAX_KV_WRITE_COMMON_
#define MINIMAX_KV_WRITE_COMMON_
namespace minimax::cpu {

// One kind of head of a token: how many, how wide, and the norm's factors in F32, one run of
// `heads_per_norm` heads at a time.
struct HeadNorm {
  int64_t heads;
  int64_t head_dim;
  int64_t heads_per_norm;
  const float* factors;
  float eps;
  int64_t given_width = 0;  // with given squares, the width they are the sum over
};

// cos and sin of one position, `half` of each.
struct Angles {
  const float* cosines;
  const float* sines;
  int64_t half;
};

}  // namespace minimax::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

template <typename TIn, typename TOut>
HWY_INLINE void ConvertTo(const TIn* in, TOut* out, int64_t n) {
  ForVectors(n, [&](auto load, auto store) HWY_ATTR { store(load(in), out); });
}

template <typename TIn>
HWY_INLINE void ConvertFrom(const TIn* in, DType to, void* out, int64_t n) {
  switch (to) {
    case DType::kBF16:
      return ConvertTo(in, static_cast<bf16*>(out), n);
    case DType::kF8E4M3:
      return ConvertTo(in, static_cast<f8e4m3*>(out), n);
    default:
      return ConvertTo(in, static_cast<float*>(out), n);
  }
}

// `from` is F32 or BF16, `to` one of these or F8_E4M3.
void ConvertRow(DType from, const void* in, DType to, void* out, int64_t n) {
  if (from == DType::kBF16) {
    ConvertFrom(static_cast<const bf16*>(in), to, out, n);
  } else {
    ConvertFrom(static_cast<const float*>(in), to, out, n);
  }
}

HWY_INLINE float MeanOfSquares(const float* x, int64_t n) {
  VF squares = hn::Zero(DF());
  ForVectors(n, [&](auto load, auto) HWY_ATTR {
    const VF v = load(x);
    squares = hn::MulAdd(v, v, squares);
  });
  return SumOfLanes(squares) / static_cast<float>(n);
}

HWY_INLINE void NormRun(float* x, const float* factors, float mean_square, float eps, int64_t n) {
  const VF scale = hn::Set(DF(), 1.0F / std::sqrt(mean_square + eps));
  ForVectors(
      n, [&](auto load, auto store) HWY_ATTR { store(hn::Mul(hn::Mul(load(x), scale), load(factors)), x); });
}

HWY_INLINE void RotateHead(float* x, const Angles& angles) {
  float* second = x + angles.half;
  ForVectors(angles.half, [&](auto load, auto store) HWY_ATTR {
    const VF a = load(x);
    const VF b = load(second);
    const VF cosine = load(angles.cosines);
    const VF sine = load(angles.sines);
    store(hn::NegMulAdd(b, sine, hn::Mul(a, cosine)), x);
    store(hn::MulAdd(a, sine, hn::Mul(b, cosine)), second);
  });
}

// The heads of one token, F32, in place. `given` null: each norm takes the squares of its own heads.
void NormAndRotate(const HeadNorm& norm, const Angles& angles, const float* given, float* x) {
  const int64_t run = norm.heads_per_norm * norm.head_dim;
  for (int64_t h = 0; h < norm.heads; h += norm.heads_per_norm) {
    float* heads = x + h * norm.head_dim;
    const float mean_square =
        given != nullptr ? *given / static_cast<float>(norm.given_width) : MeanOfSquares(heads, run);
    NormRun(heads, norm.factors, mean_square, norm.eps, run);
  }
  for (int64_t h = 0; h < norm.heads; ++h) RotateHead(x + h * norm.head_dim, angles);
}

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace minimax::cpu {
namespace {

HWY_EXPORT(ConvertRow);
HWY_EXPORT(NormAndRotate);

std::byte* at(const Tensor& t, int64_t offset) {
  return static_cast<std::byte*>(t.raw()) + offset * size_of(t.dtype());
}

// Heads of one token to row `t` of out [T, heads, D].
void store_heads(const float* x, const Tensor& out, int64_t t) {
  const auto convert = HWY_DYNAMIC_DISPATCH(ConvertRow);
  for (int64_t h = 0; h < out.dim(1); ++h) {
    convert(DType::kF32, x + h * out.dim(2), out.dtype(), at(out, t * out.stride(0) + h * out.stride(1)),
            out.dim(2));
  }
}

// Norm factors in F32, then one token's heads and angles for each thread.
class QkvPass {
 public:
  QkvPass(const ops::QkNormRopeKvWrite& args, std::byte* memory)
      : args_(args), factors_(reinterpret_cast<float*>(memory)) {
    float* next = factors_;
    const auto prepare = [&](int64_t heads, int64_t head_dim, const Tensor& weight) {
      const int64_t n = weight.dim(0);
      HWY_DYNAMIC_DISPATCH(ConvertRow)(weight.dtype(), weight.raw(), DType::kF32, next, n);
      for (int64_t i = 0; i < n; ++i) next[i] += args.weight_offset;
      const HeadNorm norm{heads, head_dim, n / head_dim, next, args.eps};
      next += n;
      return norm;
    };
    q_ = prepare(args.heads(), args.head_dim(), args.q_norm);
    k_ = prepare(args.kv_heads(), args.head_dim(), args.k_norm);
    q_.given_width = args.q_norm_width;
    k_.given_width = args.k_norm_width;
    if (!args.index_q_out.defined()) return;
    index_q_ = prepare(args.index_heads(), args.index_dim(), args.index_q_norm);
    index_k_ = prepare(1, args.index_dim(), args.index_k_norm);
  }

  static int64_t factor_floats(const ops::QkNormRopeKvWrite& args) {
    int64_t count = args.q_norm.dim(0) + args.k_norm.dim(0);
    if (args.index_q_out.defined()) count += args.index_q_norm.dim(0) + args.index_k_norm.dim(0);
    return count;
  }
  static int64_t thread_floats(const ops::QkNormRopeKvWrite& args) {
    const int64_t widest = std::max({args.heads() * args.head_dim(), args.kv_heads() * args.head_dim(),
                                     args.index_heads() * args.index_dim(), args.index_dim()});
    return (widest + 2 * args.inv_freq.dim(0) + 15) / 16 * 16;
  }

  void token(int64_t t, int thread) const {
    float* heads = factors_ + factor_floats(args_) + thread * thread_floats(args_);
    const int64_t half = args_.inv_freq.dim(0);
    float* cosines = heads + thread_floats(args_) - 2 * half;
    const Angles angles{cosines, cosines + half, half};
    const auto position = static_cast<float>(args_.positions.data<int32_t>()[t]);
    for (int64_t c = 0; c < half; ++c) {
      const float angle = position * args_.inv_freq.data<float>()[c];
      cosines[c] = std::cos(angle);
      cosines[half + c] = std::sin(angle);
    }
    const int64_t slot = args_.slot_mapping.data<int64_t>()[t];
    int64_t offset = t * args_.qkv.stride(0);
    const float* squares = args_.squares.defined() ? args_.squares.row<float>(t) : nullptr;
    normed(q_, angles, squares, offset, heads);
    store_heads(heads, args_.q_out, t);
    normed(k_, angles, squares == nullptr ? nullptr : squares + 1, offset, heads);
    write(DType::kF32, heads, args_.k_cache, slot, k_.heads * k_.head_dim);
    write(args_.qkv.dtype(), at(args_.qkv, offset), args_.v_cache, slot, k_.heads * k_.head_dim);
    offset += k_.heads * k_.head_dim;
    if (!args_.index_q_out.defined()) return;
    normed(index_q_, angles, nullptr, offset, heads);
    store_heads(heads, args_.index_q_out, t);
    normed(index_k_, angles, nullptr, offset, heads);
    write(DType::kF32, heads, args_.index_cache, slot, index_k_.head_dim);
  }

 private:
  // Heads at `offset` of qkv, which moves on past them.
  void normed(const HeadNorm& norm, const Angles& angles, const float* squares, int64_t& offset,
              float* heads) const {
    const int64_t n = norm.heads * norm.head_dim;
    HWY_DYNAMIC_DISPATCH(ConvertRow)(args_.qkv.dtype(), at(args_.qkv, offset), DType::kF32, heads, n);
    HWY_DYNAMIC_DISPATCH(NormAndRotate)(norm, angles, squares, heads);
    offset += n;
  }
  static void write(DType from, const void* row, const Tensor& cache, int64_t slot, int64_t n) {
    if (slot >= 0) HWY_DYNAMIC_DISPATCH(ConvertRow)(from, row, cache.dtype(), at(cache, slot * n), n);
  }

  const ops::QkNormRopeKvWrite& args_;
  float* factors_;
  HeadNorm q_{};
  HeadNorm k_{};
  HeadNorm index_q_{};
  HeadNorm index_k_{};
};

}  // namespace

int64_t CpuBackend::workspace_bytes(const ops::QkNormRopeKvWrite& args) const {
  return (QkvPass::factor_floats(args) + pool_.num_threads() * QkvPass::thread_floats(args)) *
         static_cast<int64_t>(sizeof(float));
}

void CpuBackend::run(const ops::QkNormRopeKvWrite& args, ops::Workspace workspace) {
  const QkvPass pass(args, workspace.data);
  pool_.parallel_for(
      args.qkv.dim(0), [&](int64_t t, int thread) { pass.token(t, thread); }, 4 * args.qkv.numel());
}

void CpuBackend::run(const ops::PagedKvWrite& args, ops::Workspace) {
  const auto convert = HWY_DYNAMIC_DISPATCH(ConvertRow);
  const int64_t head_dim = args.k.dim(2);
  const int64_t width = args.k.dim(1) * head_dim;
  for_rows(args.k.dim(0), 2 * width, [&](int64_t t) {
    const int64_t slot = args.slot_mapping.data<int64_t>()[t];
    if (slot < 0) return;
    for (const auto& [source, cache] : {std::pair{&args.k, &args.k_cache}, {&args.v, &args.v_cache}}) {
      for (int64_t h = 0; h < args.k.dim(1); ++h) {
        convert(source->dtype(), at(*source, t * source->stride(0) + h * source->stride(1)), cache->dtype(),
                at(*cache, slot * width + h * head_dim), head_dim);
      }
    }
  });
}

}  // namespace minimax::cpu
#endif
