#include "formats/weight_source.h"

#include <algorithm>

#include "core/error.h"
#include "formats/mapped_file.h"
#include "formats/printable.h"

namespace minimax::formats {
namespace {

// Between two steps of a progress bar.
constexpr int64_t kChunkBytes = int64_t{64} << 20;

}  // namespace

int64_t TensorInfo::size_bytes() const {
  int64_t bytes = size_of(dtype);
  for (const int64_t size : shape) bytes *= size;
  return bytes;
}

const TensorInfo* WeightSource::find(std::string_view name) const {
  const auto all = tensors();
  const auto found =
      std::lower_bound(all.begin(), all.end(), name, [](const TensorInfo& a, auto b) { return a.name < b; });
  return found != all.end() && found->name == name ? &*found : nullptr;
}

Tensor WeightSource::tensor(std::string_view name) {
  const TensorInfo* info = find(name);
  if (info == nullptr) fail("{}: has no tensor \"{}\"", describe(), printable(name));
  return tensor(*info);
}

Tensor WeightSource::tensor_as_f32(const TensorInfo& info) {
  const Tensor stored = tensor(info);
  MM_CHECK(stored.dtype() == DType::kF16, "{} is {}", info.name, name(stored.dtype()));
  std::vector<float>& values = converted_.emplace_back(static_cast<size_t>(stored.numel()));
  const f16* from = stored.data<f16>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = to_float(from[i]);
  return Tensor(values.data(), DType::kF32, info.shape, info.name);
}

Tensor load_tensor(WeightSource& source, const TensorInfo& info, Progress& progress) {
  const Tensor tensor = source.tensor(info);
  const auto* data = static_cast<const std::byte*>(tensor.raw());
  for (int64_t done = 0; done < info.size_bytes(); done += kChunkBytes) {
    const int64_t bytes = std::min(kChunkBytes, info.size_bytes() - done);
    populate({data + done, static_cast<size_t>(bytes)}, info.file.empty() ? info.name : info.file);
    progress.advance(bytes);
  }
  return tensor;
}

}  // namespace minimax::formats
