// Eight lanes as two NEON registers, which every aarch64 processor has.
#pragma once
#include "kernel.h"
#include <arm_neon.h>

// A header of a later instruction set on the same registers defines these itself and includes this one.
#ifndef KERNEL_TARGET
#define KERNEL_TARGET "neon"
#define KERNEL
#define KERNEL_INLINE static inline __attribute__((always_inline))
#define KERNEL_NAME(name) at_##name##_neon
#define CEILING_NAME_OF(name) at_ceiling_##name##_neon
#endif

enum {
  LANES = 8,
  VECTORS = 2,       // in a row of a tile of registers
  CODED_ROWS = 4, // rows of such a tile in integers
};

typedef struct {
  float32x4_t low, high;
} floats;

KERNEL_INLINE floats all(float x) { return (floats){vdupq_n_f32(x), vdupq_n_f32(x)}; }
KERNEL_INLINE floats load_floats(const float *x) { return (floats){vld1q_f32(x), vld1q_f32(x + 4)}; }
KERNEL_INLINE void store_floats(float *x, floats v) {
  vst1q_f32(x, v.low);
  vst1q_f32(x + 4, v.high);
}
KERNEL_INLINE floats add(floats a, floats b) { return (floats){vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
KERNEL_INLINE floats sub(floats a, floats b) { return (floats){vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
KERNEL_INLINE floats mul(floats a, floats b) { return (floats){vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
KERNEL_INLINE floats divide(floats a, floats b) { return (floats){vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
KERNEL_INLINE floats lesser(floats a, floats b) { return (floats){vminq_f32(a.low, b.low), vminq_f32(a.high, b.high)}; }
KERNEL_INLINE floats greater(floats a, floats b) {
  return (floats){vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)};
}
KERNEL_INLINE floats square_root(floats x) { return (floats){vsqrtq_f32(x.low), vsqrtq_f32(x.high)}; }
KERNEL_INLINE floats negative(floats x) { return (floats){vnegq_f32(x.low), vnegq_f32(x.high)}; }
KERNEL_INLINE floats magnitude(floats x) { return (floats){vabsq_f32(x.low), vabsq_f32(x.high)}; }
KERNEL_INLINE floats positive_part(floats x) { return greater(x, all(0)); }

// x with 2^(low bits of `shifted`) multiplied in: the end of exp.
KERNEL_INLINE float32x4_t scale_by_power4(float32x4_t x, float32x4_t shifted) {
  const int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23);
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), exponent));
}
KERNEL_INLINE floats scale_by_power(floats x, floats shifted) {
  return (floats){scale_by_power4(x.low, shifted.low), scale_by_power4(x.high, shifted.high)};
}

// Up to 8 floats, zero in the lanes beyond `count`; touches no memory beyond them.
KERNEL_INLINE floats load_some(const float *x, size_t count) {
  if (count >= 8) return load_floats(x);
  float lanes[8] = {0};
  for (size_t i = 0; i < count; i++) lanes[i] = x[i];
  return load_floats(lanes);
}
KERNEL_INLINE void store_some(float *x, size_t count, floats v) {
  if (count >= 8) {
    store_floats(x, v);
    return;
  }
  float lanes[8];
  store_floats(lanes, v);
  for (size_t i = 0; i < count; i++) x[i] = lanes[i];
}

// Zero in the lanes from `count` on.
KERNEL_INLINE floats keep_lanes(floats x, size_t count) {
  float lanes[8];
  store_floats(lanes, x);
  return load_some(lanes, count);
}

// ReferenceMath.sum(lanes:)
KERNEL_INLINE float sum_lanes(floats v) {
  const float32x4_t four = vaddq_f32(v.low, v.high);
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

KERNEL_INLINE float greatest_lane(floats v) { return vmaxvq_f32(vmaxq_f32(v.low, v.high)); }

KERNEL_INLINE floats load_halves(const uint16_t *x) {
  const float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(x));
  return (floats){vcvt_f32_f16(vget_low_f16(h)), vcvt_high_f32_f16(h)};
}
KERNEL_INLINE void store_halves(uint16_t *x, floats v) {
  vst1q_u16(x, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(v.low), v.high)));
}

// Integers held in the mantissas of magic-rounded floats, plus `zero`, as codes 0...255.
KERNEL_INLINE int16x8_t codes8(floats rounded, int32_t zero) {
  const int32x4_t offset = vsubq_s32(vdupq_n_s32(zero), vreinterpretq_s32_f32(vdupq_n_f32(12582912.0f)));
  const int32x4_t low = vaddq_s32(vreinterpretq_s32_f32(rounded.low), offset);
  const int32x4_t high = vaddq_s32(vreinterpretq_s32_f32(rounded.high), offset);
  return vqmovn_high_s32(vqmovn_s32(low), high);
}
KERNEL_INLINE void store_codes(uint8_t *q, const floats rounded[4], int32_t zero) {
  UNROLLED for (int i = 0; i < 4; i++) vst1_u8(q + 8 * i, vqmovun_s16(codes8(rounded[i], zero)));
}

// Eight s32, and eight pairs of s16 to be multiplied by one pair.
typedef struct {
  int32x4_t low, high;
} integers;
typedef struct {
  int16x8_t first, second;
} pairs8;
typedef int16x4_t pair; // in the first two lanes

KERNEL_INLINE integers zeros(void) { return (integers){vdupq_n_s32(0), vdupq_n_s32(0)}; }
KERNEL_INLINE pairs8 load_pairs(const int16_t *x) {
  const int16x8x2_t v = vld2q_s16(x);
  return (pairs8){v.val[0], v.val[1]};
}
KERNEL_INLINE pair load_pair(const int16_t *x) {
  int32_t both;
  __builtin_memcpy(&both, x, sizeof both);
  return vreinterpret_s16_s32(vdup_n_s32(both));
}
KERNEL_INLINE pair ones(void) { return vdup_n_s16(1); }
KERNEL_INLINE integers add_products(integers sum, pairs8 a, pair x) {
  sum.low = vmlal_lane_s16(sum.low, vget_low_s16(a.first), x, 0);
  sum.high = vmlal_high_lane_s16(sum.high, a.first, x, 0);
  sum.low = vmlal_lane_s16(sum.low, vget_low_s16(a.second), x, 1);
  sum.high = vmlal_high_lane_s16(sum.high, a.second, x, 1);
  return sum;
}
KERNEL_INLINE void hide_pairs(pairs8 *x) { __asm__ volatile("" : "+w"(x->first), "+w"(x->second)); }
KERNEL_INLINE integers load_integers(const int32_t *x) { return (integers){vld1q_s32(x), vld1q_s32(x + 4)}; }
KERNEL_INLINE integers add_integers(integers a, integers b) {
  return (integers){vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)};
}
// x - a * n
KERNEL_INLINE integers subtract_times(integers x, integers a, int32_t n) {
  return (integers){vmlsq_n_s32(x.low, a.low, n), vmlsq_n_s32(x.high, a.high, n)};
}
KERNEL_INLINE floats to_float(integers x) { return (floats){vcvtq_f32_s32(x.low), vcvtq_f32_s32(x.high)}; }
KERNEL_INLINE integers all_integers(int32_t x) { return (integers){vdupq_n_s32(x), vdupq_n_s32(x)}; }
KERNEL_INLINE integers subtract_integers(integers a, integers b) {
  return (integers){vsubq_s32(a.low, b.low), vsubq_s32(a.high, b.high)};
}
KERNEL_INLINE integers lesser_integers(integers a, integers b) {
  return (integers){vminq_s32(a.low, b.low), vminq_s32(a.high, b.high)};
}
KERNEL_INLINE integers shift_right(integers x, int32_t n) {
  const int32x4_t left = vdupq_n_s32(-n);
  return (integers){vshlq_s32(x.low, left), vshlq_s32(x.high, left)};
}
KERNEL_INLINE void store_integers(int32_t *x, integers v) {
  vst1q_s32(x, v.low);
  vst1q_s32(x + 4, v.high);
}
KERNEL_INLINE int32_t least_integer(integers x) { return vminvq_s32(vminq_s32(x.low, x.high)); }

