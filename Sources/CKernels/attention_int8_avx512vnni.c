// Attention for one head in integers, for AVX-512 VNNI. Lanes are queries, unlike in attention_int8.h: what belongs to a
// key is then the same in all lanes, maxima and sums of a query stay in its lane, and no lane is left over where a head
// has no multiple of sixteen channels. An instruction multiplies and adds four neighbouring channels, or keys. A tile is,
// with zeros for keys and channels that do not exist:
//   int32_t key_sums[TILE], times -128: what the unsigned codes of queries are beyond their signed ones
//   int8_t  keys[head_width / 4, rounded up][TILE][4]
//   int8_t  values[TILE / 4][head_width, rounded up to 8][4]
#if defined(__x86_64__)
#include "lanes_avx512.h"

#include "attention_tiles.h"
#include "lanes.h"
#include <string.h>

enum {
  TILE = AT_CODED_TILE,
  QUERIES = AT_CODED_QUERIES, // taken at once, in VECTORS vectors
  VECTORS = QUERIES / LANES,
  COLUMNS = 8, // keys, or channels, whose sums are in registers at once
  LINE = 64,
  UNSIGNED = 128, // is added to the codes of queries: an instruction multiplies unsigned by signed ones
};

static inline size_t fours_of(size_t channels) { return (channels + 3) / 4; }

typedef struct {
  int32_t *key_sums; // as above
  int8_t *keys, *values;
  size_t first, count; // keys
} byte_tile;

static inline byte_tile byte_tile_at(void *tile, size_t head_width, size_t first, size_t count) {
  byte_tile t = {.key_sums = tile, .first = first, .count = count};
  t.keys = (int8_t *)(t.key_sums + TILE);
  t.values = t.keys + fours_of(head_width) * TILE * 4;
  return t;
}

// Of QUERIES queries; lanes of those that do not exist hold zeros or numbers that nobody looks at.
typedef struct {
  uint8_t *codes;     // [fours][QUERIES][4], of the negative queries, and UNSIGNED: products are distances
  int32_t *exponent;  // [QUERIES], as in query_coding
  int16_t *fraction;  // [QUERIES], as in query_coding, where `pack_queries` puts them
  int16_t *half;      // the same
  int32_t *nearest;   // [QUERIES]: the least distance so far
  float *normaliser;  // [QUERIES]
  float *correction;  // [QUERIES]: what the sums so far are to be scaled by
  float *step;        // [QUERIES], in exponents
  float *sums;        // [head_width, rounded up to 16][QUERIES]: weighted values, still to be divided by the normaliser
  size_t first, count; // queries
} query_group;

// For one group after the other: how far a tile's keys are beyond the nearest ones, [TILE][QUERIES], where the queries
// of both vectors lie as `pack_queries` puts them; then their weights, still to be divided by the normaliser, bytes
// [TILE / 4][QUERIES][4].
typedef int16_t *group_scratch;

static size_t group_bytes(size_t head_width) {
  const size_t rows = fours_of(head_width) + (head_width + 15) / 16 * 16 + 6;
  return rows * QUERIES * sizeof(float);
}

static group_scratch scratch_in(const at_attention_int8 *a) {
  return (int16_t *)(((uintptr_t)a->workspace + LINE - 1) / LINE * LINE);
}

static query_group group_at(const at_attention_int8 *a, group_scratch scratch, size_t first) {
  char *memory = (char *)(scratch + TILE * QUERIES) + first / QUERIES * group_bytes(a->head_width);
  query_group g = {.codes = (uint8_t *)memory, .first = first};
  g.count = a->queries - first < QUERIES ? a->queries - first : QUERIES;
  g.exponent = (int32_t *)memory + fours_of(a->head_width) * QUERIES;
  g.nearest = g.exponent + QUERIES;
  g.normaliser = (float *)(g.nearest + QUERIES);
  g.correction = g.normaliser + QUERIES;
  g.step = g.correction + QUERIES;
  g.fraction = (int16_t *)(g.step + QUERIES);
  g.half = g.fraction + QUERIES;
  g.sums = (float *)(g.half + QUERIES);
  return g;
}

// Queries, keys or values, or what there is of them; zeros for the others.
typedef struct {
  const void *x;
  const float *centre, *factor; // [width]: the one is taken off, if there is one, the other multiplied
  size_t stride, first, count, width;
} some_rows;

