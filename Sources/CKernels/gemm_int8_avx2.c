// u8 x s8 with AVX2 alone, for weights of any s8 code: vpmaddubsw would saturate, so both sides are taken as s16 and
// multiplied by vpmaddwd, a quad's even and odd bytes apart.
#if defined(__x86_64__)
#include "lanes_avx2.h"

#define GEMM_NAME at_gemm_int8_avx2
#define TILE_VECTORS 2

KERNEL_INLINE pairs8 widen_weights(const int8_t *x, int half) {
  const __m256i w = _mm256_loadu_si256((const __m256i *)x);
  return _mm256_srai_epi16(half == 0 ? _mm256_slli_epi16(w, 8) : w, 8);
}

KERNEL_INLINE void split_codes(const uint8_t *x, shorts *even, shorts *odd) {
  const __m256i both = _mm256_loadu_si256((const __m256i *)x);
  *even = _mm256_and_si256(both, all_shorts(0xff));
  *odd = _mm256_srli_epi16(both, 8);
}

#include "gemm_int8_wide.h"
#endif
