// Sixteen lanes as one register of AVX-512, for kernels that add up no lanes, or sixteen in a given order. Nothing here may
// be called without AT_CPU_AVX512_VNNI. All processors that have it fetch lines to be written, which compilers are to know:
// otherwise they fetch them to be read, and a core that shares no cache with their owner asks for them twice.
#pragma once
#include "kernel.h"
#include <immintrin.h>

#define KERNEL_TARGET "avx512f,avx512bw,avx512dq,avx512vnni,prfchw"
#define KERNEL __attribute__((target(KERNEL_TARGET)))
#define KERNEL_INLINE static inline __attribute__((target(KERNEL_TARGET), always_inline))
#define KERNEL_NAME(name) at_##name##_avx512vnni

enum { LANES = 16 };

typedef __m512 floats;
typedef __m512i integers;

KERNEL_INLINE floats all(float x) { return _mm512_set1_ps(x); }
KERNEL_INLINE floats load_floats(const float *x) { return _mm512_loadu_ps(x); }
KERNEL_INLINE void store_floats(float *x, floats v) { _mm512_storeu_ps(x, v); }
KERNEL_INLINE floats add(floats a, floats b) { return _mm512_add_ps(a, b); }
KERNEL_INLINE floats sub(floats a, floats b) { return _mm512_sub_ps(a, b); }
KERNEL_INLINE floats mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
// By one number from memory. Compilers take it to a register of all lanes first, which costs a third of the rate of
// products followed by sums.
KERNEL_INLINE floats mul_by(floats v, const float *x) {
  floats product;
  __asm__("vmulps %2%{1to16%}, %1, %0" : "=v"(product) : "v"(v), "m"(*x));
  return product;
}
KERNEL_INLINE floats divide(floats a, floats b) { return _mm512_div_ps(a, b); }
KERNEL_INLINE floats lesser(floats a, floats b) { return _mm512_min_ps(a, b); }
KERNEL_INLINE floats greater(floats a, floats b) { return _mm512_max_ps(a, b); }
KERNEL_INLINE floats magnitude(floats x) { return _mm512_abs_ps(x); }
KERNEL_INLINE floats negative(floats x) {
  return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), _mm512_castps_si512(all(-0.0f))));
}
KERNEL_INLINE floats positive_part(floats x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(all(0), x, _CMP_NGE_UQ), x);
}

// x with 2^(low bits of `shifted`) multiplied in: the end of exp.
KERNEL_INLINE floats scale_by_power(floats x, floats shifted) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), exponent));
}

KERNEL_INLINE __mmask16 lanes_below(size_t count) { return (__mmask16)(count >= LANES ? 0xffff : (1u << count) - 1); }
// Up to 16 floats, zero in the lanes beyond `count`; touches no memory beyond them. Most often there are 16, which take
// less time without a mask.
KERNEL_INLINE floats load_some(const float *x, size_t count) {
  return count >= LANES ? load_floats(x) : _mm512_maskz_loadu_ps(lanes_below(count), x);
}
KERNEL_INLINE void store_some(float *x, size_t count, floats v) {
  if (count >= LANES) store_floats(x, v);
  else _mm512_mask_storeu_ps(x, lanes_below(count), v);
}

// last[0], last[-1] and so on, up to 16; zero in the lanes beyond `count`, whose memory is not touched.
KERNEL_INLINE floats load_reversed(const float *last, size_t count) {
  const __mmask16 existing = (__mmask16)~lanes_below(count >= LANES ? 0 : LANES - count);
  const __m512i reversed = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_permutexvar_ps(reversed, _mm512_maskz_loadu_ps(existing, last - (LANES - 1)));
}

KERNEL_INLINE floats load_halves(const uint16_t *x) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x)); }
KERNEL_INLINE void store_halves(uint16_t *x, floats v) {
  _mm256_storeu_si256((__m256i *)x, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

#define HALVES_BY_MASK
KERNEL_INLINE floats load_some_halves(const uint16_t *x, size_t count) {
  return _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_maskz_loadu_epi16(lanes_below(count), x)));
}
KERNEL_INLINE void store_some_halves(uint16_t *x, size_t count, floats v) {
  const __m256i halves = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
  _mm512_mask_storeu_epi16(x, lanes_below(count), _mm512_castsi256_si512(halves));
}

KERNEL_INLINE float greatest_lane(floats v) { return _mm512_reduce_max_ps(v); }

// Packing goes by quarters of a register: the first of all four vectors, then the second. This is their order.
KERNEL_INLINE __m512i packed_order(void) {
  return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}

// Integers held in the mantissas of magic-rounded floats, plus `zero`, as codes 0...255.
KERNEL_INLINE void store_codes(uint8_t *q, const floats rounded[4], int32_t zero) {
  const __m512i shift = _mm512_sub_epi32(_mm512_set1_epi32(zero), _mm512_castps_si512(all(12582912.0f)));
  __m512i code[4];
  UNROLLED for (int j = 0; j < 4; j++) code[j] = _mm512_add_epi32(_mm512_castps_si512(rounded[j]), shift);
  const __m512i quarters =
    _mm512_packus_epi16(_mm512_packs_epi32(code[0], code[1]), _mm512_packs_epi32(code[2], code[3]));
  _mm512_storeu_si512(q, _mm512_permutexvar_epi32(packed_order(), quarters));
}

