// A 3x3 convolution by Winograd's F(4x4, 3x3): a quarter of the products. Lanes are channels of the inputs, and then
// outputs; pairs of inputs are multiplied by one instruction.
#pragma once
#include "lanes.h"
#include "results.h"

enum { SIDE = 6, CORE = 4, TAPS = 9 }; // of a tile of inputs, of outputs; of a kernel

KERNEL_INLINE size_t chunk_width(const at_winograd *a, size_t first) {
  const size_t left = a->product.inputs - first;
  return left < AT_WINOGRAD_CHANNELS ? left : AT_WINOGRAD_CHANNELS;
}

// Oracle.winogradInput
KERNEL_INLINE void transform_input(const floats d[SIDE], floats v[SIDE]) {
  const floats even = sub(d[4], mul(all(4), d[2])), odd = sub(d[3], mul(all(4), d[1]));
  const floats near_even = sub(d[4], d[2]), near_odd = mul(all(2), sub(d[3], d[1]));
  v[0] = add(mul(all(4), sub(d[0], d[2])), near_even);
  v[1] = add(even, odd);
  v[2] = sub(even, odd);
  v[3] = add(near_even, near_odd);
  v[4] = sub(near_even, near_odd);
  v[5] = sub(sub(d[5], d[3]), mul(all(2), near_odd));
}

// Oracle.winogradWeights
KERNEL_INLINE void transform_weights(const shorts g[3], shorts u[SIDE]) {
  const shorts ends = add_shorts(g[0], g[2]), twice = add_shorts(g[2], g[2]), middle = add_shorts(g[1], g[1]);
  const shorts far = add_shorts(g[0], add_shorts(twice, twice));
  u[0] = g[0];
  u[1] = add_shorts(ends, g[1]);
  u[2] = subtract_shorts(ends, g[1]);
  u[3] = add_shorts(far, middle);
  u[4] = subtract_shorts(far, middle);
  u[5] = g[2];
}

// Oracle.winogradOutput
KERNEL_INLINE void transform_output(const floats m[SIDE], floats y[CORE]) {
  const floats near_sum = add(m[1], m[2]), near_difference = sub(m[1], m[2]);
  const floats far_sum = add(m[3], m[4]), far_difference = sub(m[3], m[4]);
  y[0] = add(add(m[0], near_sum), far_sum);
  y[1] = add(near_difference, mul(all(2), far_difference));
  y[2] = add(near_sum, mul(all(4), far_sum));
  y[3] = add(add(near_difference, mul(all(8), far_difference)), m[5]);
}

static const float side_factor[SIDE] = {0.25f, -1.0f / 6, -1.0f / 6, 1.0f / 24, 1.0f / 24, 1};
static const float side_growth[SIDE] = {1, 3, 3, 7, 7, 1};

// The transformed inputs of a tile, f32 [place][channel].
typedef struct {
  _Alignas(64) float of[SIDE * SIDE][AT_WINOGRAD_CHANNELS];
} places;

KERNEL_INLINE void transform_tile(const at_gemm *p, size_t tile, size_t first, size_t width, places *v) {
  const uint8_t *x[SIDE * SIDE];
  float scale[SIDE * SIDE];
  int32_t zero[SIDE * SIDE];
  for (size_t i = 0; i < SIDE * SIDE; i++) {
    const size_t at = i * p->row_count + tile;
    x[i] = (const uint8_t *)p->rows[at] + first;
    scale[i] = p->row_scale[at];
    zero[i] = p->row_zero[at];
  }
  for (size_t c = 0; c < width; c += LANES) {
    floats columns[SIDE][SIDE]; // [column][place along it]
    UNROLLED for (int j = 0; j < SIDE; j++) {
      floats d[SIDE];
      UNROLLED for (int i = 0; i < SIDE; i++) {
        const int at = i * SIDE + j;
        d[i] = mul(to_float(load_codes(x[at] + c, zero[at])), all(scale[at]));
      }
      transform_input(d, columns[j]);
    }
    UNROLLED for (int i = 0; i < SIDE; i++) {
      floats d[SIDE], out[SIDE];
      UNROLLED for (int j = 0; j < SIDE; j++) d[j] = columns[j][i];
      transform_input(d, out);
      UNROLLED for (int j = 0; j < SIDE; j++) store_floats(v->of[i * SIDE + j] + c, out[j]);
    }
  }
}

