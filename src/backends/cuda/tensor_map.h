// Tensor maps, by which the copy engine finds boxes of tensors. On the host.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

namespace minimax::cuda {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found at run time: nothing links the driver. Null when it has none.
inline EncodeTiled encode_tiled() {
  static const EncodeTiled found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                               cudaEnableDefault, &result);
    const bool is_found = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return is_found ? reinterpret_cast<EncodeTiled>(function) : nullptr;
  }();
  return found;
}

// A tensor read in boxes whose rows of 128 bytes come in the 128-byte swizzle. Innermost dimension first, at
// most 5; strides, of all others, in bytes. THROWS: Error when the driver has no such maps or refuses this
// one.
CUtensorMap encode_swizzled(CUtensorMapDataType type, const void* data, std::span<const int64_t> sizes,
                            std::span<const int64_t> strides, std::span<const int> box);
template <int kDimensions>
CUtensorMap make_swizzled_map(CUtensorMapDataType type, const void* data, const int64_t (&sizes)[kDimensions],
                              const int64_t (&strides)[kDimensions - 1], const int (&box)[kDimensions]) {
  return encode_swizzled(type, data, sizes, strides, box);
}

// Codes of 8 bits [rows, columns], `stride` from row to row, read in boxes of box_rows by kMapColumns.
constexpr int kMapColumns = 128;
inline CUtensorMap make_code_map(const void* codes, int64_t rows, int64_t columns, int64_t stride,
                                 int box_rows) {
  return make_swizzled_map(CU_TENSOR_MAP_DATA_TYPE_UINT8, codes, {columns, rows}, {stride},
                           {kMapColumns, box_rows});
}

}  // namespace minimax::cuda
