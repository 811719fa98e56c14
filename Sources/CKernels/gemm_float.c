// f32 x f32 or f16 matrix product. Each output is one chain of additions over taps and inputs, so a tile runs through
// all of them without leaving its registers.
#include "lanes.h"
#if HAVE_LANES

enum { ROWS = 6, PANELS = 2 }; // of a tile: twelve registers of sums

KERNEL_INLINE f8 load_weights(const bool half, const void *weights, size_t i) {
  if (half) return load_halves((const uint16_t *)weights + i * AT_PANEL);
  return load8((const float *)weights + i * AT_PANEL);
}

KERNEL_INLINE void tile(const bool half, const int rows, const int panels, const at_gemm *a, size_t first_row,
                      size_t panel) {
  f8 sum[PANELS][ROWS];
  UNROLLED for (int p = 0; p < panels; p++) {
    UNROLLED for (int r = 0; r < rows; r++) sum[p][r] = all(0);
  }
  const size_t bytes = half ? sizeof(uint16_t) : sizeof(float);
  const size_t stride = a->taps * a->inputs * AT_PANEL * bytes;
  for (size_t tap = 0; tap < a->taps; tap++) {
    const char *weights = (const char *)a->weights + panel * stride + tap * a->inputs * AT_PANEL * bytes;
    const void *const *rows_of_tap = a->rows + tap * a->row_count + first_row;
    const float *x[ROWS];
    UNROLLED for (int r = 0; r < rows; r++) x[r] = rows_of_tap[r];
    for (size_t i = 0; i < a->inputs; i++) {
      f8 w[PANELS];
      UNROLLED for (int p = 0; p < panels; p++) w[p] = load_weights(half, weights + (size_t)p * stride, i);
      UNROLLED for (int r = 0; r < rows; r++) {
        const f8 xi = all(x[r][i]);
        UNROLLED for (int p = 0; p < panels; p++) sum[p][r] = add(sum[p][r], mul(xi, w[p]));
      }
    }
  }
  size_t index[ROWS];
  UNROLLED for (int r = 0; r < rows; r++) index[r] = first_row + (size_t)r;
  UNROLLED for (int p = 0; p < panels; p++) {
    store_rows(rows, a, index, panel + (size_t)p, sum[p]);
  }
}

KERNEL_INLINE void tiles(const bool half, const int rows, const at_gemm *a, size_t first_row, size_t panel,
                         size_t end) {
  for (; panel + PANELS <= end; panel += PANELS) tile(half, rows, PANELS, a, first_row, panel);
  for (; panel < end; panel++) tile(half, rows, 1, a, first_row, panel);
}

KERNEL_INLINE void gemm(const bool half, const at_gemm *a) {
  const size_t end = last_panel(a);
  for (size_t panel = a->panel_begin; panel < end; panel += PANELS) {
    const size_t next = panel + PANELS < end ? panel + PANELS : end;
    size_t row = 0;
    for (; row + ROWS <= a->row_count; row += ROWS) tiles(half, ROWS, a, row, panel, next);
    switch (a->row_count - row) {
      case 1: tiles(half, 1, a, row, panel, next); break;
      case 2: tiles(half, 2, a, row, panel, next); break;
      case 3: tiles(half, 3, a, row, panel, next); break;
      case 4: tiles(half, 4, a, row, panel, next); break;
      case 5: tiles(half, 5, a, row, panel, next); break;
      default: break;
    }
  }
}

KERNEL void KERNEL_NAME(gemm_float32)(const at_gemm *a) { gemm(false, a); }
KERNEL void KERNEL_NAME(gemm_float16)(const at_gemm *a) { gemm(true, a); }
#endif
