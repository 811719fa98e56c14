// Eight lanes as one AVX2 register. Every function carries its instruction set itself, so that the rest of the target
// stays at the baseline; nothing here may be called without AT_CPU_AVX2.
#pragma once
#include "kernel.h"
#include <immintrin.h>

// A header of a later instruction set on the same registers defines these itself and includes this one.
#ifndef KERNEL_TARGET
#define KERNEL_TARGET "avx2,f16c"
#define KERNEL_NAME(name) at_##name##_avx2
#define CEILING_NAME_OF(name) at_ceiling_##name##_avx2
#define ADD_PRODUCTS(sum, a, x) _mm256_add_epi32(sum, _mm256_madd_epi16(a, x))
#define ADD_PRODUCTS_IN_STEP
enum { CODED_ROWS = 4 }; // rows of a tile of registers in integers
#endif
#define KERNEL __attribute__((target(KERNEL_TARGET)))
#define KERNEL_INLINE static inline __attribute__((target(KERNEL_TARGET), always_inline))

enum { LANES = 8, VECTORS = 2 }; // VECTORS in a row of a tile of registers

typedef __m256 floats;

KERNEL_INLINE floats all(float x) { return _mm256_set1_ps(x); }
KERNEL_INLINE floats load_floats(const float *x) { return _mm256_loadu_ps(x); }
KERNEL_INLINE void store_floats(float *x, floats v) { _mm256_storeu_ps(x, v); }
KERNEL_INLINE floats add(floats a, floats b) { return _mm256_add_ps(a, b); }
KERNEL_INLINE floats sub(floats a, floats b) { return _mm256_sub_ps(a, b); }
KERNEL_INLINE floats mul(floats a, floats b) { return _mm256_mul_ps(a, b); }
KERNEL_INLINE floats divide(floats a, floats b) { return _mm256_div_ps(a, b); }
KERNEL_INLINE floats lesser(floats a, floats b) { return _mm256_min_ps(a, b); }
KERNEL_INLINE floats greater(floats a, floats b) { return _mm256_max_ps(a, b); }
KERNEL_INLINE floats square_root(floats x) { return _mm256_sqrt_ps(x); }
KERNEL_INLINE floats negative(floats x) { return _mm256_xor_ps(x, all(-0.0f)); }
KERNEL_INLINE floats magnitude(floats x) { return _mm256_andnot_ps(all(-0.0f), x); }
KERNEL_INLINE floats positive_part(floats x) { return _mm256_andnot_ps(_mm256_cmp_ps(all(0), x, _CMP_GE_OQ), x); }

// x with 2^(low bits of `shifted`) multiplied in: the end of exp.
KERNEL_INLINE floats scale_by_power(floats x, floats shifted) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), exponent));
}

KERNEL_INLINE __m256i lanes_below(size_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count > 8 ? 8 : (int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Zero in the lanes from `count` on.
KERNEL_INLINE floats keep_lanes(floats x, size_t count) {
  return _mm256_and_ps(x, _mm256_castsi256_ps(lanes_below(count)));
}

// Up to 8 floats, zero in the lanes beyond `count`; touches no memory beyond them.
KERNEL_INLINE floats load_some(const float *x, size_t count) {
  return count >= 8 ? load_floats(x) : _mm256_maskload_ps(x, lanes_below(count));
}
KERNEL_INLINE void store_some(float *x, size_t count, floats v) {
  if (count >= 8) store_floats(x, v);
  else _mm256_maskstore_ps(x, lanes_below(count), v);
}

// ReferenceMath.sum(lanes:)
KERNEL_INLINE float sum_lanes(floats v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

KERNEL_INLINE float greatest_lane(floats v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

KERNEL_INLINE floats load_halves(const uint16_t *x) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x)); }

KERNEL_INLINE void store_halves(uint16_t *x, floats v) {
  _mm_storeu_si128((__m128i *)x, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

// Integers held in the mantissas of magic-rounded floats, plus `zero`, as codes 0...255.
KERNEL_INLINE __m256i codes8(floats rounded, int32_t zero) {
  const __m256i magic = _mm256_castps_si256(all(12582912.0f));
  const __m256i q = _mm256_add_epi32(_mm256_sub_epi32(_mm256_castps_si256(rounded), magic), _mm256_set1_epi32(zero));
  return _mm256_min_epi32(_mm256_max_epi32(q, _mm256_setzero_si256()), _mm256_set1_epi32(255));
}
KERNEL_INLINE void store_codes(uint8_t *q, const floats rounded[4], int32_t zero) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); // undoes the packs' interleaving of halves
  const __m256i low = _mm256_packs_epi32(codes8(rounded[0], zero), codes8(rounded[1], zero));
  const __m256i high = _mm256_packs_epi32(codes8(rounded[2], zero), codes8(rounded[3], zero));
  _mm256_storeu_si256((__m256i *)q, _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order));
}

