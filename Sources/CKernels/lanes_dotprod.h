// The lanes of NEON with the dot products of ARMv8.2, of s8 with s8 and of u8 with u8, for attention.
#pragma once
#define KERNEL_TARGET "dotprod"
#define KERNEL __attribute__((target(KERNEL_TARGET)))
#define KERNEL_INLINE static inline __attribute__((target(KERNEL_TARGET), always_inline))
#define KERNEL_NAME(name) at_##name##_dotprod
#include "lanes_neon.h"

KERNEL_INLINE integers greater_integers(integers a, integers b) {
  return (integers){vmaxq_s32(a.low, b.low), vmaxq_s32(a.high, b.high)};
}
KERNEL_INLINE integers shift_left_each(integers x, integers n) {
  return (integers){vshlq_s32(x.low, n.low), vshlq_s32(x.high, n.high)};
}
KERNEL_INLINE integers shift_right_each(integers x, integers n) {
  return shift_left_each(x, subtract_integers(zeros(), n));
}
KERNEL_INLINE integers and_integers(integers a, integers b) {
  return (integers){vandq_s32(a.low, b.low), vandq_s32(a.high, b.high)};
}
KERNEL_INLINE integers or_integers(integers a, integers b) {
  return (integers){vorrq_s32(a.low, b.low), vorrq_s32(a.high, b.high)};
}
KERNEL_INLINE integers truncated(floats x) { return (integers){vcvtq_s32_f32(x.low), vcvtq_s32_f32(x.high)}; }
KERNEL_INLINE integers bits_of(floats x) {
  return (integers){vreinterpretq_s32_f32(x.low), vreinterpretq_s32_f32(x.high)};
}
KERNEL_INLINE floats floats_of_bits(integers x) {
  return (floats){vreinterpretq_f32_s32(x.low), vreinterpretq_f32_s32(x.high)};
}
// Lanes of `yes` where those of x are above those of `limit`, otherwise of `no`.
KERNEL_INLINE floats where_above(floats x, floats limit, floats yes, floats no) {
  return (floats){vbslq_f32(vcgtq_f32(x.low, limit.low), yes.low, no.low),
                  vbslq_f32(vcgtq_f32(x.high, limit.high), yes.high, no.high)};
}
KERNEL_INLINE shorts load_shorts(const int16_t *x) { return (shorts){vld1q_s16(x), vld1q_s16(x + 8)}; }
KERNEL_INLINE bool any_negative(integers x) { return least_integer(x) < 0; }
KERNEL_INLINE bool any_set(shorts x) { return vmaxvq_u16(vreinterpretq_u16_s16(vorrq_s16(x.low, x.high))) != 0; }
KERNEL_INLINE bool any_least(shorts x) { return vminvq_s16(vminq_s16(x.low, x.high)) == INT16_MIN; }
KERNEL_INLINE shorts lesser_shorts(shorts a, shorts b) {
  return (shorts){vminq_s16(a.low, b.low), vminq_s16(a.high, b.high)};
}
KERNEL_INLINE shorts add_saturated(shorts a, shorts b) {
  return (shorts){vqaddq_s16(a.low, b.low), vqaddq_s16(a.high, b.high)};
}
KERNEL_INLINE shorts subtract_saturated(shorts a, shorts b) {
  return (shorts){vqsubq_s16(a.low, b.low), vqsubq_s16(a.high, b.high)};
}
// Those of a and of b, saturated, in an order of its own, which `unpack_integers` undoes.
KERNEL_INLINE shorts pack_integers(integers a, integers b) { return narrow(a, b); }
KERNEL_INLINE void unpack_integers(shorts packed, integers v[2]) {
  v[0] = (integers){vmovl_s16(vget_low_s16(packed.low)), vmovl_high_s16(packed.low)};
  v[1] = (integers){vmovl_s16(vget_low_s16(packed.high)), vmovl_high_s16(packed.high)};
}
KERNEL_INLINE integers pairs_of(int16x8_t first, int16x8_t second) {
  return (integers){vreinterpretq_s32_s16(vzip1q_s16(first, second)), vreinterpretq_s32_s16(vzip2q_s16(first, second))};
}
// Pairs of a short of `first` and one of `second`, in the order that `unpack_integers` has.
KERNEL_INLINE void unpack_pairs(shorts first, shorts second, integers v[2]) {
  v[0] = pairs_of(first.low, second.low);
  v[1] = pairs_of(first.high, second.high);
}
// Of shorts of 0...255.
KERNEL_INLINE shorts join_low_bytes(shorts low, shorts high) {
  return (shorts){vsliq_n_s16(low.low, high.low, 8), vsliq_n_s16(low.high, high.high, 8)};
}
KERNEL_INLINE integers all_bytes(int x) {
  const int32x4_t each = vreinterpretq_s32_u8(vdupq_n_u8((uint8_t)x));
  return (integers){each, each};
}
KERNEL_INLINE integers flip_bits(integers x, integers bits) {
  return (integers){veorq_s32(x.low, bits.low), veorq_s32(x.high, bits.high)};
}

// Of fours of bytes, s8.
enum { QUERY_OFFSET = 0, VALUE_OFFSET = 128 };
KERNEL_INLINE int32x4_t add_fours4(int32x4_t sum, int32x4_t a, int32x4_t x) {
  return vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(x));
}
KERNEL_INLINE integers add_fours(integers sum, integers a, integers x) {
  return (integers){add_fours4(sum.low, a.low, x.low), add_fours4(sum.high, a.high, x.high)};
}
// Both are u8.
KERNEL_INLINE int32x4_t add_unsigned_fours4(int32x4_t sum, int32x4_t a, int32x4_t x) {
  return vreinterpretq_s32_u32(
    vdotq_u32(vreinterpretq_u32_s32(sum), vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(x)));
}
KERNEL_INLINE integers add_unsigned_fours(integers sum, integers a, integers x) {
  return (integers){add_unsigned_fours4(sum.low, a.low, x.low), add_unsigned_fours4(sum.high, a.high, x.high)};
}

KERNEL_INLINE int32x4_t narrow4(integers a, integers b) {
  const shorts both = narrow(a, b);
  return vreinterpretq_s32_s8(vqmovn_high_s16(vqmovn_s16(both.low), both.high));
}
// As s8, saturated, one vector after the other.
KERNEL_INLINE integers narrow_to_bytes(const integers x[4]) {
  return (integers){narrow4(x[0], x[1]), narrow4(x[2], x[3])};
}
// As s8, saturated: lane by lane a byte of each.
KERNEL_INLINE integers join_bytes(const integers x[4]) {
  int16x8_t each[4];
  UNROLLED for (int i = 0; i < 4; i++) {
    const int16x8_t narrowed = vqmovn_high_s32(vqmovn_s32(x[i].low), x[i].high);
    each[i] = vmovl_s8(vqmovn_s16(narrowed));
  }
  return pairs_of(vsliq_n_s16(each[0], each[1], 8), vsliq_n_s16(each[2], each[3], 8));
}
