// u8 x s8 with SSE4.1, for weights of any s8 code: pmaddubsw would saturate, so both sides are taken as s16 and
// multiplied by pmaddwd, a quad's even and odd bytes apart.
#if defined(__x86_64__)
#include "lanes_sse41.h"

#define GEMM_NAME at_gemm_int8_sse41
#define TILE_VECTORS 1
enum { TILE_ROWS = 6, RUN_INPUTS = 320, RUN_TILES = 16, HALVES = 2 };

typedef int16_t wide_row[HALVES][RUN_INPUTS / HALVES];

KERNEL_INLINE __m128i widened(__m128i x, int half) { return _mm_srai_epi16(half == 0 ? _mm_slli_epi16(x, 8) : x, 8); }
KERNEL_INLINE pairs8 widen_weights(const int8_t *x, int half) {
  const integers w = load_integers((const int32_t *)x);
  return (pairs8){widened(w.low, half), widened(w.high, half)};
}

KERNEL_INLINE void widen_codes(const uint8_t *x, size_t inputs, int32_t zero, wide_row to) {
  enum { BYTES = 32 };
  const shorts zeros_of_row = all_shorts((int16_t)zero);
  const __m128i low_bytes = _mm_set1_epi16(0xff);
  size_t i = 0;
  for (; i + BYTES <= inputs; i += BYTES) {
    const integers both = load_integers((const int32_t *)(x + i));
    const shorts even = {_mm_and_si128(both.low, low_bytes), _mm_and_si128(both.high, low_bytes)};
    const shorts odd = {_mm_srli_epi16(both.low, 8), _mm_srli_epi16(both.high, 8)};
    store_shorts(to[0] + i / 2, subtract_shorts(even, zeros_of_row));
    store_shorts(to[1] + i / 2, subtract_shorts(odd, zeros_of_row));
  }
  for (; i < inputs; i += 2) {
    to[0][i / 2] = (int16_t)(x[i] - zero);
    to[1][i / 2] = (int16_t)(x[i + 1] - zero);
  }
}

#include "gemm_int8_wide.h"
#endif
