// u8 x s8 with AVX2 alone, for weights of any s8 code: vpmaddubsw would saturate, so both sides are taken as s16 and
// multiplied by vpmaddwd, a quad's even and odd bytes apart.
#if defined(__x86_64__)
#include "lanes_avx2.h"

#define GEMM_NAME at_gemm_int8_avx2
#define TILE_VECTORS 2
enum { TILE_ROWS = 6, RUN_INPUTS = 320, RUN_TILES = 8, HALVES = 2 };

typedef int16_t wide_row[HALVES][RUN_INPUTS / HALVES];

KERNEL_INLINE pairs8 widen_weights(const int8_t *x, int half) {
  const __m256i w = _mm256_loadu_si256((const __m256i *)x);
  return _mm256_srai_epi16(half == 0 ? _mm256_slli_epi16(w, 8) : w, 8);
}

KERNEL_INLINE void widen_codes(const uint8_t *x, size_t inputs, int32_t zero, wide_row to) {
  enum { BYTES = 32 };
  const shorts zeros_of_row = all_shorts((int16_t)zero);
  size_t i = 0;
  for (; i + BYTES <= inputs; i += BYTES) {
    const __m256i both = _mm256_loadu_si256((const __m256i *)(x + i));
    store_shorts(to[0] + i / 2, _mm256_sub_epi16(_mm256_and_si256(both, all_shorts(0xff)), zeros_of_row));
    store_shorts(to[1] + i / 2, _mm256_sub_epi16(_mm256_srli_epi16(both, 8), zeros_of_row));
  }
  for (; i < inputs; i += 2) {
    to[0][i / 2] = (int16_t)(x[i] - zero);
    to[1][i / 2] = (int16_t)(x[i + 1] - zero);
  }
}

#include "gemm_int8_wide.h"
#endif
