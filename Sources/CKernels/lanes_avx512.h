// Sixteen lanes as one register of AVX-512, for kernels that add up no lanes. Nothing here may be called without
// AT_CPU_AVX512_VNNI.
#pragma once
#include "kernel.h"
#include <immintrin.h>

#define KERNEL_TARGET "avx512f,avx512vnni"
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
// Up to 16 floats, zero in the lanes beyond `count`; touches no memory beyond them.
KERNEL_INLINE floats load_some(const float *x, size_t count) { return _mm512_maskz_loadu_ps(lanes_below(count), x); }
KERNEL_INLINE void store_some(float *x, size_t count, floats v) { _mm512_mask_storeu_ps(x, lanes_below(count), v); }

KERNEL_INLINE floats load_halves(const uint16_t *x) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x)); }
KERNEL_INLINE void store_halves(uint16_t *x, floats v) {
  _mm256_storeu_si256((__m256i *)x, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

KERNEL_INLINE integers zeros(void) { return _mm512_setzero_si512(); }
KERNEL_INLINE integers load_integers(const int32_t *x) { return _mm512_loadu_si512(x); }
KERNEL_INLINE integers add_integers(integers a, integers b) { return _mm512_add_epi32(a, b); }
// x - a * n
KERNEL_INLINE integers subtract_times(integers x, integers a, int32_t n) {
  return _mm512_sub_epi32(x, _mm512_mullo_epi32(a, _mm512_set1_epi32(n)));
}
KERNEL_INLINE floats to_float(integers x) { return _mm512_cvtepi32_ps(x); }
KERNEL_INLINE int32_t sum_integers(integers x) { return _mm512_reduce_add_epi32(x); }
