#include "backends/cuda/tensor_map.h"

#include <fmt/ranges.h>

#include <array>

#include "core/error.h"

namespace minimax::cuda {

CUtensorMap encode_swizzled(CUtensorMapDataType type, const void* data, std::span<const int64_t> sizes,
                            std::span<const int64_t> strides, std::span<const int> box) {
  constexpr size_t kMostDimensions = 5;
  const EncodeTiled encode = encode_tiled();
  if (encode == nullptr) fail("cuda: the driver has no cuTensorMapEncodeTiled; a driver for CUDA 12 has it");
  MM_CHECK(
      sizes.size() <= kMostDimensions && strides.size() + 1 == sizes.size() && box.size() == sizes.size(),
      "a tensor map of {} sizes, {} strides, {} sides", sizes.size(), strides.size(), box.size());
  std::array<cuuint64_t, kMostDimensions> sizes_of = {}, strides_of = {};
  std::array<cuuint32_t, kMostDimensions> box_of = {}, steps = {};
  for (size_t i = 0; i < sizes.size(); ++i) {
    sizes_of[i] = static_cast<cuuint64_t>(sizes[i]);
    if (i < strides.size()) strides_of[i] = static_cast<cuuint64_t>(strides[i]);
    box_of[i] = static_cast<cuuint32_t>(box[i]);
    steps[i] = 1;
  }
  CUtensorMap map = {};
  const CUresult result = encode(&map, type, static_cast<cuuint32_t>(sizes.size()), const_cast<void*>(data),
                                 sizes_of.data(), strides_of.data(), box_of.data(), steps.data(),
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  MM_CHECK(result == CUDA_SUCCESS,
           "the driver refuses a tensor map at {} of [{}], strides [{}], boxes [{}]: {}", fmt::ptr(data),
           fmt::join(sizes, ", "), fmt::join(strides, ", "), fmt::join(box, ", "), static_cast<int>(result));
  return map;
}

}  // namespace minimax::cuda