// Sixteen sums, to be added up as the oracle does.
enum { SUM_VECTORS = 16 / LANES };

enum { CODED_PLACES = 4 }; // in step: sums of one place alone are a chain too long for a processor to look past

// Codes some places of a tile, from the `first`th on: each has its own of `codes` and of `steps`.
KERNEL_INLINE void code_places(const places *v, size_t first, size_t width, int16_t *const *codes, float *steps) {
  floats sum[CODED_PLACES][SUM_VECTORS], greatest[CODED_PLACES], inverse[CODED_PLACES];
#define EACH UNROLLED for (size_t p = 0; p < CODED_PLACES; p++)
  EACH {
    greatest[p] = all(0);
    UNROLLED for (int j = 0; j < SUM_VECTORS; j++) sum[p][j] = all(0);
  }
  for (size_t c = 0; c < width; c += 16) {
    EACH UNROLLED for (int j = 0; j < SUM_VECTORS; j++) {
      const floats size = magnitude(load_floats(v->of[first + p] + c + LANES * j));
      sum[p][j] = add(sum[p][j], size);
      greatest[p] = greater(size, greatest[p]);
    }
  }
  EACH {
    const float growth = side_growth[(first + p) / SIDE] * side_growth[(first + p) % SIDE];
    const float by_sum = sum_of_sixteen(sum[p]) * (growth * 0x1p-24f), by_greatest = greatest_lane(greatest[p]) / 32767;
    const float step = by_sum > by_greatest ? by_sum : by_greatest;
    const bool usable = step > 1e-30f;
    inverse[p] = all(usable ? 1 / step : 0);
    steps[p] = usable ? step : 0;
  }
  for (size_t c = 0; c < width; c += 2 * LANES) {
    EACH {
      // The lines of the tile that comes next, which another thread may have had.
      __builtin_prefetch(codes[p] + width + c, 1, 3);
      const float *of = v->of[first + p] + c;
      const floats low = add(mul(load_floats(of), inverse[p]), all(rounding_magic));
      const floats high = add(mul(load_floats(of + LANES), inverse[p]), all(rounding_magic));
      store_shorts(codes[p] + c, narrow(integers_of(low), integers_of(high)));
    }
  }
#undef EACH
}

KERNEL void KERNEL_NAME(winograd_inputs)(const at_winograd *a) {
  const at_gemm product = a->product, *p = &product;
  const size_t tiles = p->row_count;
  places v;
  for (size_t tile = a->tile_begin; tile < a->tile_end; tile++) {
    for (size_t first = 0; first < p->inputs; first += AT_WINOGRAD_CHANNELS) {
      const size_t width = chunk_width(a, first);
      transform_tile(p, tile, first, width, &v);
      float *steps = a->steps + SIDE * SIDE * tiles * (first / AT_WINOGRAD_CHANNELS) + tile;
      for (size_t place = 0; place < SIDE * SIDE; place += CODED_PLACES) {
        int16_t *codes[CODED_PLACES];
        float step[CODED_PLACES];
        UNROLLED for (size_t i = 0; i < CODED_PLACES; i++)
          codes[i] = a->codes + at_winograd_place(tiles, p->inputs, first, place + i) + tile * width;
        code_places(&v, place, width, codes, step);
        UNROLLED for (size_t i = 0; i < CODED_PLACES; i++)
          steps[(place + i) * tiles] = step[i] * side_factor[(place + i) / SIDE] * side_factor[(place + i) % SIDE];
      }
    }
  }
}

// What the products of a run of outputs need of memory.
typedef struct {
  int16_t *weights; // [place][pairs of a chunk][AT_WINOGRAD_OUTPUTS][2]
  float *sums;      // [place][tiles][AT_WINOGRAD_OUTPUTS]
} product_state;

enum { PLACE_WEIGHTS = AT_WINOGRAD_CHANNELS * AT_WINOGRAD_OUTPUTS + AT_WINOGRAD_GAP / 2 };

