// Eight lanes as two SSE registers. Every function carries its instruction set itself, so that the rest of the target
// stays at the baseline; nothing here may be called without AT_CPU_SSE41.
#pragma once
#include "kernel.h"
#include <smmintrin.h>

#define KERNEL_TARGET "sse4.1"
#define KERNEL __attribute__((target(KERNEL_TARGET)))
#define KERNEL_INLINE static inline __attribute__((target(KERNEL_TARGET), always_inline))
#define KERNEL_NAME(name) at_##name##_sse41
#define CEILING_NAME_OF(name) at_ceiling_##name##_sse41

enum {
  LANES = 8,
  VECTORS = 1,       // in a row of a tile of registers
  CODED_ROWS = 4, // rows of such a tile in integers
};

typedef struct {
  __m128 low, high;
} floats;

KERNEL_INLINE floats all(float x) { return (floats){_mm_set1_ps(x), _mm_set1_ps(x)}; }
KERNEL_INLINE floats load_floats(const float *x) { return (floats){_mm_loadu_ps(x), _mm_loadu_ps(x + 4)}; }
KERNEL_INLINE void store_floats(float *x, floats v) {
  _mm_storeu_ps(x, v.low);
  _mm_storeu_ps(x + 4, v.high);
}
KERNEL_INLINE floats add(floats a, floats b) { return (floats){_mm_add_ps(a.low, b.low), _mm_add_ps(a.high, b.high)}; }
KERNEL_INLINE floats sub(floats a, floats b) { return (floats){_mm_sub_ps(a.low, b.low), _mm_sub_ps(a.high, b.high)}; }
KERNEL_INLINE floats mul(floats a, floats b) { return (floats){_mm_mul_ps(a.low, b.low), _mm_mul_ps(a.high, b.high)}; }
KERNEL_INLINE floats divide(floats a, floats b) {
  return (floats){_mm_div_ps(a.low, b.low), _mm_div_ps(a.high, b.high)};
}
KERNEL_INLINE floats lesser(floats a, floats b) {
  return (floats){_mm_min_ps(a.low, b.low), _mm_min_ps(a.high, b.high)};
}
KERNEL_INLINE floats greater(floats a, floats b) {
  return (floats){_mm_max_ps(a.low, b.low), _mm_max_ps(a.high, b.high)};
}
KERNEL_INLINE floats square_root(floats x) { return (floats){_mm_sqrt_ps(x.low), _mm_sqrt_ps(x.high)}; }
KERNEL_INLINE floats negative(floats x) {
  return (floats){_mm_xor_ps(x.low, _mm_set1_ps(-0.0f)), _mm_xor_ps(x.high, _mm_set1_ps(-0.0f))};
}
KERNEL_INLINE floats magnitude(floats x) {
  return (floats){_mm_andnot_ps(_mm_set1_ps(-0.0f), x.low), _mm_andnot_ps(_mm_set1_ps(-0.0f), x.high)};
}
KERNEL_INLINE floats positive_part(floats x) {
  const __m128 zero = _mm_setzero_ps();
  return (floats){_mm_andnot_ps(_mm_cmpge_ps(zero, x.low), x.low), _mm_andnot_ps(_mm_cmpge_ps(zero, x.high), x.high)};
}

// x with 2^(low bits of `shifted`) multiplied in: the end of exp.
KERNEL_INLINE __m128 scale_by_power4(__m128 x, __m128 shifted) {
  const __m128i exponent = _mm_slli_epi32(_mm_castps_si128(shifted), 23);
  return _mm_castsi128_ps(_mm_add_epi32(_mm_castps_si128(x), exponent));
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
  const __m128i end = _mm_set1_epi32(count > 8 ? 8 : (int)count);
  const __m128i low = _mm_cmpgt_epi32(end, _mm_setr_epi32(0, 1, 2, 3));
  const __m128i high = _mm_cmpgt_epi32(end, _mm_setr_epi32(4, 5, 6, 7));
  return (floats){_mm_and_ps(x.low, _mm_castsi128_ps(low)), _mm_and_ps(x.high, _mm_castsi128_ps(high))};
}

// ReferenceMath.sum(lanes:)
KERNEL_INLINE float sum_lanes(floats v) {
  const __m128 four = _mm_add_ps(v.low, v.high), two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 0x55)));
}

KERNEL_INLINE float greatest_lane(floats v) {
  const __m128 four = _mm_max_ps(v.low, v.high), two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 0x55)));
}

