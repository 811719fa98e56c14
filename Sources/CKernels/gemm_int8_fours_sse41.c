// u8 x s8 with SSE4.1, for weights of which two neighbouring quads cannot overflow 16 bits: the codes of one sign at
// bytes 0 and 1 of both, and at 2 and 3, add up to 128 at most. Two pmaddubsw then share one pmaddwd.
#if defined(__x86_64__)
#include "lanes_sse41.h"

#define GEMM_NAME at_gemm_int8_fours_sse41
#define CEILING_NAME at_ceiling_int8_fours_sse41
#define GEMM_TARGET KERNEL_TARGET
#define TILE_ROWS 4
#define TILE_VECTORS 1
enum { STEP = 2, GROUP = 2, CODE_OFFSET = 0 };

typedef struct {
  integers first, second;
} weights;
typedef struct {
  __m128i first, second;
} codes;
typedef integers sums;

KERNEL_INLINE weights take_weights(const int8_t *x, int quads) {
  const int32_t *w = (const int32_t *)x;
  return (weights){load_integers(w), quads == GROUP ? load_integers(w + LANES) : zeros()};
}
KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  int32_t quad[GROUP] = {0};
  __builtin_memcpy(quad, x, (size_t)quads * AT_QUAD);
  return (codes){_mm_set1_epi32(quad[0]), _mm_set1_epi32(quad[1])};
}
KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }
KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) {
  const pairs8 first = {_mm_maddubs_epi16(x.first, w.first.low), _mm_maddubs_epi16(x.first, w.first.high)};
  const pairs8 second = {_mm_maddubs_epi16(x.second, w.second.low), _mm_maddubs_epi16(x.second, w.second.high)};
  return add_products(sum, add_shorts(first, second), ones());
}
KERNEL_INLINE integers total(sums sum) { return sum; }
// In memory: in registers there is no room beside the sums of a ceiling, and a kernel's are not there either.
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+m"(*x)); }

#include "gemm_int8.h"
#endif