KERNEL_INLINE void take_weights_of(const at_gemm *p, size_t panel, size_t first, size_t width, int16_t *out) {
  const size_t tap_bytes = p->inputs * AT_PANEL, panel_bytes = TAPS * tap_bytes;
  for (size_t o = 0; o < AT_WINOGRAD_OUTPUTS; o += LANES) {
    const int8_t *w = (const int8_t *)p->weights + (panel + o / AT_PANEL) * panel_bytes + first * AT_PANEL;
    for (size_t c = 0; c < width; c += AT_QUAD) {
      shorts taps[TAPS][2];
      UNROLLED for (int t = 0; t < TAPS; t++)
        load_weight_pairs(w + (size_t)t * tap_bytes + c * AT_PANEL, panel_bytes, taps[t]);
      UNROLLED for (int half = 0; half < 2; half++) {
        shorts columns[3][SIDE];
        UNROLLED for (int j = 0; j < 3; j++) {
          const shorts g[3] = {taps[j][half], taps[3 + j][half], taps[6 + j][half]};
          transform_weights(g, columns[j]);
        }
        int16_t *pair = out + ((c / 2 + (size_t)half) * AT_WINOGRAD_OUTPUTS + o) * 2;
        UNROLLED for (int i = 0; i < SIDE; i++) {
          const shorts g[3] = {columns[0][i], columns[1][i], columns[2][i]};
          shorts u[SIDE];
          transform_weights(g, u);
          UNROLLED for (int j = 0; j < SIDE; j++) store_shorts(pair + (size_t)(i * SIDE + j) * PLACE_WEIGHTS, u[j]);
        }
      }
    }
  }
}

// To the second cache, as the codes of all places, which each run of outputs reads, are more than it holds.
KERNEL_INLINE void fetch_place_codes(const int16_t *codes, size_t count) {
  for (size_t at = 0; at < count; at += LINE / sizeof *codes) __builtin_prefetch(codes + at, 0, 2);
}

// One place and one chunk of channels, of tiles that follow one another.
typedef struct {
  const int16_t *codes;     // [tiles][width]
  const int16_t *following; // the codes that are read next, to be fetched
  const float *steps;       // [tiles]
  const int16_t *weights;   // [width / 2][AT_WINOGRAD_OUTPUTS][2]
  float *sums;              // [tiles][AT_WINOGRAD_OUTPUTS]
  size_t tiles, width;
  bool is_first; // whether there are no sums yet
} place_run;

// Of `rows` tiles from the `tile`th on. A tile that is not there, up to CODED_ROWS, is the last once more, and is not kept.
KERNEL_INLINE void multiply_tiles(const bool is_first, const size_t width, const place_run *p, size_t tile, size_t rows) {
  const int16_t *x[CODED_ROWS];
  UNROLLED for (size_t r = 0; r < CODED_ROWS; r++) x[r] = p->codes + (tile + (r < rows ? r : rows - 1)) * width;
  for (size_t o = 0; o < AT_WINOGRAD_OUTPUTS; o += VECTORS * LANES) {
    integers sum[CODED_ROWS][VECTORS];
    UNROLLED for (int r = 0; r < CODED_ROWS; r++) {
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[r][v] = zeros();
    }
    // Two pairs in a turn; a width is a multiple of 32.
    for (size_t first = 0; first < width; first += 4) {
      UNROLLED for (size_t i = 0; i < 2; i++) {
        const size_t c = first + 2 * i;
        pairs8 w[VECTORS];
        UNROLLED for (int v = 0; v < VECTORS; v++)
          w[v] = load_pairs(p->weights + c * AT_WINOGRAD_OUTPUTS + (o + LANES * (size_t)v) * 2);
        UNROLLED for (int r = 0; r < CODED_ROWS; r++) add_products_each(VECTORS, sum[r], w, x[r] + c);
      }
    }
    UNROLLED for (size_t r = 0; r < CODED_ROWS; r++) {
      if (r >= rows) continue;
      float *out = p->sums + (tile + r) * AT_WINOGRAD_OUTPUTS + o;
      UNROLLED for (int v = 0; v < VECTORS; v++) {
        const floats term = mul(to_float(sum[r][v]), all(p->steps[tile + r]));
        store_floats(out + LANES * v, is_first ? term : add(load_floats(out + LANES * v), term));
      }
    }
  }
}

