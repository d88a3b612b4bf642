// What the copy engine is told of matrices of 8-bit codes.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace minimax::cuda {

constexpr int kMapColumns = 128;  // of a box, whose rows are swizzled

// Codes [rows, columns], read in boxes of box_rows by kMapColumns.
CUtensorMap make_code_map(const void* codes, int64_t rows, int64_t columns, int64_t stride, int box_rows);

}  // namespace minimax::cuda
