// u8 x s8 by the dot products of mixed signs of ARMv8.6.
#if defined(__aarch64__)
#include "lanes_neon.h"

#define GEMM_NAME at_gemm_int8_i8mm
#define CEILING_NAME at_ceiling_int8_i8mm
#define GEMM_TARGET "i8mm"
#define TILE_ROWS 4
#define TILE_PANELS 2
enum { STEP = 4, GROUP = 1, CODE_OFFSET = 0 };

typedef struct {
  int8x16_t low, high;
} weights;
typedef uint8x16_t codes;
typedef i8 sums;

KERNEL_INLINE weights take_weights(const int8_t *x, int quads) { return (weights){vld1q_s8(x), vld1q_s8(x + 16)}; }

KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  if (quads == STEP) return vld1q_u8(x);
  uint32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return vreinterpretq_u8_u32(vdupq_n_u32(quad));
}

KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }

#define DOT(lane) \
  (sums) { vsudotq_laneq_s32(sum.low, w.low, x, lane), vsudotq_laneq_s32(sum.high, w.high, x, lane) }
static inline __attribute__((target(GEMM_TARGET), always_inline)) sums dot(sums sum, weights w, codes x, int quad) {
  switch (quad) {
    case 0: return DOT(0);
    case 1: return DOT(1);
    case 2: return DOT(2);
    default: return DOT(3);
  }
}

KERNEL_INLINE i8 total(sums sum) { return sum; }
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+w"(*x)); }

#include "gemm_int8.h"
#endif
