// Where a model's tensors come from: a checkpoint on disk, or made-up values of the right shapes.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "formats/progress.h"

namespace minimax::formats {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::string file;  // name of the file it is in, empty when it is in none

  int64_t size_bytes() const;
};

// Tensors returned by a source are valid, names included, as long as the source lives.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Ordered by name. Costs no tensor memory.
  virtual std::span<const TensorInfo> tensors() const = 0;
  // What the tensors come from, for error messages: a directory, or "dummy weights".
  virtual std::string describe() const = 0;
  // REQUIRES: `info` is an element of tensors(). A scalar becomes shape [1].
  virtual Tensor tensor(const TensorInfo& info) = 0;

  // The tensor as F32, in memory that the source owns. For vectors: a matrix stays as it is stored.
  // REQUIRES: `info` is an F16 tensor.
  Tensor tensor_as_f32(const TensorInfo& info);

  // RETURNS: nullptr when there is no such tensor.
  const TensorInfo* find(std::string_view name) const;
  // THROWS: Error when there is no such tensor.
  Tensor tensor(std::string_view name);

 protected:
  WeightSource() = default;
  WeightSource(const WeightSource&) = default;
  WeightSource& operator=(const WeightSource&) = default;
  WeightSource(WeightSource&&) = default;
  WeightSource& operator=(WeightSource&&) = default;

 private:
  std::deque<std::vector<float>> converted_;
};

// The tensor with all its pages in memory; `progress` advances by its bytes while they come in.
Tensor load_tensor(WeightSource& source, const TensorInfo& info, Progress& progress);

}  // namespace minimax::formats
