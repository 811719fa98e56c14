// u8 x s8 matrix product, exact for every code and weight: vpmaddubsw would saturate, so both sides are taken as s16
// and multiplied by vpmaddwd. A quad's even and odd bytes are separate multiplications: weights are split as they are
// loaded, rows once for a group of panels.
#if defined(__x86_64__)
#include "lanes.h"
#include <string.h>

enum {
  ROWS = 4, PANELS = 2, // of a tile: eight registers of sums
  GROUP = 16,           // panels that share one splitting of the rows
  CHUNK = 1024,         // inputs that are split at a time
};

typedef struct {
  _Alignas(32) uint8_t even[ROWS][CHUNK], odd[ROWS][CHUNK]; // bytes 0, 2 and 1, 3 of each quad, as two u16
  _Alignas(32) int32_t dot[GROUP][ROWS][AT_PANEL];          // of the chunks before this one
  _Alignas(32) float total[GROUP][ROWS][AT_PANEL];          // of the taps before this one
} scratch;

// One chunk of one tap for rows first_row..<first_row + ROWS or fewer.
typedef struct {
  size_t first_row, group, tap, begin, count;
} place;

KERNEL static void split_rows(const at_gemm *a, const place *p, size_t rows, scratch *s) {
  const __m256i low = _mm256_set1_epi16(0xff);
  for (size_t r = 0; r < rows; r++) {
    const uint8_t *x = (const uint8_t *)a->rows[p->tap * a->row_count + p->first_row + r] + p->begin;
    uint8_t *even = s->even[r], *odd = s->odd[r];
    size_t i = 0;
    for (; i + 32 <= p->count; i += 32) {
      const __m256i v = _mm256_loadu_si256((const __m256i *)(x + i));
      _mm256_store_si256((__m256i *)(even + i), _mm256_and_si256(v, low));
      _mm256_store_si256((__m256i *)(odd + i), _mm256_srli_epi16(v, 8));
    }
    for (; i < p->count; i += AT_QUAD) {
      uint32_t v;
      memcpy(&v, x + i, 4);
      const uint32_t evens = v & 0x00ff00ff, odds = (v >> 8) & 0x00ff00ff;
      memcpy(even + i, &evens, 4);
      memcpy(odd + i, &odds, 4);
    }
  }
}

KERNEL_INLINE __m256i broadcast_quad(const uint8_t *quad) {
  int32_t v;
  memcpy(&v, quad, 4);
  return _mm256_set1_epi32(v);
}

// dot[panel][row] += rows times weights of one chunk.
KERNEL_INLINE void multiply(const int rows, const int panels, const scratch *s, const int8_t *weights, size_t stride,
                          size_t count, __m256i dot[PANELS][ROWS]) {
  for (size_t i = 0; i < count; i += AT_QUAD) {
    __m256i even[PANELS], odd[PANELS];
    UNROLLED for (int p = 0; p < panels; p++) {
      const __m256i w = _mm256_loadu_si256((const __m256i *)(weights + (size_t)p * stride + i * AT_PANEL));
      even[p] = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
      odd[p] = _mm256_srai_epi16(w, 8);
    }
    UNROLLED for (int r = 0; r < rows; r++) {
      const __m256i x = broadcast_quad(s->even[r] + i), y = broadcast_quad(s->odd[r] + i);
      UNROLLED for (int p = 0; p < panels; p++) {
        dot[p][r] = _mm256_add_epi32(dot[p][r], _mm256_madd_epi16(even[p], x));
        dot[p][r] = _mm256_add_epi32(dot[p][r], _mm256_madd_epi16(odd[p], y));
      }
    }
  }
}

