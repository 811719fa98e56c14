// u8 x s8 on any aarch64. Codes less 128 are s8, so that two products share an s16 lane before it is widened. Such a
// pair is in -32512...32768, one too many for the lane: it starts at -256, and the sums start with what that takes
// away.
#if defined(__aarch64__)
#include "lanes_neon.h"

#define GEMM_NAME at_gemm_int8_neon
#define CEILING_NAME at_ceiling_int8_neon
#define GEMM_TARGET KERNEL_TARGET
#define TILE_ROWS 4
#define TILE_VECTORS 1
enum { STEP = 4, GROUP = 2, CODE_OFFSET = 128, PAIR_START = -256 };

typedef struct {
  int8x16_t first[2], second[2]; // quads, each in halves of four outputs
} weights;
typedef int8x16_t codes;
typedef struct {
  int32x4_t of[4]; // two lanes for each of the outputs 2j and 2j + 1
} sums;

// A quad that does not exist weighs nothing.
KERNEL_INLINE weights take_weights(const int8_t *x, int quads) {
  weights w = {{vld1q_s8(x), vld1q_s8(x + 16)}, {vdupq_n_s8(0), vdupq_n_s8(0)}};
  if (quads == GROUP) {
    w.second[0] = vld1q_s8(x + 32);
    w.second[1] = vld1q_s8(x + 48);
  }
  return w;
}

KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  if (quads == STEP) return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(x), vdupq_n_u8(0x80)));
  uint32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return vreinterpretq_s8_u32(vdupq_n_u32(quad ^ 0x80808080));
}

// Each of the two lanes of an output adds up two pairs of every two quads, and of every quad that is left alone.
KERNEL_INLINE sums begin(size_t inputs) {
  const size_t groups = inputs / (STEP * AT_QUAD) * (STEP / GROUP) + inputs % (STEP * AT_QUAD) / AT_QUAD;
  const int32x4_t start = vdupq_n_s32(-2 * PAIR_START * (int32_t)groups);
  return (sums){{start, start, start, start}};
}

KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) {
  const int32x4_t quads = vreinterpretq_s32_s8(x);
  int8x16_t first = vreinterpretq_s8_s32(quad == 0 ? vdupq_laneq_s32(quads, 0) : vdupq_laneq_s32(quads, 2));
  int8x16_t second = vreinterpretq_s8_s32(quad == 0 ? vdupq_laneq_s32(quads, 1) : vdupq_laneq_s32(quads, 3));
  const int16x8_t start = vdupq_n_s16(PAIR_START);
  // One row after another: the compiler would take them all together, for which there are not enough registers.
  __asm__ volatile("" : "+w"(first), "+w"(second));
  UNROLLED for (int half = 0; half < 2; half++) {
    int16x8_t low = vmlal_s8(start, vget_low_s8(w.first[half]), vget_low_s8(first));
    int16x8_t high = vmlal_high_s8(start, w.first[half], first);
    low = vmlal_s8(low, vget_low_s8(w.second[half]), vget_low_s8(second));
    high = vmlal_high_s8(high, w.second[half], second);
    sum.of[2 * half] = vpadalq_s16(sum.of[2 * half], low);
    sum.of[2 * half + 1] = vpadalq_s16(sum.of[2 * half + 1], high);
  }
  __asm__ volatile("" : "+w"(sum.of[0]), "+w"(sum.of[1]), "+w"(sum.of[2]), "+w"(sum.of[3]));
  return sum;
}

KERNEL_INLINE integers total(sums sum) {
  return (integers){vpaddq_s32(sum.of[0], sum.of[1]), vpaddq_s32(sum.of[2], sum.of[3])};
}
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+w"(*x)); }

#include "gemm_int8.h"
#endif
