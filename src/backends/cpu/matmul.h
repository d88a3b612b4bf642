// Matrix products of the CPU backend: out = x W^T for any weight format, few rows or many.
//
// Few rows (decode): rows of W stream from memory once, each multiplied with every row of x; x is laid out
// first to meet the order in which W unpacks. Many rows (prefill): x is packed into tiles of `mr` rows, W
// into panels of `nr` columns, both in the kernel's element type, and a register tile of mr x nr runs over
// the whole depth. Weights are unpacked while a panel is packed, so a weight format needs a packer and a row
// product, nothing else. Processors with AMX tiles multiply all but the fewest rows with those, weights read
// as they lie: some rows of W, kept near, meet 16 rows of x after the other.
#pragma once

#include <cstdint>
#include <span>

#include "core/thread_pool.h"
#include "ops/moe.h"
#include "quant/weight.h"

namespace minimax::cpu {

struct CpuOptions;

// Most rows that row products take at once; more are done in turns.
constexpr int64_t kMaxDotRows = 8;
// Rows of x whose products run in lanes: groups of kMaxLanes, where there are no tiles the last one of as
// many as there are.
constexpr int64_t kMaxLanes = 16;
// Rows of x up to which a product has the bits that each row gives alone.
constexpr int64_t kInvariantRows = 2;
// Lanes of the fewest rows that tiles multiply.
constexpr int64_t kFewLanes = 4;
// Columns that row products take in a step, and that they do with tiles, before results are stored.
constexpr int64_t kDotColumns = 32;
constexpr int64_t kTileColumns = 64;

// Rows of a matrix, F32 or BF16, possibly gathered by `indices`.
struct RowView {
  const std::byte* data = nullptr;
  int64_t stride_bytes = 0;
  DType dtype = DType::kF32;
  const int32_t* indices = nullptr;  // null: row i is row i

  const std::byte* row(int64_t i) const {
    return data + (indices != nullptr ? indices[i] : i) * stride_bytes;
  }
};

RowView rows_of(const Tensor& matrix);

// One packed-product implementation. Tiles and panels hold `depth_padded(k)` elements a row or column.
struct PackedKernel {
  std::string_view name;
  int64_t mr;             // rows of a tile
  int64_t nr;             // columns of a panel
  int64_t element_bytes;  // of tiles and panels
  int64_t depth_multiple;

  int64_t depth_padded(int64_t k) const { return (k + depth_multiple - 1) / depth_multiple * depth_multiple; }
  int64_t tile_bytes(int64_t k) const { return mr * depth_padded(k) * element_bytes; }
  int64_t panel_bytes(int64_t k) const { return nr * depth_padded(k) * element_bytes; }

  // Packs rows [first, first + rows), rows <= mr, zero-filled to mr rows.
  void (*pack_tile)(const RowView& x, int64_t first, int64_t rows, int64_t k, void* tile);
  // Packs columns (weight rows) [first, first + columns), columns <= nr, zero-filled to nr.
  void (*pack_panel)(const quant::Weight& weight, int64_t first, int64_t columns, void* panel);
  // out[mr, nr] = tile * panel, of which the first `rows` rows are wanted.
  void (*multiply)(const void* tile, const void* panel, int64_t k, int64_t rows, float* out);
  // Operations per second of this kernel's multiply-add instruction alone on one thread, for `iterations`.
  double (*multiply_chain)(int64_t iterations);
};

const PackedKernel& f32_kernel();
// Null when the processor has no BF16 dot product.
const PackedKernel* bf16_kernel();

// How rows of x lie for row products.
enum class RowLayout : uint8_t {
  kInOrder,  // F32
  kPairs,    // F32, even elements first, the odd ones from half of the row on: meets BF16 weights
  kQuads,   // F32, every fourth element from 0, 1, 2 and 3 on in four quarters of the row: meets e4m3 weights
  kHalves,  // BF16, in order: meets BF16 weights where there is a BF16 dot product
  kBytes,   // BF16, in each 64 the even elements first: meets e4m3 weights (matmul_fp8.cc)
};

// The fastest way to a product that keeps the precision asked for: row products for few rows, packed for
// many.
struct ProductPath {
  const PackedKernel* kernel;
  RowLayout layout;
  // With Precision::kFp8, the weight format by which x is rounded to 8 bits; else one that rounds nothing.
  quant::WeightFormat rounding = quant::WeightFormat::kF32;
  // Rows in lanes are multiplied with tiles (matmul_amx.cc) where the depth allows.
  bool has_tiles = false;
  // Fewest rows that are (measured: docs/performance.md).
  int64_t min_tile_rows = 5;

