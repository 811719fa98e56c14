// u8 x s8 matrix product in tiles whose sums stay in registers. Included once for each way of multiplying, after its
// lanes. The way says what it is:
//   GEMM_NAME, GEMM_TARGET, CEILING_NAME
//   TILE_ROWS, TILE_PANELS                    of a tile; an even number of rows
//   STEP                                      quads of a row that are taken at once
//   GROUP                                     quads that are multiplied at once, a divisor of STEP
//   CODE_OFFSET                               what is taken off every code before it is multiplied
// and defines
//   weights take_weights(const int8_t *, int) GROUP quads, or one, of the eight outputs of a panel: [][8][4]
//   codes take_codes(const uint8_t *, int)    STEP quads, or one, of a row
//   sums begin(size_t inputs)                 of eight outputs, zero
//   sums dot(sums, weights, codes, int quad)  the first plus the products of the codes' quads from `quad` on
//   i8 total(sums)
//   void hide(codes *)                        makes the compiler forget what is in it
// A way that multiplies two rows at once defines ROWS_AT_ONCE as 2, has the sums of both in `sums`, and instead of dot
// and total
//   sums dot_rows(sums, weights, const codes *, int quad)
//   i8 total_of(sums, int row)
// A row of panels is taken through all rows before the next: its weights stay in the first cache and are read from the
// file once.
#include "lanes.h"

#define TILE_CODE __attribute__((target(GEMM_TARGET)))
#define TILE_INLINE static inline __attribute__((target(GEMM_TARGET), always_inline))

#ifndef ROWS_AT_ONCE
#define ROWS_AT_ONCE 1
TILE_INLINE sums dot_rows(sums sum, weights w, const codes *x, int quad) { return dot(sum, w, *x, quad); }
TILE_INLINE i8 total_of(sums sum, int row) { return total(sum); }
#endif

enum { TILE_SUMS = TILE_ROWS / ROWS_AT_ONCE };

// The rows of a tile: `rows` from the first on, or in a paired product half as many and those that hold the differences
// to them.
TILE_INLINE void rows_of_tile(const at_gemm *a, const bool paired, const int rows, size_t first, size_t *index) {
  UNROLLED for (int r = 0; r < rows; r++) {
    const bool second = paired && r >= rows / 2;
    index[r] = second ? a->row_count / 2 + first + (size_t)(r - rows / 2) : first + (size_t)r;
  }
}

TILE_INLINE void take_all(const uint8_t *const *x, size_t first, int quads, codes *c) {
  UNROLLED for (int r = 0; r < ROWS_AT_ONCE; r++) c[r] = take_codes(x[r] + first, quads);
}