KERNEL_INLINE floats row_elements(const bool halves, const some_rows *rows, size_t i, size_t d) {
  const size_t row = rows->first + (i < rows->count ? i : 0);
  const size_t count = i < rows->count && d < rows->width ? rows->width - d : 0;
  const floats x = load_elements(halves, rows->x, row * rows->stride + d, count);
  return mul(rows->centre ? sub(x, load_some(rows->centre + d, count)) : x, load_some(rows->factor + d, count));
}

// Of each of LANES rows.
KERNEL_INLINE floats greatest_magnitudes(const bool halves, const some_rows *rows) {
  floats greatest[LANES];
  for (size_t i = 0; i < LANES; i++) {
    greatest[i] = all(0);
    for (size_t d = 0; d < rows->width; d += LANES)
      greatest[i] = greater(magnitude(row_elements(halves, rows, i, d)), greatest[i]);
  }
  transpose(greatest);
  UNROLLED for (int half = LANES / 2; half > 0; half /= 2) {
    UNROLLED for (int i = 0; i < half; i++) greatest[i] = greater(greatest[i], greatest[i + half]);
  }
  return greatest[0];
}

// query_coding_for, in lanes.
typedef struct {
  floats ratio;
  integers exponent, fraction, half;
} query_codings;

KERNEL_INLINE query_codings query_codings_for(floats greatest) {
  const __mmask16 usable = _mm512_cmp_ps_mask(greatest, all(1e-30f), _CMP_GT_OQ);
  query_codings c = {.ratio = _mm512_mask_div_ps(all(SMALL_RATIO), usable, all(AT_CODE_LIMIT), greatest)};
  const integers bits = _mm512_castps_si512(c.ratio);
  c.exponent = subtract_integers(_mm512_srli_epi32(bits, 23), all_integers(127));
  const integers mantissa = _mm512_and_si512(bits, all_integers(0x7fffff));
  const floats times = _mm512_castsi512_ps(_mm512_or_si512(mantissa, all_integers(0x3f800000)));
  c.fraction = lesser_integers(_mm512_cvttps_epi32(divide(all(32768), times)), all_integers(INT16_MAX));
  // Rounded to f32 no quotient becomes a whole number that was not one: it is below 2^10 and at least 1 / 32767 away.
  c.half = _mm512_cvttps_epi32(divide(all(1 << (AT_DISTANCE_BITS + 14)), to_float(c.fraction)));
  return c;
}

KERNEL_INLINE integers row_codes(const bool halves, const some_rows *rows, size_t i, size_t d, floats factor) {
  return integers_of(add(mul(row_elements(halves, rows, i, d), factor), all(rounding_magic)));
}

// Four channels of each of LANES rows, as s8, from the `four`th four on: up to LANES fours.
KERNEL_INLINE void transposed_codes(const bool halves, const some_rows *rows, size_t four, const float factor[LANES],
                                    integers codes[LANES]) {
  floats bytes[LANES];
  for (size_t i = 0; i < LANES; i++) {
    integers parts[4];
    UNROLLED for (size_t p = 0; p < 4; p++) {
      const size_t d = 4 * four + p * LANES;
      parts[p] = d < rows->width ? row_codes(halves, rows, i, d, all(factor[i])) : zeros();
    }
    bytes[i] = _mm512_castsi512_ps(narrow_to_bytes(parts));
  }
  transpose(bytes);
  UNROLLED for (int p = 0; p < LANES; p++) codes[p] = _mm512_castps_si512(bytes[p]);
}

// Returns how the vector's queries are coded.
KERNEL_INLINE query_codings code_queries(const bool halves, const some_rows *rows, const query_group *g, size_t lane) {
  const size_t fours = fours_of(rows->width);
  const query_codings coding = query_codings_for(greatest_magnitudes(halves, rows));
  float factor[LANES];
  store_floats(factor, negative(coding.ratio));
  for (size_t first = 0; first < fours; first += LANES) {
    integers codes[LANES];
    transposed_codes(halves, rows, first, factor, codes);
    for (size_t p = 0; p < LANES && first + p < fours; p++)
      store_bytes(g->codes + ((first + p) * QUERIES + lane) * 4,
                  _mm512_xor_si512(codes[p], _mm512_set1_epi8((char)UNSIGNED)));
  }
  return coding;
}

KERNEL_INLINE shorts pack_queries(integers first, integers second) { return _mm512_packs_epi32(first, second); }
// In the order of queries, of which each half of a vector's quarters has four.
KERNEL_INLINE void unpack_queries(shorts packed, integers v[VECTORS]) {
  const __m512i sign = _mm512_srai_epi16(packed, 15);
  v[0] = _mm512_unpacklo_epi16(packed, sign);
  v[1] = _mm512_unpackhi_epi16(packed, sign);
}

