// u8 x s8 with AVX2 alone, for weights whose pairs cannot saturate vpmaddubsw: those of one sign add up to 128 at most.
#if defined(__x86_64__)
#include "lanes.h"
#include <string.h>

#define GEMM_NAME at_gemm_int8_pairs_avx2
#define CEILING_NAME at_ceiling_int8_pairs_avx2
#define GEMM_TARGET "avx2,f16c"

typedef __m256i operand;

KERNEL_INLINE operand take_weights(const int8_t *weights) { return _mm256_loadu_si256((const __m256i *)weights); }

KERNEL_INLINE operand take_codes(const uint8_t *codes) {
  int32_t quad;
  memcpy(&quad, codes, sizeof quad);
  return _mm256_set1_epi32(quad);
}

KERNEL_INLINE __m256i dot(__m256i sum, operand w, operand x) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
}

KERNEL_INLINE void hide(operand *x) { __asm__ volatile("" : "+x"(*x)); }

#include "gemm_int8_x86.h"
#endif
