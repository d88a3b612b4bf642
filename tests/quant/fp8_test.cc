// 8-bit formats: decoding against written-out blocks; encoding and decoding.
#include "quant/fp8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/quant/owned_weight.h"

namespace minimax::quant {
namespace {

constexpr uint8_t kOne = 0x38;
constexpr uint8_t kTwo = 0x40;
constexpr uint8_t kMax = 0x7e;  // 448

TEST(Fp8, DecodesAWrittenOutGrid) {
  // 3 x 5 in blocks of 2 x 3: a ragged edge both ways.
  const std::vector<uint8_t> codes = {kOne, kOne, kTwo, kOne, kTwo,  //
                                      kTwo, kTwo, kTwo, kTwo, kTwo,  //
                                      kMax, 0xb8, 0x01, 0x00, 0x80};
  const OwnedWeight owned(codes, {3, 5}, std::vector<float>{10, 0.5F, 3, 7}, {2, 2});
  const Weight weight = quantized_weight(owned.values, owned.scales, BlockShape{2, 3});
  EXPECT_EQ(weight.format, WeightFormat::kFp8);
  EXPECT_EQ(decoded_row(weight, 0), (std::vector<float>{10, 10, 20, 0.5F, 1}));
  EXPECT_EQ(decoded_row(weight, 1), (std::vector<float>{20, 20, 20, 1, 1}));
  EXPECT_EQ(decoded_row(weight, 2), (std::vector<float>{1344, -3, 3 * 0x1p-9F, 0, 0}));
  EXPECT_EQ(weight.size_bytes(), 15 + 16);
}

TEST(Fp8, OneScaleARowOrForAllIsAnotherBlockShape) {
  const std::vector<uint8_t> codes(2 * 3, kOne);
  for (const auto& shape : {std::vector<int64_t>{2}, {2, 1}}) {
    const OwnedWeight owned(codes, {2, 3}, std::vector<float>{2, 5}, shape);
    const Weight weight = quantized_weight(owned.values, owned.scales);
    EXPECT_EQ(weight.block_rows, 1);
    EXPECT_EQ(decoded_row(weight, 0), (std::vector<float>{2, 2, 2}));
    EXPECT_EQ(decoded_row(weight, 1), (std::vector<float>{5, 5, 5}));
  }
  const std::vector<uint8_t> many(300 * 2, kTwo);
  const OwnedWeight owned(many, {300, 2}, std::vector<float>{4}, {1});
  const Weight weight = quantized_weight(owned.values, owned.scales);
  EXPECT_EQ(weight.block_rows, 300);
  EXPECT_EQ(decoded_row(weight, 299), (std::vector<float>{8, 8}));
}

TEST(Mxfp8, DecodesAWrittenOutBlock) {
  std::vector<uint8_t> codes(2 * 64, kOne);
  codes[33] = kMax;
  const OwnedWeight owned(codes, {2, 64}, std::vector<uint8_t>{127, 120, 130, 0}, {2, 2});
  const Weight weight = quantized_weight(owned.values, owned.scales, BlockShape{1, 32});
  EXPECT_EQ(weight.format, WeightFormat::kMxfp8);
  const std::vector<float> first = decoded_row(weight, 0);
  EXPECT_EQ(first[0], 1);
  EXPECT_EQ(first[31], 1);
  EXPECT_EQ(first[32], 0x1p-7F);
  EXPECT_EQ(first[33], 3.5F);
  const std::vector<float> second = decoded_row(weight, 1);
  EXPECT_EQ(second[0], 8);
  EXPECT_EQ(second[63], 0x1p-127F);
}

// Memory for an N x K matrix of `format`, encoded from `source`.
OwnedWeight encoded(const std::vector<float>& source, int64_t n, int64_t k, BlockShape block, bool is_mx) {
  const std::vector<uint8_t> codes(static_cast<size_t>(n * k));
  const int64_t rows = (n + block.rows - 1) / block.rows;
  const int64_t columns = (k + block.columns - 1) / block.columns;
  const auto count = static_cast<size_t>(rows * columns);
  OwnedWeight owned = is_mx ? OwnedWeight(codes, {n, k}, std::vector<uint8_t>(count, 127), {rows, columns})
                            : OwnedWeight(codes, {n, k}, std::vector<float>(count, 1), {rows, columns});
  encode(source, quantized_weight(owned.values, owned.scales, block));
  return owned;
}

// Rounding to three mantissa bits is off by at most 2^-4 of a value, or by half the smallest step of its
// block, which is 2^-10 of the scale.
void expect_rounded(const std::vector<float>& source, const Weight& weight) {
  for (int64_t n = 0; n < weight.out_features(); ++n) {
    const std::vector<float> row = decoded_row(weight, n);
    for (int64_t k = 0; k < weight.in_features(); ++k) {
      const float scale = scale_at(weight, n / weight.block_rows, k / weight.block_columns);
      const float x = source[static_cast<size_t>(n * weight.in_features() + k)];
      EXPECT_LE(std::abs(row[k] - x), std::max(std::abs(x) / 16, scale * 0x1p-10F) * 1.0001F)
          << n << " " << k;
    }
  }
}

TEST(Encode, RoundsToTheNearest) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> source(130 * 160);
  for (float& x : source) x = normal(random);
  const OwnedWeight fp8 = encoded(source, 130, 160, kFp8Block, false);
  expect_rounded(source, quantized_weight(fp8.values, fp8.scales));
  const OwnedWeight mx = encoded(source, 130, 160, {1, 32}, true);
  expect_rounded(source, quantized_weight(mx.values, mx.scales));
}

TEST(Encode, ReachesTheLargestValueAndKeepsZeroBlocks) {
  std::vector<float> source(2 * 64, 0.0F);
  source[5] = -896;  // 2 * 448: a power of two exactly
  source[40] = 450;  // just beyond 448
  const OwnedWeight mx = encoded(source, 2, 64, {1, 32}, true);
  const auto* scales = mx.scales.data<uint8_t>();
  EXPECT_EQ(scales[0], 128);
  EXPECT_EQ(scales[1], 128);
  EXPECT_EQ(scales[2], 127);
  EXPECT_EQ(decoded_row(quantized_weight(mx.values, mx.scales), 0)[5], -896);
  const OwnedWeight fp8 = encoded(source, 2, 64, {1, 64}, false);
  EXPECT_EQ(fp8.scales.data<float>()[0], 2);
  EXPECT_EQ(fp8.scales.data<float>()[1], 1);
}

TEST(Activations, AreRoundedInGroupsOf128) {
  std::vector<float> x(130, 1.0F);
  x[0] = -896;              // scale 2: 896 is kept, 1 is 0.5 * 2
  x[1] = 17;                // 8.5 is halfway between 8 and 9: the even one
  x[2] = 0x1p-9F;           // half of the smallest number times 2: to zero
  x[128] = x[129] = 3e-9F;  // a short group; its scale is 3e-9 / 448 < 1e-10, so 1e-10
  round_activations(x.data(), 130, 1, WeightFormat::kFp8);
  EXPECT_EQ(x[0], -896);
  EXPECT_EQ(x[1], 16);
  EXPECT_EQ(x[2], 0);
  EXPECT_EQ(x[127], 1);
  EXPECT_FLOAT_EQ(x[128], 30 * 1e-10F);
}

TEST(Activations, OfMxfp8HavePowersOfTwoInGroupsOf32) {
  std::vector<float> strided(2 * 64, 1.0F);
  strided[0] = 900;    // 900 / 448 is beyond 2: scale 4
  strided[2] = 3;      // 0.75 * 4
  strided[1] = 12345;  // not of this row
  round_activations(strided.data(), 64, 2, WeightFormat::kMxfp8);
  EXPECT_EQ(strided[0], 224 * 4);
  EXPECT_EQ(strided[2], 3);
  EXPECT_EQ(strided[1], 12345);
  EXPECT_EQ(strided[62], 1);
  EXPECT_EQ(strided[64], 1);
  std::vector<float> untouched = {0.1F};
  round_activations(untouched.data(), 1, 1, WeightFormat::kBF16);
  EXPECT_EQ(untouched[0], 0.1F);
}

}  // namespace
}  // namespace minimax::quant
