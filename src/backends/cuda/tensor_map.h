// Tensor maps, by which the copy engine finds boxes of tensors. On the host.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace minimax::cuda {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found at run time: nothing links the driver.
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

// A tensor read in boxes whose rows of 128 bytes come in the 128-byte swizzle. Innermost dimension first;
// strides, of all others, in bytes.
template <int kDimensions>
CUtensorMap make_swizzled_map(CUtensorMapDataType type, const void* data, const int64_t (&sizes)[kDimensions],
                              const int64_t (&strides)[kDimensions - 1], const int (&box)[kDimensions]) {
  CUtensorMap map = {};
  const EncodeTiled encode = encode_tiled();
  if (encode == nullptr) return map;
  cuuint64_t sizes_of[kDimensions], strides_of[kDimensions - 1];
  cuuint32_t box_of[kDimensions], steps[kDimensions];
  for (int i = 0; i < kDimensions; ++i) {
    sizes_of[i] = static_cast<cuuint64_t>(sizes[i]);
    if (i + 1 < kDimensions) strides_of[i] = static_cast<cuuint64_t>(strides[i]);
    box_of[i] = static_cast<cuuint32_t>(box[i]);
    steps[i] = 1;
  }
  encode(&map, type, kDimensions, const_cast<void*>(data), sizes_of, strides_of, box_of, steps,
         CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return map;
}

// Codes of 8 bits [rows, columns], `stride` from row to row, read in boxes of box_rows by kMapColumns.
constexpr int kMapColumns = 128;
inline CUtensorMap make_code_map(const void* codes, int64_t rows, int64_t columns, int64_t stride,
                                 int box_rows) {
  return make_swizzled_map(CU_TENSOR_MAP_DATA_TYPE_UINT8, codes, {columns, rows}, {stride},
                           {kMapColumns, box_rows});
}

}  // namespace minimax::cuda