// IEEE binary16 to binary32, exact: the magnitude's bits are moved into place as a float 2^112 times too small, which
// also normalises the subnormal ones; infinities and NaN keep their largest exponent.
KERNEL_INLINE __m128 widen_halves(__m128i half) {
  const __m128i wide = _mm_cvtepi16_epi32(half);
  const __m128i shifted = _mm_slli_epi32(_mm_and_si128(wide, _mm_set1_epi32(0x7fff)), 13);
  const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(shifted), _mm_castsi128_ps(_mm_set1_epi32(0x77800000)));
  const __m128i special = _mm_cmpgt_epi32(shifted, _mm_set1_epi32(0x0f7fffff));
  const __m128i exponent = _mm_and_si128(special, _mm_set1_epi32(0x7f800000));
  const __m128i sign = _mm_slli_epi32(_mm_srai_epi32(wide, 31), 31);
  return _mm_or_ps(scaled, _mm_castsi128_ps(_mm_or_si128(exponent, sign)));
}
KERNEL_INLINE floats load_halves(const uint16_t *x) {
  const __m128i halves = _mm_loadu_si128((const __m128i *)x);
  return (floats){widen_halves(halves), widen_halves(_mm_srli_si128(halves, 8))};
}

// binary32 of at most 65504 in magnitude to the nearest binary16, ties to even. Normal results: the exponent is moved to
// its new bias and half a unit, or a little less before an even mantissa, is added before the low bits fall off.
// Subnormal ones: adding 0.5 aligns the mantissa to units of 2^-24.
KERNEL_INLINE __m128i narrow_floats(__m128 x) {
  const __m128i bits = _mm_castps_si128(x), half = _mm_set1_epi32(0x3f000000);
  const __m128i size = _mm_and_si128(bits, _mm_set1_epi32(0x7fffffff));
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(size, 13), _mm_set1_epi32(1));
  const __m128i rounded = _mm_add_epi32(_mm_add_epi32(size, _mm_set1_epi32((int)0xc8000fff)), odd);
  const __m128i normal = _mm_srli_epi32(rounded, 13);
  const __m128 shifted = _mm_add_ps(_mm_castsi128_ps(size), _mm_castsi128_ps(half));
  const __m128i subnormal = _mm_sub_epi32(_mm_castps_si128(shifted), half);
  const __m128i is_small = _mm_cmpgt_epi32(_mm_set1_epi32(0x38800000), size);
  const __m128i value = _mm_blendv_epi8(normal, subnormal, is_small);
  // The sign as s32, so that the pack to s16 keeps it.
  const __m128i sign = _mm_slli_epi32(_mm_srai_epi32(bits, 31), 15);
  return _mm_or_si128(value, sign);
}
KERNEL_INLINE void store_halves(uint16_t *x, floats v) {
  _mm_storeu_si128((__m128i *)x, _mm_packs_epi32(narrow_floats(v.low), narrow_floats(v.high)));
}

// Eight s32, and eight pairs of s16 to be multiplied by one pair.
typedef struct {
  __m128i low, high;
} integers;
typedef integers pairs8;
typedef __m128i pair;

KERNEL_INLINE integers zeros(void) { return (integers){_mm_setzero_si128(), _mm_setzero_si128()}; }
KERNEL_INLINE integers load_integers(const int32_t *x) {
  return (integers){_mm_loadu_si128((const __m128i *)x), _mm_loadu_si128((const __m128i *)(x + 4))};
}
KERNEL_INLINE pairs8 load_pairs(const int16_t *x) { return load_integers((const int32_t *)x); }
KERNEL_INLINE pair load_pair(const int16_t *x) {
  int32_t both;
  __builtin_memcpy(&both, x, sizeof both);
  return _mm_set1_epi32(both);
}
KERNEL_INLINE pair ones(void) { return _mm_set1_epi16(1); }
KERNEL_INLINE integers add_integers(integers a, integers b) {
  return (integers){_mm_add_epi32(a.low, b.low), _mm_add_epi32(a.high, b.high)};
}
// x - a * n
KERNEL_INLINE integers subtract_times(integers x, integers a, int32_t n) {
  const __m128i each = _mm_set1_epi32(n);
  return (integers){_mm_sub_epi32(x.low, _mm_mullo_epi32(a.low, each)),
              _mm_sub_epi32(x.high, _mm_mullo_epi32(a.high, each))};
}
KERNEL_INLINE integers add_products(integers sum, pairs8 a, pair x) {
  return add_integers(sum, (integers){_mm_madd_epi16(a.low, x), _mm_madd_epi16(a.high, x)});
}
#define ADD_PRODUCTS_IN_STEP
// As lanes.h has it. Compilers put off the sums of several rows until registers run out.
KERNEL_INLINE void add_products_each(const int count, integers *sum, const pairs8 *w, const void *x) {
  UNROLLED for (int v = 0; v < count; v++) {
    __m128i low, high;
    __asm__("movd %6, %3\n\t"
            "pshufd $0, %3, %3\n\t"
            "movdqa %4, %2\n\t"
            "pmaddwd %3, %2\n\t"
            "pmaddwd %5, %3\n\t"
            "paddd %2, %0\n\t"
            "paddd %3, %1"
            : "+x"(sum[v].low), "+x"(sum[v].high), "=&x"(low), "=&x"(high)
            : "x"(w[v].low), "x"(w[v].high), "m"(*(const char(*)[sizeof(int32_t)])x));
  }
}
KERNEL_INLINE void hide_pairs(pairs8 *x) { __asm__ volatile("" : "+x"(x->low), "+x"(x->high)); }
KERNEL_INLINE floats to_float(integers x) { return (floats){_mm_cvtepi32_ps(x.low), _mm_cvtepi32_ps(x.high)}; }

