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
void fill_values(const Tensor& tensor, uint64_t seed) {
  const bool is_norm = tensor.rank() == 1;
  const float mean = is_norm ? 1.0F : 0.0F;
  const auto width = static_cast<float>(std::max<int64_t>(tensor.dim(tensor.rank() - 1), 1));
  const float deviation = is_norm ? 0.05F : 1.0F / std::sqrt(width);
  Generator generator(seed);
  T* values = tensor.data<T>();
  const int64_t n = tensor.numel();
  for (int64_t i = 0; i < n; ++i) values[i] = from_float<T>(mean + deviation * generator.normal());
}

// Drawing takes longer than a large tensor's numbers are worth.
constexpr int64_t kLargeDraws = 4'000'037;

// An 8-bit matrix of `width` inputs holds codes of this standard deviation, between 64 and 128 so that the
// largest, 3.5 times it, are in range; its scales are about the power of two that is missing to
// 1/sqrt(width).
struct EightBit {
  float deviation;
  int exponent;
};

EightBit eight_bit(const TensorInfo& matrix) {
  const auto width = static_cast<float>(std::max<int64_t>(matrix.shape.back(), 1));
  int exponent = 0;
  const float fraction = std::frexp(1.0F / std::sqrt(width), &exponent);  // [0.5, 1)
  return {fraction * 128.0F, exponent - 7};
}

// Codes are drawn from a table, four at a time.
void fill_codes(const Tensor& tensor, float deviation, uint64_t seed) {
  constexpr size_t kTable = 1 << 14;
  Generator generator(seed);
  std::vector<f8e4m3> table(kTable);
  for (f8e4m3& code : table) code = to_e4m3(deviation * generator.normal());
  auto* values = tensor.data<f8e4m3>();
  const int64_t n = tensor.numel();
  for (int64_t i = 0; i < n; i += 4) {
    uint64_t bits = generator.next();
    for (int64_t j = i; j < std::min(i + 4, n); ++j, bits >>= 16) values[j] = table[bits % kTable];
  }
}

// F32 scales vary by an eighth, so that mixing them up shows.
void fill_scales(const Tensor& tensor, int exponent, uint64_t seed) {
  if (size_of(tensor.dtype()) == 1) {
    std::fill_n(tensor.data<uint8_t>(), tensor.numel(), static_cast<uint8_t>(exponent + 127));
    return;
  }
  Generator generator(seed);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const float spread = static_cast<float>(generator.next() >> 40U) * 0x1p-26F - 0.125F;
    tensor.data<float>()[i] = std::ldexp(1.0F + spread, exponent);
  }
}

// Every tensor begins elsewhere, and the length of the draws is out of step with its rows.
template <typename T>
void repeat(std::span<const T> drawn, uint64_t seed, const Tensor& tensor) {
  const auto period = static_cast<int64_t>(drawn.size());
  const int64_t n = tensor.numel();
  auto from = static_cast<int64_t>(seed % drawn.size());
  for (int64_t done = 0; done < n; from = 0) {
    const int64_t count = std::min(period - from, n - done);
    std::copy_n(drawn.data() + from, count, tensor.data<T>() + done);
    done += count;
  }
}

bool can_fill(const TensorInfo& info, bool is_scale) {
  switch (info.dtype) {
    case DType::kF32:
      return true;
    case DType::kBF16:
    case DType::kF16:
    case DType::kF8E4M3:
      return !is_scale;
    case DType::kU8:
    case DType::kF8E8M0:
      return is_scale;
    default:
      return false;
  }
}

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

DummyWeights::DummyWeights(std::vector<TensorInfo> tensors, uint64_t seed)
    : tensors_(std::move(tensors)), places_(tensors_.size()), seed_(seed) {
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (const auto& info : tensors_) {
    MM_CHECK(can_fill(info, scaled_by(info) != nullptr), "dummy weights: {} is {}", info.name,
             name(info.dtype));
  }
}

