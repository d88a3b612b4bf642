// The driver of matrix products, and the ops that are one: linear, moe, mlp.
#include "backends/cpu/matmul.h"

#include <algorithm>
#include <array>

#include "backends/cpu/cpu_ops.h"
#include "backends/cpu/matmul_kernels.h"
#include "quant/fp8.h"

namespace minimax::cpu {
namespace {

constexpr int64_t kTurnColumns = 8;
constexpr int64_t kTileFloats = 12 * 32;  // largest register tile of any kernel

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes of a row in lanes.
int64_t lane_bytes(int64_t k) { return k * static_cast<int64_t>(sizeof(bf16)); }

// Rows multiplied at once.
int64_t turn_rows(const PreparedRows& x) { return x.is_in_lanes() ? kMaxLanes : kMaxDotRows; }

// Columns that kernels take at once.
int64_t kernel_columns(const PreparedRows& x) {
  if (!x.is_in_lanes()) return 4;
  return x.path.takes_tiles(x.k) ? 32 : 8;
}

// results[row * kTileColumns + column] of `rows` rows of x from `first_row` on and columns [first, first +
// count) of a run.
void multiply_rows(const PreparedRows& x, int64_t first_row, int64_t rows, const quant::Weight& weight,
                   int64_t first, int64_t count, const RunEnd& run, float* results) {
  if (x.is_in_lanes()) {
    const auto* lanes = reinterpret_cast<const uint32_t*>(x.memory + first_row * lane_bytes(x.k));
    const int64_t num_lanes = x.path.lanes(rows, x.k);
    if (x.path.takes_tiles(x.k))
      return dot_products_tiles(lanes, num_lanes, rows, weight, first, count, run, results, kTileColumns);
    return dot_products_lanes(lanes, num_lanes, rows, weight, first, count, results, kTileColumns);
  }
  const int64_t stride = x.path.row_bytes(x.k);
  const std::byte* memory = x.memory + first_row * stride;
  const auto* halves = reinterpret_cast<const bf16*>(memory);
  const int64_t halves_stride = stride / static_cast<int64_t>(sizeof(bf16));
  switch (x.path.layout) {
    case RowLayout::kHalves:
      return dot_products_bf16(halves, halves_stride, rows, weight, first, count, results, kTileColumns);
    case RowLayout::kBytes: {
      const bool is_mx = weight.format == quant::WeightFormat::kMxfp8;
      return (is_mx ? dot_products_mxfp8 : dot_products_fp8)(halves, halves_stride, rows, weight, first,
                                                             count, results, kTileColumns);
    }
    case RowLayout::kQuads:
      return dot_products_quads(reinterpret_cast<const float*>(memory),
                                stride / static_cast<int64_t>(sizeof(float)), rows, weight, first, count,
                                results, kTileColumns);
    default:
      return dot_products(reinterpret_cast<const float*>(memory),
                          stride / static_cast<int64_t>(sizeof(float)), rows, weight, first, count, results,
                          kTileColumns);
  }
}

int64_t row_bytes(const quant::Weight& weight) {
  return std::max<int64_t>(1, weight.values.stride(0) * size_of(weight.values.dtype()));
}

// Bytes [begin, end) of a run, into the second-level cache.
void fetch_bytes(const WeightRun& run, int64_t begin, int64_t end) {
  constexpr int kSecondLevel = 2;
  const auto* bytes =
      static_cast<const std::byte*>(run.weight->values.raw()) + run.first * row_bytes(*run.weight);
  for (int64_t i = begin; i < end; i += 64) __builtin_prefetch(bytes + i, 0, kSecondLevel);
}

// Columns [run.first, run.first + columns) of x times a weight, stored by store(first row, rows, first
// column, columns, results). Over the last kFetchedAhead bytes `next` is asked for, piece by piece.
template <typename Store>
void multiply_run(const PreparedRows& x, WeightRun run, int64_t columns, const WeightRun& next,
                  const Store& store) {
  std::array<float, kMaxLanes * kTileColumns> results;
  // Rows beyond the first turn find the weights of these columns in a near cache.
  const int64_t most = turn_rows(x);
  const bool has_tiles = x.is_in_lanes() && x.path.takes_tiles(x.k);
  const int64_t step = has_tiles ? kTileColumns : x.rows > most ? kTurnColumns : kDotColumns;
  const int64_t column_bytes = row_bytes(*run.weight);
  const int64_t end = run.first + columns;
  // Tiles ask for the next run themselves.
  const int64_t last = next.weight == nullptr || has_tiles ? end : end - kFetchedAhead / column_bytes;
  while (run.first < end) {
    int64_t count = std::min(step, end - run.first);
    if (run.first + count > last) {
      count = std::min(count, kernel_columns(x));
      const int64_t from = kFetchedAhead - (end - run.first) * column_bytes;
      fetch_bytes(next, std::max<int64_t>(0, from), std::max<int64_t>(0, from + count * column_bytes));
    }
    // Turns over rows compute while memory would idle: each asks for its share of the columns that follow.
    const int64_t turns = ceil_div(x.rows, most);
    const WeightRun following{run.weight, run.first + count};
    const int64_t following_bytes = std::min(step, last - following.first) * column_bytes;
    for (int64_t turn = 0; turn < turns; ++turn) {
      if (turns > 1)
        fetch_bytes(following, following_bytes * turn / turns, following_bytes * (turn + 1) / turns);
      const int64_t row = turn * most;
      const int64_t rows = std::min(most, x.rows - row);
      multiply_rows(x, row, rows, *run.weight, run.first, count, {end, next}, results.data());
      store(row, rows, run.first, count, results.data());
    }
    run.first += count;
  }
}

// A gated product runs through all of the gate's weights before those of up: a read that jumps from one to
// the other starts slowly each time. Until then the gate's results wait in the output, which is F32.
void multiply_dots(const PreparedRows& x, std::span<const quant::Weight* const> weights, int64_t first,
                   int64_t columns, const ProductOutput& output, const WeightRun& next) {
  ProductOutput plain = output;
  plain.gated = false;
  const WeightRun up{output.gated ? weights[1] : nullptr, first};
  multiply_run(x, {weights[0], first}, columns, output.gated ? up : next,
               [&](int64_t row, int64_t rows, int64_t column, int64_t count, const float* results) {
                 store_block(results, results, kTileColumns, rows, count, plain, row, column);
               });
  if (!output.gated) return;
  multiply_run(x, up, columns, next,
               [&](int64_t row, int64_t rows, int64_t column, int64_t count, const float* results) {
                 std::array<float, kMaxLanes * kTileColumns> gate;
                 for (int64_t r = 0; r < rows; ++r) {
                   const auto* from =
                       reinterpret_cast<const float*>(output.data + (row + r) * output.stride_bytes);
                   std::copy_n(from + column, count, gate.data() + r * kTileColumns);
                 }
                 store_block(gate.data(), results, kTileColumns, rows, count, output, row, column);
               });
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
  const bool tiles = options.use_tiles && has_tiles();
  if (format == WeightFormat::kBF16) return {bf16_kernel(), RowLayout::kHalves, WeightFormat::kF32, tiles};
  // Rows multiply by the scale after the product, panels before: BF16 holds a scaled e4m3 value exactly only
  // if the scale is a power of two.
  return {may_round || format == WeightFormat::kMxfp8 ? bf16_kernel() : &f32_kernel(),
          has_fp8_dot() && has_wide_blocks(weight) ? RowLayout::kBytes : f32_layout, WeightFormat::kF32,
          tiles, kInvariantRows + 1};
}

bool ProductPath::takes_lanes(int64_t k) const {
  if (layout == RowLayout::kHalves) return has_fp8_dot() && k % 2 == 0;
  return layout == RowLayout::kBytes && k % 64 == 0;
}

bool ProductPath::takes_tiles(int64_t k) const {
  return has_tiles && takes_lanes(k) && k % (layout == RowLayout::kBytes ? 64 : 32) == 0;
}

int64_t PreparedRows::units() const {
  if (is_packed()) return ceil_div(rows, path.kernel->mr);
  return is_in_lanes() ? ceil_div(rows, kMaxLanes) : rows;
}

int64_t PreparedRows::bytes() const {
  if (is_packed()) return units() * path.kernel->tile_bytes(k);
  if (!is_in_lanes()) return rows * path.row_bytes(k);
  const int64_t whole = (units() - 1) * kMaxLanes;
  return (whole + path.lanes(rows - whole, k)) * lane_bytes(k);
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
  if (is_in_lanes()) {
    const int64_t first = unit * kMaxLanes;
    const int64_t count = std::min(kMaxLanes, rows - first);
    return lay_out_lanes(x, first, count, path.lanes(count, k), k, path.layout == RowLayout::kBytes,
                         reinterpret_cast<uint32_t*>(memory + first * lane_bytes(k)));
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
  // Reading starts slowly, so runs are long: two a thread, or one where that would be short.
  constexpr int64_t kShortRun = int64_t{1} << 19U;
  const int64_t runs = n * x.k < 2 * num_threads * kShortRun ? num_threads : 2 * num_threads;
  return std::max(kDotColumns, ceil_div(ceil_div(n, runs), kDotColumns) * kDotColumns);
}

int64_t row_splits(const PreparedRows& x, int64_t blocks, int num_threads) {
  if (!x.is_packed() || blocks == 0 || blocks >= 2 * num_threads) return 1;
  return std::clamp<int64_t>(ceil_div(2 * num_threads, blocks), 1, std::max<int64_t>(1, x.units() / 4));
}

void fetch(const PreparedRows& x, const WeightRun& run, int64_t columns) {
  if (x.is_packed()) return;
  const bool unpacks_tiles =
      x.is_in_lanes() && x.path.takes_tiles(x.k) && run.weight->format != quant::WeightFormat::kBF16;
  const int64_t ahead = unpacks_tiles ? kFetchedTileRows * row_bytes(*run.weight) : kFetchedAhead;
  fetch_bytes(run, 0, std::min(ahead, columns * row_bytes(*run.weight)));
}

int64_t panel_memory_bytes(int64_t k, int num_weights, const PackedKernel& kernel) {
  return num_weights * kernel.panel_bytes(k);
}

void multiply_block(const PreparedRows& x, std::span<const quant::Weight* const> weights, int64_t first,
                    int64_t columns, int64_t split, int64_t splits, void* panel_memory,
                    const ProductOutput& output, const WeightRun& next) {
  if (!x.is_packed()) return multiply_dots(x, weights, first, columns, output, next);
  const int64_t width = x.unit_columns();
  for (const int64_t end = first + columns; first < end; first += width)
    multiply_packed(x, weights, first, std::min(width, end - first), split, splits, panel_memory, output);
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
    const int64_t count = std::min(columns, n - first);
    fetch(x, {&args.weight, first}, count);
    multiply_block(x, weights, first, count, task % splits, splits,
                   panels + thread * panel_memory_bytes(x.k, 1, *path.kernel), output);
  };
  const int64_t work = std::max(rows * x.k * n, args.weight.values.size_bytes());
  pool_.parallel_for(rows == 0 ? 0 : blocks * splits, block, work);
}

}  // namespace minimax::cpu
