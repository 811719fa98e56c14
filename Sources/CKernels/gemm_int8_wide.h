// u8 x s8 matrix product for weights of any code, where bytes are multiplied fast only if sums of two fit sixteen bits.
// Codes, less their row's zero, and weights are widened to s16 and multiplied in pairs. To widen them for each tile takes
// a fifth of its time, so both are widened once for many: weights for all rows, codes for all panels of a run, which is
// some panels by some inputs.
// Included once, after its lanes and a file's
//   GEMM_NAME
//   TILE_VECTORS                                     of a tile of TILE_ROWS rows, whose sums stay in registers: 1 or 2
//   pairs8 widen_weights(const int8_t *, int half)   the even or the odd bytes of a panel's quad, as pairs
//   void split_codes(const uint8_t *, shorts *even, shorts *odd)   of BLOCK_CODES codes
#include "lanes.h"
#include "gemm_tiles.h"

#if TILE_VECTORS != 1 && TILE_VECTORS != 2
#error "TILE_VECTORS must be 1 or 2"
#endif
enum {
  TILE_ROWS = 6,
  HALVES = 2,       // of a quad
  BLOCK_CODES = 32, // whose halves fill a vector each
  RUN_INPUTS = 320,
  RUN_PANELS = 16,
  RUN_TILES = RUN_PANELS / TILE_VECTORS, // side by side
  HALF_BYTES = LANES * 2 * sizeof(int16_t),
};
_Static_assert(TILE_ROWS <= MOST_TILE_ROWS, "");

// A row's codes less its zero, as pairs: of even bytes, of odd ones.
typedef int16_t wide_row[HALVES][RUN_INPUTS / HALVES];

// Panels from `panel` on, inputs from `input` on, of one tap, by the rows first..<end.
typedef struct {
  size_t first, end, tap;
  size_t panel, tiles;
  size_t input, inputs;
  const int8_t *weights; // of the file: the first panel's at that tap and input
  int8_t *wide;          // [tile][quad][half][vector][LANES][2], to be written by the first tile of rows; or NULL
  const int8_t *next;    // what is read after these weights, for each tile of rows to fetch a share of; or NULL
  size_t share, left;    // of a panel, in bytes; all that is to be fetched of one
} run;

// [row][vector][lane]: sums over the inputs of the tap so far, and what the taps so far add up to.
typedef struct {
  _Alignas(LINE) int32_t sum[AT_GEMM_ROWS][RUN_PANELS][LANES];
  float total[AT_GEMM_ROWS][RUN_PANELS][LANES];
} memory;

typedef enum { AS_THEY_LIE, TO_WIDEN, WIDENED } weights_state;

KERNEL_INLINE void widen_codes(const uint8_t *x, size_t inputs, int32_t zero, wide_row to) {
  const shorts zeros_of_row = all_shorts((int16_t)zero);
  size_t i = 0;
  for (; i + BLOCK_CODES <= inputs; i += BLOCK_CODES) {
    shorts even, odd;
    split_codes(x + i, &even, &odd);
    store_shorts(to[0] + i / HALVES, subtract_shorts(even, zeros_of_row));
    store_shorts(to[1] + i / HALVES, subtract_shorts(odd, zeros_of_row));
  }
  for (; i < inputs; i++) to[i % HALVES][i / HALVES] = (int16_t)(x[i] - zero);
}

// Adds the products of a tile's rows and vectors. `raw` are the first vector's weights, `wide` is where those of all are,
// or go, when widened.
KERNEL_INLINE void multiply(const weights_state state, const int rows, const int vectors, size_t panel_bytes,
                            size_t inputs, const wide_row *x, const int8_t *raw, int8_t *wide,
                            integers sum[TILE_ROWS][TILE_VECTORS]) {
  _Pragma("clang loop unroll(disable)") for (size_t quad = 0; quad < inputs / AT_QUAD; quad++) {
    UNROLLED for (int half = 0; half < HALVES; half++) {
      pairs8 w[TILE_VECTORS];
      UNROLLED for (int v = 0; v < vectors; v++) {
        if (state == WIDENED) w[v] = load_pairs((const int16_t *)(wide + v * HALF_BYTES));
        else w[v] = widen_weights(raw + (size_t)v * panel_bytes, half);
        if (state == TO_WIDEN) store_shorts((int16_t *)(wide + v * HALF_BYTES), w[v]);
      }
      if (state != AS_THEY_LIE) wide += vectors * HALF_BYTES;
      UNROLLED for (int r = 0; r < rows; r++) add_products_each(vectors, sum[r], w, x[r][half] + 2 * quad);
    }
    raw += AT_PANEL * AT_QUAD;
  }
}

