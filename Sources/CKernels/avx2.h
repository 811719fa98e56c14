// What the AVX2 files share. Every function carries its instruction set itself, so that the rest of the target stays at
// the baseline; nothing here may be called without AT_CPU_AVX2.
#pragma once
#if defined(__x86_64__)
#include "CKernels.h"
#include <immintrin.h>

#pragma STDC FP_CONTRACT OFF

#define AVX2 __attribute__((target("avx2,f16c")))
#define AVX2_INLINE static inline __attribute__((target("avx2,f16c"), always_inline))
#define UNROLLED _Pragma("clang loop unroll(full)")

AVX2_INLINE __m256 add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
AVX2_INLINE __m256 sub(__m256 a, __m256 b) { return _mm256_sub_ps(a, b); }
AVX2_INLINE __m256 mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
AVX2_INLINE __m256 divide(__m256 a, __m256 b) { return _mm256_div_ps(a, b); }
AVX2_INLINE __m256 all(float x) { return _mm256_set1_ps(x); }
AVX2_INLINE __m256 zero8(void) { return _mm256_setzero_ps(); }
AVX2_INLINE __m256 negative(__m256 x) { return _mm256_xor_ps(x, all(-0.0f)); }
AVX2_INLINE __m256 magnitude(__m256 x) { return _mm256_andnot_ps(all(-0.0f), x); }

// Lanes 0..<count are set; count may be above 8 or below 1.
AVX2_INLINE __m256i lanes_below(ptrdiff_t count) {
  const int n = count > 8 ? 8 : count < 0 ? 0 : (int)count;
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Up to 8 floats, zero in the lanes beyond `count`; touches no memory beyond them.
AVX2_INLINE __m256 load_some(const float *x, size_t count) {
  return count >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, lanes_below((ptrdiff_t)count));
}
AVX2_INLINE void store_some(float *x, size_t count, __m256 v) {
  if (count >= 8) _mm256_storeu_ps(x, v);
  else _mm256_maskstore_ps(x, lanes_below((ptrdiff_t)count), v);
}

// ReferenceMath.sum(lanes:)
AVX2_INLINE float sum_lanes(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// ReferenceMath.exp
AVX2_INLINE __m256 exp8(__m256 value) {
  const __m256 magic = all(12582912.0f);
  const __m256 x = _mm256_min_ps(all(88), _mm256_max_ps(all(-87), value));
  const __m256 shifted = add(mul(x, all(1.44269504f)), magic);
  const __m256 n = sub(shifted, magic);
  __m256 f = sub(x, mul(n, all(0.693359375f)));
  f = sub(f, mul(n, all(-2.1219444e-4f)));
  __m256 p = all(1.98756915e-4f);
  p = add(mul(p, f), all(1.39819995e-3f));
  p = add(mul(p, f), all(8.3334519e-3f));
  p = add(mul(p, f), all(4.1665796e-2f));
  p = add(mul(p, f), all(1.66666655e-1f));
  p = add(mul(p, f), all(5.0000001e-1f));
  p = add(mul(p, mul(f, f)), f);
  p = add(p, all(1));
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
}

// ReferenceMath.silu
AVX2_INLINE __m256 silu8(__m256 x) { return divide(x, add(all(1), exp8(negative(x)))); }

// ReferenceMath.quickGELU
AVX2_INLINE __m256 quick_gelu8(__m256 x) { return divide(x, add(all(1), exp8(mul(all(-1.702f), x)))); }

// ReferenceMath.gelu
AVX2_INLINE __m256 gelu8(__m256 x) {
  const __m256 z = mul(magnitude(x), all(0.70710678f));
  const __m256 t = divide(all(1), add(all(1), mul(all(0.3275911f), z)));
  __m256 p = all(1.061405429f);
  p = add(mul(p, t), all(-1.453152027f));
  p = add(mul(p, t), all(1.421413741f));
  p = add(mul(p, t), all(-0.284496736f));
  p = add(mul(p, t), all(0.254829592f));
  const __m256 tail = mul(mul(p, t), exp8(negative(mul(z, z))));
  const __m256 erf = sub(all(1), tail);
  const __m256 half = mul(all(0.5f), x);
  return add(half, mul(magnitude(half), erf));
}

// The end of a matrix product: what is added to the eight outputs of a panel, and where they go.
AVX2_INLINE void store_panel(const at_gemm *a, size_t row, size_t panel, __m256 y) {
  const size_t first = panel * AT_PANEL;
  const size_t count = a->outputs - first;
  if (a->bias) y = add(y, _mm256_loadu_ps(a->bias + first));
  if (a->residual) y = add(y, load_some(a->residual + row * a->residual_stride + first, count));
  store_some(a->out + row * a->out_stride + first, count, y);
}

// The panels to compute end here: those that are asked for and hold outputs.
static inline size_t last_panel(const at_gemm *a) {
  const size_t used = (a->outputs + AT_PANEL - 1) / AT_PANEL;
  return a->panel_end < used ? a->panel_end : used;
}
#endif