KERNEL static void take_queries(const at_attention_int8 *a, const query_group *g) {
  query_codings coding[VECTORS];
  UNROLLED for (size_t v = 0; v < VECTORS; v++) {
    const size_t lane = v * LANES, count = g->count < lane ? 0 : g->count - lane;
    const some_rows rows = {
      .x = a->q,
      .factor = a->query_factor,
      .stride = a->q_stride,
      .first = g->first + (count > 0 ? lane : 0),
      .count = count < LANES ? count : LANES,
      .width = a->head_width,
    };
    coding[v] = a->halves ? code_queries(true, &rows, g, lane) : code_queries(false, &rows, g, lane);
    store_integers(g->exponent + lane, coding[v].exponent);
    const floats step = all(1.0f / (1 << (15 + AT_DISTANCE_BITS)));
    store_floats(g->step + lane, mul(to_float(coding[v].fraction), step));
  }
  store_shorts(g->fraction, pack_queries(coding[0].fraction, coding[1].fraction));
  store_shorts(g->half, pack_queries(coding[0].half, coding[1].half));
  for (size_t i = 0; i < QUERIES; i++) {
    g->nearest[i] = FARTHEST;
    g->normaliser[i] = 0;
  }
  const size_t width = at_attention_values(a->head_width);
  for (size_t d = 0; d < width; d++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) store_floats(g->sums + d * QUERIES + v * LANES, all(0));
  }
}

// One group and one tile.
typedef struct {
  const at_attention_int8 *a;
  const query_group *g;
  const byte_tile *t;
  size_t fours;
  integers shift[VECTORS];
  bool is_large; // whether a shift is to the left
} meeting;

KERNEL_INLINE meeting meeting_of(const at_attention_int8 *a, const query_group *g, const byte_tile *t) {
  meeting m = {.a = a, .g = g, .t = t, .fours = fours_of(a->head_width)};
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    // As distance_shift.
    const integers shift = subtract_integers(load_integers(g->exponent + v * LANES), all_integers(AT_DISTANCE_BITS));
    m.shift[v] = lesser_integers(shift, all_integers(MOST_SHIFT));
    m.is_large = m.is_large || _mm512_cmplt_epi32_mask(shift, zeros()) != 0;
  }
  return m;
}

// Shifted to the right, or as large_distance has it.
KERNEL_INLINE integers any_distances(integers products, integers shift) {
  const integers left = lesser_integers(_mm512_abs_epi32(shift), all_integers(29));
  const integers most = _mm512_srlv_epi32(all_integers(FARTHEST_SEEN), left);
  const integers kept = _mm512_max_epi32(lesser_integers(products, most), subtract_integers(zeros(), most));
  const __mmask16 is_left = _mm512_cmplt_epi32_mask(shift, zeros());
  return _mm512_mask_sllv_epi32(_mm512_srav_epi32(products, shift), is_left, kept, left);
}

// Of COLUMNS keys from the `j`th on.
KERNEL_INLINE void distances_of(const meeting *m, size_t j, integers d[COLUMNS][VECTORS]) {
  const byte_tile *t = m->t;
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = all_integers(t->key_sums[j + (size_t)k]);
  }
  for (size_t p = 0; p < m->fours; p++) {
    integers q[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) q[v] = load_bytes(m->g->codes + (p * QUERIES + (size_t)v * LANES) * 4);
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      const integers x = load_four(t->keys + (p * TILE + j + (size_t)k) * 4);
      UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = add_fours(d[k][v], q[v], x);
    }
  }
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    UNROLLED for (int v = 0; v < VECTORS; v++)
      d[k][v] = m->is_large ? any_distances(d[k][v], m->shift[v]) : _mm512_srav_epi32(d[k][v], m->shift[v]);
  }
  if (j + COLUMNS <= t->count) return;
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    if (j + (size_t)k < t->count) continue;
    UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = all_integers(FARTHEST);
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

// How far the tile's keys are beyond `nearest`, at most 2^15 - 1; returns the least.
KERNEL static shorts go_beyond(const meeting *m, const integers nearest[VECTORS], group_scratch scratch) {
  shorts least = all_shorts(INT16_MAX);
  for (size_t j = 0; j < m->t->count; j += COLUMNS) {
    integers d[COLUMNS][VECTORS];
    distances_of(m, j, d);
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = subtract_integers(d[k][v], nearest[v]);
      const shorts beyond = pack_queries(d[k][0], d[k][1]);
      store_shorts(scratch + (j + (size_t)k) * QUERIES, beyond);
      least = _mm512_min_epi16(least, beyond);
    }
  }
  return least;
}

