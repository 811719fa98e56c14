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

enum { MOST_TILE_ROWS = 8 }; // of any product

// What the tiles of a product have in common. Constant where that is worth a copy of the code.
typedef struct {
  bool paired, halves; // as in at_gemm
  bool whole;          // all of their outputs exist
} product_kind;

// Whether a tile's row is of the second half of the rows of a paired product.
KERNEL_INLINE bool is_second(const bool paired, const int rows, int r) { return paired && r >= rows / 2; }

// Where a product's row of a map is, results or residuals. The second half of the rows of a paired product have theirs
// in a map of their own.
KERNEL_INLINE void *row_of_map(const product_kind kind, const bool second, const at_gemm *a, size_t index,
                               const void *map, const void *pair_map, size_t stride) {
  const size_t bytes = kind.halves ? sizeof(uint16_t) : sizeof(float);
  const size_t row = second ? index - a->row_count / 2 : index;
  return (char *)(second ? pair_map : map) + row * stride * bytes;
}

// Where a tile's rows have their results.
KERNEL_INLINE void result_rows(const product_kind kind, const int rows, const at_gemm *a, const size_t *index,
                               void **out) {
  UNROLLED for (int r = 0; r < rows; r++) {
    out[r] = row_of_map(kind, is_second(kind.paired, rows, r), a, index[r], a->out, a->pair_out, a->out_stride);
  }
}

// Where they have what is added to them.
KERNEL_INLINE void residual_rows(const product_kind kind, const int rows, const at_gemm *a, const size_t *index,
                                 void **residual) {
  UNROLLED for (int r = 0; r < rows; r++) {
    const bool second = is_second(kind.paired, rows, r);
    residual[r] = row_of_map(kind, second, a, index[r], a->residual, a->pair_residual, a->residual_stride);
  }
}

enum { LINE = 64 }; // bytes of a line of a cache

// Brings the lines of `count` elements of some rows of a map, from a panel's first on.
KERNEL_INLINE void fetch_rows(const product_kind kind, const bool to_write, const int rows, void *const *row,
                              size_t panel, size_t count) {
  const size_t bytes = kind.halves ? sizeof(uint16_t) : sizeof(float);
  UNROLLED for (int r = 0; r < rows; r++) {
    const char *first = (const char *)row[r] + panel * AT_PANEL * bytes;
    UNROLLED for (size_t at = 0; at < count * bytes; at += LINE) {
      if (to_write) __builtin_prefetch(first + at, 1, 3);
      else __builtin_prefetch(first + at, 0, 3);
    }
  }
}

// Results, while they are computed.
KERNEL_INLINE void fetch_results(const product_kind kind, const int rows, void *const *out, size_t panel,
                                 size_t count) {
  fetch_rows(kind, true, rows, out, panel, count);
}

// The end of a matrix product: what is added to a vector of outputs, from a panel's first on, in some rows, and where
// they go. The second half of the rows of a paired product are those paired with the first.
KERNEL_INLINE void store_rows(const product_kind kind, const int rows, const at_gemm *a, const size_t *index,
                              void *const *out, size_t panel, floats *y) {
  const size_t first = panel * AT_PANEL, count = kind.whole ? LANES : a->outputs - first;
  if (a->bias) {
    const floats bias = load_floats(a->bias + first);
    UNROLLED for (int r = 0; r < rows; r++) {
      if (!is_second(kind.paired, rows, r)) y[r] = add(y[r], bias);
    }
  }
  if (kind.paired) {
    UNROLLED for (int r = rows / 2; r < rows; r++) y[r] = add(y[r], y[r - rows / 2]);
  }
  if (a->residual) {
    void *residual[MOST_TILE_ROWS];
    residual_rows(kind, rows, a, index, residual);
    UNROLLED for (int r = 0; r < rows; r++) y[r] = add(y[r], load_elements(kind.halves, residual[r], first, count));
  }
  UNROLLED for (int r = 0; r < rows; r++) store_elements(kind.halves, out[r], first, count, y[r]);
}