// Eight s32, and eight pairs of s16 to be multiplied by one pair.
typedef __m256i integers;
typedef __m256i pairs8;
typedef __m256i pair;

KERNEL_INLINE integers zeros(void) { return _mm256_setzero_si256(); }
KERNEL_INLINE pairs8 load_pairs(const int16_t *x) { return _mm256_loadu_si256((const __m256i *)x); }
KERNEL_INLINE pair load_pair(const int16_t *x) {
  int32_t both;
  __builtin_memcpy(&both, x, sizeof both);
  return _mm256_set1_epi32(both);
}
KERNEL_INLINE pair ones(void) { return _mm256_set1_epi16(1); }
KERNEL_INLINE integers add_products(integers sum, pairs8 a, pair x) { return ADD_PRODUCTS(sum, a, x); }
#ifdef ADD_PRODUCTS_IN_STEP
// As lanes.h has it. Zen 3 takes both products and then both sums 5 % faster than one after the other, the order that
// compilers choose; they also hold the pairs of several rows in registers that sums then lack.
KERNEL_INLINE void add_products_each(const int count, integers *sum, const pairs8 *w, const void *x) {
  if (count == 2) {
    __m256i first, second;
    __asm__("vpbroadcastd %6, %3\n\t"
            "vpmaddwd %4, %3, %2\n\t"
            "vpmaddwd %5, %3, %3\n\t"
            "vpaddd %2, %0, %0\n\t"
            "vpaddd %3, %1, %1"
            : "+x"(sum[0]), "+x"(sum[1]), "=&x"(first), "=&x"(second)
            : "x"(w[0]), "x"(w[1]), "m"(*(const char(*)[sizeof(int32_t)])x));
  } else {
    for (int v = 0; v < count; v++) sum[v] = add_products(sum[v], w[v], load_pair(x));
  }
}
#endif
KERNEL_INLINE void hide_pairs(pairs8 *x) { __asm__ volatile("" : "+x"(*x)); }
KERNEL_INLINE integers load_integers(const int32_t *x) { return _mm256_loadu_si256((const __m256i *)x); }
KERNEL_INLINE integers add_integers(integers a, integers b) { return _mm256_add_epi32(a, b); }
// x - a * n
KERNEL_INLINE integers subtract_times(integers x, integers a, int32_t n) {
  return _mm256_sub_epi32(x, _mm256_mullo_epi32(a, _mm256_set1_epi32(n)));
}
KERNEL_INLINE floats to_float(integers x) { return _mm256_cvtepi32_ps(x); }

KERNEL_INLINE integers all_integers(int32_t x) { return _mm256_set1_epi32(x); }
KERNEL_INLINE integers subtract_integers(integers a, integers b) { return _mm256_sub_epi32(a, b); }
KERNEL_INLINE integers lesser_integers(integers a, integers b) { return _mm256_min_epi32(a, b); }
KERNEL_INLINE integers shift_right(integers x, int32_t n) { return _mm256_sra_epi32(x, _mm_cvtsi32_si128(n)); }
KERNEL_INLINE void store_integers(int32_t *x, integers v) { _mm256_storeu_si256((__m256i *)x, v); }

// Sixteen s16.
typedef __m256i shorts;

// Those of a, then those of b, saturated.
KERNEL_INLINE shorts narrow(integers a, integers b) { return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8); }
// The low halves of a and of b, by turns.
KERNEL_INLINE shorts interleave(integers a, integers b) { return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa); }
KERNEL_INLINE shorts load_shorts(const int16_t *x) { return _mm256_loadu_si256((const __m256i *)x); }
KERNEL_INLINE void store_shorts(int16_t *x, shorts v) { _mm256_storeu_si256((__m256i *)x, v); }
KERNEL_INLINE shorts all_shorts(int16_t x) { return _mm256_set1_epi16(x); }
KERNEL_INLINE shorts add_shorts(shorts a, shorts b) { return _mm256_add_epi16(a, b); }
KERNEL_INLINE shorts subtract_shorts(shorts a, shorts b) { return _mm256_sub_epi16(a, b); }
// (a * b + 2^14) >> 15
KERNEL_INLINE shorts multiply_high(shorts a, shorts b) { return _mm256_mulhrs_epi16(a, b); }
KERNEL_INLINE shorts shift_left_6(shorts x) { return _mm256_slli_epi16(x, 6); }
// 2^8 >> n for n of 0...32, each byte looked up by n and an offset that leads past the table where the byte is zero.
KERNEL_INLINE shorts halved(shorts n) {
  const __m256i bytes = _mm256_broadcastsi128_si256(
    _mm_setr_epi8(0, (char)128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0));
  const __m256i both = _mm256_mullo_epi16(_mm256_min_epi16(n, all_shorts(15)), all_shorts(0x0101));
  return _mm256_shuffle_epi8(bytes, _mm256_add_epi8(both, all_shorts(0x7800)));
}