// A row that is not there, beside the last one, is that row once more.
TILE_INLINE void multiply(const int rows, const int panels, const at_gemm *a, const size_t *index, size_t tap,
                          size_t panel, sums sum[TILE_PANELS][TILE_SUMS]) {
  const int all_rows = (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * ROWS_AT_ONCE;
  const size_t inputs = a->inputs, stride = a->taps * inputs * AT_PANEL;
  const int8_t *weight = (const int8_t *)a->weights + panel * stride + tap * inputs * AT_PANEL;
  const uint8_t *x[TILE_ROWS];
  UNROLLED for (int r = 0; r < all_rows; r++) x[r] = a->rows[tap * a->row_count + index[r < rows ? r : rows - 1]];
  UNROLLED for (int p = 0; p < panels; p++) {
    UNROLLED for (int s = 0; s < all_rows / ROWS_AT_ONCE; s++) sum[p][s] = begin(inputs);
  }
  size_t i = 0;
  for (; i + STEP * AT_QUAD <= inputs; i += STEP * AT_QUAD) {
    codes c[TILE_ROWS];
    if (STEP > GROUP) {
      UNROLLED for (int r = 0; r < all_rows; r++) c[r] = take_codes(x[r] + i, STEP);
    }
    UNROLLED for (int quad = 0; quad < STEP; quad += GROUP) {
      const int8_t *quads = weight + (i + (size_t)quad * AT_QUAD) * AT_PANEL;
      weights w[TILE_PANELS];
      UNROLLED for (int p = 0; p < panels; p++) w[p] = take_weights(quads + (size_t)p * stride, GROUP);
      UNROLLED for (int r = 0; r < all_rows; r += ROWS_AT_ONCE) {
        if (STEP == GROUP) take_all(x + r, i, STEP, c + r);
        const int s = r / ROWS_AT_ONCE;
        UNROLLED for (int p = 0; p < panels; p++) sum[p][s] = dot_rows(sum[p][s], w[p], c + r, quad);
      }
    }
  }
  for (; STEP > 1 && i < inputs; i += AT_QUAD) {
    weights w[TILE_PANELS];
    UNROLLED for (int p = 0; p < panels; p++) w[p] = take_weights(weight + (size_t)p * stride + i * AT_PANEL, 1);
    UNROLLED for (int r = 0; r < all_rows; r += ROWS_AT_ONCE) {
      codes c[ROWS_AT_ONCE];
      take_all(x + r, i, 1, c);
      const int s = r / ROWS_AT_ONCE;
      UNROLLED for (int p = 0; p < panels; p++) sum[p][s] = dot_rows(sum[p][s], w[p], c, 0);
    }
  }
}

// The float terms of one tap for the rows of a tile: the sum of (code - zero) * weight, times the row's scale.
TILE_INLINE void scale_sums(const int rows, const int panels, const at_gemm *a, const size_t *index, size_t tap,
                            size_t panel, const sums sum[TILE_PANELS][TILE_SUMS], f8 term[TILE_PANELS][TILE_ROWS]) {
  UNROLLED for (int p = 0; p < panels; p++) {
    const i8 weight_sum = load_integers(a->sum + (tap * a->panels + panel + (size_t)p) * AT_PANEL);
    UNROLLED for (int r = 0; r < rows; r++) {
      const size_t at = tap * a->row_count + index[r];
      const i8 products = total_of(sum[p][r / ROWS_AT_ONCE], r % ROWS_AT_ONCE);
      const i8 centred = subtract_times(products, weight_sum, a->row_zero[at] - CODE_OFFSET);
      term[p][r] = mul(to_float(centred), all(a->row_scale[at]));
    }
  }
}

TILE_INLINE void finish(const product_kind kind, const int rows, const int panels, const at_gemm *a,
                        const size_t *index, size_t panel, f8 y[TILE_PANELS][TILE_ROWS]) {
  UNROLLED for (int p = 0; p < panels; p++) {
    const f8 scale = load8(a->scale + (panel + (size_t)p) * AT_PANEL);
    UNROLLED for (int r = 0; r < rows; r++) y[p][r] = mul(y[p][r], scale);
    store_rows(kind, rows, a, index, panel + (size_t)p, y[p]);
  }
}

// The results' lines of the cache come while the tile is computed.
TILE_INLINE void fetch_results(const product_kind kind, const int rows, const at_gemm *a, const size_t *index,
                               size_t panel) {
  const size_t bytes = kind.halves ? sizeof(uint16_t) : sizeof(float);
  UNROLLED for (int r = 0; r < rows; r++) {
    const bool second = kind.paired && r >= rows / 2;
    const size_t row = second ? index[r] - a->row_count / 2 : index[r];
    const char *out = second ? a->pair_out : a->out;
    __builtin_prefetch(out + (row * a->out_stride + panel * AT_PANEL) * bytes, 1, 3);
  }
}

// [row][panel][8]: what the taps so far add up to.
typedef struct {
  _Alignas(32) float of[AT_GEMM_ROWS][TILE_PANELS][AT_PANEL];
} totals;

// `between`: neither the first tap nor the last.
TILE_INLINE void tile(const product_kind kind, const bool between, const int rows, const int panels, const at_gemm *a,
                      size_t first, size_t tap, size_t panel, totals *s) {
  const bool last = !between && tap + 1 == a->taps;
  size_t index[TILE_ROWS];
  rows_of_tile(a, kind.paired, rows, first, index);
  if (last) fetch_results(kind, rows, a, index, panel);
  sums sum[TILE_PANELS][TILE_SUMS];
  f8 y[TILE_PANELS][TILE_ROWS];
  multiply(rows, panels, a, index, tap, panel, sum);
  scale_sums(rows, panels, a, index, tap, panel, sum, y);
  UNROLLED for (int p = 0; p < panels; p++) {
    UNROLLED for (int r = 0; r < rows; r++) {
      if (between || tap > 0) y[p][r] = add(load8(s->of[index[r]][p]), y[p][r]);
    }
  }
  if (last) {
    finish(kind, rows, panels, a, index, panel, y);
    return;
  }
  UNROLLED for (int p = 0; p < panels; p++) {
    UNROLLED for (int r = 0; r < rows; r++) store8(s->of[index[r]][p], y[p][r]);
  }
}

// The rows first..<end of one tap and the panels from `panel` on.
typedef struct {
  size_t first, end, tap, panel;
} tile_run;

TILE_INLINE void tiles_of_kind(const product_kind kind, const bool between, const int rows, const int panels,
                               const at_gemm *a, tile_run t, totals *s) {
  const size_t step = (size_t)(kind.paired ? rows / 2 : rows);
  for (; t.first < t.end; t.first += step) tile(kind, between, rows, panels, a, t.first, t.tap, t.panel, s);
}

// Nearly all work is in tiles of full size: each kind of them has a loop of its own.
TILE_INLINE void any_tiles(const int rows, const int panels, const at_gemm *a, tile_run t, totals *s) {
  const bool whole_panels = (t.panel + (size_t)panels) * AT_PANEL <= a->outputs;
  if (rows < TILE_ROWS || panels < TILE_PANELS || !whole_panels) {
    tiles_of_kind((product_kind){a->paired, a->halves, false}, false, rows, panels, a, t, s);
  } else if (t.tap > 0 && t.tap + 1 < a->taps) {
    if (a->paired) tiles_of_kind((product_kind){.paired = true}, true, rows, panels, a, t, s);
    else tiles_of_kind((product_kind){.paired = false}, true, rows, panels, a, t, s);
  } else if (a->halves) {
    if (a->paired) tiles_of_kind((product_kind){true, true, true}, false, rows, panels, a, t, s);
    else tiles_of_kind((product_kind){false, true, true}, false, rows, panels, a, t, s);
  } else {
    if (a->paired) tiles_of_kind((product_kind){true, false, true}, false, rows, panels, a, t, s);
    else tiles_of_kind((product_kind){false, false, true}, false, rows, panels, a, t, s);
  }
}

// The arguments are copied: the compiler then knows that no store changes them.
#define TILES(rows, panels)                                                                \
  TILE_CODE static void tiles_##rows##_##panels(const at_gemm *a, tile_run t, totals *s) { \
    const at_gemm copy = *a;                                                               \
    any_tiles(rows, panels, &copy, t, s);                                                  \
  }
