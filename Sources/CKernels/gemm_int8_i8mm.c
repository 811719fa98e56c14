// u8 x s8 by the matrix products of ARMv8.6: two rows of eight codes by eight weights of two outputs.
#if defined(__aarch64__)
#include "lanes_neon.h"

#define GEMM_NAME at_gemm_int8_i8mm
#define CEILING_NAME at_ceiling_int8_i8mm
#define GEMM_TARGET "i8mm"
#define TILE_ROWS 4
#define TILE_VECTORS 2
#define ROWS_AT_ONCE 2
enum { STEP = 4, GROUP = 2, CODE_OFFSET = 0 };

typedef struct {
  int8x16_t of[4]; // eight inputs of the output 2j, then of 2j + 1
} weights;
typedef uint8x16_t codes;
typedef struct {
  int32x4_t of[4]; // [2 rows][outputs 2j and 2j + 1]
} sums;

KERNEL_INLINE int32x4_t four_quads(const int8_t *x) { return vreinterpretq_s32_s8(vld1q_s8(x)); }

// Two quads of each output become neighbours; one that does not exist weighs nothing.
KERNEL_INLINE weights take_weights(const int8_t *x, int quads) {
  weights w;
  UNROLLED for (int half = 0; half < 2; half++) {
    const int32x4_t first = four_quads(x + 16 * half);
    const int32x4_t second = quads == GROUP ? four_quads(x + 32 + 16 * half) : vdupq_n_s32(0);
    w.of[2 * half] = vreinterpretq_s8_s32(vzip1q_s32(first, second));
    w.of[2 * half + 1] = vreinterpretq_s8_s32(vzip2q_s32(first, second));
  }
  return w;
}

KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  if (quads == STEP) return vld1q_u8(x);
  uint32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return vreinterpretq_u8_u32(vdupq_n_u32(quad));
}

KERNEL_INLINE sums begin(size_t inputs) {
  const int32x4_t zero = vdupq_n_s32(0);
  return (sums){{zero, zero, zero, zero}};
}

static inline __attribute__((target(GEMM_TARGET), always_inline)) sums dot_rows(sums sum, weights w, const codes *x,
                                                                              int quad) {
  const uint64x2_t first = vreinterpretq_u64_u8(x[0]), second = vreinterpretq_u64_u8(x[1]);
  const uint64x2_t both = quad == 0 ? vzip1q_u64(first, second) : vzip2q_u64(first, second);
  UNROLLED for (int j = 0; j < 4; j++) sum.of[j] = vusmmlaq_s32(sum.of[j], vreinterpretq_u8_u64(both), w.of[j]);
  return sum;
}

KERNEL_INLINE int32x4_t of_row(int32x4_t a, int32x4_t b, int row) {
  const int64x2_t first = vreinterpretq_s64_s32(a), second = vreinterpretq_s64_s32(b);
  return vreinterpretq_s32_s64(row == 0 ? vzip1q_s64(first, second) : vzip2q_s64(first, second));
}

KERNEL_INLINE integers total_of(sums sum, int row) {
  return (integers){of_row(sum.of[0], sum.of[1], row), of_row(sum.of[2], sum.of[3], row)};
}
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+w"(*x)); }

#include "gemm_int8.h"
#endif
