// Element types and the scalar conversions every room may use.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace minimax {

// The names follow the safetensors spelling (see `name`). The library computes with kF32, kBF16, kI32 and
// kI64; the others occur in checkpoints.
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

constexpr float to_float(float x) { return x; }
constexpr float to_float(bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
float to_float(f16 x);

// Round to nearest even; NaN stays NaN.
constexpr bf16 to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return bf16{static_cast<uint16_t>((bits >> 16) | 0x40U)};
  return bf16{static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

template <typename T>
constexpr T from_float(float x) {
  if constexpr (sizeof(T) == 2) {
    return to_bf16(x);
  } else {
    return x;
  }
}

}  // namespace minimax
