// The driver of matrix products, and the ops that are one: linear, moe, mlp.
#include "backends/cpu/matmul.h"

#include <algorithm>
#include <array>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/matmul_kernels.h"
#include "quant/fp8.h"

namespace minimax::cpu {
namespace {

// Columns whose results are kept before they are stored.
constexpr int64_t kDotColumns = 32;
constexpr int64_t kTurnColumns = 8;
constexpr int64_t kTileFloats = 12 * 32;  // largest register tile of any kernel

// results[row * kDotColumns + column] of `rows` rows of x from `first_row` on and columns [first, first +
// count).
void multiply_rows(const PreparedRows& x, int64_t first_row, int64_t rows, const quant::Weight& weight,
                   int64_t first, int64_t count, float* results) {
  const int64_t stride = x.path.row_bytes(x.k);
  const std::byte* memory = x.memory + first_row * stride;
  const auto* halves = reinterpret_cast<const bf16*>(memory);
  const int64_t halves_stride = stride / static_cast<int64_t>(sizeof(bf16));
  switch (x.path.layout) {
    case RowLayout::kHalves:
      return dot_products_bf16(halves, halves_stride, rows, weight, first, count, results, kDotColumns);
    case RowLayout::kBytes:
      return dot_products_fp8(halves, halves_stride, rows, weight, first, count, results, kDotColumns);
    case RowLayout::kQuads:
      return dot_products_quads(reinterpret_cast<const float*>(memory),
                                stride / static_cast<int64_t>(sizeof(float)), rows, weight, first, count,
                                results, kDotColumns);
    default:
      return dot_products(reinterpret_cast<const float*>(memory),
                          stride / static_cast<int64_t>(sizeof(float)), rows, weight, first, count, results,
                          kDotColumns);
  }
}

void multiply_dots(const PreparedRows& x, std::span<const quant::Weight* const> weights, int64_t first,
                   int64_t columns, const ProductOutput& output) {
  std::array<std::array<float, kMaxDotRows * kDotColumns>, 2> results;
  // Rows beyond the first turn find the weights of these columns in a near cache.
  const int64_t step = x.rows > kMaxDotRows ? kTurnColumns : kDotColumns;
  for (const int64_t end = first + columns; first < end; first += step) {
    const int64_t count = std::min(step, end - first);
    for (int64_t row = 0; row < x.rows; row += kMaxDotRows) {
      const int64_t rows = std::min(kMaxDotRows, x.rows - row);
      for (size_t w = 0; w < weights.size(); ++w)
        multiply_rows(x, row, rows, *weights[w], first, count, results[w].data());
      store_block(results[0].data(), results[1].data(), kDotColumns, rows, count, output, row, first);
    }
  }
}

void multiply_packed(const PreparedRows& x, std::span<const quant::Weight* const> weights, int64_t first,
                     int64_t columns, int64_t split, int64_t splits, void* panel_memory,
                     const ProductOutput& output) {
  const PackedKernel& kernel = *x.path.kernel;
  auto* panels = static_cast<std::byte*>(panel_memory);
  for (size_t w = 0; w < weights.size(); ++w) {
    kernel.pack_panel(*weights[w], first, columns,
                      panels + static_cast<int64_t>(w) * kernel.panel_bytes(x.k));
  }
  alignas(64) std::array<std::array<float, kTileFloats>, 2> results;
  const int64_t tiles = x.units();
  for (int64_t tile = tiles * split / splits; tile < tiles * (split + 1) / splits; ++tile) {
    const int64_t rows = std::min(kernel.mr, x.rows - tile * kernel.mr);
    for (size_t w = 0; w < weights.size(); ++w) {
      kernel.multiply(x.memory + tile * kernel.tile_bytes(x.k),
                      panels + static_cast<int64_t>(w) * kernel.panel_bytes(x.k), x.k, rows,
                      results[w].data());
    }
    store_block(results[0].data(), results[1].data(), kernel.nr, rows, columns, output, tile * kernel.mr,
                first);
  }
}

// Whether as many e4m3 codes as a vector unpacks share scales as the row products need it.
bool has_wide_blocks(const quant::Weight& weight) {
  if (weight.format == quant::WeightFormat::kMxfp8)
    return weight.column_offset == 0 && weight.in_features() % quant::kMxBlock == 0;
  if (weight.format != quant::WeightFormat::kFp8) return false;
  return (weight.block_columns % 64 == 0 && weight.column_offset % 64 == 0) ||
         weight.block_columns >= weight.column_offset + weight.in_features();
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t bytes) { return ceil_div(bytes, 64) * 64; }

}  // namespace

RowView rows_of(const Tensor& matrix) {
  return {static_cast<const std::byte*>(matrix.raw()), matrix.stride(0) * size_of(matrix.dtype()),
          matrix.dtype(), nullptr};
}

ProductPath product_path(DType x, ops::Precision precision, const quant::Weight& weight,
                         const CpuOptions& options) {
  using quant::WeightFormat;
  const WeightFormat format = weight.format;
  if (precision == ops::Precision::kFp8 && quant::activation_group(format) > 0)
    return {&f32_kernel(), RowLayout::kInOrder, format};
  const RowLayout f32_layout = format == WeightFormat::kBF16 ? RowLayout::kPairs
                               : has_wide_blocks(weight)     ? RowLayout::kQuads
                                                             : RowLayout::kInOrder;
  const bool may_round = precision != ops::Precision::kF32;
  const bool use_bf16 = options.use_bf16_dot && bf16_kernel() != nullptr && (may_round || x == DType::kBF16);
  if (!use_bf16 || format == WeightFormat::kF32) return {&f32_kernel(), f32_layout};
  if (format == WeightFormat::kBF16) return {bf16_kernel(), RowLayout::kHalves};
  // Rows multiply by the scale after the product, panels before: BF16 holds a scaled e4m3 value exactly only
  // if the scale is a power of two.
  return {may_round || format == WeightFormat::kMxfp8 ? bf16_kernel() : &f32_kernel(),
          has_fp8_dot() && has_wide_blocks(weight) ? RowLayout::kBytes : f32_layout};
}

void PreparedRows::prepare(const RowView& x, int64_t unit) const {
  if (is_packed()) {
    const PackedKernel& kernel = *path.kernel;
    const int64_t first = unit * kernel.mr;
    std::byte* tile = memory + unit * kernel.tile_bytes(k);
    kernel.pack_tile(x, first, std::min(kernel.mr, rows - first), k, tile);
    for (int64_t r = 0; r < kernel.mr && quant::activation_group(path.rounding) > 0; ++r)
      quant::round_activations(reinterpret_cast<float*>(tile) + r, k, kernel.mr, path.rounding);
    return;
  }
  std::byte* row = memory + unit * path.row_bytes(k);
  switch (path.layout) {
    case RowLayout::kHalves:
      return lay_out_bf16_row(x.row(unit), x.dtype, k, reinterpret_cast<bf16*>(row));
    case RowLayout::kBytes:
      return lay_out_fp8_row(x.row(unit), x.dtype, k, reinterpret_cast<bf16*>(row));
    default:
      unpack_row(x.row(unit), x.dtype, k, path.layout, reinterpret_cast<float*>(row),
                 path.row_bytes(k) / static_cast<int64_t>(sizeof(float)));
      return quant::round_activations(reinterpret_cast<float*>(row), k, 1, path.rounding);
  }
}

int64_t block_columns(const PreparedRows& x, int64_t n, int num_threads) {
  if (x.is_packed()) return x.path.kernel->nr;
  // Long contiguous runs: two tasks a thread are streamed a third faster than pieces of 64 KiB.
  return std::max(kDotColumns, ceil_div(ceil_div(n, 2 * num_threads), kDotColumns) * kDotColumns);
}

int64_t row_splits(const PreparedRows& x, int64_t blocks, int num_threads) {
  if (!x.is_packed() || blocks == 0 || blocks >= 2 * num_threads) return 1;
  return std::clamp<int64_t>(ceil_div(2 * num_threads, blocks), 1, std::max<int64_t>(1, x.units() / 4));
}

int64_t panel_memory_bytes(int64_t k, int num_weights, const PackedKernel& kernel) {
  return num_weights * kernel.panel_bytes(k);
}

void multiply_block(const PreparedRows& x, std::span<const quant::Weight* const> weights, int64_t first,
                    int64_t columns, int64_t split, int64_t splits, void* panel_memory,
                    const ProductOutput& output) {
  if (x.is_packed()) {
    multiply_packed(x, weights, first, columns, split, splits, panel_memory, output);
  } else {
    multiply_dots(x, weights, first, columns, output);
  }
}

int64_t CpuBackend::workspace_bytes(const ops::Linear& args) const {
  const ProductPath path = product_path(args.x.dtype(), args.precision, args.weight, options_);
  const PreparedRows x{args.x.dim(0), args.x.dim(1), path, nullptr};
  return round_up(x.bytes()) + pool_.num_threads() * panel_memory_bytes(x.k, 1, *path.kernel);
}

void CpuBackend::run(const ops::Linear& args, ops::Workspace workspace) {
  const int64_t rows = args.x.dim(0);
  const int64_t n = args.weight.out_features();
  const ProductPath path = product_path(args.x.dtype(), args.precision, args.weight, options_);
  const PreparedRows x{rows, args.x.dim(1), path, workspace.data};
  const RowView view = rows_of(args.x);
  pool_.parallel_for(
      x.units(), [&](int64_t unit, int) { x.prepare(view, unit); }, rows * x.k);

  const ProductOutput output{static_cast<std::byte*>(args.out.raw()),
                             args.out.stride(0) * size_of(args.out.dtype()), args.out.dtype(),
                             args.activation == ops::Activation::kSilu};
  std::byte* panels = workspace.data + round_up(x.bytes());
  const int64_t columns = block_columns(x, n, pool_.num_threads());
  const int64_t blocks = ceil_div(n, columns);
  const int64_t splits = row_splits(x, blocks, pool_.num_threads());
  const std::array<const quant::Weight*, 1> weights = {&args.weight};
  const auto block = [&](int64_t task, int thread) {
    const int64_t first = task / splits * columns;
    multiply_block(x, weights, first, std::min(columns, n - first), task % splits, splits,
                   panels + thread * panel_memory_bytes(x.k, 1, *path.kernel), output);
  };
  pool_.parallel_for(rows == 0 ? 0 : blocks * splits, block, rows * x.k * n);
}

}  // namespace minimax::cpu
