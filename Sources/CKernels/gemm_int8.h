// u8 x s8 matrix product in tiles whose sums stay in registers. Included once for each way of multiplying, after its
// lanes. The way says what it is:
//   GEMM_NAME, GEMM_TARGET, CEILING_NAME
//   TILE_ROWS, TILE_VECTORS                   of a tile; an even number of rows, and vectors of LANES outputs
//   STEP                                      quads of a row that are taken at once
//   GROUP                                     quads that are multiplied at once, a divisor of STEP
//   CODE_OFFSET                               what is taken off every code before it is multiplied
// and defines
//   weights take_weights(const int8_t *, int) GROUP quads, or one, of the eight outputs of a panel: [][8][4]
//   codes take_codes(const uint8_t *, int)    STEP quads, or one, of a row
//   sums begin(size_t inputs)                 of a vector, zero
//   sums dot(sums, weights, codes, int quad)  the first plus the products of the codes' quads from `quad` on
//   integers total(sums)
//   void hide(codes *)                        makes the compiler forget what is in it
// A way that multiplies two rows at once defines ROWS_AT_ONCE as 2, has the sums of both in `sums`, and instead of dot
// and total
//   sums dot_rows(sums, weights, const codes *, int quad)
//   integers total_of(sums, int row)
// A way of one row at once that is faster when it multiplies it by both vectors of a tile in step defines
// BOTH_VECTORS_AT_ONCE and
//   sums begin_second(size_t inputs)          begin for the second vector; may differ from it where STEP is 1
//   void dot_both(sums *first, sums *second, const int8_t *weights, const int8_t *second_weights, const uint8_t *codes)
//                                             GROUP quads
// A way whose vectors hold several panels defines PANELS_AT_ONCE as their number and
//   weights join_panels(const int8_t *, size_t stride)   a quad of panels that are `stride` bytes apart
//   void store_weights(int8_t *, weights)                for take_weights
//   GEMM_REST                                 the product that takes what does not fill a vector, rows too few to be worth
//                                             joining panels for, and more than MOST_INPUTS
// A way may define ZEROS_BY_PRODUCTS, and then
//   offsets offsets_of(integers weight_sums)
//   int32_t zero_factor(int32_t zero)                   of a zero of 0...255
//   integers take_off(integers products, offsets, const int32_t *factor)   less the sums times that zero
// A way of one row and one quad at once that joins panels, and whose registers have room beside a tile's sums, may define
// STAGGERED: then gemm_int8_staggered.h takes the whole tiles of a linear layer of few inputs, but the first.
// A row of panels is taken through all rows before the next: its weights stay in the first cache and are read from the
// file once.
#include "gemm_tiles.h"

#define TILE_CODE __attribute__((target(GEMM_TARGET)))
#define TILE_INLINE static inline __attribute__((target(GEMM_TARGET), always_inline))

#ifndef ROWS_AT_ONCE
#define ROWS_AT_ONCE 1
TILE_INLINE sums dot_rows(sums sum, weights w, const codes *x, int quad) { return dot(sum, w, *x, quad); }
TILE_INLINE integers total_of(sums sum, int row) { return total(sum); }
#endif

#ifdef BOTH_VECTORS_AT_ONCE
enum { IN_STEP = 1 };
#else
enum { IN_STEP = 0 };
TILE_INLINE sums begin_second(size_t inputs) { return begin(inputs); }
TILE_INLINE void dot_both(sums *first, sums *second, const int8_t *w, const int8_t *v, const uint8_t *x) {}
#endif

#ifndef PANELS_AT_ONCE
#define PANELS_AT_ONCE 1
enum { MOST_INPUTS = 0 };
TILE_INLINE weights join_panels(const int8_t *x, size_t stride) { return take_weights(x, 1); }
TILE_INLINE void store_weights(int8_t *x, weights w) {}
#endif