KERNEL_INLINE integers zeros(void) { return _mm512_setzero_si512(); }
KERNEL_INLINE integers load_integers(const int32_t *x) { return _mm512_loadu_si512(x); }
KERNEL_INLINE integers add_integers(integers a, integers b) { return _mm512_add_epi32(a, b); }
KERNEL_INLINE floats to_float(integers x) { return _mm512_cvtepi32_ps(x); }
KERNEL_INLINE int32_t sum_integers(integers x) { return _mm512_reduce_add_epi32(x); }

// Integers held in the mantissas of magic-rounded floats.
KERNEL_INLINE integers integers_of(floats rounded) {
  return _mm512_sub_epi32(_mm512_castps_si512(rounded), _mm512_castps_si512(all(12582912.0f)));
}

KERNEL_INLINE integers all_integers(int32_t x) { return _mm512_set1_epi32(x); }
KERNEL_INLINE integers subtract_integers(integers a, integers b) { return _mm512_sub_epi32(a, b); }
KERNEL_INLINE integers lesser_integers(integers a, integers b) { return _mm512_min_epi32(a, b); }
KERNEL_INLINE void store_integers(int32_t *x, integers v) { _mm512_storeu_si512(x, v); }

// Thirty-two s16.
typedef __m512i shorts;

KERNEL_INLINE shorts load_shorts(const int16_t *x) { return _mm512_loadu_si512(x); }
KERNEL_INLINE void store_shorts(int16_t *x, shorts v) { _mm512_storeu_si512(x, v); }
KERNEL_INLINE shorts all_shorts(int16_t x) { return _mm512_set1_epi16(x); }
KERNEL_INLINE shorts add_shorts(shorts a, shorts b) { return _mm512_add_epi16(a, b); }
KERNEL_INLINE shorts subtract_shorts(shorts a, shorts b) { return _mm512_sub_epi16(a, b); }
// (a * b + 2^14) >> 15
KERNEL_INLINE shorts multiply_high(shorts a, shorts b) { return _mm512_mulhrs_epi16(a, b); }
KERNEL_INLINE shorts shift_left_6(shorts x) { return _mm512_slli_epi16(x, 6); }
// 2^8 >> n for n of 0...32.
KERNEL_INLINE shorts halved(shorts n) { return _mm512_srlv_epi16(all_shorts(1 << 8), n); }

// Of pairs of s16. Not _mm512_dpwssd_epi32, which compilers take apart into two instructions: a shorter chain of sums.
KERNEL_INLINE integers add_products(integers sum, integers a, integers x) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(x));
  return sum;
}

// Sixteen pairs of s16, where other registers hold eight, to be multiplied by one pair.
typedef __m512i pairs8;
typedef __m512i pair;
KERNEL_INLINE pairs8 load_pairs(const int16_t *x) { return _mm512_loadu_si512(x); }
KERNEL_INLINE pair load_pair(const int16_t *x) {
  int32_t both;
  __builtin_memcpy(&both, x, sizeof both);
  return _mm512_set1_epi32(both);
}

// Those of a, then those of b, saturated.
KERNEL_INLINE shorts narrow(integers a, integers b) {
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), _mm512_packs_epi32(a, b));
}

// Sixteen codes less their zero point.
KERNEL_INLINE integers load_codes(const uint8_t *x, int32_t zero) {
  return _mm512_sub_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)x)), _mm512_set1_epi32(zero));
}

// A quad of two panels of weights [8][4], as two times sixteen pairs.
KERNEL_INLINE void load_weight_pairs(const int8_t *x, size_t panel_bytes, shorts pairs[2]) {
  const __m512i quads = _mm512_inserti64x4(
    _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)x)),
    _mm256_loadu_si256((const __m256i *)(x + panel_bytes)), 1);
  // Each byte to the upper half of its sixteen bits, and down again with its sign.
  const __m128i first = _mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13);
  const __m128i second = _mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15);
  pairs[0] = _mm512_srai_epi16(_mm512_shuffle_epi8(quads, _mm512_broadcast_i32x4(first)), 8);
  pairs[1] = _mm512_srai_epi16(_mm512_shuffle_epi8(quads, _mm512_broadcast_i32x4(second)), 8);
}

