// Attention for one head in integers, for AVX-512 VNNI. Lanes are queries, unlike in attention_int16.h: what belongs to a
// key is then the same in all lanes, maxima and sums of a query stay in its lane, and no lane is left over where a head
// has no multiple of sixteen channels. An instruction multiplies and adds two neighbouring channels, or keys.
#if defined(__x86_64__)
#include "lanes_avx512.h"

#include "attention_tiles.h"
#include "lanes.h"

enum {
  QUERIES = AT_ATTENTION_QUERIES, // taken at once, in VECTORS vectors
  VECTORS = QUERIES / LANES,
  COLUMNS = 8, // keys, or channels, whose sums are in registers at once
  LINE = 64,
};

// Of QUERIES queries; lanes of those that do not exist hold zeros or numbers that nobody looks at.
typedef struct {
  int16_t *codes;     // [pairs][QUERIES][2], of the negative queries: products are distances
  int32_t *exponent;  // [QUERIES], of the codes
  int32_t *nearest;   // [QUERIES]: the least distance so far
  float *normaliser;  // [QUERIES]
  float *correction;  // [QUERIES]: what the sums so far are to be scaled by
  float *gate;        // [QUERIES], in steps of distances
  float *sums;        // [head_width, rounded up to 16][QUERIES]: weighted values, still to be divided by the normaliser
  size_t first, count; // queries
} query_group;

// For one group after the other: how far a tile's keys are beyond the nearest ones, [TILE][QUERIES], where the queries
// of both vectors lie as `pack_queries` puts them; then their weights, still to be divided by the normaliser,
// [TILE / 2][QUERIES][2].
typedef int16_t *group_scratch;

static size_t group_bytes(size_t head_width) {
  const size_t rows = at_attention_pairs(head_width) + (head_width + 15) / 16 * 16 + 5;
  return rows * QUERIES * sizeof(float);
}

static group_scratch scratch_in(const at_attention_int16 *a) {
  return (int16_t *)(((uintptr_t)a->workspace + LINE - 1) / LINE * LINE);
}

static query_group group_at(const at_attention_int16 *a, group_scratch scratch, size_t first) {
  char *memory = (char *)(scratch + TILE * QUERIES) + first / QUERIES * group_bytes(a->head_width);
  query_group g = {.codes = (int16_t *)memory, .first = first};
  g.count = a->queries - first < QUERIES ? a->queries - first : QUERIES;
  g.exponent = (int32_t *)memory + at_attention_pairs(a->head_width) * QUERIES;
  g.nearest = g.exponent + QUERIES;
  g.normaliser = (float *)(g.nearest + QUERIES);
  g.correction = g.normaliser + QUERIES;
  g.gate = g.correction + QUERIES;
  g.sums = g.gate + QUERIES;
  return g;
}

// A vector's queries, or what there is of them; zeros for the others.
typedef struct {
  const at_attention_int16 *a;
  size_t first, count;
} query_rows;

KERNEL_INLINE floats query_elements(const bool halves, const query_rows *rows, size_t q, size_t d) {
  const size_t width = rows->a->head_width, row = rows->first + (q < rows->count ? q : 0);
  return load_elements(halves, rows->a->q, row * rows->a->q_stride + d, q < rows->count && d < width ? width - d : 0);
}

KERNEL_INLINE floats greatest_magnitudes(const bool halves, const query_rows *rows) {
  floats greatest[LANES];
  for (size_t q = 0; q < LANES; q++) {
    greatest[q] = all(0);
    for (size_t d = 0; d < rows->a->head_width; d += LANES)
      greatest[q] = greater(magnitude(query_elements(halves, rows, q, d)), greatest[q]);
  }
  transpose(greatest);
  UNROLLED for (int half = LANES / 2; half > 0; half /= 2) {
    UNROLLED for (int i = 0; i < half; i++) greatest[i] = greater(greatest[i], greatest[i + half]);
  }
  return greatest[0];
}