#ifndef ZEROS_BY_PRODUCTS
typedef integers offsets;
TILE_INLINE offsets offsets_of(integers weight_sums) { return weight_sums; }
TILE_INLINE integers take_off(integers products, offsets sums, const int32_t *zero) {
  return subtract_times(products, sums, *zero - CODE_OFFSET);
}
#endif

_Static_assert(TILE_ROWS <= MOST_TILE_ROWS && (!IN_STEP || (ROWS_AT_ONCE == 1 && TILE_VECTORS == 2)), "");
enum { TILE_SUMS = TILE_ROWS / ROWS_AT_ONCE, TILE_PANELS = TILE_VECTORS * PANELS_AT_ONCE, JOINS = PANELS_AT_ONCE > 1 };

// The rows first..<end of one tap and the panels from `panel` on.
typedef struct {
  size_t first, end, tap, panel;
  const int8_t *weights; // of the file: the first panel's at that tap
  const int32_t *zeros;  // of the rows at that tap, or what zero_factor makes of them
  int8_t *joined;        // [inputs / 4][vectors][LANES][4], or nothing: the first tile puts them there
  bool fetches_codes;    // whether each tile fetches those of the next: of the first panels and tap, where few bytes
  const int8_t *next;    // what is read after these weights, for each tile to fetch a share of; or NULL
  size_t share, left;    // of a panel, in bytes; all that is to be fetched of one
} tile_run;

TILE_INLINE void take_all(const uint8_t *const *x, size_t first, int quads, codes *c) {
  UNROLLED for (int r = 0; r < ROWS_AT_ONCE; r++) c[r] = take_codes(x[r] + first, quads);
}

