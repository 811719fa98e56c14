// The rows of an int8 product's tiles, and what they fetch. Included after an instruction set's lanes (lanes_*.h).
#pragma once
#include "results.h"

enum { FETCHED_FROM = 1 << 19 }; // bytes of a matrix that second caches may lose between one block of rows and the next

// The rows of a tile: `rows` from the first on, or in a paired product half as many and those that hold the differences
// to them.
KERNEL_INLINE void rows_of_tile(const at_gemm *a, const bool paired, const int rows, size_t first, size_t *index) {
  UNROLLED for (int r = 0; r < rows; r++) {
    index[r] = is_second(paired, rows, r) ? a->row_count / 2 + first + (size_t)(r - rows / 2) : first + (size_t)r;
  }
}

// To the first cache: codes of a tap, `count` from `input` on.
KERNEL_INLINE void fetch_codes(const at_gemm *a, const int rows, const size_t *index, size_t tap, size_t input,
                               size_t count) {
  UNROLLED for (int r = 0; r < rows; r++) {
    const char *x = (const char *)a->rows[tap * a->row_count + index[r]] + input;
    for (size_t at = 0; at < count; at += LINE) __builtin_prefetch(x + at, 0, 3);
  }
}

// Codes of the rows of the tile after the one that begins with `first`, if it begins before `end`. For a product's first
// panels: later ones find them in the second cache.
KERNEL_INLINE void fetch_next_codes(const at_gemm *a, const bool paired, const int rows, size_t first, size_t end,
                                    size_t tap, size_t input, size_t count) {
  const size_t next = first + (size_t)(paired ? rows / 2 : rows);
  if (next >= end) return;
  size_t index[MOST_TILE_ROWS];
  rows_of_tile(a, paired, rows, next, index);
  fetch_codes(a, rows, index, tap, input, count);
}
