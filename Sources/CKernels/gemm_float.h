// f32 x f32 or f16 matrix product. Each output is one chain of additions over taps and inputs, so a tile runs through
// all of them without leaving its registers.
#pragma once
#include "lanes.h"

enum { FLOAT_ROWS = 6 }; // of a tile of VECTORS panels
_Static_assert(FLOAT_ROWS <= MOST_TILE_ROWS, "");

KERNEL_INLINE floats load_weights(const bool half, const void *weights, size_t i) {
  if (half) return load_halves((const uint16_t *)weights + i * AT_PANEL);
  return load_floats((const float *)weights + i * AT_PANEL);
}

KERNEL_INLINE void float_tile(const bool half, const int rows, const int panels, const at_gemm *a, size_t first_row,
                              size_t panel) {
  floats sum[VECTORS][FLOAT_ROWS];
  UNROLLED for (int p = 0; p < panels; p++) {
    UNROLLED for (int r = 0; r < rows; r++) sum[p][r] = all(0);
  }
  const size_t bytes = half ? sizeof(uint16_t) : sizeof(float);
  const size_t stride = a->taps * a->inputs * AT_PANEL * bytes;
  for (size_t tap = 0; tap < a->taps; tap++) {
    const char *weights = (const char *)a->weights + panel * stride + tap * a->inputs * AT_PANEL * bytes;
    const void *const *rows_of_tap = a->rows + tap * a->row_count + first_row;
    const float *x[FLOAT_ROWS];
    UNROLLED for (int r = 0; r < rows; r++) x[r] = rows_of_tap[r];
    for (size_t i = 0; i < a->inputs; i++) {
      floats w[VECTORS];
      UNROLLED for (int p = 0; p < panels; p++) w[p] = load_weights(half, weights + (size_t)p * stride, i);
      UNROLLED for (int r = 0; r < rows; r++) {
        const floats xi = all(x[r][i]);
        UNROLLED for (int p = 0; p < panels; p++) sum[p][r] = add(sum[p][r], mul(xi, w[p]));
      }
    }
  }
  size_t index[FLOAT_ROWS];
  UNROLLED for (int r = 0; r < rows; r++) index[r] = first_row + (size_t)r;
  const product_kind kind = {.halves = a->halves};
  void *out[FLOAT_ROWS];
  result_rows(kind, rows, a, index, out);
  UNROLLED for (int p = 0; p < panels; p++) store_rows(kind, rows, a, index, out, panel + (size_t)p, sum[p]);
}

KERNEL_INLINE void float_tiles(const bool half, const int rows, const at_gemm *a, size_t first_row, size_t panel,
                               size_t end) {
  for (; panel + VECTORS <= end; panel += VECTORS) float_tile(half, rows, VECTORS, a, first_row, panel);
  for (; panel < end; panel++) float_tile(half, rows, 1, a, first_row, panel);
}

KERNEL_INLINE void float_gemm(const bool half, const at_gemm *a) {
  const size_t end = last_panel(a);
  for (size_t panel = a->panel_begin; panel < end; panel += VECTORS) {
    const size_t next = panel + VECTORS < end ? panel + VECTORS : end;
    size_t row = 0;
    for (; row + FLOAT_ROWS <= a->row_count; row += FLOAT_ROWS) float_tiles(half, FLOAT_ROWS, a, row, panel, next);
    switch (a->row_count - row) {
      case 1: float_tiles(half, 1, a, row, panel, next); break;
      case 2: float_tiles(half, 2, a, row, panel, next); break;
      case 3: float_tiles(half, 3, a, row, panel, next); break;
      case 4: float_tiles(half, 4, a, row, panel, next); break;
      case 5: float_tiles(half, 5, a, row, panel, next); break;
      default: break;
    }
  }
}

KERNEL void KERNEL_NAME(gemm_float32)(const at_gemm *a) { float_gemm(false, a); }
KERNEL void KERNEL_NAME(gemm_float16)(const at_gemm *a) { float_gemm(true, a); }
