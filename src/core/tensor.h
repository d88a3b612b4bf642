// Tensor: a non-owning view of memory with shape, strides, dtype, device and a name.
//
// Shapes are written slowest dimension first, strides count elements. All sizes are 64-bit. The memory
// belongs to whoever made it (a checkpoint's mapping, an arena, a cache); a view is cheap to copy.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "core/dtype.h"
#include "core/error.h"

namespace minimax {

enum class DeviceType : uint8_t { kCpu, kCuda };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

std::string to_string(Device device);

class Tensor {
 public:
  static constexpr int kMaxRank = 5;

  Tensor() = default;

  // A contiguous view. REQUIRES: rank <= kMaxRank, sizes >= 0; `name` outlives the view.
  Tensor(void* data, DType dtype, std::span<const int64_t> shape, std::string_view name = "",
         Device device = {});
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape, std::string_view name = "",
         Device device = {})
      : Tensor(data, dtype, std::span(shape.begin(), shape.size()), name, device) {}

  bool defined() const { return rank_ > 0; }
  int rank() const { return rank_; }
  int64_t dim(int axis) const { return shape_[static_cast<size_t>(axis)]; }
  int64_t stride(int axis) const { return stride_[static_cast<size_t>(axis)]; }
  std::span<const int64_t> shape() const { return {shape_.data(), static_cast<size_t>(rank_)}; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  std::string_view name() const { return name_; }
  void* raw() const { return data_; }

  int64_t numel() const;
  int64_t size_bytes() const { return numel() * size_of(dtype_); }
  bool is_contiguous() const;
  // True when the last dimension is dense, so that a row is one run of memory.
  bool has_dense_rows() const { return rank_ > 0 && (stride_[rank_ - 1] == 1 || shape_[rank_ - 1] <= 1); }

  // Typed pointer. REQUIRES: sizeof(T) equals the dtype's size.
  template <typename T>
  T* data() const {
    MM_CHECK(static_cast<int64_t>(sizeof(T)) == size_of(dtype_),
             "tensor {} is {}, accessed as a {}-byte type", name_, minimax::name(dtype_), sizeof(T));
    return static_cast<T*>(data_);
  }
  // Pointer to row `i` of the first dimension.
  template <typename T>
  T* row(int64_t i) const {
    return data<T>() + i * stride_[0];
  }

  Tensor named(std::string_view name) const;
  // The same view of other memory.
  Tensor moved(void* data, Device device) const;
  // Elements [begin, end) of `axis`.
  Tensor slice(int axis, int64_t begin, int64_t end) const;
  // Element `i` of the first dimension, rank reduced by one.
  Tensor select(int64_t i) const;
  // The same elements under another shape. REQUIRES: contiguous, equal element count.
  Tensor reshape(std::initializer_list<int64_t> shape) const;
  // The last dimension split into [a, b] (b fastest); strides of the others are kept.
  Tensor split_last(int64_t a, int64_t b) const;

  // "[3, 4] F32 attn_norm"
  std::string describe() const;

 private:
  // Null stays null: a tensor that is only planned has no memory.
  void* advanced(int64_t elements) const;

  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  std::array<int64_t, kMaxRank> shape_{};
  std::array<int64_t, kMaxRank> stride_{};
  Device device_{};
  std::string_view name_;
};

// RETURNS: "[3, 4]".
std::string shape_string(std::span<const int64_t> shape);

}  // namespace minimax
