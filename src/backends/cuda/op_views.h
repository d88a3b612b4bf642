// Internal to the sources of the ops: tensors as kernels take them, and pieces of scratch memory.
#pragma once

#include "backends/cuda/kernels.h"
#include "backends/cuda/lightning.h"
#include "core/tensor.h"
#include "ops/moe.h"

namespace minimax::cuda {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t aligned(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

inline Scalar scalar_of(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return Scalar::kBF16;
    case DType::kF16:
      return Scalar::kF16;
    case DType::kF8E4M3:
      return Scalar::kE4m3;
    case DType::kU8:
    case DType::kF8E8M0:
      return Scalar::kE8m0;
    default:
      MM_CHECK(dtype == DType::kF32, "cuda: {} is no dtype of a kernel", name(dtype));
      return Scalar::kF32;
  }
}

inline Matrix matrix(const Tensor& t) {
  if (!t.defined()) return {};
  return {t.raw(), t.dim(0), t.dim(1), t.stride(0), scalar_of(t.dtype())};
}

inline Heads heads(const Tensor& t) {
  if (!t.defined()) return {};
  return {t.raw(), t.dim(0), t.dim(1), t.dim(2), t.stride(0), t.stride(1), scalar_of(t.dtype())};
}

inline Vector vector(const Tensor& t) {
  if (!t.defined()) return {};
  return {t.raw(), scalar_of(t.dtype())};
}

inline WeightView view(const quant::Weight& w) {
  WeightView v;
  v.values = w.values.raw();
  v.rows = w.out_features();
  v.columns = w.in_features();
  v.stride = w.values.stride(0);
  v.scalar = scalar_of(w.values.dtype());
  if (w.scales.defined()) {
    v.scales = w.scales.raw();
    v.scale_stride = w.scales.stride(0);
    v.scale_scalar = scalar_of(w.scales.dtype());
    v.block_rows = w.block_rows;
    v.block_columns = w.block_columns;
    v.row_offset = w.row_offset;
    v.column_offset = w.column_offset;
  }
  return v;
}

inline PagedKv paged(const Tensor& k, const Tensor& v) {
  return {k.raw(), v.raw(), k.dim(1), k.dim(2), k.dim(3), scalar_of(k.dtype())};
}

inline Ragged ragged(const Tensor& block_table, const Tensor& query_starts, const Tensor& seq_lens,
                     int64_t tokens) {
  return {query_starts.data<int32_t>(),
          seq_lens.data<int32_t>(),
          block_table.data<int32_t>(),
          block_table.stride(0),
          block_table.dim(1),
          block_table.dim(0),
          tokens};
}

inline Rows rows_of(const Tensor& t) { return {t.raw(), t.stride(0), t.stride(1)}; }
inline Element element_of(const Tensor& t) {
  return t.dtype() == DType::kBF16 ? Element::kBF16 : Element::kF32;
}

inline SwigluParams swiglu_params(const ops::Swiglu& s) { return {s.alpha, s.limit, s.up_offset}; }

template <typename T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// Consecutive pieces of an op's scratch memory; without memory it only measures.
class Scratch {
 public:
  explicit Scratch(std::byte* base) : base_(base) {}
  template <typename T>
  T* take(int64_t count) {
    std::byte* at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += aligned(count * static_cast<int64_t>(sizeof(T)));
    return reinterpret_cast<T*>(at);
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

}  // namespace minimax::cuda
