// Internal to the matrix products: SIMD functions that the driver in matmul.cc calls.
#pragma once

#include "backends/cpu/matmul.h"

namespace minimax::cpu {

const char* simd_target_name();

// Bytes of weights that are asked for ahead of those that are multiplied: within a run by kernels, from run
// to run by the driver.
constexpr int64_t kFetchedAhead = 8192;

// out[r * out_stride + c] = x row r . weight row (first + c), x in kPairs for BF16 weights, else in kInOrder.
void dot_products(const float* x, int64_t x_stride, int64_t rows, const quant::Weight& weight, int64_t first,
                  int64_t columns, float* out, int64_t out_stride);

// The same for e4m3 weights and x in kQuads. REQUIRES: blocks as product_path wants them.
void dot_products_quads(const float* x, int64_t x_stride, int64_t rows, const quant::Weight& weight,
                        int64_t first, int64_t columns, float* out, int64_t out_stride);

// The same for BF16 weights and x in kHalves. REQUIRES: bf16_kernel() is not null; 1 to kMaxDotRows rows,
// also of the next two.
void dot_products_bf16(const bf16* x, int64_t x_stride, int64_t rows, const quant::Weight& weight,
                       int64_t first, int64_t columns, float* out, int64_t out_stride);
// The same for weights of kFp8 and of kMxfp8 and x in kBytes. REQUIRES: has_fp8_dot(); blocks as product_path
// wants them.
void dot_products_fp8(const bf16* x, int64_t x_stride, int64_t rows, const quant::Weight& weight,
                      int64_t first, int64_t columns, float* out, int64_t out_stride);
void dot_products_mxfp8(const bf16* x, int64_t x_stride, int64_t rows, const quant::Weight& weight,
                        int64_t first, int64_t columns, float* out, int64_t out_stride);
// The same for up to 16 rows of x in 4, 8 or 16 lanes: BF16 weights with an even number of inputs or e4m3
// weights with a multiple of 64, of blocks as product_path wants them. REQUIRES: has_fp8_dot().
void dot_products_lanes(const uint32_t* x, int64_t lanes, int64_t rows, const quant::Weight& weight,
                        int64_t first, int64_t columns, float* out, int64_t out_stride);
// Where the run of weight rows ends that a product is part of, and what is read after it.
struct RunEnd {
  int64_t end = 0;
  WeightRun next;
};
// Rows of 8-bit weights that tiles have asked for ahead of those they multiply.
constexpr int64_t kFetchedTileRows = 32;
// The same with tiles: BF16 weights with a multiple of 32 inputs, in 16 lanes, or e4m3 weights as above, in 4
// or 16. REQUIRES: has_tiles().
void dot_products_tiles(const uint32_t* x, int64_t lanes, int64_t rows, const quant::Weight& weight,
                        int64_t first, int64_t columns, const RunEnd& run, float* out, int64_t out_stride);
// True when this processor multiplies tiles of BF16 (AMX) and the system lets this process use them.
bool has_tiles();
// Operations of `iterations` multiplications of tiles alone, done on this thread. REQUIRES: has_tiles().
double multiply_tile_chain(int64_t iterations);
// Lays out rows [first, first + rows) for both: [pairs of inputs, lanes], pairs in the order of kBytes with
// `for_bytes`, else as they come.
void lay_out_lanes(const RowView& x, int64_t first, int64_t rows, int64_t lanes, int64_t k, bool for_bytes,
                   uint32_t* out);

// Lay out a row of x as kHalves and as kBytes, with zeros up to a multiple of 64 bytes.
void lay_out_bf16_row(const std::byte* row, DType dtype, int64_t k, bf16* out);
void lay_out_fp8_row(const std::byte* row, DType dtype, int64_t k, bf16* out);
// True when this processor has the instructions, those of MINIMAX_VBMI_TARGET.
bool has_fp8_dot();

// out = elements [first, first + count) of row `row` as F32, exactly as quant::decode_row.
void decode_weight(const quant::Weight& weight, int64_t row, int64_t first, int64_t count, float* out);

// The row as F32 in kInOrder, kPairs or kQuads, `padded` elements with zeros behind.
void unpack_row(const void* row, DType dtype, int64_t k, RowLayout layout, float* out, int64_t padded);

// Activation, addend, rounding and store of a [rows, columns] block of results; `up` is read only when
// output.gated.
void store_block(const float* gate, const float* up, int64_t ld, int64_t rows, int64_t columns,
                 const ProductOutput& output, int64_t first_row, int64_t first_column);

// Reads all of it; RETURNS: about `bytes`, in a way that keeps the reads.
double read_bytes(const void* data, int64_t bytes);

}  // namespace minimax::cpu