KERNEL_INLINE void multiply_all_tiles(const bool is_first, const size_t width, const place_run *p) {
  const place_run copy = *p;
  size_t tile = 0;
  for (; tile + CODED_ROWS <= p->tiles; tile += CODED_ROWS) {
    fetch_place_codes(copy.following + tile * width, CODED_ROWS * width);
    multiply_tiles(is_first, width, &copy, tile, CODED_ROWS);
  }
  if (tile == p->tiles) return;
  fetch_place_codes(copy.following + tile * width, (p->tiles - tile) * width);
  multiply_tiles(is_first, width, &copy, tile, p->tiles - tile);
}

// Where the width is a constant, rows lie at constants from one another: one address is enough for all. Functions of
// their own, so that registers are enough for what they need.
#define PLACES_OF(name, width)                                                       \
  __attribute__((noinline)) KERNEL static void multiply_##name(const place_run *p) { \
    if (p->is_first) multiply_all_tiles(true, width, p);                             \
    else multiply_all_tiles(false, width, p);                                        \
  }
PLACES_OF(whole_chunk, AT_WINOGRAD_CHANNELS)
PLACES_OF(half_chunk, AT_WINOGRAD_CHANNELS / 2)
PLACES_OF(part_of_chunk, p->width)

static inline void multiply_place(const place_run *p) {
  if (p->width == AT_WINOGRAD_CHANNELS) multiply_whole_chunk(p);
  else if (p->width == AT_WINOGRAD_CHANNELS / 2) multiply_half_chunk(p);
  else multiply_part_of_chunk(p);
}

// Floats from the sums of a place to those of the next.
static inline size_t place_sums(size_t tiles) {
  return tiles * AT_WINOGRAD_OUTPUTS + AT_WINOGRAD_GAP / sizeof(float);
}

KERNEL_INLINE void load_tile(const float *sums, size_t stride, floats y[CORE][CORE]) {
  floats columns[SIDE][CORE];
  UNROLLED for (int j = 0; j < SIDE; j++) {
    floats m[SIDE];
    UNROLLED for (int i = 0; i < SIDE; i++) m[i] = load_floats(sums + (size_t)(i * SIDE + j) * stride);
    transform_output(m, columns[j]);
  }
  UNROLLED for (int i = 0; i < CORE; i++) {
    floats m[SIDE];
    UNROLLED for (int j = 0; j < SIDE; j++) m[j] = columns[j][i];
    transform_output(m, y[i]);
  }
}

// Brings the lines of a tile's results, and of what is added to them, while the tile before it is taken.
KERNEL_INLINE void fetch_tile(const product_kind kind, const at_winograd *a, const at_gemm *p, size_t panel,
                              size_t tile) {
  const int ways = kind.paired ? 2 : 1;
  for (size_t i = 0; i < CORE * CORE; i++) {
    const size_t pixel = a->pixels[tile] + i / CORE * a->line + i % CORE;
    const size_t index[2] = {pixel, pixel + p->row_count / 2};
    void *rows[2];
    result_rows(kind, ways, p, index, rows);
    fetch_results(kind, ways, rows, panel, AT_WINOGRAD_OUTPUTS);
    if (!p->residual || p->residual == p->out) continue; // in place they are the same lines
    residual_rows(kind, ways, p, index, rows);
    fetch_rows(kind, false, ways, rows, panel, AT_WINOGRAD_OUTPUTS);
  }
}