// What the tap gives: its sums times the row's scale, added to those of the taps before.
KERNEL_INLINE floats add_tap(const at_gemm *a, const run *t, size_t row, integers sum, const float *total) {
  const floats term = mul(to_float(sum), all(a->row_scale[t->tap * a->row_count + row]));
  return t->tap > 0 ? add(load_floats(total), term) : term;
}

KERNEL_INLINE void tile(const product_kind kind, const weights_state state, const int rows, const int vectors,
                        const at_gemm *a, const run *t, memory *m) {
  size_t index[TILE_ROWS];
  rows_of_tile(a, kind.paired, rows, t->first, index);
  _Alignas(LINE) wide_row x[TILE_ROWS];
  UNROLLED for (int r = 0; r < rows; r++) {
    const size_t entry = t->tap * a->row_count + index[r];
    widen_codes((const uint8_t *)a->rows[entry] + t->input, t->inputs, a->row_zero[entry], x[r]);
  }
  const bool ends_tap = t->input + t->inputs == a->inputs, ends = ends_tap && t->tap + 1 == a->taps;
  void *out[TILE_ROWS];
  if (ends) result_rows(kind, rows, a, index, out);
  const size_t panel_bytes = a->taps * a->inputs * AT_PANEL, wide_bytes = t->inputs * LANES * sizeof(int16_t);
  for (size_t i = 0; i < t->tiles; i++) {
    const size_t place = i * TILE_VECTORS, panel = t->panel + place;
    if (ends) fetch_results(kind, rows, out, panel, (size_t)vectors * LANES);
    integers sum[TILE_ROWS][TILE_VECTORS];
    UNROLLED for (int r = 0; r < rows; r++) {
      UNROLLED for (int v = 0; v < vectors; v++) {
        sum[r][v] = t->input > 0 ? load_integers(m->sum[index[r]][place + v]) : zeros();
      }
    }
    int8_t *wide = state == AS_THEY_LIE ? NULL : t->wide + place * wide_bytes;
    multiply(state, rows, vectors, panel_bytes, t->inputs, x, t->weights + place * panel_bytes, wide, sum);
    if (!ends_tap) {
      UNROLLED for (int r = 0; r < rows; r++) {
        UNROLLED for (int v = 0; v < vectors; v++) store_integers(m->sum[index[r]][place + v], sum[r][v]);
      }
      continue;
    }
    UNROLLED for (int v = 0; v < vectors; v++) {
      const size_t output = (panel + (size_t)v) * AT_PANEL;
      floats y[TILE_ROWS];
      UNROLLED for (int r = 0; r < rows; r++) {
        y[r] = add_tap(a, t, index[r], sum[r][v], m->total[index[r]][place + v]);
      }
      if (!ends) {
        UNROLLED for (int r = 0; r < rows; r++) store_floats(m->total[index[r]][place + v], y[r]);
        continue;
      }
      const floats scale = load_floats(a->scale + output);
      UNROLLED for (int r = 0; r < rows; r++) y[r] = mul(y[r], scale);
      store_rows(kind, rows, a, index, out, panel + (size_t)v, y);
    }
  }
}

// To the second cache: what is multiplied by next.
KERNEL_INLINE void fetch_share(const at_gemm *a, const int vectors, run *t) {
  const size_t panel_bytes = a->taps * a->inputs * AT_PANEL;
  const size_t share = t->share < t->left ? t->share : t->left;
  for (size_t p = 0; p < t->tiles * (size_t)vectors; p++) {
    for (size_t at = 0; at < share; at += LINE) __builtin_prefetch(t->next + p * panel_bytes + at, 0, 2);
  }
  t->next += share;
  t->left -= share;
}

KERNEL_INLINE void tiles_of_kind(const product_kind kind, const bool widens, const int rows, const int vectors,
                                 const at_gemm *a, run t, memory *m) {
  const size_t step = (size_t)(kind.paired ? rows / 2 : rows);
  const bool fetches_codes = rows == TILE_ROWS && t.panel == a->panel_begin;
  if (widens && rows == TILE_ROWS && t.first == 0) {
    if (fetches_codes) fetch_next_codes(a, kind.paired, rows, 0, t.end, t.tap, t.input, t.inputs);
    tile(kind, TO_WIDEN, rows, vectors, a, &t, m);
    t.first += step;
  }
  for (; t.first < t.end; t.first += step) {
    if (rows == TILE_ROWS && t.next) fetch_share(a, vectors, &t);
    if (fetches_codes) fetch_next_codes(a, kind.paired, rows, t.first, t.end, t.tap, t.input, t.inputs);
    tile(kind, widens ? WIDENED : AS_THEY_LIE, rows, vectors, a, &t, m);
  }
}

