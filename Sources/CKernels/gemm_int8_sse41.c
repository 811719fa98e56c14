// u8 x s8 with SSE4.1, for weights of any s8 code: pmaddubsw would saturate, so both sides are taken as s16 and
// multiplied by pmaddwd, a quad's even and odd bytes apart.
#if defined(__x86_64__)
#include "lanes_sse41.h"

#define GEMM_NAME at_gemm_int8_sse41
#define CEILING_NAME at_ceiling_int8_sse41
#define GEMM_TARGET KERNEL_TARGET
#define TILE_ROWS 4
#define TILE_VECTORS 1
enum { STEP = 1, GROUP = 1, CODE_OFFSET = 0 };

typedef struct {
  pairs8 even, odd;
} weights;
typedef struct {
  pair even, odd;
} codes;
typedef integers sums;

KERNEL_INLINE __m128i even_bytes(__m128i x) { return _mm_srai_epi16(_mm_slli_epi16(x, 8), 8); }
KERNEL_INLINE __m128i odd_bytes(__m128i x) { return _mm_srai_epi16(x, 8); }

KERNEL_INLINE weights take_weights(const int8_t *x, int quads) {
  const integers w = load_integers((const int32_t *)x);
  return (weights){{even_bytes(w.low), even_bytes(w.high)}, {odd_bytes(w.low), odd_bytes(w.high)}};
}

KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  int32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  const __m128i both = _mm_set1_epi32(quad);
  return (codes){_mm_and_si128(both, _mm_set1_epi16(0xff)), _mm_srli_epi16(both, 8)};
}

KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }
KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) {
  return add_products(add_products(sum, w.even, x.even), w.odd, x.odd);
}
KERNEL_INLINE integers total(sums sum) { return sum; }
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+x"(x->even), "+x"(x->odd)); }

#include "gemm_int8.h"
#endif
