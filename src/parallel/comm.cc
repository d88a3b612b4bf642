#include "parallel/comm.h"

#include <algorithm>

#include "core/error.h"

namespace minimax::parallel {
namespace {

constexpr std::string_view kAllReduceSum = "all_reduce_sum";
constexpr std::string_view kAllGatherColumns = "all_gather_columns";

// The way through a door, as ops have it.
template <typename Run>
void dispatch(ops::OpContext& context, std::string_view op, const Tensor& x, const Run& run) {
  const bool planning = context.arena.is_planning();
  if (context.tracer == nullptr && !planning) return run();
  ops::RecordBuilder builder(op);
  builder("x", x);
  builder.record().cost = {2 * static_cast<double>(x.size_bytes()), static_cast<double>(x.numel())};
  ops::check_operands(context, builder.record());
  if (context.tracer != nullptr) context.tracer->on_op(builder.record());
  if (!planning) run();
  if (context.tracer != nullptr) context.tracer->on_done(builder.record());
}

}  // namespace

void Comm::all_reduce_sum(ops::OpContext& context, const Tensor& x) {
  MM_CHECK(ops::is_activation(x.dtype()) && x.is_contiguous(),
           "all_reduce_sum: x is {}, expected F32 or BF16, contiguous", x.describe());
  dispatch(context, kAllReduceSum, x, [&] { run_all_reduce_sum(context, x); });
}

void Comm::all_gather_columns(ops::OpContext& context, const Tensor& x, std::span<const int64_t> bounds) {
  MM_CHECK(x.rank() == 2 && ops::is_activation(x.dtype()) && x.has_dense_rows(),
           "all_gather_columns: x is {}, expected [T, N] F32 or BF16 with dense rows", x.describe());
  MM_CHECK(static_cast<int64_t>(bounds.size()) == size() + 1 && bounds.front() == 0 &&
               bounds.back() == x.dim(1) && std::is_sorted(bounds.begin(), bounds.end()),
           "all_gather_columns: {} bounds for {} columns on {} ranks", bounds.size(), x.dim(1), size());
  dispatch(context, kAllGatherColumns, x, [&] { run_all_gather_columns(context, x, bounds); });
}

}  // namespace minimax::parallel
