#include "core/dtype.h"

#include <array>
#include <cmath>
#include <utility>

namespace minimax {
namespace {

constexpr std::array<std::pair<DType, std::string_view>, 16> kNames = {{
    {DType::kF32, "F32"},
    {DType::kBF16, "BF16"},
    {DType::kF16, "F16"},
    {DType::kF64, "F64"},
    {DType::kF8E4M3, "F8_E4M3"},
    {DType::kF8E5M2, "F8_E5M2"},
    {DType::kF8E8M0, "F8_E8M0"},
    {DType::kI64, "I64"},
    {DType::kI32, "I32"},
    {DType::kI16, "I16"},
    {DType::kI8, "I8"},
    {DType::kU64, "U64"},
    {DType::kU32, "U32"},
    {DType::kU16, "U16"},
    {DType::kU8, "U8"},
    {DType::kBool, "BOOL"},
}};

}  // namespace

std::string_view name(DType dtype) {
  for (const auto& [value, text] : kNames) {
    if (value == dtype) return text;
  }
  return "?";
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const auto& [value, text] : kNames) {
    if (text == name) return value;
  }
  return std::nullopt;
}

float to_float(f16 x) {
  const int exponent = (x.bits >> 10) & 0x1f;
  const int mantissa = x.bits & 0x3ff;
  const float sign = (x.bits & 0x8000) != 0 ? -1.0F : 1.0F;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

f16 to_f16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>(bits >> 16U & 0x8000U);
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return f16{static_cast<uint16_t>(sign | 0x7e00U)};
  if (magnitude >= std::bit_cast<uint32_t>(65520.0F)) return f16{static_cast<uint16_t>(sign | 0x7c00U)};
  if (magnitude < std::bit_cast<uint32_t>(0x1p-14F)) {
    // Subnormal: beside 1/2 a float's last bit is worth 2^-24, so the sum rounds to that.
    const uint32_t steps =
        std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - std::bit_cast<uint32_t>(0.5F);
    return f16{static_cast<uint16_t>(sign | steps)};
  }
  const uint32_t rounded = (magnitude + 0xfffU + (magnitude >> 13U & 1U)) >> 13U;
  return f16{static_cast<uint16_t>(sign | (rounded - (112U << 10U)))};
}

}  // namespace minimax