KERNEL_INLINE integers all_integers(int32_t x) { return (integers){_mm_set1_epi32(x), _mm_set1_epi32(x)}; }
KERNEL_INLINE integers subtract_integers(integers a, integers b) {
  return (integers){_mm_sub_epi32(a.low, b.low), _mm_sub_epi32(a.high, b.high)};
}
KERNEL_INLINE integers lesser_integers(integers a, integers b) {
  return (integers){_mm_min_epi32(a.low, b.low), _mm_min_epi32(a.high, b.high)};
}
KERNEL_INLINE integers shift_right(integers x, int32_t n) {
  const __m128i count = _mm_cvtsi32_si128(n);
  return (integers){_mm_sra_epi32(x.low, count), _mm_sra_epi32(x.high, count)};
}
KERNEL_INLINE void store_integers(int32_t *x, integers v) {
  _mm_storeu_si128((__m128i *)x, v.low);
  _mm_storeu_si128((__m128i *)(x + 4), v.high);
}
KERNEL_INLINE int32_t least_integer(integers x) {
  __m128i s = _mm_min_epi32(x.low, x.high);
  s = _mm_min_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_min_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// Sixteen s16.
typedef integers shorts;

// Those of a, then those of b, saturated.
KERNEL_INLINE shorts narrow(integers a, integers b) {
  return (shorts){_mm_packs_epi32(a.low, a.high), _mm_packs_epi32(b.low, b.high)};
}
// The low halves of a and of b, by turns.
KERNEL_INLINE shorts interleave(integers a, integers b) {
  return (shorts){_mm_blend_epi16(a.low, _mm_slli_epi32(b.low, 16), 0xaa),
            _mm_blend_epi16(a.high, _mm_slli_epi32(b.high, 16), 0xaa)};
}
KERNEL_INLINE floats as_floats(shorts x) { return (floats){_mm_castsi128_ps(x.low), _mm_castsi128_ps(x.high)}; }
KERNEL_INLINE shorts as_shorts(floats x) { return (shorts){_mm_castps_si128(x.low), _mm_castps_si128(x.high)}; }
KERNEL_INLINE void store_shorts(int16_t *x, shorts v) { store_integers((int32_t *)x, v); }
KERNEL_INLINE shorts all_shorts(int16_t x) { return (shorts){_mm_set1_epi16(x), _mm_set1_epi16(x)}; }
KERNEL_INLINE shorts add_shorts(shorts a, shorts b) {
  return (shorts){_mm_add_epi16(a.low, b.low), _mm_add_epi16(a.high, b.high)};
}
KERNEL_INLINE shorts subtract_shorts(shorts a, shorts b) {
  return (shorts){_mm_sub_epi16(a.low, b.low), _mm_sub_epi16(a.high, b.high)};
}
// (a * b + 2^14) >> 15
KERNEL_INLINE shorts multiply_high(shorts a, shorts b) {
  return (shorts){_mm_mulhrs_epi16(a.low, b.low), _mm_mulhrs_epi16(a.high, b.high)};
}
KERNEL_INLINE shorts shift_left_6(shorts x) { return (shorts){_mm_slli_epi16(x.low, 6), _mm_slli_epi16(x.high, 6)}; }
// 2^8 >> n for n of 0...32, each byte looked up by n and an offset that leads past the table where the byte is zero.
KERNEL_INLINE __m128i halved8(__m128i n) {
  const __m128i bytes = _mm_setr_epi8(0, (char)128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0);
  const __m128i both = _mm_mullo_epi16(_mm_min_epi16(n, _mm_set1_epi16(15)), _mm_set1_epi16(0x0101));
  return _mm_shuffle_epi8(bytes, _mm_add_epi8(both, _mm_set1_epi16(0x7800)));
}
KERNEL_INLINE shorts halved(shorts n) { return (shorts){halved8(n.low), halved8(n.high)}; }

KERNEL_INLINE int32_t sum_integers(integers x) {
  __m128i s = _mm_add_epi32(x.low, x.high);
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// Integers held in the mantissas of magic-rounded floats.
KERNEL_INLINE integers integers_of(floats rounded) {
  const __m128i magic = _mm_castps_si128(_mm_set1_ps(12582912.0f));
  const __m128i low = _mm_castps_si128(rounded.low), high = _mm_castps_si128(rounded.high);
  return (integers){_mm_sub_epi32(low, magic), _mm_sub_epi32(high, magic)};
}
KERNEL_INLINE void store_int16(int16_t *x, floats rounded) {
  const integers q = integers_of(rounded);
  _mm_storeu_si128((__m128i *)x, _mm_packs_epi32(q.low, q.high));
}

// Those, plus `zero`, as codes 0...255: both packs saturate.
KERNEL_INLINE __m128i codes8(floats rounded, int32_t zero) {
  const integers q = add_integers(integers_of(rounded), (integers){_mm_set1_epi32(zero), _mm_set1_epi32(zero)});
  return _mm_packs_epi32(q.low, q.high);
}
KERNEL_INLINE void store_codes(uint8_t *q, const floats rounded[4], int32_t zero) {
  UNROLLED for (int i = 0; i < 4; i += 2) {
    const __m128i codes = _mm_packus_epi16(codes8(rounded[i], zero), codes8(rounded[i + 1], zero));
    _mm_storeu_si128((__m128i *)(q + 8 * i), codes);
  }
}

// Eight codes less their zero point.
KERNEL_INLINE integers load_codes(const uint8_t *x, int32_t zero) {
  const __m128i codes = _mm_loadl_epi64((const __m128i *)x), each = _mm_set1_epi32(zero);
  return (integers){_mm_sub_epi32(_mm_cvtepu8_epi32(codes), each),
                    _mm_sub_epi32(_mm_cvtepu8_epi32(_mm_srli_si128(codes, 4)), each)};
}

// A quad of a panel of weights [8][4], as two times eight pairs.
KERNEL_INLINE void load_weight_pairs(const int8_t *x, size_t panel_bytes, shorts pairs[2]) {
  const integers quads = load_integers((const int32_t *)x);
  // Each byte to the upper half of its sixteen bits, and down again with its sign.
  const __m128i first = _mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13);
  const __m128i second = _mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15);
  pairs[0] = (shorts){_mm_srai_epi16(_mm_shuffle_epi8(quads.low, first), 8),
                      _mm_srai_epi16(_mm_shuffle_epi8(quads.high, first), 8)};
  pairs[1] = (shorts){_mm_srai_epi16(_mm_shuffle_epi8(quads.low, second), 8),
                      _mm_srai_epi16(_mm_shuffle_epi8(quads.high, second), 8)};
}

// Lanes 0...7 and 8...15, the latter added to the former, and then as ReferenceMath.sum(lanes:).
KERNEL_INLINE float sum_of_sixteen(const floats v[2]) { return sum_lanes(add(v[0], v[1])); }

KERNEL_INLINE void transpose(floats v[8]) {
  _MM_TRANSPOSE4_PS(v[0].low, v[1].low, v[2].low, v[3].low);
  _MM_TRANSPOSE4_PS(v[0].high, v[1].high, v[2].high, v[3].high);
  _MM_TRANSPOSE4_PS(v[4].low, v[5].low, v[6].low, v[7].low);
  _MM_TRANSPOSE4_PS(v[4].high, v[5].high, v[6].high, v[7].high);
  UNROLLED for (int i = 0; i < 4; i++) {
    const __m128 corner = v[i].high;
    v[i].high = v[i + 4].low;
    v[i + 4].low = corner;
  }
}