KERNEL_INLINE void store_tiles(const product_kind kind, const at_winograd *a, const at_gemm *p, size_t panel,
                               const float *sums) {
  const size_t half = p->row_count / 2;
  const int ways = kind.paired ? 2 : 1;
  for (size_t tile = a->tile_begin; tile < a->tile_end; tile++) {
    if (tile + 1 < a->tile_end) fetch_tile(kind, a, p, panel, tile + 1);
    for (size_t o = 0; o < AT_WINOGRAD_OUTPUTS; o += LANES) {
      floats y[2][CORE][CORE];
      const floats scale = load_floats(p->scale + panel * AT_PANEL + o);
      UNROLLED for (int w = 0; w < ways; w++)
        load_tile(sums + (tile + (size_t)w * half) * AT_WINOGRAD_OUTPUTS + o, place_sums(p->row_count), y[w]);
      UNROLLED for (int i = 0; i < CORE; i++) {
        UNROLLED for (int j = 0; j < CORE; j++) {
          const size_t pixel = a->pixels[tile] + (size_t)i * a->line + (size_t)j;
          const size_t index[2] = {pixel, pixel + half};
          floats both[2];
          void *out[2];
          UNROLLED for (int w = 0; w < ways; w++) both[w] = mul(y[w][i][j], scale);
          result_rows(kind, ways, p, index, out);
          store_rows(kind, ways, p, index, out, panel + o / AT_PANEL, both);
        }
      }
    }
  }
}

// Each of the 36 places brings one of the nine taps of one of four panels to the second cache, of the chunk that comes next.
KERNEL_INLINE void fetch_weights(const at_gemm *p, size_t panel, size_t first, size_t width, size_t place) {
  const size_t tap_bytes = p->inputs * AT_PANEL;
  const int8_t *w = (const int8_t *)p->weights + (panel * TAPS + place) * tap_bytes + first * AT_PANEL;
  for (size_t at = 0; at < width * AT_PANEL; at += LINE) __builtin_prefetch(w + at, 0, 2);
}

KERNEL void KERNEL_NAME(winograd_products)(const at_winograd *a) {
  const at_gemm product = a->product, *p = &product;
  const size_t tiles = p->row_count, half = tiles / 2, panels = AT_WINOGRAD_OUTPUTS / AT_PANEL;
  // All tiles and all pairs are one run.
  const bool joined = p->paired && a->tile_begin == 0 && a->tile_end == half;
  const size_t ways = p->paired && !joined ? 2 : 1;
  const product_state s = {.weights = a->workspace,
                           .sums = (float *)((int16_t *)a->workspace + SIDE * SIDE * PLACE_WEIGHTS)};
  for (size_t panel = p->panel_begin; panel < last_panel(p); panel += panels) {
    for (size_t first = 0; first < p->inputs; first += AT_WINOGRAD_CHANNELS) {
      const size_t width = chunk_width(a, first);
      take_weights_of(p, panel, first, width, s.weights);
      const bool is_last = first + width == p->inputs;
      const size_t next = is_last ? 0 : first + width, next_panel = is_last ? panel + panels : panel;
      for (size_t place = 0; place < SIDE * SIDE; place++) {
        if (next_panel < last_panel(p)) fetch_weights(p, next_panel, next, chunk_width(a, next), place);
        const int16_t *codes = a->codes + at_winograd_place(tiles, p->inputs, first, place);
        const bool begins_anew = is_last && place + 1 == SIDE * SIDE;
        const int16_t *following = begins_anew ? a->codes : a->codes + at_winograd_place(tiles, p->inputs, first, place + 1);
        const float *steps = a->steps + (SIDE * SIDE * (first / AT_WINOGRAD_CHANNELS) + place) * tiles;
        float *sums = s.sums + place * place_sums(tiles);
        for (size_t way = 0; way < ways; way++) {
          const size_t begin = a->tile_begin + way * half, end = joined ? tiles : a->tile_end + way * half;
          multiply_place(&(place_run){
            .codes = codes + begin * width,
            .following = following + begin * width,
            .steps = steps + begin,
            .weights = s.weights + place * PLACE_WEIGHTS,
            .sums = sums + begin * AT_WINOGRAD_OUTPUTS,
            .tiles = end - begin,
            .width = width,
            .is_first = first == 0,
          });
        }
      }
    }
    if (p->paired && p->halves) store_tiles((product_kind){true, true, true}, a, p, panel, s.sums);
    else if (p->paired) store_tiles((product_kind){true, false, true}, a, p, panel, s.sums);
    else if (p->halves) store_tiles((product_kind){false, true, true}, a, p, panel, s.sums);
    else store_tiles((product_kind){false, false, true}, a, p, panel, s.sums);
  }
}
