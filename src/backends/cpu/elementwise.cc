// Embedding and rotary embedding: memory movement with little arithmetic.
#include <cmath>
#include <cstring>

#include "backends/cpu/cpu_ops.h"

namespace minimax::cpu {
namespace {

template <typename TIn, typename TOut>
void copy_row(const TIn* in, TOut* out, int64_t n) {
  if constexpr (std::is_same_v<TIn, TOut>) {
    std::memcpy(out, in, static_cast<size_t>(n) * sizeof(TIn));
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = from_float<TOut>(to_float(in[i]));
  }
}

template <typename TOut>
void embed(const ops::Embedding& args, int64_t t) {
  const int64_t n = args.table.dim(1);
  const int64_t id = args.ids.data<int32_t>()[t] - args.first_id;
  TOut* out = args.out.row<TOut>(t);
  if (id < 0 || id >= args.table.dim(0)) {
    std::fill_n(out, n, TOut{});
  } else if (args.table.dtype() == DType::kBF16) {
    copy_row(args.table.row<bf16>(id), out, n);
  } else if (args.table.dtype() == DType::kF16) {
    copy_row(args.table.row<f16>(id), out, n);
  } else {
    copy_row(args.table.row<float>(id), out, n);
  }
}

// The angles are formed in F32 as position * inv_freq.
template <typename T>
void rotate(const ops::Rope& args, int64_t t) {
  const int64_t half = args.inv_freq.dim(0);
  const auto position = static_cast<float>(args.positions.data<int32_t>()[t]);
  for (int64_t c = 0; c < half; ++c) {
    const float angle = position * args.inv_freq.data<float>()[c];
    const float cosine = std::cos(angle);
    const float sine = std::sin(angle);
    for (int64_t h = 0; h < args.x.dim(1); ++h) {
      T* x = args.x.row<T>(t) + h * args.x.stride(1);
      const float a = to_float(x[c]);
      const float b = to_float(x[c + half]);
      x[c] = from_float<T>(a * cosine - b * sine);
      x[c + half] = from_float<T>(b * cosine + a * sine);
    }
  }
}

}  // namespace

void CpuBackend::run(const ops::Embedding& args, ops::Workspace) {
  for_rows(args.ids.dim(0), args.table.dim(1), [&](int64_t t) {
    args.out.dtype() == DType::kBF16 ? embed<bf16>(args, t) : embed<float>(args, t);
  });
}

void CpuBackend::run(const ops::Rope& args, ops::Workspace) {
  // A sine and a cosine cost about as much as 32 elements of a copy.
  for_rows(args.x.dim(0), args.x.dim(1) * args.x.dim(2) + 32 * args.inv_freq.dim(0), [&](int64_t t) {
    args.x.dtype() == DType::kBF16 ? rotate<bf16>(args, t) : rotate<float>(args, t);
  });
}

}  // namespace minimax::cpu