typedef void (*tiles)(const at_gemm *, tile_run, totals *);

// A function for each number of rows and panels that a tile can have.
#if TILE_ROWS == 4
#define EACH_COUNT(panels) TILES(1, panels) TILES(2, panels) TILES(3, panels) TILES(4, panels)
#define OF_PANELS(panels) {tiles_1_##panels, tiles_2_##panels, tiles_3_##panels, tiles_4_##panels}
#else
#define EACH_COUNT(panels) \
  TILES(1, panels) TILES(2, panels) TILES(3, panels) TILES(4, panels) TILES(5, panels) TILES(6, panels)
#define OF_PANELS(panels) \
  {tiles_1_##panels, tiles_2_##panels, tiles_3_##panels, tiles_4_##panels, tiles_5_##panels, tiles_6_##panels}
#endif
EACH_COUNT(1)
#if TILE_PANELS == 1
static const tiles tiles_of[TILE_PANELS][TILE_ROWS] = {OF_PANELS(1)};
#else
EACH_COUNT(2)
static const tiles tiles_of[TILE_PANELS][TILE_ROWS] = {OF_PANELS(1), OF_PANELS(2)};
#endif

void GEMM_NAME(const at_gemm *a) {
  totals s;
  // In a paired product a tile covers half as many indices as it has rows.
  const size_t indices = a->paired ? a->row_count / 2 : a->row_count;
  const size_t tile_indices = a->paired ? TILE_ROWS / 2 : TILE_ROWS;
  const size_t rest = indices % tile_indices, whole = indices - rest;
  const size_t panel_end = last_panel(a);
  for (size_t panel = a->panel_begin; panel < panel_end; panel += TILE_PANELS) {
    const size_t panels = panel_end - panel < TILE_PANELS ? panel_end - panel : TILE_PANELS;
    const tiles *of_rows = tiles_of[panels - 1];
    for (size_t tap = 0; tap < a->taps; tap++) {
      of_rows[TILE_ROWS - 1](a, (tile_run){0, whole, tap, panel}, &s);
      if (rest > 0) of_rows[(a->paired ? 2 * rest : rest) - 1](a, (tile_run){whole, indices, tap, panel}, &s);
    }
  }
}

TILE_CODE uint32_t CEILING_NAME(size_t iterations) {
  enum { CHAINS = TILE_SUMS * TILE_PANELS, PRODUCTS = CHAINS * ROWS_AT_ONCE * GROUP * AT_QUAD * AT_PANEL };
  const int8_t some[GROUP * AT_QUAD * AT_PANEL] = {1, 2, 3}, *bytes = some;
  __asm__ volatile("" : "+r"(bytes) : : "memory");
  const weights w = take_weights(bytes, GROUP);
  codes x[ROWS_AT_ONCE];
  UNROLLED for (int r = 0; r < ROWS_AT_ONCE; r++) x[r] = take_codes((const uint8_t *)bytes, STEP);
  sums sum[CHAINS];
  UNROLLED for (int i = 0; i < CHAINS; i++) sum[i] = begin(0);
  for (size_t n = 0; n < iterations * AT_CEILING_PRODUCTS / PRODUCTS; n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) {
      hide(&x[0]);
      sum[i] = dot_rows(sum[i], w, x, 0);
    }
  }
  i8 all_chains = total_of(sum[0], 0);
  UNROLLED for (int i = 1; i < CHAINS; i++) all_chains = add_integers(all_chains, total_of(sum[i], 0));
  return (uint32_t)sum_integers(all_chains);
}
