// u8 x s8 with SSE4.1, for weights whose pairs cannot saturate pmaddubsw: those of one sign add up to 128 at most.
#if defined(__x86_64__)
#include "lanes_sse41.h"

#define GEMM_NAME at_gemm_int8_pairs_sse41
#define CEILING_NAME at_ceiling_int8_pairs_sse41
#define GEMM_TARGET KERNEL_TARGET
#define TILE_ROWS 4
#define TILE_VECTORS 1
enum { STEP = 1, GROUP = 1, CODE_OFFSET = 0 };

typedef integers weights, sums;
typedef __m128i codes;

KERNEL_INLINE weights take_weights(const int8_t *x, int quads) { return load_integers((const int32_t *)x); }
KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  int32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return _mm_set1_epi32(quad);
}
KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }
KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) {
  return add_products(sum, (pairs8){_mm_maddubs_epi16(x, w.low), _mm_maddubs_epi16(x, w.high)}, ones());
}
KERNEL_INLINE integers total(sums sum) { return sum; }
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+x"(*x)); }

#include "gemm_int8.h"
#endif
