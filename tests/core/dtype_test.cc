#include "core/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

namespace minimax {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }
uint16_t rounded(uint32_t bits) { return to_bf16(from_bits(bits)).bits; }

TEST(DTypeTest, NamesRoundTripAndUnknownOnesAreNothing) {
  for (int i = 0; i <= static_cast<int>(DType::kBool); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(name(dtype)), dtype) << name(dtype);
    EXPECT_GE(size_of(dtype), 1);
  }
  EXPECT_EQ(name(DType::kF8E4M3), "F8_E4M3");
  EXPECT_EQ(size_of(DType::kF8E8M0), 1);
  EXPECT_FALSE(dtype_from_name("bf16").has_value());
  EXPECT_FALSE(dtype_from_name("").has_value());
}

TEST(Bf16Test, TiesGoToTheEvenNeighbour) {
  EXPECT_EQ(rounded(0x3f808000), 0x3f80);
  EXPECT_EQ(rounded(0x3f818000), 0x3f82);
  EXPECT_EQ(rounded(0x3f808001), 0x3f81);
  EXPECT_EQ(rounded(0x3f807fff), 0x3f80);
  EXPECT_EQ(rounded(0xbf818000), 0xbf82);
}

TEST(Bf16Test, RoundsAcrossAnExponentToInfinityAndFromSubnormals) {
  EXPECT_EQ(rounded(0x3fffffff), 0x4000);
  EXPECT_EQ(to_float(to_bf16(std::numeric_limits<float>::max())), kInfinity);
  EXPECT_EQ(to_float(to_bf16(-std::numeric_limits<float>::max())), -kInfinity);
  EXPECT_EQ(to_float(to_bf16(kInfinity)), kInfinity);
  EXPECT_EQ(rounded(0x00008001), 0x0001);
  EXPECT_EQ(rounded(0x00008000), 0x0000);
}

TEST(Bf16Test, SignedZeroIsKept) {
  EXPECT_EQ(rounded(0x80000000), 0x8000);
  EXPECT_EQ(rounded(0x00000000), 0x0000);
}

// Payloads whose upper half is all ones or zero would round to infinity or to zero.
TEST(Bf16Test, EveryNaNStaysANaNOfItsSign) {
  for (const uint32_t bits : {0x7f800001U, 0x7fc00000U, 0x7fffffffU, 0x7f80ffffU, 0xff800001U, 0xffffffffU}) {
    const bf16 result = to_bf16(from_bits(bits));
    EXPECT_TRUE(std::isnan(to_float(result))) << std::hex << bits;
    EXPECT_EQ(result.bits >> 15, bits >> 31) << std::hex << bits;
  }
}

TEST(Bf16Test, EveryValueSurvivesTheWayThere) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const bf16 x{static_cast<uint16_t>(bits)};
    if (std::isnan(to_float(x))) continue;
    EXPECT_EQ(to_bf16(to_float(x)).bits, bits);
  }
}

TEST(Bf16Test, TheResultIsTheNearest) {
  std::mt19937 random(7);
  for (int i = 0; i < 100000; ++i) {
    const float x = from_bits(static_cast<uint32_t>(random()));
    if (!std::isfinite(x) || std::fabs(x) > 3e38F) continue;
    const bf16 result = to_bf16(x);
    if (to_float(result) == 0.0F) continue;  // its neighbours are on both sides of the sign
    const double error = std::fabs(static_cast<double>(to_float(result)) - x);
    for (const int step : {-1, 1}) {
      const bf16 neighbour{static_cast<uint16_t>(result.bits + step)};
      EXPECT_LE(error, std::fabs(static_cast<double>(to_float(neighbour)) - x)) << x;
    }
  }
}

TEST(Bf16Test, ConvertsAtCompileTime) {
  static_assert(to_bf16(1.0F).bits == 0x3f80);
  static_assert(to_float(bf16{0xc000}) == -2.0F);
  static_assert(from_float<float>(0.1F) == 0.1F);
  static_assert(from_float<bf16>(-2.0F).bits == 0xc000);
}

