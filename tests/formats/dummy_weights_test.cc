#include "formats/dummy_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/formats/temp_dir.h"

namespace minimax::formats {
namespace {

std::vector<TensorInfo> infos() {
  return {{"matrix", DType::kF32, {64, 256}, ""},
          {"norm", DType::kBF16, {4096}, ""},
          {"other", DType::kF32, {64, 256}, ""}};
}

std::pair<double, double> moments(const Tensor& tensor) {
  double sum = 0;
  double squares = 0;
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const double x =
        tensor.dtype() == DType::kF32 ? tensor.data<float>()[i] : to_float(tensor.data<bf16>()[i]);
    sum += x;
    squares += x * x;
  }
  const double mean = sum / static_cast<double>(tensor.numel());
  return {mean, std::sqrt(squares / static_cast<double>(tensor.numel()) - mean * mean)};
}

TEST(DummyWeights, HaveTheirScale) {
  DummyWeights source(infos(), 1);
  const auto [mean, deviation] = moments(source.tensor("matrix"));
  EXPECT_NEAR(mean, 0, 0.002);
  EXPECT_NEAR(deviation, 1.0 / 16, 0.002);
  const auto [norm_mean, norm_deviation] = moments(source.tensor("norm"));
  EXPECT_NEAR(norm_mean, 1, 0.01);
  EXPECT_NEAR(norm_deviation, 0.05, 0.01);
}

TEST(DummyWeights, DependOnSeedAndNameOnly) {
  const auto equal = [](const Tensor& a, const Tensor& b) {
    return std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.size_bytes())) == 0;
  };
  DummyWeights first(infos(), 1);
  DummyWeights same({infos()[0]}, 1);
  DummyWeights another(infos(), 2);
  EXPECT_TRUE(equal(first.tensor("matrix"), same.tensor("matrix")));
  EXPECT_FALSE(equal(first.tensor("matrix"), another.tensor("matrix")));
  EXPECT_FALSE(equal(first.tensor("matrix"), first.tensor("other")));
  EXPECT_EQ(first.tensor("matrix").raw(), first.tensor("matrix").raw());
}

TEST(DummyWeights, ReportLackOfMemory) {
  DummyWeights source({{"huge", DType::kF32, {int64_t{1} << 30, int64_t{1} << 27}, ""}}, 1);
  testing::expect_error([&] { source.tensor("huge"); }, "cannot reserve 576460752303423488 bytes");
}

}  // namespace
}  // namespace minimax::formats
