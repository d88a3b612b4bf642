// Where a model's tensors come from: a checkpoint on disk, or made-up values of the right shapes.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"
#include "formats/area.h"
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

  // Tensors given so far were copied elsewhere and are looked at no more: memory behind them may go.
  virtual void release() {}

  // An F16 vector as F32, in memory that the source owns.
  Tensor as_f32(const Tensor& vector);

  // RETURNS: nullptr when there is no such tensor.
  const TensorInfo* find(std::string_view name) const;
  // THROWS: Error when there is no such tensor.
  Tensor tensor(std::string_view name);

  // Bytes of all parts that were loaded (load_part), each counted once.
  int64_t loaded_bytes() const;

 protected:
  WeightSource() = default;
  WeightSource(const WeightSource&) = default;
  WeightSource& operator=(const WeightSource&) = default;
  WeightSource(WeightSource&&) = default;
  WeightSource& operator=(WeightSource&&) = default;

 private:
  friend void load_part(WeightSource& source, const TensorInfo& info, const Tensor& part, const Area& area,
                        Progress& progress);

  std::deque<std::vector<float>> converted_;
  std::map<const TensorInfo*, std::vector<Area>> loaded_;
};

// Brings `part`, a view of `area` of the source's tensor `info`, into memory; `progress` advances by its
// bytes meanwhile. Memory comes in pages: where a part begins or ends inside one, all of it comes.
void load_part(WeightSource& source, const TensorInfo& info, const Tensor& part, const Area& area,
               Progress& progress);

// The whole tensor.
Tensor load_tensor(WeightSource& source, const TensorInfo& info, Progress& progress);

}  // namespace minimax::formats