// Lanes 8...15 added to lanes 0...7, and then as ReferenceMath.sum(lanes:).
KERNEL_INLINE float sum_of_sixteen(const floats v[1]) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v[0]), _mm512_extractf32x8_ps(v[0], 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// What attention whose lanes are queries asks for.
KERNEL_INLINE integers greater_integers(integers a, integers b) { return _mm512_max_epi32(a, b); }
KERNEL_INLINE integers shift_right_each(integers x, integers n) { return _mm512_srav_epi32(x, n); }
KERNEL_INLINE integers shift_left_each(integers x, integers n) { return _mm512_sllv_epi32(x, n); }
KERNEL_INLINE integers and_integers(integers a, integers b) { return _mm512_and_si512(a, b); }
KERNEL_INLINE integers or_integers(integers a, integers b) { return _mm512_or_si512(a, b); }
KERNEL_INLINE integers truncated(floats x) { return _mm512_cvttps_epi32(x); }
KERNEL_INLINE integers bits_of(floats x) { return _mm512_castps_si512(x); }
KERNEL_INLINE floats floats_of_bits(integers x) { return _mm512_castsi512_ps(x); }
KERNEL_INLINE integers shift_right(integers x, int32_t n) { return _mm512_sra_epi32(x, _mm_cvtsi32_si128(n)); }
// Lanes of `yes` where those of x are above those of `limit`, otherwise of `no`.
KERNEL_INLINE floats where_above(floats x, floats limit, floats yes, floats no) {
  return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ), yes);
}
KERNEL_INLINE bool any_negative(integers x) { return _mm512_movepi32_mask(x) != 0; }
KERNEL_INLINE bool any_set(shorts x) { return _mm512_test_epi16_mask(x, x) != 0; }
KERNEL_INLINE bool any_least(shorts x) { return _mm512_cmpeq_epi16_mask(x, all_shorts(INT16_MIN)) != 0; }
KERNEL_INLINE shorts lesser_shorts(shorts a, shorts b) { return _mm512_min_epi16(a, b); }
KERNEL_INLINE shorts add_saturated(shorts a, shorts b) { return _mm512_adds_epi16(a, b); }
KERNEL_INLINE shorts subtract_saturated(shorts a, shorts b) { return _mm512_subs_epi16(a, b); }
// Those of a and of b, saturated, in an order of its own, which `unpack_integers` undoes.
KERNEL_INLINE shorts pack_integers(integers a, integers b) { return _mm512_packs_epi32(a, b); }
KERNEL_INLINE void unpack_integers(shorts packed, integers v[2]) {
  const __m512i sign = _mm512_srai_epi16(packed, 15);
  v[0] = _mm512_unpacklo_epi16(packed, sign);
  v[1] = _mm512_unpackhi_epi16(packed, sign);
}
// Pairs of a short of `first` and one of `second`, in the order that `unpack_integers` has.
KERNEL_INLINE void unpack_pairs(shorts first, shorts second, integers v[2]) {
  v[0] = _mm512_unpacklo_epi16(first, second);
  v[1] = _mm512_unpackhi_epi16(first, second);
}
// Of shorts of 0...255.
KERNEL_INLINE shorts join_low_bytes(shorts low, shorts high) {
  return _mm512_or_si512(low, _mm512_slli_epi16(high, 8));
}
KERNEL_INLINE integers all_bytes(int x) { return _mm512_set1_epi8((char)x); }
KERNEL_INLINE integers flip_bits(integers x, integers bits) { return _mm512_xor_si512(x, bits); }

// Of fours of bytes: those of `a` are unsigned, those of `x` signed.
enum { QUERY_OFFSET = 128, VALUE_OFFSET = 0 };
KERNEL_INLINE integers add_fours(integers sum, integers a, integers x) { return _mm512_dpbusd_epi32(sum, a, x); }
KERNEL_INLINE integers add_unsigned_fours(integers sum, integers a, integers x) { return add_fours(sum, a, x); }

// As s8, saturated, one vector after the other.
KERNEL_INLINE integers narrow_to_bytes(const integers x[4]) {
  const integers quarters = _mm512_packs_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3]));
  return _mm512_permutexvar_epi32(packed_order(), quarters);
}

// As s8, saturated: lane by lane a byte of each.
KERNEL_INLINE integers join_bytes(const integers x[4]) {
  const __m128i by_lane = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const integers quarters = _mm512_packs_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3]));
  return _mm512_shuffle_epi8(quarters, _mm512_broadcast_i32x4(by_lane));
}

KERNEL_INLINE void transpose(floats v[16]) {
  floats pairs[16], quads[16], halves[16];
  UNROLLED for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  UNROLLED for (int i = 0; i < 16; i += 4) {
    UNROLLED for (int j = 0; j < 2; j++) {
      quads[i + 2 * j] = _mm512_shuffle_ps(pairs[i + j], pairs[i + 2 + j], 0x44);
      quads[i + 2 * j + 1] = _mm512_shuffle_ps(pairs[i + j], pairs[i + 2 + j], 0xee);
    }
  }
  UNROLLED for (int i = 0; i < 16; i += 8) {
    UNROLLED for (int j = 0; j < 4; j++) {
      halves[i + j] = _mm512_shuffle_f32x4(quads[i + j], quads[i + 4 + j], 0x88);
      halves[i + 4 + j] = _mm512_shuffle_f32x4(quads[i + j], quads[i + 4 + j], 0xdd);
    }
  }
  UNROLLED for (int j = 0; j < 8; j++) {
    v[j] = _mm512_shuffle_f32x4(halves[j], halves[8 + j], 0x88);
    v[8 + j] = _mm512_shuffle_f32x4(halves[j], halves[8 + j], 0xdd);
  }
}