// The tap's integer sum is complete: its float term joins the total, and the last tap's total goes out.
KERNEL_INLINE void finish_tap(const int rows, const at_gemm *a, const place *p, size_t slot, scratch *s,
                            const __m256i *dot) {
  const bool last = p->tap + 1 == a->taps;
  const size_t panel = p->group + slot;
  const f8 scale = last ? load8(a->scale + panel * AT_PANEL) : all(0);
  const float *row_scale = a->row_scale + p->tap * a->row_count + p->first_row;
  UNROLLED for (int r = 0; r < rows; r++) {
    float *total = s->total[slot][r];
    f8 sum = mul(_mm256_cvtepi32_ps(dot[r]), all(row_scale[r]));
    if (p->tap > 0) sum = add(load8(total), sum);
    if (last) store_panel(a, p->first_row + (size_t)r, panel, mul(sum, scale));
    else store8(total, sum);
  }
}

KERNEL_INLINE void tile(const int rows, const int panels, const at_gemm *a, const place *p, size_t slot, scratch *s) {
  __m256i dot[PANELS][ROWS];
  const size_t panel = p->group + slot;
  if (p->begin == 0) {
    const int32_t *zero = a->row_zero + p->tap * a->row_count + p->first_row;
    UNROLLED for (int i = 0; i < panels; i++) {
      const int32_t *sums = a->sum + (p->tap * a->panels + panel + (size_t)i) * AT_PANEL;
      const __m256i sum = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_loadu_si256((const __m256i *)sums));
      UNROLLED for (int r = 0; r < rows; r++) dot[i][r] = _mm256_mullo_epi32(_mm256_set1_epi32(zero[r]), sum);
    }
  } else {
    UNROLLED for (int i = 0; i < panels; i++) {
      UNROLLED for (int r = 0; r < rows; r++) dot[i][r] = _mm256_load_si256((__m256i *)s->dot[slot + (size_t)i][r]);
    }
  }
  const size_t stride = a->taps * a->inputs * AT_PANEL;
  const int8_t *weights = (const int8_t *)a->weights + panel * stride + (p->tap * a->inputs + p->begin) * AT_PANEL;
  multiply(rows, panels, s, weights, stride, p->count, dot);
  const bool complete = p->begin + p->count == a->inputs;
  UNROLLED for (int i = 0; i < panels; i++) {
    if (complete) {
      finish_tap(rows, a, p, slot + (size_t)i, s, dot[i]);
    } else {
      UNROLLED for (int r = 0; r < rows; r++) _mm256_store_si256((__m256i *)s->dot[slot + (size_t)i][r], dot[i][r]);
    }
  }
}

#define TILES(rows)                                                                                                  \
  KERNEL static void tiles_of_##rows(const at_gemm *a, const place *p, size_t panels, scratch *s) {                    \
    size_t slot = 0;                                                                                                 \
    for (; slot + PANELS <= panels; slot += PANELS) tile(rows, PANELS, a, p, slot, s);                               \
    for (; slot < panels; slot++) tile(rows, 1, a, p, slot, s);                                                      \
  }
TILES(1) TILES(2) TILES(3) TILES(4)

static void (*const tiles[ROWS])(const at_gemm *, const place *, size_t, scratch *) = {
    tiles_of_1, tiles_of_2, tiles_of_3, tiles_of_4};

void KERNEL_NAME(gemm_int8)(const at_gemm *a) {
  scratch s;
  const size_t panel_end = last_panel(a);
  for (size_t group = a->panel_begin; group < panel_end; group += GROUP) {
    const size_t panels = panel_end - group < GROUP ? panel_end - group : GROUP;
    for (size_t first_row = 0; first_row < a->row_count; first_row += ROWS) {
      const size_t rows = a->row_count - first_row < ROWS ? a->row_count - first_row : ROWS;
      for (size_t tap = 0; tap < a->taps; tap++) {
        size_t begin = 0;
        do { // once even where there are no inputs
          const place p = {first_row, group, tap, begin, a->inputs - begin < CHUNK ? a->inputs - begin : CHUNK};
          split_rows(a, &p, rows, &s);
          tiles[rows - 1](a, &p, panels, &s);
          begin += p.count;
        } while (begin < a->inputs);
      }
    }
  }
}
#endif
