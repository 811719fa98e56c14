// The rows of an int8 product's tiles. Written in the lanes of the instruction set whose header (lanes_*.h) comes before.
#pragma once
#include "results.h"

enum { MOST_TILE_ROWS = 8 };

// The rows of a tile: `rows` from the first on, or in a paired product half as many and those that hold the differences
// to them.
KERNEL_INLINE void rows_of_tile(const at_gemm *a, const bool paired, const int rows, size_t first, size_t *index) {
  UNROLLED for (int r = 0; r < rows; r++) {
    const bool second = paired && r >= rows / 2;
    index[r] = second ? a->row_count / 2 + first + (size_t)(r - rows / 2) : first + (size_t)r;
  }
}

// To the first cache: codes of a tap, `count` from `input` on, of the rows of the tile that begins with `first`.
KERNEL_INLINE void fetch_codes(const at_gemm *a, const bool paired, const int rows, size_t first, size_t tap,
                               size_t input, size_t count) {
  size_t index[MOST_TILE_ROWS];
  rows_of_tile(a, paired, rows, first, index);
  UNROLLED for (int r = 0; r < rows; r++) {
    const char *x = (const char *)a->rows[tap * a->row_count + index[r]] + input;
    for (size_t at = 0; at < count; at += LINE) __builtin_prefetch(x + at, 0, 3);
  }
}
