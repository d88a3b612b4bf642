// Internal to the matrix products: SIMD functions that the driver in matmul.cc calls.
#pragma once

#include "backends/cpu/matmul.h"

namespace minimax::cpu {

const char* simd_target_name();

// out[r * out_stride + c] = x row r . weight row (first + c), x in row_layout(weight).
void dot_products(const float* x, int64_t x_stride, int64_t rows, const quant::Weight& weight, int64_t first,
                  int64_t columns, float* out, int64_t out_stride);

// out = elements [first, first + count) of row `row` as F32, exactly as quant::decode_row.
void decode_weight(const quant::Weight& weight, int64_t row, int64_t first, int64_t count, float* out);

// The row as F32, padded with zeros; with `split_pairs` the even elements first, the odd ones from padded / 2
// on.
void unpack_row(const void* row, DType dtype, int64_t k, bool split_pairs, float* out, int64_t padded);

// Activation, addend, rounding and store of a [rows, columns] block of results; `up` is read only when
// output.gated.
void store_block(const float* gate, const float* up, int64_t ld, int64_t rows, int64_t columns,
                 const ProductOutput& output, int64_t first_row, int64_t first_column);

// Reads all of it; RETURNS: about `bytes`, in a way that keeps the reads.
double read_bytes(const void* data, int64_t bytes);

}  // namespace minimax::cpu
