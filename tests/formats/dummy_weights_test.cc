#include "formats/dummy_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "quant/weight.h"
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

TEST(DummyWeights, OfF16HaveTheirScale) {
  DummyWeights source({{"matrix", DType::kF16, {64, 256}, ""}}, 1);
  const Tensor tensor = source.tensor("matrix");
  double squares = 0;
  for (int64_t i = 0; i < tensor.numel(); ++i) squares += std::pow(to_float(tensor.data<f16>()[i]), 2);
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(tensor.numel())), 1.0 / 16, 0.002);
}

// The standard deviation of the decoded matrix, over 1 / sqrt(width).
double relative_deviation(const quant::Weight& weight) {
  std::vector<float> row(static_cast<size_t>(weight.in_features()));
  double squares = 0;
  for (int64_t n = 0; n < weight.out_features(); ++n) {
    quant::decode_row(weight, n, row);
    for (const float x : row) squares += static_cast<double>(x) * static_cast<double>(x);
  }
  return std::sqrt(squares / static_cast<double>(weight.out_features()));
}

TEST(DummyWeights, OfEightBitsDecodeToTheirScale) {
  for (const int64_t width : {32, 96, 480, 1024}) {
    DummyWeights source({{"a.weight", DType::kF8E4M3, {200, width}, ""},
                         {"a.weight_scale_inv", DType::kF32, {2, (width + 127) / 128}, ""},
                         {"b.weight", DType::kF8E4M3, {200, width}, ""},
                         {"b.weight_scale_inv", DType::kU8, {200, width / 32}, ""},
                         {"up_proj", DType::kF8E4M3, {2, 128, width}, ""},
                         {"up_proj_scale", DType::kF32, {2, 1, (width + 127) / 128}, ""}},
                        1);
    const auto weight = [&](const std::string& name) {
      const bool is_inv = source.find(name + "_scale_inv") != nullptr;
      return quant::quantized_weight(source.tensor(name),
                                     source.tensor(name + (is_inv ? "_scale_inv" : "_scale")));
    };
    EXPECT_NEAR(relative_deviation(weight("a.weight")), 1, 0.1) << width;
    EXPECT_NEAR(relative_deviation(weight("b.weight")), 1, 0.04) << width;
    EXPECT_NEAR(relative_deviation(weight("up_proj").expert(1)), 1, 0.15) << width;
  }
}

TEST(DummyWeights, RefuseWhatTheyCannotMake) {
  const auto make = [](std::vector<TensorInfo> tensors) { return DummyWeights(std::move(tensors), 1); };
  EXPECT_THROW(make({{"a", DType::kI64, {4}, ""}}), InternalError);
  EXPECT_THROW(make({{"a_scale_inv", DType::kU8, {4, 1}, ""}}), InternalError);  // of no matrix
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
