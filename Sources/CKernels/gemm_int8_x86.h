// u8 x s8 matrix product in tiles of four rows and two panels, whose sums stay in eight registers. Included once for each
// way of multiplying, which says what GEMM_NAME and GEMM_TARGET are and defines
//   operand                                 what a quad of eight outputs, or of one row, is multiplied as
//   operand take_weights(const int8_t *)    [8][4]
//   operand take_codes(const uint8_t *)     a quad, for all eight outputs
//   __m256i dot(__m256i, operand, operand)  the first plus eight dot products of quads
//   void hide(operand *)                    makes the compiler forget what is in it
// A pair of panels is taken through all rows before the next: its weights stay in the first cache and are read from the
// file once.

enum { TILE_ROWS = 4, TILE_PANELS = 2 };

#define TILE __attribute__((target(GEMM_TARGET)))
#define TILE_INLINE static inline __attribute__((target(GEMM_TARGET), always_inline))

TILE_INLINE void multiply(const int rows, const int panels, const at_gemm *a, const size_t *index, size_t tap,
                          size_t panel, __m256i sum[TILE_PANELS][TILE_ROWS]) {
  const size_t stride = a->taps * a->inputs * AT_PANEL;
  const int8_t *weights = (const int8_t *)a->weights + panel * stride + tap * a->inputs * AT_PANEL;
  const uint8_t *x[TILE_ROWS];
  UNROLLED for (int r = 0; r < rows; r++) x[r] = a->rows[tap * a->row_count + index[r]];
  UNROLLED for (int p = 0; p < panels; p++) {
    UNROLLED for (int r = 0; r < rows; r++) sum[p][r] = _mm256_setzero_si256();
  }
  for (size_t i = 0; i < a->inputs; i += AT_QUAD) {
    operand w[TILE_PANELS];
    UNROLLED for (int p = 0; p < panels; p++) w[p] = take_weights(weights + (size_t)p * stride + i * AT_PANEL);
    UNROLLED for (int r = 0; r < rows; r++) {
      const operand codes = take_codes(x[r] + i);
      UNROLLED for (int p = 0; p < panels; p++) sum[p][r] = dot(sum[p][r], w[p], codes);
    }
  }
}

// The float terms of one tap for the rows of a tile: (sum - zero * sum of the weights) * the row's scale.
TILE_INLINE void scale_sums(const int rows, const int panels, const at_gemm *a, const size_t *index, size_t tap,
                            size_t panel, __m256i sum[TILE_PANELS][TILE_ROWS], f8 term[TILE_PANELS][TILE_ROWS]) {
  UNROLLED for (int p = 0; p < panels; p++) {
    const int32_t *sums = a->sum + (tap * a->panels + panel + (size_t)p) * AT_PANEL;
    const __m256i weight_sum = _mm256_loadu_si256((const __m256i *)sums);
    UNROLLED for (int r = 0; r < rows; r++) {
      const size_t at = tap * a->row_count + index[r];
      const __m256i offset = _mm256_mullo_epi32(_mm256_set1_epi32(a->row_zero[at]), weight_sum);
      term[p][r] = mul(_mm256_cvtepi32_ps(_mm256_sub_epi32(sum[p][r], offset)), all(a->row_scale[at]));
    }
  }
}

TILE_INLINE void finish(const int rows, const int panels, const at_gemm *a, const size_t *index, size_t panel,
                        f8 total[TILE_PANELS][TILE_ROWS]) {
  UNROLLED for (int p = 0; p < panels; p++) {
    const f8 scale = load8(a->scale + (panel + (size_t)p) * AT_PANEL);
    UNROLLED for (int r = 0; r < rows; r++) total[p][r] = mul(total[p][r], scale);
    store_rows(rows, a, index, panel + (size_t)p, total[p]);
  }
}

// The results' lines of the cache come while the tile is computed.
TILE_INLINE void fetch_results(const int rows, const at_gemm *a, const size_t *index, size_t panel) {
  UNROLLED for (int r = 0; r < rows; r++) {
    const bool second = a->paired && r >= rows / 2;
    const size_t row = second ? index[r] - a->row_count / 2 : index[r];
    __builtin_prefetch((second ? a->pair_out : a->out) + row * a->out_stride + panel * AT_PANEL, 1, 3);
  }
}

