// u8 x s8 matrix product, exact for every code and weight, on any aarch64. Codes less 128 are s8, so that two products
// share an s16 lane before it is widened. Such a pair is in -32512...32768, one too many for the lane: it starts at
// -256, and what that takes away is given back at the end, together with 128 times the sum of the weights.
#if defined(__aarch64__)
#include "lanes.h"
#include <string.h>

enum {
  ROWS = 4,          // of a tile of one panel: four registers of sums a row
  PAIR_START = -256, // of each of the four lanes that an output has
};

// Eight codes of one row as two broadcast quads.
typedef struct {
  int8x16_t first, second;
} quads;

KERNEL_INLINE quads load_quads(const uint8_t *x) {
  const int32x2_t codes = vreinterpret_s32_u8(veor_u8(vld1_u8(x), vdup_n_u8(0x80)));
  return (quads){vreinterpretq_s8_s32(vdupq_lane_s32(codes, 0)), vreinterpretq_s8_s32(vdupq_lane_s32(codes, 1))};
}

KERNEL_INLINE int8x16_t load_quad(const uint8_t *x) {
  uint32_t codes;
  memcpy(&codes, x, sizeof codes);
  return vreinterpretq_s8_u32(vdupq_n_u32(codes ^ 0x80808080));
}

// sum[j] holds two lanes for each of the outputs 2j and 2j + 1.
KERNEL_INLINE void add_pair(int32x4_t sum[4], const int8x16_t w[4], quads x) {
  const int16x8_t start = vdupq_n_s16(PAIR_START);
  UNROLLED for (int half = 0; half < 2; half++) {
    const int8x16_t a = w[half], b = w[2 + half];
    int16x8_t low = vmlal_s8(start, vget_low_s8(a), vget_low_s8(x.first));
    int16x8_t high = vmlal_high_s8(start, a, x.first);
    low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(x.second));
    high = vmlal_high_s8(high, b, x.second);
    sum[2 * half] = vpadalq_s16(sum[2 * half], low);
    sum[2 * half + 1] = vpadalq_s16(sum[2 * half + 1], high);
  }
}

KERNEL_INLINE void add_single(int32x4_t sum[4], const int8x16_t w[2], int8x16_t x) {
  UNROLLED for (int half = 0; half < 2; half++) {
    sum[2 * half] = vpadalq_s16(sum[2 * half], vmull_s8(vget_low_s8(w[half]), vget_low_s8(x)));
    sum[2 * half + 1] = vpadalq_s16(sum[2 * half + 1], vmull_high_s8(w[half], x));
  }
}

KERNEL_INLINE void multiply(const int rows, const at_gemm *a, const void *const *x, const size_t *index,
                            const int8_t *weights, int32x4_t sum[ROWS][4]) {
  UNROLLED for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = sum[r][2] = sum[r][3] = vdupq_n_s32(0);
  const uint8_t *row[ROWS];
  UNROLLED for (int r = 0; r < rows; r++) row[r] = x[index[r]];
  size_t i = 0;
  for (; i + 2 * AT_QUAD <= a->inputs; i += 2 * AT_QUAD) {
    int8x16_t w[4];
    UNROLLED for (int j = 0; j < 4; j++) w[j] = vld1q_s8(weights + i * AT_PANEL + 16 * j);
    UNROLLED for (int r = 0; r < rows; r++) add_pair(sum[r], w, load_quads(row[r] + i));
  }
  if (i < a->inputs) {
    const int8x16_t w[2] = {vld1q_s8(weights + i * AT_PANEL), vld1q_s8(weights + i * AT_PANEL + 16)};
    UNROLLED for (int r = 0; r < rows; r++) add_single(sum[r], w, load_quad(row[r] + i));
  }
}

KERNEL_INLINE void tile(const int rows, const at_gemm *a, size_t first, size_t panel) {
  size_t index[ROWS];
  rows_of_tile(a, rows, first, index);
  f8 total[ROWS];
  const size_t pairs = a->inputs / (2 * AT_QUAD);
  const int32x4_t start = vdupq_n_s32(-4 * PAIR_START * (int32_t)pairs);
  for (size_t tap = 0; tap < a->taps; tap++) {
    const size_t at = tap * a->row_count;
    const int8_t *weights = (const int8_t *)a->weights + (panel * a->taps + tap) * a->inputs * AT_PANEL;
    const int32_t *sums = a->sum + (tap * a->panels + panel) * AT_PANEL;
    const int32x4_t low = vld1q_s32(sums), high = vld1q_s32(sums + 4);
    int32x4_t dot[ROWS][4];
    multiply(rows, a, a->rows + at, index, weights, dot);
    UNROLLED for (int r = 0; r < rows; r++) {
      const int32_t zero = 128 - a->row_zero[at + index[r]];
      const f8 scale = all(a->row_scale[at + index[r]]);
      const int32x4_t first = vmlaq_n_s32(vaddq_s32(vpaddq_s32(dot[r][0], dot[r][1]), start), low, zero);
      const int32x4_t second = vmlaq_n_s32(vaddq_s32(vpaddq_s32(dot[r][2], dot[r][3]), start), high, zero);
      const f8 term = mul((f8){vcvtq_f32_s32(first), vcvtq_f32_s32(second)}, scale);
      total[r] = tap == 0 ? term : add(total[r], term);
    }
  }
  const f8 scale = load8(a->scale + panel * AT_PANEL);
  UNROLLED for (int r = 0; r < rows; r++) total[r] = mul(total[r], scale);
  store_rows(rows, a, index, panel, total);
}

void KERNEL_NAME(gemm_int8)(const at_gemm *a) {
  // In a paired product a tile of four rows covers two indices, one of two rows covers one.
  const size_t indices = a->paired ? a->row_count / 2 : a->row_count;
  const size_t step = a->paired ? ROWS / 2 : ROWS;
  const size_t panel_end = last_panel(a);
  for (size_t panel = a->panel_begin; panel < panel_end; panel++) {
    size_t index = 0;
    for (; index + step <= indices; index += step) tile(ROWS, a, index, panel);
    switch ((indices - index) * ROWS / step) {
      case 1: tile(1, a, index, panel); break;
      case 2: tile(2, a, index, panel); break;
      case 3: tile(3, a, index, panel); break;
      default: break;
    }
  }
}

uint32_t CEILING_NAME_OF(int8)(size_t iterations) {
  const uint8_t codes[8] = {1, 2, 3};
  const quads x = load_quads(codes);
  int8x16_t w[4] = {x.first, x.second, x.first, x.second};
  enum { CHAINS = AT_CEILING_PRODUCTS / 64 };
  int32x4_t sum[CHAINS][4];
  UNROLLED for (int i = 0; i < CHAINS; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = vdupq_n_s32(0);
  for (size_t n = 0; n < iterations; n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) {
      __asm__ volatile("" : "+w"(w[0]), "+w"(w[1]), "+w"(w[2]), "+w"(w[3]));
      add_pair(sum[i], w, x);
    }
  }
  int32_t total = 0;
  UNROLLED for (int i = 0; i < CHAINS; i++) {
    UNROLLED for (int j = 0; j < 4; j++) total ^= vaddvq_s32(sum[i][j]);
  }
  return (uint32_t)total;
}
#endif
