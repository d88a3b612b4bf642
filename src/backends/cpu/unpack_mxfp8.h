// Internal to the files of AVX-512 intrinsics: 64 MXFP8 weights become BF16 in registers. x86-64 only.
#pragma once

#include "backends/cpu/unpack_e4m3.h"

namespace minimax::cpu {

// Weights of kMxfp8 in a chunk as BF16, each times its scale and 2^7: exponents of code and scale added up.
class MxUnpacker {
 public:
  MINIMAX_VBMI_TARGET explicit MxUnpacker(const quant::Weight& weight)
      : scales_(weight.scales.data<uint8_t>()), stride_(weight.scales.stride(0)) {
    constexpr int kFirstOnTop = 0x00800080;  // bytes of two lanes: 0, the first of the pair
    constexpr int kNext = 0x01000100;
    const __m512i first = _mm512_set1_epi32(kFirstOnTop);
    to_top_byte_ = in_register(_mm512_mask_set1_epi32(first, 0xff00, kFirstOnTop + kNext));
  }

  const uint8_t* row(int64_t n) const { return scales_ + n * stride_; }
  // Whether all sums of exponents are those of normal numbers.
  MINIMAX_VBMI_TARGET bool fits(int64_t n, int64_t scales) const {
    constexpr char kLowest = 3;  // the smallest subnormal code has the exponent -2
    constexpr char kHighest = static_cast<char>(239);
    for (int64_t i = 0; i < scales; i += 64) {
      const auto mask = static_cast<__mmask64>(~uint64_t{0} >> (64 - std::min<int64_t>(64, scales - i)));
      const __m512i loaded = _mm512_maskz_loadu_epi8(mask, row(n) + i);
      if ((_mm512_mask_cmplt_epu8_mask(mask, loaded, _mm512_set1_epi8(kLowest)) |
           _mm512_mask_cmpgt_epu8_mask(mask, loaded, _mm512_set1_epi8(kHighest))) != 0) {
        return false;
      }
    }
    return true;
  }
  // What is added to the exponents of a chunk: lanes of the lower half have its first scale.
  MINIMAX_VBMI_TARGET MINIMAX_INLINE __m512i exponents(const uint8_t* row, int64_t chunk) const {
    int16_t pair = 0;
    std::memcpy(&pair, row + 2 * chunk, sizeof(pair));
    return from_pair(pair);
  }
  // The same for a chunk that ends after its first half.
  MINIMAX_VBMI_TARGET MINIMAX_INLINE __m512i exponents_of_part(const uint8_t* row, int64_t chunk) const {
    return from_pair(row[2 * chunk]);
  }

  template <int kColumns>
  MINIMAX_VBMI_TARGET MINIMAX_INLINE void operator()(const __m512i (&codes)[kColumns],
                                                     const __m512i (&exponents)[kColumns],
                                                     E4m3Unpacked (&w)[kColumns]) const {
    __mmask64 small = 0;
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) small |= _mm512_testn_epi8_mask(codes[c], plain_.exponent);
    if (small != 0) [[unlikely]] {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) {
        const __m512i more = _mm512_sub_epi16(exponents[c], _mm512_set1_epi16(kUnpackedE4m3Bias));
        const E4m3Unpacked unscaled = E4m3Unpacker::look_up(codes[c]);
        w[c] = {add_unless_zero(unscaled.even, more), add_unless_zero(unscaled.odd, more)};
      }
    } else {
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) {
        const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(codes[c], 8), 4);
        const __m512i odd = _mm512_srai_epi16(codes[c], 4);
        w[c] = {as_bf16(_mm512_add_epi16(_mm512_and_si512(even, plain_.kept), exponents[c])),
                as_bf16(_mm512_add_epi16(_mm512_and_si512(odd, plain_.kept), exponents[c]))};
      }
    }
  }

 private:
  // A lane's scale goes to its top byte, then one bit down to where BF16 has its exponent.
  MINIMAX_VBMI_TARGET MINIMAX_INLINE __m512i from_pair(int16_t pair) const {
    return _mm512_srli_epi16(_mm512_shuffle_epi8(_mm512_set1_epi16(pair), to_top_byte_), 1);
  }
  MINIMAX_VBMI_TARGET MINIMAX_INLINE static __m512bh add_unless_zero(__m512bh number, __m512i more) {
    __m512i bits;
    std::memcpy(&bits, &number, sizeof(bits));
    const __mmask32 is_number = _mm512_test_epi16_mask(bits, _mm512_set1_epi16(0x7fff));
    return as_bf16(_mm512_mask_add_epi16(bits, is_number, bits, more));
  }

  E4m3Unpacker plain_;
  const uint8_t* scales_;
  int64_t stride_;
  __m512i to_top_byte_;
};
inline constexpr float kMxUnpackedScale = 0x1p-7F;

}  // namespace minimax::cpu