// [row][panel][8]: what the taps so far add up to.
typedef struct {
  _Alignas(32) float of[AT_GEMM_ROWS][TILE_PANELS][AT_PANEL];
} totals;

TILE_INLINE void tile(const int rows, const int panels, const at_gemm *a, size_t first, size_t tap, size_t panel,
                      totals *s) {
  size_t index[TILE_ROWS];
  rows_of_tile(a, rows, first, index);
  if (tap + 1 == a->taps) fetch_results(rows, a, index, panel);
  __m256i sum[TILE_PANELS][TILE_ROWS];
  f8 total[TILE_PANELS][TILE_ROWS];
  multiply(rows, panels, a, index, tap, panel, sum);
  scale_sums(rows, panels, a, index, tap, panel, sum, total);
  UNROLLED for (int p = 0; p < panels; p++) {
    UNROLLED for (int r = 0; r < rows; r++) {
      if (tap > 0) total[p][r] = add(load8(s->of[index[r]][p]), total[p][r]);
    }
  }
  if (tap + 1 == a->taps) {
    finish(rows, panels, a, index, panel, total);
    return;
  }
  UNROLLED for (int p = 0; p < panels; p++) {
    UNROLLED for (int r = 0; r < rows; r++) store8(s->of[index[r]][p], total[p][r]);
  }
}

#define TILES(rows, panels)                                                                                            \
  TILE static void tiles_##rows##_##panels(const at_gemm *a, size_t begin, size_t end, size_t tap, size_t panel,       \
                                           totals *s) {                                                                \
    const size_t step = a->paired ? rows / 2 : rows;                                                                   \
    for (size_t first = begin; first < end; first += step) tile(rows, panels, a, first, tap, panel, s);                \
  }
TILES(4, 2) TILES(3, 2) TILES(2, 2) TILES(1, 2)
TILES(4, 1) TILES(3, 1) TILES(2, 1) TILES(1, 1)

typedef void (*tiles)(const at_gemm *, size_t, size_t, size_t, size_t, totals *);
static const tiles tiles_of_rows[TILE_PANELS][TILE_ROWS] = {{tiles_1_1, tiles_2_1, tiles_3_1, tiles_4_1},
                                                            {tiles_1_2, tiles_2_2, tiles_3_2, tiles_4_2}};

void GEMM_NAME(const at_gemm *a) {
  totals s;
  // In a paired product a tile of two rows covers one index, a tile of four covers two.
  const size_t indices = a->paired ? a->row_count / 2 : a->row_count;
  const size_t tile_indices = a->paired ? TILE_ROWS / 2 : TILE_ROWS;
  const size_t rest = indices % tile_indices, whole = indices - rest;
  const size_t panel_end = last_panel(a);
  for (size_t panel = a->panel_begin; panel < panel_end; panel += TILE_PANELS) {
    const tiles *of_rows = tiles_of_rows[panel + 1 < panel_end];
    for (size_t tap = 0; tap < a->taps; tap++) {
      of_rows[TILE_ROWS - 1](a, 0, whole, tap, panel, &s);
      if (rest > 0) of_rows[(a->paired ? 2 * rest : rest) - 1](a, whole, indices, tap, panel, &s);
    }
  }
}

TILE uint32_t CEILING_NAME(size_t iterations) {
  const int8_t bytes[32] = {1, 2, 3};
  operand w = take_weights(bytes), x = take_codes((const uint8_t *)bytes);
  enum { CHAINS = AT_CEILING_PRODUCTS / 32 };
  __m256i sum[CHAINS];
  UNROLLED for (int i = 0; i < CHAINS; i++) sum[i] = _mm256_setzero_si256();
  for (size_t n = 0; n < iterations; n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) {
      hide(&x);
      sum[i] = dot(sum[i], w, x);
    }
  }
  UNROLLED for (int i = 1; i < CHAINS; i++) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
  return (uint32_t)sum_integers(sum[0]);
}