// A row that is not there, beside the last one, is that row once more.
// `joins`: whether the weights are still to be joined.
TILE_INLINE void multiply(const bool joins, const int rows, const int vectors, const at_gemm *a, const size_t *index,
                          const tile_run *t, sums sum[TILE_VECTORS][TILE_SUMS]) {
  const int all_rows = (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * ROWS_AT_ONCE;
  const size_t inputs = a->inputs;
  const size_t panel_bytes = a->taps * inputs * AT_PANEL;
  // Panels that were joined lie side by side, a vector after the other.
  const size_t quad_bytes = JOINS ? (size_t)vectors * LANES * AT_QUAD : LANES * AT_QUAD;
  const size_t vector_bytes = JOINS ? LANES * AT_QUAD : panel_bytes;
  const int8_t *weight = JOINS ? t->joined : t->weights;
  const uint8_t *x[TILE_ROWS];
  UNROLLED for (int r = 0; r < all_rows; r++) x[r] = a->rows[t->tap * a->row_count + index[r < rows ? r : rows - 1]];
  UNROLLED for (int v = 0; v < vectors; v++) {
    UNROLLED for (int s = 0; s < all_rows / ROWS_AT_ONCE; s++) sum[v][s] = v == 0 ? begin(inputs) : begin_second(inputs);
  }
  size_t i = 0;
  for (; i + STEP * AT_QUAD <= inputs; i += STEP * AT_QUAD) {
    codes c[TILE_ROWS];
    if (STEP > GROUP) {
      UNROLLED for (int r = 0; r < all_rows; r++) c[r] = take_codes(x[r] + i, STEP);
    }
    UNROLLED for (int quad = 0; quad < STEP; quad += GROUP) {
      const int8_t *quads = weight + (i / AT_QUAD + (size_t)quad) * quad_bytes;
      weights w[TILE_VECTORS];
      UNROLLED for (int v = 0; v < vectors; v++) {
        if (joins) {
          w[v] = join_panels(t->weights + i * AT_PANEL + (size_t)v * PANELS_AT_ONCE * panel_bytes, panel_bytes);
          store_weights(t->joined + i / AT_QUAD * quad_bytes + (size_t)v * vector_bytes, w[v]);
        } else {
          w[v] = take_weights(quads + (size_t)v * vector_bytes, GROUP);
        }
      }
      UNROLLED for (int r = 0; r < all_rows; r += ROWS_AT_ONCE) {
        if (STEP == GROUP) take_all(x + r, i, STEP, c + r);
        const int s = r / ROWS_AT_ONCE;
        if (IN_STEP && vectors == 2) {
          dot_both(&sum[0][s], &sum[1][s], quads, quads + vector_bytes, x[r] + i + quad * AT_QUAD);
          continue;
        }
        UNROLLED for (int v = 0; v < vectors; v++) sum[v][s] = dot_rows(sum[v][s], w[v], c + r, quad);
      }
    }
  }
  for (; STEP > 1 && i < inputs; i += AT_QUAD) {
    weights w[TILE_VECTORS];
    const int8_t *quad = weight + i / AT_QUAD * quad_bytes;
    UNROLLED for (int v = 0; v < vectors; v++) w[v] = take_weights(quad + (size_t)v * vector_bytes, 1);
    UNROLLED for (int r = 0; r < all_rows; r += ROWS_AT_ONCE) {
      codes c[ROWS_AT_ONCE];
      take_all(x + r, i, 1, c);
      const int s = r / ROWS_AT_ONCE;
      UNROLLED for (int v = 0; v < vectors; v++) sum[v][s] = dot_rows(sum[v][s], w[v], c, 0);
    }
  }
}

// Of the outputs of a tile.
TILE_INLINE void weight_sums(const int vectors, const at_gemm *a, const tile_run *t, offsets sum[TILE_VECTORS]) {
  const int32_t *first = a->sum + (t->tap * a->panels + t->panel) * AT_PANEL;
  UNROLLED for (int v = 0; v < vectors; v++) sum[v] = offsets_of(load_integers(first + (size_t)v * LANES));
}

// The float terms of one tap for the rows of a tile: the sum of (code - zero) * weight, times the row's scale.
TILE_INLINE void scale_sums(const int rows, const int vectors, const at_gemm *a, const size_t *index,
                            const tile_run *t, const offsets weight_sum[TILE_VECTORS],
                            const sums sum[TILE_VECTORS][TILE_SUMS], floats term[TILE_VECTORS][TILE_ROWS]) {
  UNROLLED for (int v = 0; v < vectors; v++) {
    UNROLLED for (int r = 0; r < rows; r++) {
      const integers products = total_of(sum[v][r / ROWS_AT_ONCE], r % ROWS_AT_ONCE);
      const integers centred = take_off(products, weight_sum[v], t->zeros + index[r]);
      term[v][r] = mul(to_float(centred), all(a->row_scale[t->tap * a->row_count + index[r]]));
    }
  }
}

TILE_INLINE void finish(const product_kind kind, const int rows, const int vectors, const at_gemm *a,
                        const size_t *index, void *const *out, size_t panel,
                        floats y[TILE_VECTORS][TILE_ROWS]) {
  UNROLLED for (int v = 0; v < vectors; v++) {
    const floats scale = load_floats(a->scale + panel * AT_PANEL + (size_t)v * LANES);
    UNROLLED for (int r = 0; r < rows; r++) y[v][r] = mul(y[v][r], scale);
    store_rows(kind, rows, a, index, out, panel + (size_t)v * PANELS_AT_ONCE, y[v]);
  }
}

// [row][vector][lane]: what the taps so far add up to.
typedef struct {
  _Alignas(64) float of[AT_GEMM_ROWS][TILE_VECTORS][LANES];
} totals;

// `between`: neither the first tap nor the last.
TILE_INLINE void tile(const product_kind kind, const bool between, const bool joins, const int rows, const int vectors,
                      const at_gemm *a, const tile_run *t, totals *s) {
  const size_t tap = t->tap, panel = t->panel;
  const bool last = !between && tap + 1 == a->taps;
  size_t index[TILE_ROWS];
  rows_of_tile(a, kind.paired, rows, t->first, index);
  void *out[TILE_ROWS];
  if (last) {
    result_rows(kind, rows, a, index, out);
    fetch_results(kind, rows, out, panel, (size_t)vectors * LANES);
  }
  sums sum[TILE_VECTORS][TILE_SUMS];
  multiply(joins, rows, vectors, a, index, t, sum);
  offsets weight_sum[TILE_VECTORS];
  weight_sums(vectors, a, t, weight_sum);
  floats y[TILE_VECTORS][TILE_ROWS];
  scale_sums(rows, vectors, a, index, t, weight_sum, sum, y);
  UNROLLED for (int v = 0; v < vectors; v++) {
    UNROLLED for (int r = 0; r < rows; r++) {
      if (between || tap > 0) y[v][r] = add(load_floats(s->of[index[r]][v]), y[v][r]);
    }
  }
  if (last) {
    finish(kind, rows, vectors, a, index, out, panel, y);
    return;
  }
  UNROLLED for (int v = 0; v < vectors; v++) {
    UNROLLED for (int r = 0; r < rows; r++) store_floats(s->of[index[r]][v], y[v][r]);
  }
}

// To the second cache: what is multiplied by next.
TILE_INLINE void fetch_share(const at_gemm *a, tile_run *t) {
  const size_t panel_bytes = a->taps * a->inputs * AT_PANEL;
  const size_t share = t->share < t->left ? t->share : t->left;
  UNROLLED for (size_t p = 0; p < TILE_PANELS; p++) {
    for (size_t at = 0; at < share; at += LINE) __builtin_prefetch(t->next + p * panel_bytes + at, 0, 2);
  }
  t->next += share;
  t->left -= share;
}

enum { FETCHED_INPUTS = 2048 }; // of eight rows, half of a first cache

#ifdef STAGGERED
#include "gemm_int8_staggered.h"
#else
TILE_INLINE bool is_staggered(const at_gemm *a) { return false; }
TILE_INLINE void staggered_tiles(const product_kind kind, const at_gemm *a, tile_run t) {}
#endif

TILE_INLINE void tiles_of_kind(const product_kind kind, const bool between, const int rows, const int vectors,
                               const at_gemm *a, tile_run t, totals *s) {
  const size_t step = (size_t)(kind.paired ? rows / 2 : rows);
  if (JOINS && rows == TILE_ROWS) {
    if (t.fetches_codes) fetch_next_codes(a, kind.paired, rows, t.first, t.end, t.tap, 0, a->inputs);
    tile(kind, between, true, rows, vectors, a, &t, s);
    t.first += step;
  }
  if (rows == TILE_ROWS && vectors == TILE_VECTORS && kind.whole && t.first < t.end && is_staggered(a)) {
    staggered_tiles(kind, a, t);
    return;
  }
  for (; t.first < t.end; t.first += step) {
    if (rows == TILE_ROWS && t.next) fetch_share(a, &t);
    if (rows == TILE_ROWS && t.fetches_codes) fetch_next_codes(a, kind.paired, rows, t.first, t.end, t.tap, 0, a->inputs);
    tile(kind, between, false, rows, vectors, a, &t, s);
  }
}

// Nearly all work is in tiles of full size: each kind of them has a loop of its own.
TILE_INLINE void any_tiles(const int rows, const int vectors, const at_gemm *a, tile_run t, totals *s) {
  const bool whole = t.panel * AT_PANEL + (size_t)vectors * LANES <= a->outputs;
  if (rows < TILE_ROWS || vectors < TILE_VECTORS || !whole) {
    tiles_of_kind((product_kind){a->paired, a->halves, false}, false, rows, vectors, a, t, s);
  } else if (t.tap > 0 && t.tap + 1 < a->taps) {
    if (a->paired) tiles_of_kind((product_kind){.paired = true}, true, rows, vectors, a, t, s);
    else tiles_of_kind((product_kind){.paired = false}, true, rows, vectors, a, t, s);
  } else if (a->halves) {
    if (a->paired) tiles_of_kind((product_kind){true, true, true}, false, rows, vectors, a, t, s);
    else tiles_of_kind((product_kind){false, true, true}, false, rows, vectors, a, t, s);
  } else {
    if (a->paired) tiles_of_kind((product_kind){true, false, true}, false, rows, vectors, a, t, s);
    else tiles_of_kind((product_kind){false, false, true}, false, rows, vectors, a, t, s);
  }
}

// The arguments are copied: the compiler then knows that no store changes them.
#define TILES(rows, vectors)                                                                \
  TILE_CODE static void tiles_##rows##_##vectors(const at_gemm *a, tile_run t, totals *s) { \
    const at_gemm copy = *a;                                                                \
    any_tiles(rows, vectors, &copy, t, s);                                                  \
  }
