#include "formats/dummy_weights.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "core/error.h"

namespace minimax::formats {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014).
class Generator {
 public:
  explicit Generator(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

  // Sum of four 16-bit uniforms: bell-shaped, mean 0, variance 1, bounded by 3.5.
  float normal() {
    const uint64_t bits = next();
    const auto sum =
        static_cast<float>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    return (sum - 131070.0F) * (1.7320508F / 65536.0F);
  }

 private:
  uint64_t state_;
};

// FNV-1a.
uint64_t hash(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325U;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return h;
}

template <typename T>
void fill(const Tensor& tensor, uint64_t seed) {
  const bool is_norm = tensor.rank() == 1;
  const float mean = is_norm ? 1.0F : 0.0F;
  const auto width = static_cast<float>(std::max<int64_t>(tensor.dim(tensor.rank() - 1), 1));
  const float deviation = is_norm ? 0.05F : 1.0F / std::sqrt(width);
  Generator generator(seed);
  T* values = tensor.data<T>();
  const int64_t n = tensor.numel();
  for (int64_t i = 0; i < n; ++i) values[i] = from_float<T>(mean + deviation * generator.normal());
}

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

DummyWeights::DummyWeights(std::vector<TensorInfo> tensors, uint64_t seed)
    : tensors_(std::move(tensors)), is_filled_(tensors_.size()), seed_(seed) {
  for (const auto& info : tensors_) {
    MM_CHECK(info.dtype == DType::kF32 || info.dtype == DType::kBF16, "dummy weights: {} is {}", info.name,
             name(info.dtype));
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
}

void DummyWeights::reserve() {
  if (!offsets_.empty()) return;
  int64_t total = 0;
  for (const auto& info : tensors_) {
    offsets_.push_back(total);
    total += aligned(info.size_bytes());
  }
  memory_ = HostMemory(total);
}

Tensor DummyWeights::tensor(const TensorInfo& info) {
  const auto i = static_cast<size_t>(&info - tensors_.data());
  MM_CHECK(i < tensors_.size(), "dummy weights: {} is another source's tensor", info.name);
  reserve();
  const Tensor tensor(memory_.data() + offsets_[i], info.dtype, info.shape, info.name);
  if (!is_filled_[i]) {
    is_filled_[i] = true;
    if (info.dtype == DType::kF32) fill<float>(tensor, seed_ ^ hash(info.name));
    if (info.dtype == DType::kBF16) fill<bf16>(tensor, seed_ ^ hash(info.name));
  }
  return tensor;
}

}  // namespace minimax::formats