// exponent_for and power_of_two, in lanes.
KERNEL_INLINE integers exponents_for(floats greatest, float limit) {
  const integers bits = _mm512_srli_epi32(_mm512_castps_si512(divide(all(limit), greatest)), 23);
  const __mmask16 usable = _mm512_cmp_ps_mask(greatest, all(1e-30f), _CMP_GT_OQ);
  return _mm512_maskz_max_epi32(usable, subtract_integers(bits, all_integers(127)), all_integers(-126));
}
KERNEL_INLINE floats powers_of_two(integers exponent) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(add_integers(exponent, all_integers(127)), 23));
}

KERNEL_INLINE floats query_codes(const bool halves, const query_rows *rows, size_t q, size_t d, float factor) {
  __m256i codes[2];
  UNROLLED for (size_t i = 0; i < 2; i++) {
    const floats x = query_elements(halves, rows, q, d + i * LANES);
    codes[i] = narrow_rounded(add(mul(x, all(factor)), all(rounding_magic)));
  }
  return _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(codes[0]), codes[1], 1));
}

KERNEL_INLINE void code_queries(const bool halves, const query_rows *rows, const query_group *g, size_t lane) {
  const size_t pairs = at_attention_pairs(rows->a->head_width);
  const float scale = rows->a->scale * log2_e;
  const float limit = (float)at_attention_limit(rows->a->head_width);
  const integers exponent = exponents_for(mul(greatest_magnitudes(halves, rows), all(scale)), limit);
  store_integers(g->exponent + lane, exponent);
  float factor[LANES];
  store_floats(factor, negative(mul(all(scale), powers_of_two(exponent))));
  for (size_t first = 0; first < pairs; first += LANES) {
    floats pair[LANES];
    for (size_t q = 0; q < LANES; q++) pair[q] = query_codes(halves, rows, q, 2 * first, factor[q]);
    transpose(pair);
    for (size_t p = 0; p < LANES && first + p < pairs; p++)
      store_pairs(g->codes + ((first + p) * QUERIES + lane) * 2, _mm512_castps_si512(pair[p]));
  }
}

KERNEL static void take_queries(const at_attention_int16 *a, const query_group *g) {
  for (size_t lane = 0; lane < QUERIES; lane += LANES) {
    const size_t count = g->count < lane ? 0 : g->count - lane;
    const query_rows rows = {a, g->first + (count > 0 ? lane : 0), count < LANES ? count : LANES};
    if (a->halves) code_queries(true, &rows, g, lane);
    else code_queries(false, &rows, g, lane);
  }
  for (size_t i = 0; i < QUERIES; i++) {
    g->gate[i] = a->bias && i < g->count ? a->gate[g->first + i] * gate_steps : 0;
    g->nearest[i] = FARTHEST;
    g->normaliser[i] = 0;
  }
  const size_t width = at_attention_values(a->head_width);
  for (size_t d = 0; d < width; d++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) store_floats(g->sums + d * QUERIES + v * LANES, all(0));
  }
}

// What the queries of a vector see of a tile.
typedef struct {
  bool causal;
  integers last_key;        // counted from the tile's first
  __mmask16 exists_backwards; // queries, from the last lane to the first
} sight;

KERNEL_INLINE sight sight_of(const at_attention_int16 *a, const query_group *g, const packed_tile *t, int v) {
  const integers lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const size_t first = g->first + (size_t)v * LANES;
  const ptrdiff_t last = (ptrdiff_t)(a->first_query + first) - (ptrdiff_t)t->first;
  // It only counts where among the tile's keys it is, or on which side of them.
  const int nearby = last > TILE ? TILE : last < -LANES ? -LANES : (int)last;
  const size_t count = a->queries <= first ? 0 : a->queries - first < LANES ? a->queries - first : LANES;
  return (sight){
    .causal = a->causal,
    .last_key = add_integers(_mm512_set1_epi32(nearby), lane),
    .exists_backwards = (__mmask16)(0xffffu << (LANES - count)),
  };
}
KERNEL_INLINE __mmask16 seeing(sight s, size_t j) {
  return s.causal ? _mm512_cmpge_epi32_mask(s.last_key, _mm512_set1_epi32((int)j)) : 0xffff;
}

// bias[key - query] of each lane: memory has them in the opposite order, and none for queries that do not exist.
KERNEL_INLINE floats distance_biases(const float *of_first_lane, __mmask16 exists_backwards) {
  const integers backwards = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_permutexvar_ps(backwards, _mm512_maskz_loadu_ps(exists_backwards, of_first_lane - (LANES - 1)));
}

