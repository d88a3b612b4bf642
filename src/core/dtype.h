// Element types and the scalar conversions every room may use.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

namespace minimax {

// The names follow the safetensors spelling (see `name`). Activations are kF32 or kBF16, indices kI32 or
// kI64; weights and caches also come in 8 bits.
enum class DType : uint8_t {
  kF32,
  kBF16,
  kF16,
  kF64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
};

// RETURNS: bytes of one element.
constexpr int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
    case DType::kI16:
    case DType::kU16:
      return 2;
    default:
      return 1;
  }
}

// RETURNS: the safetensors name, e.g. "BF16".
std::string_view name(DType dtype);

// RETURNS: the dtype of a safetensors name, or nothing when the name is unknown.
std::optional<DType> dtype_from_name(std::string_view name);

// bfloat16: the upper half of a float32.
struct bf16 {
  uint16_t bits = 0;
};
static_assert(sizeof(bf16) == 2);

// IEEE 754 binary16 storage.
struct f16 {
  uint16_t bits = 0;
};
static_assert(sizeof(f16) == 2);

// OCP 8-bit float, "e4m3fn": sign, 4 exponent bits (bias 7), 3 mantissa bits. Largest value 448, smallest
// 2^-9, no infinity; NaN is 0x7f and 0xff.
struct f8e4m3 {
  uint8_t bits = 0;
};
static_assert(sizeof(f8e4m3) == 1);
constexpr float kMaxE4m3 = 448.0F;

// OCP microscaling exponent: 2^(bits - 127), always positive; NaN is 0xff.
struct f8e8m0 {
  uint8_t bits = 127;
};
static_assert(sizeof(f8e8m0) == 1);

constexpr float to_float(float x) { return x; }
constexpr float to_float(bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
float to_float(f16 x);

constexpr float to_float(f8e4m3 x) {
  const uint32_t magnitude = x.bits & 0x7fU;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x80U) << 24U;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000U);
  // The exponent field lands in the float's, 120 too small; subnormals become subnormals.
  return std::bit_cast<float>(sign | magnitude << 20U) * 0x1p120F;
}

constexpr float to_float(f8e8m0 x) {
  if (x.bits == 0xff) return std::bit_cast<float>(0x7fc00000U);
  return std::bit_cast<float>(x.bits == 0 ? 0x00400000U : static_cast<uint32_t>(x.bits) << 23U);
}

// Round to nearest even; NaN stays NaN.
constexpr bf16 to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return bf16{static_cast<uint16_t>((bits >> 16) | 0x40U)};
  return bf16{static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

// Round to nearest even; overflow becomes infinity, NaN stays NaN.
f16 to_f16(float x);

// Round to nearest even; beyond +-448, infinities included, the largest value of that sign; NaN stays NaN.
constexpr f8e4m3 to_e4m3(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint8_t>(bits >> 24U & 0x80U);
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return f8e4m3{static_cast<uint8_t>(sign | 0x7fU)};
  if (magnitude >= std::bit_cast<uint32_t>(kMaxE4m3)) return f8e4m3{static_cast<uint8_t>(sign | 0x7eU)};
  if (magnitude < std::bit_cast<uint32_t>(0x1p-6F)) {
    // Subnormal: beside 2^14 a float's last bit is worth 2^-9, so the sum rounds to that.
    const uint32_t steps =
        std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14F) - std::bit_cast<uint32_t>(0x1p14F);
    return f8e4m3{static_cast<uint8_t>(sign | steps)};
  }
  const uint32_t rounded = (magnitude + 0x7ffffU + (magnitude >> 20U & 1U)) >> 20U;
  return f8e4m3{static_cast<uint8_t>(sign | (rounded - (120U << 3U)))};
}

template <typename T>
constexpr T from_float(float x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(x);
  } else if constexpr (std::is_same_v<T, f16>) {
    return to_f16(x);
  } else if constexpr (std::is_same_v<T, f8e4m3>) {
    return to_e4m3(x);
  } else {
    static_assert(std::is_same_v<T, float>);
    return x;
  }
}

}  // namespace minimax
