// Whole tiles of a linear layer whose rows end one after the other. Part of gemm_int8.h.
//
// What ends a row is no product of codes, and a processor that looks past few instructions does not find the next tile's
// products behind the ends of eight rows. So each row of a tile, or in a paired product each with the one paired with it,
// begins a share of the inputs later than the row before: the end of one is then among products of all others. The last
// tile's rows have taken the inputs that they are late for at the beginning, while the first tile's were not all there.
enum { MOST_TOGETHER = 2, STAGGERED_INPUTS = 2048 };
_Static_assert(JOINS && STEP == 1 && ROWS_AT_ONCE == 1 && !IN_STEP, "");

// Beside the products of more inputs ends take little time, and shares of them are so long that processors do not
// foresee where they end.
TILE_INLINE bool is_staggered(const at_gemm *a) { return a->taps == 1 && a->inputs <= STAGGERED_INPUTS; }

// Rows that begin and end together.
typedef struct {
  const uint8_t *x[MOST_TOGETHER];
  sums sum[TILE_VECTORS][TILE_SUMS]; // of these rows
} staggered_rows;

TILE_INLINE int rows_together(const product_kind kind) { return kind.paired ? 2 : 1; }

TILE_INLINE void begin_rows(const product_kind kind, const at_gemm *a, size_t first, staggered_rows *s) {
  size_t index[MOST_TOGETHER];
  rows_of_tile(a, kind.paired, rows_together(kind), first, index);
  UNROLLED for (int r = 0; r < rows_together(kind); r++) {
    s->x[r] = a->rows[index[r]];
    UNROLLED for (int v = 0; v < TILE_VECTORS; v++) s->sum[v][r] = begin(a->inputs);
  }
}

TILE_INLINE void fetch_for_rows(const product_kind kind, const at_gemm *a, const tile_run *t, size_t first, size_t next) {
  const int rows = rows_together(kind);
  size_t index[MOST_TOGETHER];
  void *out[MOST_TOGETHER];
  rows_of_tile(a, kind.paired, rows, first, index);
  result_rows(kind, rows, a, index, out);
  fetch_results(kind, rows, out, t->panel, TILE_VECTORS * LANES);
  if (!t->fetches_codes || next >= t->end) return;
  rows_of_tile(a, kind.paired, rows, next, index);
  fetch_codes(a, rows, index, t->tap, 0, a->inputs);
}

TILE_INLINE void end_rows(const product_kind kind, const at_gemm *a, const tile_run *t, size_t first,
                          const offsets weight_sum[TILE_VECTORS], const staggered_rows *s) {
  const int rows = rows_together(kind);
  size_t index[MOST_TOGETHER];
  void *out[MOST_TOGETHER];
  rows_of_tile(a, kind.paired, rows, first, index);
  result_rows(kind, rows, a, index, out);
  floats y[TILE_VECTORS][TILE_ROWS];
  scale_sums(rows, TILE_VECTORS, a, index, t, weight_sum, s->sum, y);
  finish(kind, rows, TILE_VECTORS, a, index, out, t->panel, y);
}

TILE_INLINE void staggered_tiles(const product_kind kind, const at_gemm *a, tile_run t) {
  const int together = rows_together(kind), ends = TILE_ROWS / together;
  const size_t quads = a->inputs / AT_QUAD, step = (size_t)ends, last = t.end - step;
  offsets weight_sum[TILE_VECTORS];
  weight_sums(TILE_VECTORS, a, &t, weight_sum);
  staggered_rows rows[TILE_ROWS], early[TILE_ROWS];
  UNROLLED for (int e = 0; e < ends; e++) begin_rows(kind, a, last + (size_t)e, &rows[e]);
  for (size_t first = t.first; first < t.end; first += step) {
    if (t.next) fetch_share(a, &t);
    UNROLLED for (int e = 0; e < ends; e++) {
      const size_t row = first + (size_t)e;
      if (first == t.first) early[e] = rows[e];
      else end_rows(kind, a, &t, row - step, weight_sum, &rows[e]);
      begin_rows(kind, a, row, &rows[e]);
      fetch_for_rows(kind, a, &t, row, row + step);
      const size_t end = quads * (size_t)(e + 1) / (size_t)ends;
      _Pragma("clang loop unroll(disable)") for (size_t i = quads * (size_t)e / (size_t)ends; i < end; i++) {
        weights w[TILE_VECTORS];
        UNROLLED for (int v = 0; v < TILE_VECTORS; v++)
          w[v] = take_weights(t.joined + (i * TILE_VECTORS + (size_t)v) * LANES * AT_QUAD, 1);
        UNROLLED for (int o = 0; o < ends; o++) {
          UNROLLED for (int r = 0; r < together; r++) {
            const codes c = take_codes(rows[o].x[r] + i * AT_QUAD, 1);
            UNROLLED for (int v = 0; v < TILE_VECTORS; v++) rows[o].sum[v][r] = dot(rows[o].sum[v][r], w[v], c, 0);
          }
        }
      }
    }
  }
  UNROLLED for (int e = 0; e < ends; e++) {
    UNROLLED for (int r = 0; r < together; r++) {
      UNROLLED for (int v = 0; v < TILE_VECTORS; v++)
        rows[e].sum[v][r] = add_integers(rows[e].sum[v][r], early[e].sum[v][r]);
    }
    end_rows(kind, a, &t, last + (size_t)e, weight_sum, &rows[e]);
  }
}
