// Layer norms add up lanes, which are eight in every variant.
#pragma once
#include "lanes.h"

enum { NORMED_ROWS = 4 }; // in step: sums of one row alone are a chain too long for a processor to look past

// `whole`: whether columns fill vectors.
KERNEL_INLINE void norm_rows(const bool halves, const bool whole, const int rows, const at_layer_norm *a, size_t first) {
  const size_t columns = a->columns;
  float *out = a->out + first * columns;
  // f16 is widened to where the results go.
  const float *x = halves ? out : (const float *)a->x + first * columns;
  floats sum[NORMED_ROWS], squares[NORMED_ROWS], mean[NORMED_ROWS], inverse[NORMED_ROWS];
#define EACH UNROLLED for (int r = 0; r < rows; r++)
  EACH sum[r] = squares[r] = all(0);
  for (size_t c = 0; c < columns; c += 8) {
    EACH {
      const size_t at = (size_t)r * columns + c;
      const size_t count = whole ? 8 : columns - c;
      const floats v = halves ? load_elements(true, a->x, first * columns + at, count) : load_some(x + at, count);
      if (halves) store_some(out + at, count, v);
      sum[r] = add(sum[r], v);
    }
  }
  EACH mean[r] = all(sum_lanes(sum[r]) / (float)columns);
  for (size_t c = 0; c < columns; c += 8) {
    EACH {
      const size_t count = whole ? 8 : columns - c;
      const floats d = sub(load_some(x + (size_t)r * columns + c, count), mean[r]);
      // Lanes past the end would add the mean's square.
      squares[r] = add(squares[r], count >= 8 ? mul(d, d) : keep_lanes(mul(d, d), count));
    }
  }
  EACH inverse[r] = divide(all(1), square_root(all(sum_lanes(squares[r]) / (float)columns + a->epsilon)));
  for (size_t c = 0; c < columns; c += 8) {
    const size_t count = whole ? 8 : columns - c;
    const floats gamma = load_some(a->gamma + c, count), beta = load_some(a->beta + c, count);
    EACH {
      const size_t at = (size_t)r * columns + c;
      const floats y = mul(sub(load_some(x + at, count), mean[r]), inverse[r]);
      store_some(out + at, count, add(mul(y, gamma), beta));
    }
  }
#undef EACH
}

KERNEL_INLINE void norm_all_rows(const bool halves, const bool whole, const at_layer_norm *a) {
  size_t r = 0;
  for (; r + NORMED_ROWS <= a->rows; r += NORMED_ROWS) norm_rows(halves, whole, NORMED_ROWS, a, r);
  for (; r < a->rows; r++) norm_rows(halves, whole, 1, a, r);
}

KERNEL void KERNEL_NAME(layer_norm)(const at_layer_norm *a) {
  const bool whole = a->columns % 8 == 0;
  if (a->halves && whole) norm_all_rows(true, true, a);
  else if (a->halves) norm_all_rows(true, false, a);
  else norm_all_rows(false, false, a);
}
