// F32 vectors loaded from and stored to F32, BF16 or F8_E4M3 memory; included once per SIMD target.
#if defined(MINIMAX_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MINIMAX_SIMD_INL_H_
#undef MINIMAX_SIMD_INL_H_
#else
#define MINIMAX_SIMD_INL_H_
#endif

#include <cstring>

#include "core/dtype.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace minimax::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

HWY_INLINE int64_t LanesF32() { return static_cast<int64_t>(hn::Lanes(DF())); }

HWY_INLINE VF LoadF32(const float* p) { return hn::LoadU(DF(), p); }
HWY_INLINE VF LoadF32(const bf16* p) {
  const DF d;
  const hn::RebindToUnsigned<DF> du32;
  const hn::Rebind<uint16_t, DF> du16;
  const auto bits = hn::PromoteTo(du32, hn::LoadU(du16, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}
// As to_float in core/dtype.h, a vector at a time.
HWY_INLINE VF LoadF32(const f8e4m3* p) {
  const DF d;
  const hn::RebindToUnsigned<DF> du32;
  const hn::Rebind<uint8_t, DF> du8;
  const auto bits = hn::PromoteTo(du32, hn::LoadU(du8, reinterpret_cast<const uint8_t*>(p)));
  const auto magnitude = hn::And(bits, hn::Set(du32, 0x7f));
  const VF scaled = hn::Mul(hn::BitCast(d, hn::ShiftLeft<20>(magnitude)), hn::Set(d, 0x1p120F));
  const VF value = hn::IfThenElse(hn::RebindMask(d, hn::Eq(magnitude, hn::Set(du32, 0x7f))),
                                  hn::BitCast(d, hn::Set(du32, 0x7fc00000U)), scaled);
  return hn::Or(value, hn::BitCast(d, hn::ShiftLeft<24>(hn::And(bits, hn::Set(du32, 0x80)))));
}

HWY_INLINE void StoreF32(VF v, float* p) { hn::StoreU(v, DF(), p); }
HWY_INLINE void StoreF32(VF v, bf16* p) {
  const hn::RebindToUnsigned<DF> du32;
  const hn::Rebind<uint16_t, DF> du16;
  const auto bits = hn::BitCast(du32, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du32, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du32, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(du32, 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(du32, hn::IsNaN(v)), quiet, rounded);
  hn::StoreU(hn::TruncateTo(du16, hn::ShiftRight<16>(chosen)), du16, reinterpret_cast<uint16_t*>(p));
}
// As to_e4m3 in core/dtype.h, a vector at a time.
HWY_INLINE void StoreF32(VF v, f8e4m3* p) {
  const DF d;
  const hn::RebindToSigned<DF> di32;
  const hn::Rebind<uint8_t, DF> du8;
  const VF magnitude = hn::Min(hn::Abs(v), hn::Set(d, kMaxE4m3));
  const auto bits = hn::BitCast(di32, magnitude);
  const auto odd = hn::And(hn::ShiftRight<20>(bits), hn::Set(di32, 1));
  const auto rounded = hn::ShiftRight<20>(hn::Add(bits, hn::Add(odd, hn::Set(di32, 0x7ffff))));
  const auto normal = hn::Sub(rounded, hn::Set(di32, 120 << 3));
  const VF beside = hn::Set(d, 0x1p14F);
  const auto steps = hn::Sub(hn::BitCast(di32, hn::Add(magnitude, beside)), hn::BitCast(di32, beside));
  const auto finite =
      hn::IfThenElse(hn::RebindMask(di32, hn::Lt(magnitude, hn::Set(d, 0x1p-6F))), steps, normal);
  const auto unsigned_result =
      hn::IfThenElse(hn::RebindMask(di32, hn::IsNaN(v)), hn::Set(di32, 0x7f), finite);
  const auto sign = hn::And(hn::ShiftRight<24>(hn::BitCast(di32, v)), hn::Set(di32, 0x80));
  hn::StoreU(hn::DemoteTo(du8, hn::Or(unsigned_result, sign)), du8, reinterpret_cast<uint8_t*>(p));
}

// The first `count` < lanes elements, zeros behind.
template <typename T>
HWY_INLINE VF LoadTail(const T* p, int64_t count) {
  HWY_ALIGN T buffer[HWY_MAX_BYTES / sizeof(float)] = {};
  std::memcpy(buffer, p, static_cast<size_t>(count) * sizeof(T));
  return LoadF32(buffer);
}
template <typename T>
HWY_INLINE void StoreTail(VF v, T* p, int64_t count) {
  HWY_ALIGN T buffer[HWY_MAX_BYTES / sizeof(float)];
  StoreF32(v, buffer);
  std::memcpy(p, buffer, static_cast<size_t>(count) * sizeof(T));
}

// Calls body(offset, load, store) over n elements: load(p) reads the vector at p + offset as F32, store(v, p)
// writes it; the tail is padded with zeros.
template <typename Body>
HWY_INLINE void ForVectors(int64_t n, Body&& body) {
  const int64_t lanes = LanesF32();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    body([i](const auto* p) HWY_ATTR { return LoadF32(p + i); },
         [i](VF v, auto* p) HWY_ATTR { StoreF32(v, p + i); });
  }
  if (const int64_t rest = n - i; rest > 0) {
    body([i, rest](const auto* p) HWY_ATTR { return LoadTail(p + i, rest); },
         [i, rest](VF v, auto* p) HWY_ATTR { StoreTail(v, p + i, rest); });
  }
}

HWY_INLINE float SumOfLanes(VF v) { return hn::GetLane(hn::SumOfLanes(DF(), v)); }

}  // namespace HWY_NAMESPACE
}  // namespace minimax::cpu
HWY_AFTER_NAMESPACE();

#endif