// Sixteen s16.
typedef struct {
  int16x8_t low, high;
} shorts;

// Those of a, then those of b, saturated.
KERNEL_INLINE shorts narrow(integers a, integers b) {
  return (shorts){vqmovn_high_s32(vqmovn_s32(a.low), a.high), vqmovn_high_s32(vqmovn_s32(b.low), b.high)};
}
// The low halves of a and of b, by turns.
KERNEL_INLINE shorts interleave(integers a, integers b) {
  return (shorts){vreinterpretq_s16_s32(vsliq_n_s32(a.low, b.low, 16)),
                  vreinterpretq_s16_s32(vsliq_n_s32(a.high, b.high, 16))};
}
KERNEL_INLINE floats as_floats(shorts x) {
  return (floats){vreinterpretq_f32_s16(x.low), vreinterpretq_f32_s16(x.high)};
}
KERNEL_INLINE shorts as_shorts(floats x) {
  return (shorts){vreinterpretq_s16_f32(x.low), vreinterpretq_s16_f32(x.high)};
}
KERNEL_INLINE void store_shorts(int16_t *x, shorts v) {
  vst1q_s16(x, v.low);
  vst1q_s16(x + 8, v.high);
}
KERNEL_INLINE shorts all_shorts(int16_t x) { return (shorts){vdupq_n_s16(x), vdupq_n_s16(x)}; }
KERNEL_INLINE shorts add_shorts(shorts a, shorts b) {
  return (shorts){vaddq_s16(a.low, b.low), vaddq_s16(a.high, b.high)};
}
KERNEL_INLINE shorts subtract_shorts(shorts a, shorts b) {
  return (shorts){vsubq_s16(a.low, b.low), vsubq_s16(a.high, b.high)};
}
// (a * b + 2^14) >> 15
KERNEL_INLINE shorts multiply_high(shorts a, shorts b) {
  return (shorts){vqrdmulhq_s16(a.low, b.low), vqrdmulhq_s16(a.high, b.high)};
}
KERNEL_INLINE shorts shift_left_6(shorts x) { return (shorts){vshlq_n_s16(x.low, 6), vshlq_n_s16(x.high, 6)}; }
// 2^8 >> n for n of 0...32.
KERNEL_INLINE shorts halved(shorts n) {
  const int16x8_t whole = vdupq_n_s16(1 << 8);
  return (shorts){vshlq_s16(whole, vnegq_s16(n.low)), vshlq_s16(whole, vnegq_s16(n.high))};
}