// One group and one tile.
typedef struct {
  const at_attention_int16 *a;
  const query_group *g;
  const packed_tile *t;
  size_t pairs;
  sight sight[VECTORS];
  integers shift[VECTORS];
  bool is_large; // whether a shift is below LEAST_SHIFT
} meeting;

KERNEL_INLINE meeting meeting_of(const at_attention_int16 *a, const query_group *g, const packed_tile *t) {
  meeting m = {.a = a, .g = g, .t = t, .pairs = at_attention_pairs(a->head_width)};
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    m.sight[v] = sight_of(a, g, t, v);
    // As distance_shift.
    const integers offset = all_integers(t->key_exponent - AT_DISTANCE_BITS);
    const integers shift = add_integers(load_integers(g->exponent + v * LANES), offset);
    m.shift[v] = lesser_integers(shift, all_integers(MOST_SHIFT));
    m.is_large = m.is_large || _mm512_cmplt_epi32_mask(shift, all_integers(LEAST_SHIFT)) != 0;
  }
  return m;
}

__attribute__((noinline)) KERNEL static integers any_distances(integers products, integers shift) {
  int32_t d[LANES], by[LANES];
  store_integers(d, products);
  store_integers(by, shift);
  for (int i = 0; i < LANES; i++) d[i] = by[i] < LEAST_SHIFT ? large_distance(d[i], by[i]) : d[i] >> by[i];
  return load_integers(d);
}

KERNEL_INLINE integers bias_steps(const meeting *m, int v, size_t key) {
  const query_group *g = m->g;
  const ptrdiff_t position = (ptrdiff_t)(m->a->first_query + g->first + (size_t)v * LANES);
  const float *bias = m->a->bias + ((ptrdiff_t)(m->t->first + key) - position);
  const floats added = mul(load_floats(g->gate + v * LANES), distance_biases(bias, m->sight[v].exists_backwards));
  return nearest(lesser(greater(added, all(-farthest_bias)), all(farthest_bias)));
}

// Of COLUMNS keys from the `j`th on.
KERNEL_INLINE void distances_of(const meeting *m, size_t j, integers d[COLUMNS][VECTORS]) {
  const packed_tile *t = m->t;
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = zeros();
  }
  for (size_t p = 0; p < m->pairs; p++) {
    integers q[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) q[v] = load_pairs(m->g->codes + (p * QUERIES + (size_t)v * LANES) * 2);
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      const integers x = load_pair(t->keys + (p * TILE + j + (size_t)k) * 2);
      UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = add_products(d[k][v], q[v], x);
    }
  }
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    UNROLLED for (int v = 0; v < VECTORS; v++)
      d[k][v] = m->is_large ? any_distances(d[k][v], m->shift[v]) : _mm512_srav_epi32(d[k][v], m->shift[v]);
  }
  if (m->a->bias == NULL && !m->a->causal && j + COLUMNS <= t->count) return;
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    const size_t key = j + (size_t)k;
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      if (m->a->bias && key < t->count) d[k][v] = add_integers(d[k][v], bias_steps(m, v, key));
      const __mmask16 seen = key < t->count ? seeing(m->sight[v], key) : 0;
      d[k][v] = _mm512_mask_mov_epi32(all_integers(FARTHEST), seen, d[k][v]);
    }
  }
}

// The least distances, and those of the first `keys` keys of the tile.
KERNEL static void find_nearest(const meeting *m, size_t keys, integers least[VECTORS]) {
  for (size_t j = 0; j < keys; j += COLUMNS) {
    integers d[COLUMNS][VECTORS];
    distances_of(m, j, d);
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      UNROLLED for (int v = 0; v < VECTORS; v++) least[v] = lesser_integers(least[v], d[k][v]);
    }
  }
}

KERNEL_INLINE shorts pack_queries(integers first, integers second) { return _mm512_packs_epi32(first, second); }
// In the order of queries, of which each half of a vector's quarters has four.
KERNEL_INLINE void unpack_queries(shorts packed, integers v[VECTORS]) {
  const __m512i sign = _mm512_srai_epi16(packed, 15);
  v[0] = _mm512_unpacklo_epi16(packed, sign);
  v[1] = _mm512_unpackhi_epi16(packed, sign);
}