typedef void (*tiles)(const at_gemm *, tile_run, totals *);

// A function for each number of rows and vectors that a tile can have.
#define EACH_OF_4(vectors) TILES(1, vectors) TILES(2, vectors) TILES(3, vectors) TILES(4, vectors)
#define EACH_OF_6(vectors) EACH_OF_4(vectors) TILES(5, vectors) TILES(6, vectors)
#define EACH_OF_8(vectors) EACH_OF_6(vectors) TILES(7, vectors) TILES(8, vectors)
#define LIST_4(vectors) tiles_1_##vectors, tiles_2_##vectors, tiles_3_##vectors, tiles_4_##vectors
#define LIST_6(vectors) LIST_4(vectors), tiles_5_##vectors, tiles_6_##vectors
#define LIST_8(vectors) LIST_6(vectors), tiles_7_##vectors, tiles_8_##vectors
#define OF_ROWS(macro, rows, vectors) macro##rows(vectors)
#define FOR_ROWS(macro, rows, vectors) OF_ROWS(macro, rows, vectors)
FOR_ROWS(EACH_OF_, TILE_ROWS, 1)
#if TILE_VECTORS == 1
static const tiles tiles_of[TILE_VECTORS][TILE_ROWS] = {{FOR_ROWS(LIST_, TILE_ROWS, 1)}};
#else
FOR_ROWS(EACH_OF_, TILE_ROWS, 2)
static const tiles tiles_of[TILE_VECTORS][TILE_ROWS] = {
  {FOR_ROWS(LIST_, TILE_ROWS, 1)}, {FOR_ROWS(LIST_, TILE_ROWS, 2)},
};
#endif