  // Most rows that row products without tiles are faster for (measured: docs/performance.md).
  static constexpr int64_t max_row_products() { return 32; }
  // Fewest rows that lanes are faster for (measured: docs/performance.md). Without tiles, unpacking 8-bit
  // weights again for further rows costs less than lanes that stay empty.
  int64_t min_lane_rows(int64_t k) const {
    const bool is_8_bit = layout == RowLayout::kBytes;
    if (takes_tiles(k)) return min_tile_rows;
    return is_8_bit ? 13 : 9;
  }
  // Whether rows may lie in lanes (matmul_lanes.cc).
  bool takes_lanes(int64_t k) const;
  // Whether those are multiplied with tiles.
  bool takes_tiles(int64_t k) const;
  // Lanes that `rows` rows take.
  int64_t lanes(int64_t rows, int64_t k) const {
    if (takes_tiles(k)) return rows <= kFewLanes && layout == RowLayout::kBytes ? kFewLanes : kMaxLanes;
    return rows <= kMaxLanes / 2 ? kMaxLanes / 2 : kMaxLanes;
  }
  bool is_bf16() const { return layout == RowLayout::kHalves || layout == RowLayout::kBytes; }
  // Bytes from row to row. The lines beyond the elements keep rows of 2^n elements from falling into the same
  // sets of the nearest cache.
  int64_t row_bytes(int64_t k) const {
    return is_bf16() ? (k + 63) / 64 * 128 + 64 : (k + 31) / 32 * 128 + 128;
  }
};
ProductPath product_path(DType x, ops::Precision precision, const quant::Weight& weight,
                         const CpuOptions& options);

// Where results go: out[row, column] of F32 or BF16. With `silu` the result is SiLU(first product); with
// `gated`, swiglu(first product, second product). An addend has out's dtype and may be out.
struct ProductOutput {
  std::byte* data = nullptr;
  int64_t stride_bytes = 0;
  DType dtype = DType::kF32;
  bool silu = false;
  bool gated = false;
  ops::Swiglu swiglu{};
  const std::byte* addend = nullptr;
  int64_t addend_stride_bytes = 0;
};

// x laid out for row products, or packed tiles; memory given by the caller.
struct PreparedRows {
  int64_t rows = 0;
  int64_t k = 0;
  ProductPath path{};
  std::byte* memory = nullptr;  // at a multiple of 64 bytes

  bool is_packed() const { return rows > path.max_row_products() && !path.takes_tiles(k); }
  bool is_in_lanes() const { return !is_packed() && rows >= path.min_lane_rows(k) && path.takes_lanes(k); }
  int64_t bytes() const;
  // Units of preparation, each independent: tiles, groups of lanes, or rows.
  int64_t units() const;
  void prepare(const RowView& x, int64_t unit) const;
  // Columns of a product are handed out in multiples of this: those of a panel, or as many as row products
  // store at a time.
  int64_t unit_columns() const { return is_packed() ? path.kernel->nr : kDotColumns; }
};

// Columns one task of a product of `n` columns computes.
int64_t block_columns(const PreparedRows& x, int64_t n, int num_threads);
// Row tiles are split over `row_splits` tasks when there are too few column blocks for all threads.
int64_t row_splits(const PreparedRows& x, int64_t blocks, int num_threads);
// Per-thread memory for packed panels.
int64_t panel_memory_bytes(int64_t k, int num_weights, const PackedKernel& kernel);

// A stretch of weight rows, which a thread reads from the first to the last; null: none.
struct WeightRun {
  const quant::Weight* weight = nullptr;
  int64_t first = 0;
};
// Asks for the first bytes of a run of `columns` weight rows: without it a read that jumps starts slowly.
void fetch(const PreparedRows& x, const WeightRun& run, int64_t columns);

// Columns [first, first + columns) of the product, row split `split` of `splits`. `weights` holds one weight,
// or gate and up when output.gated. `next` is what this thread reads after it, if known.
void multiply_block(const PreparedRows& x, std::span<const quant::Weight* const> weights, int64_t first,
                    int64_t columns, int64_t split, int64_t splits, void* panel_memory,
                    const ProductOutput& output, const WeightRun& next = {});

}  // namespace minimax::cpu