KERNEL_INLINE int32_t sum_integers(integers x) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// Integers held in the mantissas of magic-rounded floats.
KERNEL_INLINE integers integers_of(floats rounded) {
  return _mm256_sub_epi32(_mm256_castps_si256(rounded), _mm256_castps_si256(all(12582912.0f)));
}

// Eight codes less their zero point.
KERNEL_INLINE integers load_codes(const uint8_t *x, int32_t zero) {
  return _mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)x)), _mm256_set1_epi32(zero));
}

// A quad of a panel of weights [8][4], as two times eight pairs.
KERNEL_INLINE void load_weight_pairs(const int8_t *x, size_t panel_bytes, shorts pairs[2]) {
  const __m256i quads = _mm256_loadu_si256((const __m256i *)x);
  // Each byte to the upper half of its sixteen bits, and down again with its sign.
  const __m256i first =
    _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13));
  const __m256i second =
    _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15));
  pairs[0] = _mm256_srai_epi16(_mm256_shuffle_epi8(quads, first), 8);
  pairs[1] = _mm256_srai_epi16(_mm256_shuffle_epi8(quads, second), 8);
}

// Lanes 0...7 and 8...15, the latter added to the former, and then as ReferenceMath.sum(lanes:).
KERNEL_INLINE float sum_of_sixteen(const floats v[2]) { return sum_lanes(add(v[0], v[1])); }

KERNEL_INLINE void transpose(floats v[8]) {
  floats pairs[8], quads[8];
  UNROLLED for (int i = 0; i < 4; i++) {
    pairs[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
  }
  UNROLLED for (int i = 0; i < 2; i++) {
    quads[4 * i] = _mm256_shuffle_ps(pairs[4 * i], pairs[4 * i + 2], 0x44);
    quads[4 * i + 1] = _mm256_shuffle_ps(pairs[4 * i], pairs[4 * i + 2], 0xee);
    quads[4 * i + 2] = _mm256_shuffle_ps(pairs[4 * i + 1], pairs[4 * i + 3], 0x44);
    quads[4 * i + 3] = _mm256_shuffle_ps(pairs[4 * i + 1], pairs[4 * i + 3], 0xee);
  }
  UNROLLED for (int i = 0; i < 4; i++) {
    v[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

// What attention whose lanes are queries asks for.
KERNEL_INLINE integers greater_integers(integers a, integers b) { return _mm256_max_epi32(a, b); }
KERNEL_INLINE integers shift_right_each(integers x, integers n) { return _mm256_srav_epi32(x, n); }
KERNEL_INLINE integers shift_left_each(integers x, integers n) { return _mm256_sllv_epi32(x, n); }
KERNEL_INLINE integers and_integers(integers a, integers b) { return _mm256_and_si256(a, b); }
KERNEL_INLINE integers or_integers(integers a, integers b) { return _mm256_or_si256(a, b); }
KERNEL_INLINE integers truncated(floats x) { return _mm256_cvttps_epi32(x); }
KERNEL_INLINE integers bits_of(floats x) { return _mm256_castps_si256(x); }
KERNEL_INLINE floats floats_of_bits(integers x) { return _mm256_castsi256_ps(x); }
// Lanes of `yes` where those of x are above those of `limit`, otherwise of `no`.
KERNEL_INLINE floats where_above(floats x, floats limit, floats yes, floats no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, limit, _CMP_GT_OQ));
}
KERNEL_INLINE bool any_negative(integers x) { return _mm256_movemask_ps(_mm256_castsi256_ps(x)) != 0; }
KERNEL_INLINE bool any_set(shorts x) { return !_mm256_testz_si256(x, x); }
KERNEL_INLINE bool any_least(shorts x) {
  return _mm256_movemask_epi8(_mm256_cmpeq_epi16(x, all_shorts(INT16_MIN))) != 0;
}
KERNEL_INLINE shorts lesser_shorts(shorts a, shorts b) { return _mm256_min_epi16(a, b); }
KERNEL_INLINE shorts add_saturated(shorts a, shorts b) { return _mm256_adds_epi16(a, b); }
KERNEL_INLINE shorts subtract_saturated(shorts a, shorts b) { return _mm256_subs_epi16(a, b); }
// Those of a and of b, saturated, in an order of its own, which `unpack_integers` undoes.
KERNEL_INLINE shorts pack_integers(integers a, integers b) { return _mm256_packs_epi32(a, b); }
KERNEL_INLINE void unpack_integers(shorts packed, integers v[2]) {
  const __m256i sign = _mm256_srai_epi16(packed, 15);
  v[0] = _mm256_unpacklo_epi16(packed, sign);
  v[1] = _mm256_unpackhi_epi16(packed, sign);
}
// Pairs of a short of `first` and one of `second`, in the order that `unpack_integers` has.
KERNEL_INLINE void unpack_pairs(shorts first, shorts second, integers v[2]) {
  v[0] = _mm256_unpacklo_epi16(first, second);
  v[1] = _mm256_unpackhi_epi16(first, second);
}
