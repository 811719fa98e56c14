// u8 x s8 by the dot products of AVX-512 VNNI: vpdpbusd takes any code and weight.
#if defined(__x86_64__)
#include "lanes_avx512.h"

#define GEMM_NAME at_gemm_int8_avx512vnni
#define GEMM_REST at_gemm_int8_avx512vnni_narrow
#define CEILING_NAME at_ceiling_int8_avx512vnni
#define GEMM_TARGET KERNEL_TARGET
#define TILE_ROWS 8
#define TILE_VECTORS 2
#define PANELS_AT_ONCE 2
#define ZEROS_BY_PRODUCTS
#define STAGGERED
enum { STEP = 1, GROUP = 1, CODE_OFFSET = 0, MOST_INPUTS = 5120 };

typedef __m512i weights, codes;
typedef integers sums;

KERNEL_INLINE weights join_panels(const int8_t *x, size_t stride) {
  const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)x));
  return _mm512_inserti64x4(low, _mm256_loadu_si256((const __m256i *)(x + stride)), 1);
}
KERNEL_INLINE void store_weights(int8_t *x, weights w) { _mm512_store_si512(x, w); }
KERNEL_INLINE weights take_weights(const int8_t *x, int quads) { return _mm512_loadu_si512(x); }
KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  int32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return _mm512_set1_epi32(quad);
}
KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }
KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) { return _mm512_dpbusd_epi32(sum, x, w); }
KERNEL_INLINE integers total(sums sum) { return sum; }

// Pairs of the low seven bits and of the rest, negative: at most MOST_INPUTS * 128 / 128 in magnitude. Multiplied by a
// zero and by 128 times it, which are below 2^15, they add up to the whole in one instruction.
typedef __m512i offsets;
KERNEL_INLINE offsets offsets_of(integers sums) {
  const __m512i low = _mm512_and_si512(sums, _mm512_set1_epi32(127));
  const __m512i high = _mm512_slli_epi32(_mm512_srai_epi32(sums, 7), 16);
  return _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_or_si512(low, high));
}
static inline int32_t zero_factor(int32_t zero) { return zero * (1 + (128 << 16)); }
// As add_products, which says why it is no intrinsic, with the factor from memory.
KERNEL_INLINE integers take_off(integers products, offsets pairs, const int32_t *factor) {
  __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(products) : "v"(pairs), "m"(*factor));
  return products;
}
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+x"(*x)); }

#include "gemm_int8.h"
#endif