KERNEL_INLINE int32_t sum_integers(integers x) { return vaddvq_s32(vaddq_s32(x.low, x.high)); }

// Integers held in the mantissas of magic-rounded floats.
KERNEL_INLINE integers integers_of(floats rounded) {
  const int32x4_t magic = vreinterpretq_s32_f32(vdupq_n_f32(12582912.0f));
  return (integers){vsubq_s32(vreinterpretq_s32_f32(rounded.low), magic),
                    vsubq_s32(vreinterpretq_s32_f32(rounded.high), magic)};
}
KERNEL_INLINE void store_int16(int16_t *x, floats rounded) {
  const integers q = integers_of(rounded);
  vst1q_s16(x, vqmovn_high_s32(vqmovn_s32(q.low), q.high));
}

// Eight codes less their zero point.
KERNEL_INLINE integers load_codes(const uint8_t *x, int32_t zero) {
  const uint16x8_t codes = vmovl_u8(vld1_u8(x));
  const int32x4_t each = vdupq_n_s32(zero);
  return (integers){vsubq_s32(vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(codes))), each),
                    vsubq_s32(vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(codes))), each)};
}

// A quad of a panel of weights [8][4], as two times eight pairs.
KERNEL_INLINE void load_weight_pairs(const int8_t *x, size_t panel_bytes, shorts pairs[2]) {
  const int8x16_t low = vld1q_s8(x), high = vld1q_s8(x + 16);
  const int32x4_t quads[4] = {
    vreinterpretq_s32_s16(vmovl_s8(vget_low_s8(low))), vreinterpretq_s32_s16(vmovl_high_s8(low)),
    vreinterpretq_s32_s16(vmovl_s8(vget_low_s8(high))), vreinterpretq_s32_s16(vmovl_high_s8(high)),
  };
  pairs[0] = (shorts){vreinterpretq_s16_s32(vuzp1q_s32(quads[0], quads[1])),
                      vreinterpretq_s16_s32(vuzp1q_s32(quads[2], quads[3]))};
  pairs[1] = (shorts){vreinterpretq_s16_s32(vuzp2q_s32(quads[0], quads[1])),
                      vreinterpretq_s16_s32(vuzp2q_s32(quads[2], quads[3]))};
}

// Lanes 0...7 and 8...15, the latter added to the former, and then as ReferenceMath.sum(lanes:).
KERNEL_INLINE float sum_of_sixteen(const floats v[2]) { return sum_lanes(add(v[0], v[1])); }

KERNEL_INLINE void transpose4(float32x4_t *a, float32x4_t *b, float32x4_t *c, float32x4_t *d) {
  const float32x4x2_t ab = vtrnq_f32(*a, *b), cd = vtrnq_f32(*c, *d);
  *a = vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0]));
  *b = vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1]));
  *c = vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0]));
  *d = vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1]));
}

KERNEL_INLINE void transpose(floats v[8]) {
  transpose4(&v[0].low, &v[1].low, &v[2].low, &v[3].low);
  transpose4(&v[0].high, &v[1].high, &v[2].high, &v[3].high);
  transpose4(&v[4].low, &v[5].low, &v[6].low, &v[7].low);
  transpose4(&v[4].high, &v[5].high, &v[6].high, &v[7].high);
  UNROLLED for (int i = 0; i < 4; i++) {
    const float32x4_t corner = v[i].high;
    v[i].high = v[i + 4].low;
    v[i + 4].low = corner;
  }
}
