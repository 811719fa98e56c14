// u8 x s8 by the dot products of s8 of ARMv8.2: codes less 128 are s8.
#if defined(__aarch64__)
#include "lanes_neon.h"

#define GEMM_NAME at_gemm_int8_dotprod
#define CEILING_NAME at_ceiling_int8_dotprod
#define GEMM_TARGET "dotprod"
#define TILE_ROWS 4
#define TILE_VECTORS 2
enum { STEP = 4, GROUP = 1, CODE_OFFSET = 128 };

typedef struct {
  int8x16_t low, high;
} weights;
typedef int8x16_t codes;
typedef integers sums;

KERNEL_INLINE weights take_weights(const int8_t *x, int quads) { return (weights){vld1q_s8(x), vld1q_s8(x + 16)}; }

KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  if (quads == STEP) return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(x), vdupq_n_u8(0x80)));
  uint32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return vreinterpretq_s8_u32(vdupq_n_u32(quad ^ 0x80808080));
}

KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }

#define DOT(lane) (sums){vdotq_laneq_s32(sum.low, w.low, x, lane), vdotq_laneq_s32(sum.high, w.high, x, lane)}
static inline __attribute__((target(GEMM_TARGET), always_inline)) sums dot(sums sum, weights w, codes x, int quad) {
  switch (quad) {
    case 0: return DOT(0);
    case 1: return DOT(1);
    case 2: return DOT(2);
    default: return DOT(3);
  }
}

KERNEL_INLINE integers total(sums sum) { return sum; }
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+w"(*x)); }

#include "gemm_int8.h"
#endif