TEST(F16Test, NormalSubnormalAndSpecialValues) {
  EXPECT_EQ(to_float(f16{0x3c00}), 1.0F);
  EXPECT_EQ(to_float(f16{0xc000}), -2.0F);
  EXPECT_EQ(to_float(f16{0x3555}), 0.333251953125F);
  EXPECT_EQ(to_float(f16{0x7bff}), 65504.0F);
  EXPECT_EQ(to_float(f16{0x0400}), std::ldexp(1.0F, -14));
  EXPECT_EQ(to_float(f16{0x0001}), std::ldexp(1.0F, -24));
  EXPECT_EQ(to_float(f16{0x83ff}), -std::ldexp(1023.0F, -24));
  EXPECT_EQ(to_float(f16{0x7c00}), kInfinity);
  EXPECT_EQ(to_float(f16{0xfc00}), -kInfinity);
  EXPECT_TRUE(std::isnan(to_float(f16{0x7c01})));
  EXPECT_TRUE(std::signbit(to_float(f16{0x8000})));
}

TEST(F16Test, EveryValueSurvivesTheWayThere) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const f16 x{static_cast<uint16_t>(bits)};
    if (std::isnan(to_float(x))) continue;
    EXPECT_EQ(to_f16(to_float(x)).bits, bits);
  }
}

TEST(F16Test, RoundsToNearestEven) {
  EXPECT_EQ(to_f16(2049.0F).bits, to_f16(2048.0F).bits);
  EXPECT_EQ(to_f16(2051.0F).bits, to_f16(2052.0F).bits);
  EXPECT_EQ(to_float(to_f16(65519.0F)), 65504.0F);
  EXPECT_EQ(to_float(to_f16(65520.0F)), kInfinity);
  EXPECT_EQ(to_f16(std::ldexp(1.0F, -25)).bits, 0);
  EXPECT_EQ(to_f16(std::ldexp(1.5F, -25)).bits, 1);
  EXPECT_TRUE(std::isnan(to_float(to_f16(NAN))));
}

TEST(E4m3Test, ValuesAreTheFormulas) {
  for (int bits = 0; bits < 256; ++bits) {
    const f8e4m3 x{static_cast<uint8_t>(bits)};
    const int exponent = bits >> 3 & 15;
    const int mantissa = bits & 7;
    if (exponent == 15 && mantissa == 7) {
      EXPECT_TRUE(std::isnan(to_float(x)));
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    EXPECT_EQ(to_float(x), bits >= 128 ? -magnitude : magnitude) << bits;
    EXPECT_EQ(to_e4m3(to_float(x)).bits, bits);
    EXPECT_EQ(std::signbit(to_float(x)), bits >= 128);
  }
}

// Neighbours of a positive code are the codes beside it; halfway the even one wins.
TEST(E4m3Test, RoundsToNearestEven) {
  for (int bits = 0; bits < 0x7e; ++bits) {
    const float low = to_float(f8e4m3{static_cast<uint8_t>(bits)});
    const float high = to_float(f8e4m3{static_cast<uint8_t>(bits + 1)});
    const float middle = (low + high) / 2;  // exact
    EXPECT_EQ(to_e4m3(middle).bits, bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(to_e4m3(std::nextafter(middle, 0.0F)).bits, bits);
    EXPECT_EQ(to_e4m3(std::nextafter(middle, kInfinity)).bits, bits + 1);
    EXPECT_EQ(to_e4m3(-std::nextafter(middle, kInfinity)).bits, 0x80 | (bits + 1));
  }
}

TEST(E4m3Test, SaturatesAndKeepsNaN) {
  for (const float x : {448.0F, 464.0F, 500.0F, 1e30F, kInfinity}) {
    EXPECT_EQ(to_e4m3(x).bits, 0x7e);
    EXPECT_EQ(to_e4m3(-x).bits, 0xfe);
  }
  EXPECT_TRUE(std::isnan(to_float(to_e4m3(NAN))));
  EXPECT_EQ(to_e4m3(1e-30F).bits, 0);
  static_assert(to_float(to_e4m3(1.0F)) == 1.0F);
  static_assert(from_float<f8e4m3>(-2.0F).bits == 0xc0);
}

TEST(E8m0Test, ValuesArePowersOfTwo) {
  for (int bits = 0; bits < 255; ++bits)
    EXPECT_EQ(to_float(f8e8m0{static_cast<uint8_t>(bits)}), std::ldexp(1.0F, bits - 127));
  EXPECT_TRUE(std::isnan(to_float(f8e8m0{0xff})));
}

}  // namespace
}  // namespace minimax