// How far the tile's keys are beyond `nearest`, less HALF and at most 2^15 - 1; returns the least.
KERNEL static shorts go_beyond(const meeting *m, const integers nearest[VECTORS], group_scratch scratch) {
  integers half_beyond[VECTORS];
  UNROLLED for (int v = 0; v < VECTORS; v++) half_beyond[v] = add_integers(nearest[v], all_integers(HALF));
  shorts least = all_shorts(INT16_MAX);
  for (size_t j = 0; j < m->t->count; j += COLUMNS) {
    integers d[COLUMNS][VECTORS];
    distances_of(m, j, d);
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = subtract_integers(d[k][v], half_beyond[v]);
      const shorts beyond = pack_queries(d[k][0], d[k][1]);
      store_shorts(scratch + (j + (size_t)k) * QUERIES, beyond);
      least = _mm512_min_epi16(least, beyond);
    }
  }
  return least;
}

// Turns distances, of which `before` is taken off, into weights; returns their sums.
KERNEL_INLINE void weigh_tile(size_t count, shorts before, group_scratch scratch, integers sum[VECTORS]) {
  enum { ROWS = 4 };
  UNROLLED for (int v = 0; v < VECTORS; v++) sum[v] = zeros();
  for (size_t j = 0; j < count; j += ROWS) {
    shorts w[ROWS];
    UNROLLED for (int i = 0; i < ROWS; i++)
      w[i] = _mm512_subs_epi16(load_shorts(scratch + (j + (size_t)i) * QUERIES), before);
    weight_each(ROWS, w);
    UNROLLED for (int i = 0; i < ROWS; i += 2) {
      const integers both[VECTORS] = {_mm512_unpacklo_epi16(w[i], w[i + 1]), _mm512_unpackhi_epi16(w[i], w[i + 1])};
      UNROLLED for (int v = 0; v < VECTORS; v++) {
        store_pairs(scratch + (j + (size_t)i) * QUERIES + (size_t)v * LANES * 2, both[v]);
        sum[v] = add_products(sum[v], both[v], ones());
      }
    }
  }
}

// Makes the tile's weights; returns whether sums so far are to be corrected.
KERNEL_INLINE bool soften_group(const meeting *m, group_scratch scratch) {
  const query_group *g = m->g;
  const packed_tile *t = m->t;
  integers before[VECTORS], least[VECTORS], sum[VECTORS];
  UNROLLED for (int v = 0; v < VECTORS; v++) least[v] = before[v] = load_integers(g->nearest + v * LANES);
  // There is something to go beyond of, and most often no key is nearer by so much that sixteen bits do not hold it.
  if (t->first == 0) find_nearest(m, COLUMNS, least);
  shorts nearer = go_beyond(m, least, scratch);
  const bool is_far = _mm512_cmpeq_epi16_mask(nearer, all_shorts(INT16_MIN)) != 0;
  if (is_far) {
    find_nearest(m, t->count, least);
    nearer = go_beyond(m, least, scratch);
  }
  nearer = _mm512_min_epi16(_mm512_adds_epi16(nearer, all_shorts(HALF)), zeros());
  weigh_tile(t->count, nearer, scratch, sum);
  const bool moved = t->first == 0 || is_far || _mm512_test_epi16_mask(nearer, nearer) != 0;
  integers by[VECTORS];
  unpack_queries(nearer, by);
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    least[v] = add_integers(least[v], by[v]);
    floats correction = mul(to_float(subtract_integers(least[v], before[v])), all(1 / steps_of_distance));
    power_of_two_each(1, &correction);
    const floats normaliser = load_floats(g->normaliser + v * LANES);
    store_floats(g->normaliser + v * LANES, add(mul(normaliser, correction), to_float(sum[v])));
    store_floats(g->correction + v * LANES, correction);
    store_integers(g->nearest + v * LANES, least[v]);
  }
  return moved;
}

