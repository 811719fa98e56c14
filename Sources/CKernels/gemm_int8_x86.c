// u8 x s8 with AVX2 alone, for weights of any s8 code: vpmaddubsw would saturate, so both sides are taken as s16 and
// multiplied by vpmaddwd, a quad's even and odd bytes apart.
#if defined(__x86_64__)
#include "lanes.h"
#include <string.h>

#define GEMM_NAME at_gemm_int8_avx2
#define CEILING_NAME at_ceiling_int8_avx2
#define GEMM_TARGET "avx2,f16c"

typedef struct {
  __m256i even, odd;
} operand;

KERNEL_INLINE operand take_weights(const int8_t *weights) {
  const __m256i w = _mm256_loadu_si256((const __m256i *)weights);
  return (operand){_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
}

KERNEL_INLINE operand take_codes(const uint8_t *codes) {
  int32_t quad;
  memcpy(&quad, codes, sizeof quad);
  const __m256i x = _mm256_set1_epi32(quad);
  return (operand){_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(x, 8)};
}

KERNEL_INLINE __m256i dot(__m256i sum, operand w, operand x) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w.even, x.even));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(w.odd, x.odd));
}

KERNEL_INLINE void hide(operand *x) { __asm__ volatile("" : "+x"(x->even), "+x"(x->odd)); }

#include "gemm_int8_x86.h"
#endif