// Nearly all work is in tiles of full size: each kind of them has a loop of its own.
KERNEL_INLINE void any_tiles(const int rows, const int vectors, const at_gemm *a, run t, memory *m) {
  const bool whole = (t.panel + t.tiles * (size_t)vectors) * AT_PANEL <= a->outputs;
  if (!t.wide) {
    tiles_of_kind((product_kind){a->paired, a->halves, false}, false, rows, vectors, a, t, m);
  } else if (rows < TILE_ROWS || vectors < TILE_VECTORS || !whole) {
    tiles_of_kind((product_kind){a->paired, a->halves, false}, true, rows, vectors, a, t, m);
  } else if (a->halves) {
    if (a->paired) tiles_of_kind((product_kind){true, true, true}, true, rows, vectors, a, t, m);
    else tiles_of_kind((product_kind){false, true, true}, true, rows, vectors, a, t, m);
  } else {
    if (a->paired) tiles_of_kind((product_kind){true, false, true}, true, rows, vectors, a, t, m);
    else tiles_of_kind((product_kind){false, false, true}, true, rows, vectors, a, t, m);
  }
}

// The arguments are copied: the compiler then knows that no store changes them.
#define TILES(rows, vectors)                                                        \
  KERNEL static void tiles_##rows##_##vectors(const at_gemm *a, run t, memory *m) { \
    const at_gemm copy = *a;                                                        \
    any_tiles(rows, vectors, &copy, t, m);                                          \
  }
typedef void (*tiles)(const at_gemm *, run, memory *);

// A function for each number of rows and vectors that a tile can have.
#define TILES_OF(vectors) \
  TILES(1, vectors) TILES(2, vectors) TILES(3, vectors) TILES(4, vectors) TILES(5, vectors) TILES(6, vectors)
TILES_OF(1)
#if TILE_VECTORS == 2
TILES_OF(2)
#endif
static const tiles tiles_of[TILE_VECTORS][TILE_ROWS] = {
  {tiles_1_1, tiles_2_1, tiles_3_1, tiles_4_1, tiles_5_1, tiles_6_1},
#if TILE_VECTORS == 2
  {tiles_1_2, tiles_2_2, tiles_3_2, tiles_4_2, tiles_5_2, tiles_6_2},
#endif
};

// What the run that comes after reads of weights, where it has as many panels; `tiles` of rows fetch them.
static inline void will_read(const at_gemm *a, size_t panels, size_t panel_end, size_t tiles, run *t) {
  const size_t panel_bytes = a->taps * a->inputs * AT_PANEL, left = a->inputs - t->input - t->inputs;
  const bool is_last = left == 0 && t->tap + 1 == a->taps;
  if (a->panels * panel_bytes < FETCHED_FROM || tiles == 0 || (is_last && t->panel + 2 * panels > panel_end)) return;
  const size_t following = left > 0 ? left : a->inputs;
  t->next = t->weights + t->inputs * AT_PANEL + (is_last ? (panels - 1) * panel_bytes : 0);
  t->left = (following < RUN_INPUTS ? following : RUN_INPUTS) * AT_PANEL;
  t->share = (t->left / LINE + tiles - 1) / tiles * LINE;
}

void GEMM_NAME(const at_gemm *a) {
  memory m;
  _Alignas(LINE) int8_t wide[RUN_TILES * RUN_INPUTS / AT_QUAD * HALVES * TILE_VECTORS * HALF_BYTES];
  // In a paired product a tile covers half as many indices as it has rows.
  const size_t indices = a->paired ? a->row_count / 2 : a->row_count;
  const size_t tile_indices = a->paired ? TILE_ROWS / 2 : TILE_ROWS;
  const size_t rest = indices % tile_indices, whole = indices - rest;
  const size_t panel_end = last_panel(a);
  for (size_t panel = a->panel_begin, panels; panel < panel_end; panel += panels) {
    const size_t left = panel_end - panel, vectors = left < TILE_VECTORS ? left : TILE_VECTORS;
    panels = left < RUN_PANELS ? left / vectors * vectors : RUN_PANELS;
    for (size_t tap = 0; tap < a->taps; tap++) {
      for (size_t input = 0; input < a->inputs; input += RUN_INPUTS) {
        run t = {.end = whole, .tap = tap, .panel = panel, .tiles = panels / vectors, .input = input};
        t.inputs = a->inputs - input < RUN_INPUTS ? a->inputs - input : RUN_INPUTS;
        t.weights = (const int8_t *)a->weights + ((panel * a->taps + tap) * a->inputs + input) * AT_PANEL;
        if (whole > 0) {
          t.wide = wide;
          will_read(a, panels, panel_end, whole / tile_indices - 1, &t);
          tiles_of[vectors - 1][TILE_ROWS - 1](a, t, &m);
        }
        t.first = whole, t.end = indices;
        if (rest > 0) tiles_of[vectors - 1][(a->paired ? 2 * rest : rest) - 1](a, t, &m);
      }
    }
  }
}
