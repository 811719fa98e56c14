// u8 x s8 with SSE4.1, for weights of any s8 code: pmaddubsw would saturate, so both sides are taken as s16 and
// multiplied by pmaddwd, a quad's even and odd bytes apart.
#if defined(__x86_64__)
#include "lanes_sse41.h"

#define GEMM_NAME at_gemm_int8_sse41
#define TILE_VECTORS 1

KERNEL_INLINE __m128i widen_bytes(__m128i x, int half) { return _mm_srai_epi16(half == 0 ? _mm_slli_epi16(x, 8) : x, 8); }
KERNEL_INLINE pairs8 widen_weights(const int8_t *x, int half) {
  const integers w = load_integers((const int32_t *)x);
  return (pairs8){widen_bytes(w.low, half), widen_bytes(w.high, half)};
}

KERNEL_INLINE void split_codes(const uint8_t *x, shorts *even, shorts *odd) {
  const shorts both = load_integers((const int32_t *)x), low = all_shorts(0xff);
  *even = (shorts){_mm_and_si128(both.low, low.low), _mm_and_si128(both.high, low.high)};
  *odd = (shorts){_mm_srli_epi16(both.low, 8), _mm_srli_epi16(both.high, 8)};
}

#include "gemm_int8_wide.h"
#endif