// What the run that comes after reads of weights, where it is of full width; `tiles` fetch them.
static inline void will_read(const at_gemm *a, size_t panel_end, size_t tiles, tile_run *t) {
  const size_t tap_bytes = a->inputs * AT_PANEL, panel_bytes = a->taps * tap_bytes;
  const bool is_last_tap = t->tap + 1 == a->taps;
  const size_t end = t->panel + (is_last_tap ? 2 : 1) * TILE_PANELS;
  if (a->panels * panel_bytes < FETCHED_FROM || tiles == 0 || end > panel_end) return;
  t->next = t->weights + tap_bytes + (is_last_tap ? (TILE_PANELS - 1) * panel_bytes : 0);
  t->left = tap_bytes;
  t->share = (tap_bytes / LINE + tiles - 1) / tiles * LINE;
}

#ifdef GEMM_REST
typedef struct {
  _Alignas(64) int8_t of[MOST_INPUTS * TILE_PANELS * AT_PANEL];
} joined_panels;
#endif

// The zeros of a tap's rows, as take_off has them.
static inline const int32_t *zeros_of_tap(const at_gemm *a, size_t tap, int32_t memory[AT_GEMM_ROWS]) {
  const int32_t *zeros = a->row_zero + tap * a->row_count;
#ifdef ZEROS_BY_PRODUCTS
  for (size_t i = 0; i < a->row_count; i++) memory[i] = zero_factor(zeros[i]);
  return memory;
#else
  return zeros;
#endif
}

