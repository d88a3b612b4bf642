#include "formats/weight_source.h"

#include <algorithm>

#include "core/error.h"
#include "formats/mapped_file.h"
#include "formats/printable.h"

namespace minimax::formats {
namespace {

// Between two steps of a progress bar.
constexpr int64_t kChunkBytes = int64_t{64} << 20;
constexpr size_t kPageBytes = 4096;

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

Tensor WeightSource::as_f32(const Tensor& vector) {
  MM_CHECK(vector.dtype() == DType::kF16 && vector.rank() == 1 && vector.has_dense_rows(), "{} to F32",
           vector.describe());
  std::vector<float>& values = converted_.emplace_back(static_cast<size_t>(vector.numel()));
  const f16* from = vector.data<f16>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = to_float(from[i]);
  return Tensor(values.data(), DType::kF32, vector.shape(), vector.name());
}

int64_t WeightSource::loaded_bytes() const {
  int64_t bytes = 0;
  for (const auto& [info, areas] : loaded_) bytes += covered_elements(areas) * size_of(info->dtype);
  return bytes;
}

namespace {

std::string_view place_of(const TensorInfo& info) { return info.file.empty() ? info.name : info.file; }

// A run of memory, a chunk at a time.
void load_run(std::span<const std::byte> run, const TensorInfo& info, Progress& progress) {
  while (!run.empty()) {
    const auto chunk = run.first(std::min(run.size(), static_cast<size_t>(kChunkBytes)));
    populate(chunk, place_of(info));
    progress.advance(static_cast<int64_t>(chunk.size()));
    run = run.subspan(chunk.size());
  }
}

// Rows that lie apart.
void load_rows(const Tensor& rows, const TensorInfo& info) {
  const auto row_bytes = static_cast<size_t>(rows.dim(1) * size_of(rows.dtype()));
  const auto stride_bytes = static_cast<size_t>(rows.stride(0) * size_of(rows.dtype()));
  const auto count = static_cast<size_t>(rows.dim(0));
  const auto* data = static_cast<const std::byte*>(rows.raw());
  // With no page between two rows they are one run.
  if (stride_bytes - row_bytes < kPageBytes)
    return populate({data, (count - 1) * stride_bytes + row_bytes}, place_of(info));
  for (size_t row = 0; row < count; ++row) populate({data + row * stride_bytes, row_bytes}, place_of(info));
}

}  // namespace

void load_part(WeightSource& source, const TensorInfo& info, const Tensor& part, const Area& area,
               Progress& progress) {
  MM_CHECK(area.rows.size() * area.columns.size() == part.numel(), "{} is {} x {} of {}", part.describe(),
           area.rows.size(), area.columns.size(), info.name);
  if (part.numel() == 0) return;
  source.loaded_[&info].push_back(area);
  if (part.is_contiguous()) {
    return load_run({static_cast<const std::byte*>(part.raw()), static_cast<size_t>(part.size_bytes())}, info,
                    progress);
  }
  MM_CHECK(part.rank() == 2 && part.has_dense_rows(), "{} of {}: neither a run nor rows", part.describe(),
           info.name);
  load_rows(part, info);
  progress.advance(part.size_bytes());
}

Tensor load_tensor(WeightSource& source, const TensorInfo& info, Progress& progress) {
  const Tensor tensor = source.tensor(info);
  const int64_t columns = info.shape.empty() ? 1 : std::max<int64_t>(info.shape.back(), 1);
  load_part(source, info, tensor, {{0, tensor.numel() / columns}, {0, columns}}, progress);
  return tensor;
}

}  // namespace minimax::formats