// Adds the tile's weighted values to COLUMNS channels from the `d`th on; `moved` as soften_group has it.
KERNEL_INLINE void add_values(const meeting *m, const bool moved, size_t width, size_t d, group_scratch weights) {
  const query_group *g = m->g;
  const packed_tile *t = m->t;
  integers sum[COLUMNS][VECTORS];
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = zeros();
  }
  for (size_t j = 0; j < t->count; j += 2) {
    integers w[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) w[v] = load_pairs(weights + j * QUERIES + (size_t)v * LANES * 2);
    UNROLLED for (int c = 0; c < COLUMNS; c++) {
      const integers x = load_pair(t->values + (j / 2 * width + d + (size_t)c) * 2);
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = add_products(sum[c][v], w[v], x);
    }
  }
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      float *out = g->sums + (d + (size_t)c) * QUERIES + v * LANES;
      floats before = load_floats(out);
      if (moved) before = mul(before, load_floats(g->correction + v * LANES));
      store_floats(out, add(before, mul(to_float(sum[c][v]), all(t->value_scale))));
    }
  }
}

KERNEL static void attend_tile(const at_attention_int16 *a, const query_group *g, const packed_tile *t,
                               group_scratch scratch) {
  if (visible_keys(a->causal, a->first_query + g->first + g->count - 1, t->first, t->count) == 0) return;
  const size_t width = at_attention_values(a->head_width);
  const meeting m = meeting_of(a, g, t);
  if (soften_group(&m, scratch)) {
    for (size_t d = 0; d < width; d += COLUMNS) add_values(&m, true, width, d, scratch);
  } else {
    for (size_t d = 0; d < width; d += COLUMNS) add_values(&m, false, width, d, scratch);
  }
}

// Sixteen channels of sixteen queries at a time, divided by the normaliser.
KERNEL static void give_results(const at_attention_int16 *a, const query_group *g) {
  for (size_t i = 0; i < g->count; i += LANES) {
    const floats inverse = divide(all(1), load_floats(g->normaliser + i));
    for (size_t d = 0; d < a->head_width; d += LANES) {
      floats rows[LANES];
      UNROLLED for (int c = 0; c < LANES; c++)
        rows[c] = mul(load_floats(g->sums + (d + (size_t)c) * QUERIES + i), inverse);
      transpose(rows);
      UNROLLED for (int q = 0; q < LANES; q++) {
        if (i + (size_t)q >= g->count) break;
        const size_t first = (g->first + i + (size_t)q) * a->out_stride;
        store_elements(a->halves, a->out, first + d, a->head_width - d, rows[q]);
      }
    }
  }
}

KERNEL void KERNEL_NAME(attention_int16)(const at_attention_int16 *a) {
  const group_scratch scratch = scratch_in(a);
  for (size_t first = 0; first < a->queries; first += QUERIES) {
    const query_group g = group_at(a, scratch, first);
    take_queries(a, &g);
  }
  const size_t last = a->first_query + a->queries;
  const size_t end = a->causal && last < a->keys ? last : a->keys;
  for (size_t first = 0; first < end; first += TILE) {
    const packed_tile t = tile_at(a, first, end);
    for (size_t query = 0; query < a->queries; query += QUERIES) {
      const query_group g = group_at(a, scratch, query);
      attend_tile(a, &g, &t, scratch);
    }
  }
  for (size_t first = 0; first < a->queries; first += QUERIES) {
    const query_group g = group_at(a, scratch, first);
    give_results(a, &g);
  }
}

KERNEL uint32_t CEILING_NAME_OF(int16)(size_t iterations) {
  enum { CHAINS = COLUMNS * VECTORS };
  const int16_t some[2 * LANES] = {1, 2, 3};
  integers v = load_pairs(some);
  const integers x = load_pair(some);
  integers sum[CHAINS];
  UNROLLED for (int i = 0; i < CHAINS; i++) sum[i] = zeros();
  for (size_t n = 0; n < iterations * AT_CEILING_PRODUCTS / (2 * LANES * CHAINS); n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) {
      __asm__ volatile("" : "+v"(v));
      sum[i] = add_products(sum[i], v, x);
    }
  }
  int32_t total = 0;
  UNROLLED for (int i = 0; i < CHAINS; i++) total ^= sum_integers(sum[i]);
  return (uint32_t)total;
}
#endif