// Turns distances, of which `before` is taken off, into weights; returns their sums.
KERNEL_INLINE void weigh_tile(size_t count, shorts before, shorts fraction, group_scratch scratch,
                              integers sum[VECTORS]) {
  UNROLLED for (int v = 0; v < VECTORS; v++) sum[v] = zeros();
  for (size_t j = 0; j < count; j += 4) {
    shorts w[4];
    UNROLLED for (int i = 0; i < 4; i++)
      w[i] = multiply_high(_mm512_subs_epi16(load_shorts(scratch + (j + (size_t)i) * QUERIES), before), fraction);
    weight_each(4, w);
    const shorts first = _mm512_or_si512(w[0], _mm512_slli_epi16(w[1], 8));
    const shorts second = _mm512_or_si512(w[2], _mm512_slli_epi16(w[3], 8));
    const integers four[VECTORS] = {_mm512_unpacklo_epi16(first, second), _mm512_unpackhi_epi16(first, second)};
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      store_bytes((uint8_t *)scratch + (j / 4 * QUERIES + (size_t)v * LANES) * 4, four[v]);
      sum[v] = add_fours(sum[v], four[v], _mm512_set1_epi8(1));
    }
  }
}

// Makes the tile's weights, and what its sums are to be scaled by; returns whether sums so far are to be corrected.
KERNEL_INLINE bool soften_group(const meeting *m, group_scratch scratch, floats share[VECTORS]) {
  const query_group *g = m->g;
  const byte_tile *t = m->t;
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
  const shorts beyond = nearer;
  nearer = _mm512_min_epi16(beyond, zeros());
  // As reference_of.
  const shorts reference = _mm512_min_epi16(beyond, _mm512_adds_epi16(nearer, all_shorts(AT_REACH)));
  weigh_tile(t->count, _mm512_adds_epi16(reference, load_shorts(g->half)), load_shorts(g->fraction), scratch, sum);
  const bool moved = t->first == 0 || is_far || _mm512_test_epi16_mask(nearer, nearer) != 0;
  integers by[VECTORS], further[VECTORS];
  unpack_queries(nearer, by);
  unpack_queries(_mm512_sub_epi16(nearer, reference), further);
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    least[v] = add_integers(least[v], by[v]);
    const integers steps[2] = {subtract_integers(least[v], before[v]), further[v]};
    floats power[2];
    UNROLLED for (int i = 0; i < 2; i++) power[i] = mul(to_float(steps[i]), load_floats(g->step + v * LANES));
    power_of_two_each(2, power);
    const floats normaliser = mul(load_floats(g->normaliser + v * LANES), power[0]);
    store_floats(g->normaliser + v * LANES, add(normaliser, mul(to_float(sum[v]), power[1])));
    store_floats(g->correction + v * LANES, power[0]);
    store_integers(g->nearest + v * LANES, least[v]);
    share[v] = power[1];
  }
  return moved;
}

// Adds the tile's weighted values to COLUMNS channels from the `d`th on; `moved` as soften_group has it.
KERNEL_INLINE void add_values(const meeting *m, const bool moved, const floats share[VECTORS], size_t d,
                              group_scratch weights) {
  const query_group *g = m->g;
  const byte_tile *t = m->t;
  const size_t width = at_attention_values(m->a->head_width);
  integers sum[COLUMNS][VECTORS];
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = zeros();
  }
  for (size_t four = 0; four < fours_of(t->count); four++) {
    const uint8_t *row = (const uint8_t *)weights + four * QUERIES * 4;
    integers w[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) w[v] = load_bytes(row + v * LANES * 4);
    UNROLLED for (int c = 0; c < COLUMNS; c++) {
      const integers x = load_four(t->values + (four * width + d + (size_t)c) * 4);
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = add_fours(sum[c][v], w[v], x);
    }
  }
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      float *out = g->sums + (d + (size_t)c) * QUERIES + v * LANES;
      floats before = load_floats(out);
      if (moved) before = mul(before, load_floats(g->correction + v * LANES));
      store_floats(out, add(before, mul(to_float(sum[c][v]), share[v])));
    }
  }
}

KERNEL static void attend_tile(const at_attention_int8 *a, const query_group *g, const byte_tile *t,
                               group_scratch scratch) {
  const meeting m = meeting_of(a, g, t);
  floats share[VECTORS];
  if (soften_group(&m, scratch, share)) {
    for (size_t d = 0; d < a->head_width; d += COLUMNS) add_values(&m, true, share, d, scratch);
  } else {
    for (size_t d = 0; d < a->head_width; d += COLUMNS) add_values(&m, false, share, d, scratch);
  }
}

