// Which tensors make a weight, what is refused and how it is said, and slices.
#include "quant/weight.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/quant/owned_weight.h"

namespace minimax::quant {
namespace {

template <typename Call>
void expect_error(const Call& call, const std::vector<std::string>& parts) {
  try {
    call();
    FAIL() << "accepted; expected an error with: " << parts.front();
  } catch (const Error& error) {
    const std::string message = error.what();
    for (const std::string& part : parts) EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

OwnedWeight fp8(const std::vector<int64_t>& shape, const std::vector<int64_t>& scale_shape, float scale = 1) {
  int64_t values = 1;
  for (const int64_t n : shape) values *= n;
  int64_t scales = 1;
  for (const int64_t n : scale_shape) scales *= n;
  return {std::vector<uint8_t>(static_cast<size_t>(values), 0x38), shape,
          std::vector<float>(static_cast<size_t>(scales), scale), scale_shape};
}

OwnedWeight mxfp8(const std::vector<int64_t>& shape, const std::vector<int64_t>& scale_shape,
                  uint8_t scale = 127) {
  int64_t values = 1;
  for (const int64_t n : shape) values *= n;
  int64_t scales = 1;
  for (const int64_t n : scale_shape) scales *= n;
  return {std::vector<uint8_t>(static_cast<size_t>(values), 0x38), shape,
          std::vector<uint8_t>(static_cast<size_t>(scales), scale), scale_shape};
}

Weight quantized(const OwnedWeight& owned, std::optional<BlockShape> declared = std::nullopt) {
  return quantized_weight(owned.values, owned.scales, declared);
}

TEST(PlainWeight, KnowsItsFormatAndDecodesF16) {
  std::vector<f16> values = {to_f16(1.5F), to_f16(-2.0F)};
  const Weight weight = plain_weight(Tensor(values.data(), DType::kF16, {1, 2}));
  EXPECT_EQ(weight.format, WeightFormat::kF16);
  EXPECT_EQ(decoded_row(weight, 0), (std::vector<float>{1.5F, -2.0F}));
}

TEST(PlainWeight, NamesTheMissingScale) {
  const OwnedWeight owned = fp8({4, 4}, {1, 1});
  expect_error([&] { plain_weight(owned.values); }, {"layer.weight_scale_inv", "missing"});
  expect_error([&] { quantized_weight(owned.values, {}); }, {"layer.weight_scale_inv", "missing"});
}

TEST(QuantizedWeight, DecidesByWhatTheTensorsHold) {
  EXPECT_EQ(quantized(fp8({200, 300}, {2, 3})).block_columns, 128);
  EXPECT_EQ(quantized(fp8({200, 300}, {2, 3}), kFp8Block).block_rows, 128);
  EXPECT_EQ(quantized(fp8({200, 300}, {200})).block_columns, 300);
  EXPECT_EQ(quantized(mxfp8({3, 64}, {3, 2})).format, WeightFormat::kMxfp8);
  EXPECT_EQ(quantized(mxfp8({3, 64}, {3, 2}), BlockShape{1, 32}).block_columns, 32);
}

TEST(QuantizedWeight, RefusesWhatDoesNotFit) {
  const std::string both = "layer.weight_scale_inv";
  expect_error([&] { quantized(fp8({200, 300}, {2, 2})); }, {both, "[2, 3]", "[2, 2]", "[200, 300]"});
  expect_error([&] { quantized(fp8({200, 300}, {2, 3}), BlockShape{64, 64}); }, {both, "[4, 5]"});
  expect_error([&] { quantized(fp8({200, 64}, {200, 2}), BlockShape{1, 32}); }, {both, "E8M0"});
  expect_error([&] { quantized(mxfp8({3, 64}, {3, 2}), kFp8Block); }, {both, "128 x 128"});
  expect_error([&] { quantized(mxfp8({3, 64}, {3, 3})); }, {both, "[3, 2]"});
  expect_error([&] { quantized(mxfp8({3, 48}, {3, 2})); }, {"multiple of 32"});
  const OwnedWeight owned = fp8({4, 4}, {1, 1});
  expect_error([&] { quantized_weight(owned.scales, owned.scales); }, {"only F8_E4M3 values"});
  expect_error([&] { quantized_weight(owned.values, owned.values); }, {"expected F32"});
}

TEST(QuantizedWeight, RefusesScalesThatAreNoScales) {
  for (const float scale :
       {0.0F, -1.0F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    expect_error([&] { quantized(fp8({4, 4}, {1, 1}, scale)); }, {"finite and positive", "element 0"});
  }
  expect_error([&] { quantized(mxfp8({1, 32}, {1, 1}, 0xff)); }, {"NaN"});
}

TEST(Slices, CutScalesAtBlocks) {
  OwnedWeight owned = fp8({320, 256}, {3, 2});
  for (int i = 0; i < 6; ++i) owned.scales.data<float>()[i] = static_cast<float>(i + 1);
  const Weight weight = quantized(owned);
  const Weight upper = weight.rows(0, 128);
  const Weight lower = weight.rows(128, 320);
  EXPECT_EQ(upper.scales.dim(0), 1);
  EXPECT_EQ(lower.scales.dim(0), 2);
  for (const int64_t row : {128, 255, 256, 319})
    EXPECT_EQ(decoded_row(lower, row - 128), decoded_row(weight, row));
  EXPECT_EQ(decoded_row(quantized(fp8({300, 8}, {1}, 3)).rows(7, 20), 0).front(), 3);
  EXPECT_EQ(quantized(mxfp8({3, 64}, {3, 2})).rows(1, 3).scales.dim(0), 2);
}

// Distinct codes and scales: every element of a part is that of the whole.
TEST(Slices, TakeAnyPartWithItsPlaceInTheBlocks) {
  OwnedWeight owned = fp8({300, 416}, {3, 4});
  for (int i = 0; i < 12; ++i) owned.scales.data<float>()[i] = static_cast<float>(i + 1);
  OwnedWeight groups = mxfp8({300, 416}, {300, 13});
  for (int i = 0; i < 3900; ++i) groups.scales.data<uint8_t>()[i] = static_cast<uint8_t>(100 + i % 50);
  for (const Weight& weight : {quantized(owned), quantized(groups)}) {
    const Weight outer = weight.part({10, 290}, {30, 410});
    const Weight inner = outer.part({90, 200}, {7, 300});
    EXPECT_EQ(inner.row_offset, weight.block_rows == 1 ? 0 : 100);
    EXPECT_EQ(inner.column_offset, weight.block_rows == 1 ? 5 : 37);
    for (int64_t n = 0; n < inner.out_features(); ++n) {
      const std::vector<float> whole = decoded_row(weight, 100 + n);
      EXPECT_EQ(decoded_row(inner, n), std::vector<float>(whole.begin() + 37, whole.begin() + 330));
    }
  }
  EXPECT_EQ(quantized(owned).part({0, 300}, {416, 416}).in_features(), 0);
}

TEST(Slices, AreCheckedAlone) {
  OwnedWeight owned = fp8({256, 256}, {2, 2});
  owned.scales.data<float>()[3] = -1;
  const Weight layout = quantized_layout(owned.values, owned.scales);
  EXPECT_NO_THROW(check_scales(layout.part({0, 128}, {0, 256})));
  EXPECT_NO_THROW(check_scales(layout.part({0, 256}, {0, 128})));
  expect_error([&] { check_scales(layout.part({100, 129}, {0, 256})); }, {"element 3 is -1"});
}

TEST(Slices, TakeOneExpertOfAStack) {
  OwnedWeight owned = fp8({2, 256, 128}, {2, 2, 1});
  for (int i = 0; i < 4; ++i) owned.scales.data<float>()[i] = static_cast<float>(i + 1);
  const Weight stack = quantized(owned, kFp8Block);
  EXPECT_EQ(stack.out_features(), 256);
  EXPECT_EQ(stack.in_features(), 128);
  EXPECT_EQ(decoded_row(stack.expert(1).rows(128, 256), 0).front(), 4);
  const OwnedWeight one_an_expert = fp8({2, 256, 128}, {2}, 5);
  const Weight per_expert = quantized(one_an_expert);
  EXPECT_EQ(decoded_row(per_expert.expert(1), 255).front(), 5);
  expect_error([] { quantized(fp8({2, 256, 128}, {3, 2, 1})); }, {"one grid for each matrix"});
}

}  // namespace
}  // namespace minimax::quant
