// Elements of maps, which are f32 or f16, and the end of a matrix product. Written in the lanes of the instruction set
// whose header (lanes_*.h) comes before.
#pragma once
#include "kernel.h"

// Lanes that can leave elements of memory alone define these themselves.
#ifndef HALVES_BY_MASK
KERNEL_INLINE floats load_some_halves(const uint16_t *x, size_t count) {
  uint16_t lanes[LANES] = {0};
  for (size_t j = 0; j < count; j++) lanes[j] = x[j];
  return load_halves(lanes);
}
KERNEL_INLINE void store_some_halves(uint16_t *x, size_t count, floats v) {
  uint16_t lanes[LANES];
  store_halves(lanes, v);
  for (size_t j = 0; j < count; j++) x[j] = lanes[j];
}
#endif

// Up to LANES elements of a map from the `i`th on, f32 or f16; zero in the lanes beyond `count`.
KERNEL_INLINE floats load_elements(const bool halves, const void *x, size_t i, size_t count) {
  if (!halves) return load_some((const float *)x + i, count);
  const uint16_t *first = (const uint16_t *)x + i;
  return count >= LANES ? load_halves(first) : load_some_halves(first, count);
}
KERNEL_INLINE void store_elements(const bool halves, void *x, size_t i, size_t count, floats v) {
  if (!halves) {
    store_some((float *)x + i, count, v);
    return;
  }
  const floats finite = lesser(greater(v, all(-65504)), all(65504));
  uint16_t *first = (uint16_t *)x + i;
  if (count >= LANES) store_halves(first, finite);
  else store_some_halves(first, count, finite);
}

// What the tiles of a product have in common. Constant where that is worth a copy of the code.
typedef struct {
  bool paired, halves; // as in at_gemm
  bool whole;          // all of their outputs exist
} product_kind;

// The end of a matrix product: what is added to a vector of outputs, from a panel's first on, in some rows, and where
// they go. The second half of the rows of a paired product are those paired with the first.
KERNEL_INLINE void store_rows(const product_kind kind, const int rows, const at_gemm *a, const size_t *index,
                              size_t panel, floats *y) {
  const size_t first = panel * AT_PANEL, count = kind.whole ? LANES : a->outputs - first;
  const floats bias = a->bias ? load_floats(a->bias + first) : all(0);
  UNROLLED for (int r = 0; r < rows; r++) {
    const bool second = kind.paired && r >= rows / 2;
    const size_t row = second ? index[r] - a->row_count / 2 : index[r];
    const void *residual = second ? a->pair_residual : a->residual;
    void *out = second ? a->pair_out : a->out;
    if (second) y[r] = add(y[r], y[r - rows / 2]);
    else if (a->bias) y[r] = add(y[r], bias);
    floats sum = y[r];
    if (residual) sum = add(sum, load_elements(kind.halves, residual, row * a->residual_stride + first, count));
    store_elements(kind.halves, out, row * a->out_stride + first, count, sum);
  }
}
