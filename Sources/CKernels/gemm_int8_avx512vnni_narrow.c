// u8 x s8 by the dot products of AVX-512 VNNI, on registers of 256 bits: what does not fill longer ones.
#if defined(__x86_64__)
#include "lanes_avx512vnni.h"

#define GEMM_NAME at_gemm_int8_avx512vnni_narrow
#define CEILING_NAME at_ceiling_int8_avx512vnni_narrow
#define GEMM_TARGET KERNEL_TARGET
#define TILE_ROWS 6
#define TILE_VECTORS 2
enum { STEP = 1, GROUP = 1, CODE_OFFSET = 0 };

typedef __m256i weights, codes;
typedef integers sums;

KERNEL_INLINE weights take_weights(const int8_t *x, int quads) { return _mm256_loadu_si256((const __m256i *)x); }
KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  int32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return _mm256_set1_epi32(quad);
}
KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }
KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) {
  return _mm256_dpbusd_epi32(sum, x, w);
}
KERNEL_INLINE integers total(sums sum) { return sum; }
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+x"(*x)); }

#include "gemm_int8.h"
#endif
