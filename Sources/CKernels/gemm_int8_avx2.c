// u8 x s8 with AVX2 alone, for weights of any s8 code: vpmaddubsw would saturate, so both sides are taken as s16 and
// multiplied by vpmaddwd, a quad's even and odd bytes apart.
#if defined(__x86_64__)
#include "lanes_avx2.h"

#define GEMM_NAME at_gemm_int8_avx2
#define CEILING_NAME at_ceiling_int8_avx2
#define GEMM_TARGET KERNEL_TARGET
#define TILE_ROWS 4
#define TILE_VECTORS 2
enum { STEP = 1, GROUP = 1, CODE_OFFSET = 0 };

typedef struct {
  pairs8 even, odd;
} weights;
typedef struct {
  pair even, odd;
} codes;
typedef integers sums;

KERNEL_INLINE weights take_weights(const int8_t *x, int quads) {
  const __m256i w = _mm256_loadu_si256((const __m256i *)x);
  return (weights){_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
}

KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  int32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  const __m256i both = _mm256_set1_epi32(quad);
  return (codes){_mm256_and_si256(both, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(both, 8)};
}

KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }
KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) {
  return add_products(add_products(sum, w.even, x.even), w.odd, x.odd);
}
KERNEL_INLINE integers total(sums sum) { return sum; }
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+x"(x->even), "+x"(x->odd)); }

#include "gemm_int8.h"
#endif
