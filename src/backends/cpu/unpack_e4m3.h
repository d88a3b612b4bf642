// Internal to the files of AVX-512 intrinsics: 64 e4m3 weights become BF16 in registers. x86-64 only.
#pragma once

#include "backends/cpu/avx512_bf16.h"

namespace minimax::cpu {

constexpr int64_t kE4m3Chunk = 64;  // weights in a vector
// E4m3Unpacked weights are w * 2^-8: the exponent bias 112 has no bits in common with e4m3's exponent field.
constexpr int kUnpackedE4m3Bias = 112 << 7;
constexpr float kUnpackedE4m3Scale = 0x1p8F;

// What looking up takes: bytes of the BF16 numbers that unpacked magnitudes are, and masks.
struct alignas(64) E4m3Tables {
  E4m3Bytes low = e4m3_bytes(0, 1 / kUnpackedE4m3Scale);
  E4m3Bytes high = e4m3_bytes(8, 1 / kUnpackedE4m3Scale);
  std::array<uint8_t, 64> sign{};
  std::array<uint8_t, 64> low_half{};
  std::array<uint8_t, 64> high_half{};

  constexpr E4m3Tables() {
    sign.fill(0x80);
    for (size_t i = 0; i < 64; ++i) (i % 2 == 0 ? low_half : high_half)[i] = 0xff;
  }
};
inline constexpr E4m3Tables kE4m3Tables;

// Weights of a chunk, in order: those at even and those at odd places.
struct E4m3Unpacked {
  __m512bh even;
  __m512bh odd;
};

// A constant that the compiler keeps in a register instead of making it anew in the loop.
MINIMAX_VBMI_TARGET MINIMAX_INLINE __m512i in_register(__m512i constant) {
  asm("" : "+v"(constant));  // NOLINT(hicpp-no-assembler)
  return constant;
}

struct E4m3Unpacker {
  __m512i exponent = in_register(_mm512_set1_epi8(0x78));
  __m512i kept = in_register(_mm512_set1_epi16(static_cast<int16_t>(0x87f0)));
  __m512i bias = in_register(_mm512_set1_epi16(kUnpackedE4m3Bias));

  MINIMAX_VBMI_TARGET E4m3Unpacker() = default;

  template <int kCount>
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void operator()(const __m512i (&codes)[kCount],
                                                     E4m3Unpacked (&w)[kCount]) const {
    __mmask64 small = 0;
#pragma GCC unroll 2
    for (int i = 0; i < kCount; ++i) small |= _mm512_testn_epi8_mask(codes[i], exponent);
    if (small != 0) [[unlikely]] {
#pragma GCC unroll 2
      for (int i = 0; i < kCount; ++i) w[i] = look_up(codes[i]);
    } else {
#pragma GCC unroll 2
      for (int i = 0; i < kCount; ++i) w[i] = shift(codes[i]);
    }
  }

  // An arithmetic shift leaves the sign where BF16 has it and brings the magnitude to its place.
  MINIMAX_VBMI_TARGET MINIMAX_INLINE E4m3Unpacked shift(__m512i codes) const {
    constexpr int kAndOr = 0xea;  // (a & b) | c
    const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(codes, 8), 4);
    const __m512i odd = _mm512_srai_epi16(codes, 4);
    return {as_bf16(_mm512_ternarylogic_epi64(even, kept, bias, kAndOr)),
            as_bf16(_mm512_ternarylogic_epi64(odd, kept, bias, kAndOr))};
  }

  MINIMAX_VBMI_TARGET MINIMAX_INLINE static __m512i load(const uint8_t* p) { return _mm512_load_si512(p); }

  // By table, for chunks with zeros or subnormals. The compiler must not see that the tables are constant: it
  // would keep them in registers that the usual way needs.
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static E4m3Unpacked look_up(__m512i codes) {
    const E4m3Tables* tables = &kE4m3Tables;
    asm volatile("" : "+r"(tables));  // NOLINT(hicpp-no-assembler)
    const uint8_t* low_bytes = tables->low.bytes.data();
    const uint8_t* high_bytes = tables->high.bytes.data();
    const __m512i low = _mm512_permutex2var_epi8(load(low_bytes), codes, load(low_bytes + kE4m3Chunk));
    const __m512i magnitude =
        _mm512_permutex2var_epi8(load(high_bytes), codes, load(high_bytes + kE4m3Chunk));
    constexpr int kOrAnd = 0xf8;  // a | (b & c)
    const __m512i high = _mm512_ternarylogic_epi64(magnitude, codes, load(tables->sign.data()), kOrAnd);
    const __m512i even =
        _mm512_ternarylogic_epi64(_mm512_slli_epi16(high, 8), low, load(tables->low_half.data()), kOrAnd);
    const __m512i odd =
        _mm512_ternarylogic_epi64(_mm512_srli_epi16(low, 8), high, load(tables->high_half.data()), kOrAnd);
    return {as_bf16(even), as_bf16(odd)};
  }
};

}  // namespace minimax::cpu