const TensorInfo* DummyWeights::scaled_by(const TensorInfo& info) const {
  for (const std::string_view suffix : {"_scale_inv", "_scale"}) {
    const std::string_view name = info.name;
    if (!name.ends_with(suffix)) continue;
    const TensorInfo* matrix = find(name.substr(0, name.size() - suffix.size()));
    if (matrix != nullptr && matrix->dtype == DType::kF8E4M3) return matrix;
  }
  return nullptr;
}

std::byte* DummyWeights::place(size_t index) {
  if (memory_.data() == nullptr) {
    int64_t total = 0;
    for (const auto& info : tensors_) total += aligned(info.size_bytes());
    memory_ = HostMemory(total);
  }
  places_[index] = memory_.data() + used_;
  used_ += aligned(tensors_[index].size_bytes());
  return places_[index];
}

Tensor DummyWeights::tensor(const TensorInfo& info) {
  const auto i = static_cast<size_t>(&info - tensors_.data());
  MM_CHECK(i < tensors_.size(), "dummy weights: {} is another source's tensor", info.name);
  const bool is_new = places_[i] == nullptr;
  const Tensor tensor(is_new ? place(i) : places_[i], info.dtype, info.shape, info.name);
  if (is_new) fill(info, tensor);
  return tensor;
}

// The values come again from the seed when somebody asks; pages that were touched are used again first.
void DummyWeights::release() {
  std::fill(places_.begin(), places_.end(), nullptr);
  used_ = 0;
}

template <typename T>
void DummyWeights::fill_large(const Tensor& tensor, uint64_t seed, std::map<int64_t, std::vector<T>>& draws) {
  static_assert(sizeof(T) > 1, "codes have a deviation of their own");
  const int64_t width = tensor.dim(tensor.rank() - 1);
  std::vector<T>& drawn = draws[width];
  if (drawn.empty()) {
    drawn.resize(static_cast<size_t>(kLargeDraws));
    fill_values<T>(Tensor(drawn.data(), tensor.dtype(), {kLargeDraws / width, width}), seed_);
    Generator generator(seed_);
    const float deviation = 1.0F / std::sqrt(static_cast<float>(width));
    for (int64_t i = kLargeDraws / width * width; i < kLargeDraws; ++i)
      drawn[static_cast<size_t>(i)] = from_float<T>(deviation * generator.normal());
  }
  repeat<T>(drawn, seed, tensor);
}

void DummyWeights::fill_large_codes(const Tensor& tensor, float deviation, uint64_t seed) {
  std::vector<f8e4m3>& drawn = code_draws_[deviation];
  if (drawn.empty()) {
    drawn.resize(static_cast<size_t>(kLargeDraws));
    fill_codes(Tensor(drawn.data(), tensor.dtype(), {kLargeDraws}), deviation, seed_);
  }
  repeat<f8e4m3>(drawn, seed, tensor);
}

void DummyWeights::fill(const TensorInfo& info, const Tensor& tensor) {
  const uint64_t seed = seed_ ^ hash(info.name);
  if (const TensorInfo* matrix = scaled_by(info); matrix != nullptr)
    return fill_scales(tensor, eight_bit(*matrix).exponent, seed);
  if (tensor.rank() > 1 && tensor.numel() > kLargeDraws) {
    if (info.dtype == DType::kBF16) return fill_large<bf16>(tensor, seed, bf16_draws_);
    if (info.dtype == DType::kF32) return fill_large<float>(tensor, seed, f32_draws_);
    if (info.dtype == DType::kF8E4M3) return fill_large_codes(tensor, eight_bit(info).deviation, seed);
  }
  switch (info.dtype) {
    case DType::kBF16:
      return fill_values<bf16>(tensor, seed);
    case DType::kF16:
      return fill_values<f16>(tensor, seed);
    case DType::kF8E4M3:
      return fill_codes(tensor, eight_bit(info).deviation, seed);
    default:
      return fill_values<float>(tensor, seed);
  }
}

}  // namespace minimax::formats
