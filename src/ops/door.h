// Internal to the doors: what their checks and costs share, and the way through a door.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "ops/backend.h"

namespace minimax::ops {

inline void expect_shape(std::string_view op, std::string_view role, const Tensor& t,
                         std::initializer_list<int64_t> shape) {
  const bool equal =
      t.rank() == static_cast<int>(shape.size()) && std::equal(shape.begin(), shape.end(), t.shape().begin());
  MM_CHECK(equal, "{}: {} is {}, expected {}", op, role, t.defined() ? t.describe() : "undefined",
           shape_string({shape.begin(), shape.size()}));
}

inline void expect_dtype(std::string_view op, std::string_view role, const Tensor& t, DType dtype) {
  MM_CHECK(t.dtype() == dtype, "{}: {} is {}, expected {}", op, role, t.describe(), name(dtype));
}

inline void expect_activation(std::string_view op, std::string_view role, const Tensor& t) {
  MM_CHECK(is_activation(t.dtype()), "{}: {} is {}, expected F32 or BF16", op, role, t.describe());
  MM_CHECK(t.has_dense_rows(), "{}: {} has a strided last dimension", op, role);
}

inline void expect_cache(std::string_view op, std::string_view role, const Tensor& t,
                         std::initializer_list<int64_t> shape) {
  expect_shape(op, role, t, shape);
  MM_CHECK(is_cache(t.dtype()), "{}: {} is {}, expected F32, BF16 or F8_E4M3", op, role, t.describe());
  MM_CHECK(t.is_contiguous(), "{}: {} is not contiguous", op, role);
}

// K and V pages [pages, page_size, kv_heads, head_dim] of one dtype.
inline void expect_kv_caches(std::string_view op, const Tensor& k_cache, const Tensor& v_cache,
                             int64_t kv_heads, int64_t head_dim) {
  MM_CHECK(k_cache.rank() == 4, "{}: k_cache is {}", op, k_cache.describe());
  expect_cache(op, "k_cache", k_cache, {k_cache.dim(0), k_cache.dim(1), kv_heads, head_dim});
  expect_cache(op, "v_cache", v_cache, {k_cache.dim(0), k_cache.dim(1), kv_heads, head_dim});
  expect_dtype(op, "v_cache", v_cache, k_cache.dtype());
}

inline void expect_slots(std::string_view op, const Tensor& slot_mapping, int64_t count) {
  expect_shape(op, "slot_mapping", slot_mapping, {count});
  expect_dtype(op, "slot_mapping", slot_mapping, DType::kI64);
}

inline void expect_index(std::string_view op, std::string_view role, const Tensor& t, int64_t count) {
  expect_shape(op, role, t, {count});
  expect_dtype(op, role, t, DType::kI32);
  MM_CHECK(t.is_contiguous(), "{}: {} is not contiguous", op, role);
}

inline void expect_norm_weight(std::string_view op, const Tensor& weight, int64_t n) {
  expect_shape(op, "weight", weight, {n});
  expect_activation(op, "weight", weight);
}

inline void expect_no_alias(std::string_view op, const Tensor& a, const Tensor& b) {
  MM_CHECK(a.raw() != b.raw() || a.numel() == 0, "{}: {} and {} must not be the same memory", op, a.name(),
           b.name());
}

inline double bytes_of(std::initializer_list<const Tensor*> tensors) {
  double sum = 0;
  for (const Tensor* t : tensors) sum += t->defined() ? static_cast<double>(t->size_bytes()) : 0.0;
  return sum;
}

inline double numel_of(const Tensor& t) { return static_cast<double>(t.numel()); }

template <typename Op>
void dispatch(OpContext& context, const Op& args) {
  args.check();
  Arena::Scope scope(context.arena);
  const int64_t bytes = context.backend.workspace_bytes(args);
  const Workspace workspace{bytes > 0 ? context.arena.bytes(bytes) : nullptr, bytes};
  const bool planning = context.arena.is_planning();
  if (context.tracer == nullptr && !planning) {
    context.backend.run(args, workspace);
    return;
  }
  RecordBuilder builder(Op::kName);
  args.visit(builder);
  builder.record().cost = args.cost();
  check_operands(context, builder.record());
  if (context.tracer != nullptr) context.tracer->on_op(builder.record());
  if (!planning) context.backend.run(args, workspace);
  if (context.tracer != nullptr) context.tracer->on_done(builder.record());
}

}  // namespace minimax::ops