void GEMM_NAME(const at_gemm *a) {
  totals s;
  int32_t factors[AT_GEMM_ROWS];
  // In a paired product a tile covers half as many indices as it has rows.
  const size_t indices = a->paired ? a->row_count / 2 : a->row_count;
  const size_t tile_indices = a->paired ? TILE_ROWS / 2 : TILE_ROWS;
  const size_t rest = indices % tile_indices, whole = indices - rest;
  size_t panel_end = last_panel(a);
#ifdef GEMM_REST
  joined_panels joined;
  const size_t filled = a->outputs / AT_PANEL < panel_end ? a->outputs / AT_PANEL : panel_end;
  const bool joins = whole > 0 && a->inputs <= MOST_INPUTS && filled > a->panel_begin;
  const size_t vector_end = a->panel_begin + (joins ? (filled - a->panel_begin) / PANELS_AT_ONCE * PANELS_AT_ONCE : 0);
  if (vector_end < panel_end) {
    at_gemm remainder = *a;
    remainder.panel_begin = vector_end;
    GEMM_REST(&remainder);
  }
  panel_end = vector_end;
#endif
  for (size_t panel = a->panel_begin; panel < panel_end; panel += TILE_PANELS) {
    const size_t panels = panel_end - panel < TILE_PANELS ? panel_end - panel : TILE_PANELS;
    const tiles *of_rows = tiles_of[panels / PANELS_AT_ONCE - 1];
    for (size_t tap = 0; tap < a->taps; tap++) {
      tile_run t = {.end = whole, .tap = tap, .panel = panel, .zeros = zeros_of_tap(a, tap, factors)};
      t.fetches_codes = panel == a->panel_begin && tap == 0 && a->inputs <= FETCHED_INPUTS;
      t.weights = (const int8_t *)a->weights + (panel * a->taps + tap) * a->inputs * AT_PANEL;
#ifdef GEMM_REST
      t.joined = joined.of;
#endif
      if (whole > 0) will_read(a, panel_end, whole / tile_indices - JOINS, &t);
      of_rows[TILE_ROWS - 1](a, t, &s);
      t.first = whole, t.end = indices;
      if (rest > 0) of_rows[(a->paired ? 2 * rest : rest) - 1](a, t, &s);
    }
  }
}

TILE_CODE uint32_t CEILING_NAME(size_t iterations) {
  enum { CHAINS = TILE_SUMS * TILE_VECTORS, PRODUCTS = CHAINS * ROWS_AT_ONCE * GROUP * AT_QUAD * LANES };
  _Alignas(64) const int8_t some[GROUP * AT_QUAD * LANES] = {1, 2, 3};
  const int8_t *bytes = some;
  __asm__ volatile("" : "+r"(bytes) : : "memory");
  const weights w = take_weights(bytes, GROUP);
  codes x[ROWS_AT_ONCE];
  UNROLLED for (int r = 0; r < ROWS_AT_ONCE; r++) x[r] = take_codes((const uint8_t *)bytes, STEP);
  sums sum[CHAINS];
  UNROLLED for (int i = 0; i < CHAINS; i++) sum[i] = begin(0);
  for (size_t n = 0; n < iterations * AT_CEILING_PRODUCTS / PRODUCTS; n++) {
    if (IN_STEP) {
      UNROLLED for (int i = 0; i < CHAINS; i += 2) {
        // Otherwise a compiler might take the same product once for all chains.
        __asm__ volatile("" : "+r"(bytes));
        dot_both(sum + i, sum + i + 1, bytes, bytes, (const uint8_t *)bytes);
      }
      continue;
    }
    UNROLLED for (int i = 0; i < CHAINS; i++) {
      hide(&x[0]);
      sum[i] = dot_rows(sum[i], w, x, 0);
    }
  }
  integers all_chains = total_of(sum[0], 0);
  UNROLLED for (int i = 1; i < CHAINS; i++) all_chains = add_integers(all_chains, total_of(sum[i], 0));
  return (uint32_t)sum_integers(all_chains);
}