// Sixteen channels of sixteen queries at a time, divided by the normaliser.
KERNEL static void give_results(const at_attention_int8 *a, const query_group *g) {
  for (size_t i = 0; i < g->count; i += LANES) {
    const floats inverse = divide(all(1), load_floats(g->normaliser + i));
    for (size_t d = 0; d < a->head_width; d += LANES) {
      floats rows[LANES];
      UNROLLED for (int c = 0; c < LANES; c++)
        rows[c] = mul(load_floats(g->sums + (d + (size_t)c) * QUERIES + i), inverse);
      transpose(rows);
      const floats centre = load_some(a->value_centre + d, a->head_width - d);
      const floats step = load_some(a->value_step + d, a->head_width - d);
      UNROLLED for (int q = 0; q < LANES; q++) {
        if (i + (size_t)q >= g->count) break;
        const size_t first = (g->first + i + (size_t)q) * a->out_stride;
        store_elements(a->halves, a->out, first + d, a->head_width - d, add(mul(rows[q], step), centre));
      }
    }
  }
}

KERNEL void KERNEL_NAME(attention_int8)(const at_attention_int8 *a) {
  const group_scratch scratch = scratch_in(a);
  for (size_t first = 0; first < a->queries; first += QUERIES) {
    const query_group g = group_at(a, scratch, first);
    take_queries(a, &g);
  }
  for (size_t first = 0; first < a->keys; first += TILE) {
    char *tile = (char *)a->tiles + first / TILE * at_attention_tile_bytes(a->head_width);
    const byte_tile t = byte_tile_at(tile, a->head_width, first, a->keys - first < TILE ? a->keys - first : TILE);
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

KERNEL_INLINE void pack_keys(const bool halves, const some_rows *keys, const byte_tile *t) {
  const size_t fours = fours_of(keys->width);
  float ones[LANES];
  store_floats(ones, all(1));
  for (size_t j = 0; j < keys->count; j += LANES) {
    some_rows rows = *keys;
    rows.first = j;
    rows.count = keys->count - j < LANES ? keys->count - j : LANES;
    integers sum = zeros();
    for (size_t first = 0; first < fours; first += LANES) {
      integers codes[LANES];
      transposed_codes(halves, &rows, first, ones, codes);
      for (size_t p = 0; p < LANES && first + p < fours; p++) {
        sum = add_fours(sum, _mm512_set1_epi8((char)UNSIGNED), codes[p]);
        store_bytes((uint8_t *)t->keys + ((first + p) * TILE + j) * 4, codes[p]);
      }
    }
    store_integers(t->key_sums + j, subtract_integers(zeros(), sum));
  }
}

// Four keys and sixteen channels at a time.
KERNEL_INLINE void pack_values(const bool halves, const some_rows *values, const byte_tile *t) {
  const __m512i by_channel =
    _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const size_t width = at_attention_values(values->width);
  for (size_t j = 0; j < values->count; j += 4) {
    for (size_t d = 0; d < values->width; d += LANES) {
      integers codes[4];
      UNROLLED for (size_t i = 0; i < 4; i++) codes[i] = row_codes(halves, values, j + i, d, all(1));
      const __m512i by_key =
        _mm512_packs_epi16(_mm512_packs_epi32(codes[0], codes[1]), _mm512_packs_epi32(codes[2], codes[3]));
      int8_t *to = t->values + (j / 4 * width + d) * 4;
      _mm512_mask_storeu_epi32(to, lanes_below(width - d), _mm512_shuffle_epi8(by_key, by_channel));
    }
  }
}

KERNEL_INLINE void pack(const bool halves, const at_attention_pack *a) {
  const some_rows keys = {a->k, a->key_centre, a->key_factor, a->k_stride, 0, a->count, a->head_width};
  const some_rows values = {a->v, a->value_centre, a->value_factor, a->v_stride, 0, a->count, a->head_width};
  // All that is read of a whole tile is written below.
  if (a->count < TILE) memset(a->tile, 0, at_attention_tile_bytes(a->head_width));
  const byte_tile t = byte_tile_at(a->tile, a->head_width, 0, a->count);
  pack_keys(halves, &keys, &t);
  pack_values(halves, &values, &t);
}

KERNEL void KERNEL_NAME(attention_pack)(const at_attention_pack *a) {
  if (a->halves) pack(true, a);
  else pack(false, a);
}
#endif
