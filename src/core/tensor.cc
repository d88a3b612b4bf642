#include "core/tensor.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace minimax {

std::string to_string(Device device) {
  return device.type == DeviceType::kCpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

std::string shape_string(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Tensor::Tensor(void* data, DType dtype, std::span<const int64_t> shape, std::string_view name, Device device)
    : data_(data), dtype_(dtype), rank_(static_cast<int>(shape.size())), device_(device), name_(name) {
  MM_CHECK(rank_ >= 1 && rank_ <= kMaxRank, "tensor {}: rank {} is not in 1..{}", name, rank_, kMaxRank);
  int64_t stride = 1;
  for (int i = rank_ - 1; i >= 0; --i) {
    MM_CHECK(shape[i] >= 0, "tensor {}: negative size in {}", name, shape_string(shape));
    shape_[i] = shape[i];
    stride_[i] = stride;
    stride *= std::max<int64_t>(shape[i], 1);
  }
}

int64_t Tensor::numel() const {
  if (rank_ == 0) return 0;
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= shape_[i];
  return n;
}

bool Tensor::is_contiguous() const {
  int64_t expected = 1;
  for (int i = rank_ - 1; i >= 0; --i) {
    if (shape_[i] != 1 && stride_[i] != expected) return numel() == 0;
    expected *= shape_[i];
  }
  return true;
}

Tensor Tensor::moved(void* data, Device device) const {
  Tensor view = *this;
  view.data_ = data;
  view.device_ = device;
  return view;
}

Tensor Tensor::named(std::string_view name) const {
  Tensor t = *this;
  t.name_ = name;
  return t;
}

void* Tensor::advanced(int64_t elements) const {
  return data_ == nullptr ? nullptr : static_cast<std::byte*>(data_) + elements * size_of(dtype_);
}

Tensor Tensor::slice(int axis, int64_t begin, int64_t end) const {
  MM_CHECK(axis >= 0 && axis < rank_ && begin >= 0 && begin <= end && end <= shape_[axis],
           "slice [{}, {}) of axis {} is outside {}", begin, end, axis, describe());
  Tensor t = *this;
  t.data_ = advanced(begin * stride_[axis]);
  t.shape_[axis] = end - begin;
  return t;
}

Tensor Tensor::select(int64_t i) const {
  MM_CHECK(rank_ >= 2 && i >= 0 && i < shape_[0], "select {} is outside {}", i, describe());
  Tensor t = *this;
  t.data_ = advanced(i * stride_[0]);
  t.rank_ = rank_ - 1;
  std::copy(shape_.begin() + 1, shape_.end(), t.shape_.begin());
  std::copy(stride_.begin() + 1, stride_.end(), t.stride_.begin());
  return t;
}

Tensor Tensor::reshape(std::initializer_list<int64_t> shape) const {
  Tensor t(data_, dtype_, shape, name_, device_);
  MM_CHECK(is_contiguous() && t.numel() == numel(), "cannot view {} as {}", describe(),
           shape_string(t.shape()));
  return t;
}

Tensor Tensor::split_last(int64_t a, int64_t b) const {
  MM_CHECK(rank_ >= 1 && rank_ < kMaxRank && a * b == shape_[rank_ - 1],
           "cannot split the last dimension of {} into [{}, {}]", describe(), a, b);
  Tensor t = *this;
  t.rank_ = rank_ + 1;
  t.shape_[rank_ - 1] = a;
  t.shape_[rank_] = b;
  t.stride_[rank_] = stride_[rank_ - 1];
  t.stride_[rank_ - 1] = stride_[rank_ - 1] * b;
  return t;
}

std::string Tensor::describe() const {
  return fmt::format("{} {} {}", shape_string(shape()), minimax::name(dtype_),
                     name_.empty() ? "(unnamed)" : name_);
}

}  // namespace minimax
