// Attention for one head in integers, as attention_int8.h has it, but lanes are queries: what belongs to a key is then
// the same in all lanes, maxima and sums of a query stay in its lane, and no lane is left over where a head has no multiple
// of LANES channels. Written in the lanes of the instruction set whose header comes before, and
//   GROUPED  neighbouring channels, or keys, whose products an instruction adds up: 2 codes of sixteen bits, or 4 of eight
//   COLUMNS  keys, or channels, whose sums are in registers at once
//   VECTORS  of queries, always 2
// and for bytes
//   QUERY_OFFSET, VALUE_OFFSET  0, or 128, which is added to the codes that an instruction takes as unsigned ones
// A group of codes takes up four bytes, as an integer. A tile is, with zeros for keys and channels that do not exist:
//   int32_t key_sums[TILE], where there is a QUERY_OFFSET: times it, negative
//   int32_t keys[TILE / LANES][head_width / GROUPED, rounded up][LANES]
//   int32_t values[head_width / CHANNELS, rounded up][TILE / GROUPED][CHANNELS]
// so that what a loop goes through lies together.
#pragma once
#include "attention_tiles.h"
#include "lanes.h"
#include <string.h>

enum {
  TILE = AT_CODED_TILE,
  QUERIES = VECTORS * LANES, // taken at once
  CHANNELS = 8,              // at_attention_values rounds up to them
  LINE = 64,
};

static inline size_t groups_of(size_t codes) { return (codes + GROUPED - 1) / GROUPED; }

#if GROUPED == 4
KERNEL_INLINE integers query_groups(integers codes) { return flip_bits(codes, all_bytes(QUERY_OFFSET)); }
KERNEL_INLINE integers value_groups(integers codes) { return flip_bits(codes, all_bytes(VALUE_OFFSET)); }
KERNEL_INLINE integers add_codes(integers sum, integers a, integers x) { return add_fours(sum, a, x); }
KERNEL_INLINE integers add_weighted(integers sum, integers w, integers x) { return add_unsigned_fours(sum, w, x); }
KERNEL_INLINE integers groups_of_ones(void) { return all_bytes(1); }
// Of a row's codes, one vector after the other.
KERNEL_INLINE integers group_row(const integers codes[GROUPED]) { return narrow_to_bytes(codes); }
// Lane by lane.
KERNEL_INLINE integers group_lanes(const integers codes[GROUPED]) { return join_bytes(codes); }
// The weights of as many keys, for each query.
KERNEL_INLINE void group_weights(const shorts w[GROUPED], integers v[VECTORS]) {
  unpack_pairs(join_low_bytes(w[0], w[1]), join_low_bytes(w[2], w[3]), v);
}
#else
enum { QUERY_OFFSET = 0, VALUE_OFFSET = 0 };
KERNEL_INLINE integers query_groups(integers codes) { return codes; }
KERNEL_INLINE integers value_groups(integers codes) { return codes; }
KERNEL_INLINE integers add_codes(integers sum, integers a, integers x) { return add_products(sum, a, x); }
KERNEL_INLINE integers add_weighted(integers sum, integers w, integers x) { return add_products(sum, w, x); }
KERNEL_INLINE integers groups_of_ones(void) { return ones(); }
KERNEL_INLINE integers group_row(const integers codes[GROUPED]) { return narrow(codes[0], codes[1]); }
KERNEL_INLINE integers group_lanes(const integers codes[GROUPED]) { return interleave(codes[0], codes[1]); }
KERNEL_INLINE void group_weights(const shorts w[GROUPED], integers v[VECTORS]) { unpack_pairs(w[0], w[1], v); }
#endif

typedef struct {
  int32_t *key_sums, *keys, *values; // as above
  size_t first, count;               // keys
} grouped_tile;

static inline grouped_tile grouped_tile_at(void *tile, size_t head_width, size_t first, size_t count) {
  grouped_tile t = {.key_sums = tile, .first = first, .count = count};
  t.keys = t.key_sums + (QUERY_OFFSET > 0 ? TILE : 0);
  t.values = t.keys + groups_of(head_width) * TILE;
  return t;
}

// Of QUERIES queries; lanes of those that do not exist hold zeros or numbers that nobody looks at.
typedef struct {
  int32_t *codes;     // [groups][QUERIES], of the negative queries, as `query_groups` has them: products are distances
  int32_t *exponent;  // [QUERIES], as in query_coding
  int16_t *fraction;  // [QUERIES], as in query_coding, in the order of `pack_integers`
  int16_t *half;      // the same
  int32_t *nearest;   // [QUERIES]: the least distance so far
  float *normaliser;  // [QUERIES]
  float *correction;  // [QUERIES]: what the sums so far are to be scaled by
  float *step;        // [QUERIES], in exponents
  float *sums;        // [head_width, rounded up to 16][QUERIES]: weighted values, still to be divided by the normaliser
  size_t first, count; // queries
} query_group;

// For one group of queries after the other: how far a tile's keys are beyond the nearest ones, int16_t [TILE][QUERIES],
// in the order of `pack_integers`; in their place then groups of their weights, still to be divided by the normaliser,
// int32_t [TILE / GROUPED][QUERIES].
typedef void *group_scratch;

static size_t group_bytes(size_t head_width) {
  const size_t rows = groups_of(head_width) + (head_width + 15) / 16 * 16 + 6;
  return rows * QUERIES * sizeof(float);
}

static group_scratch scratch_in(const at_attention_int8 *a) {
  return (void *)(((uintptr_t)a->workspace + LINE - 1) / LINE * LINE);
}

static query_group group_at(const at_attention_int8 *a, group_scratch scratch, size_t first) {
  char *memory = (char *)scratch + TILE * QUERIES * sizeof(int16_t) + first / QUERIES * group_bytes(a->head_width);
  query_group g = {.codes = (int32_t *)memory, .first = first};
  g.count = a->queries - first < QUERIES ? a->queries - first : QUERIES;
  g.exponent = g.codes + groups_of(a->head_width) * QUERIES;
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
  const floats ratio = divide(all(AT_CODE_LIMIT), greatest);
  query_codings c = {.ratio = where_above(greatest, all(1e-30f), ratio, all(SMALL_RATIO))};
  const integers bits = bits_of(c.ratio);
  c.exponent = subtract_integers(shift_right(bits, 23), all_integers(127));
  const integers mantissa = and_integers(bits, all_integers(0x7fffff));
  const floats times = floats_of_bits(or_integers(mantissa, all_integers(0x3f800000)));
  c.fraction = lesser_integers(truncated(divide(all(32768), times)), all_integers(INT16_MAX));
  // Rounded to f32 no quotient becomes a whole number that was not one: it is below 2^10 and at least 1 / 32767 away.
  c.half = truncated(divide(all(1 << (AT_DISTANCE_BITS + 14)), to_float(c.fraction)));
  return c;
}

KERNEL_INLINE integers row_codes(const bool halves, const some_rows *rows, size_t i, size_t d, floats factor) {
  return integers_of(add(mul(row_elements(halves, rows, i, d), factor), all(rounding_magic)));
}

// Groups of channels of each of LANES rows, from the `first`th group on: up to LANES groups.
KERNEL_INLINE void transposed_groups(const bool halves, const some_rows *rows, size_t first, const float factor[LANES],
                                     integers groups[LANES]) {
  floats lanes[LANES];
  for (size_t i = 0; i < LANES; i++) {
    integers codes[GROUPED];
    UNROLLED for (size_t p = 0; p < GROUPED; p++) {
      const size_t d = GROUPED * first + p * LANES;
      codes[p] = d < rows->width ? row_codes(halves, rows, i, d, all(factor[i])) : zeros();
    }
    lanes[i] = floats_of_bits(group_row(codes));
  }
  transpose(lanes);
  UNROLLED for (int p = 0; p < LANES; p++) groups[p] = bits_of(lanes[p]);
}

// Returns how the vector's queries are coded.
KERNEL_INLINE query_codings code_queries(const bool halves, const some_rows *rows, const query_group *g, size_t lane) {
  const size_t count = groups_of(rows->width);
  const query_codings coding = query_codings_for(greatest_magnitudes(halves, rows));
  float factor[LANES];
  store_floats(factor, negative(coding.ratio));
  for (size_t first = 0; first < count; first += LANES) {
    integers groups[LANES];
    transposed_groups(halves, rows, first, factor, groups);
    for (size_t p = 0; p < LANES && first + p < count; p++)
      store_integers(g->codes + (first + p) * QUERIES + lane, query_groups(groups[p]));
  }
  return coding;
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
  store_shorts(g->fraction, pack_integers(coding[0].fraction, coding[1].fraction));
  store_shorts(g->half, pack_integers(coding[0].half, coding[1].half));
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
  const grouped_tile *t;
  size_t groups;
  integers shift[VECTORS];
  bool is_large; // whether a shift is to the left
} meeting;

KERNEL_INLINE meeting meeting_of(const at_attention_int8 *a, const query_group *g, const grouped_tile *t) {
  meeting m = {.a = a, .g = g, .t = t, .groups = groups_of(a->head_width)};
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    // As distance_shift.
    const integers shift = subtract_integers(load_integers(g->exponent + v * LANES), all_integers(AT_DISTANCE_BITS));
    m.shift[v] = lesser_integers(shift, all_integers(MOST_SHIFT));
    m.is_large = m.is_large || any_negative(shift);
  }
  return m;
}

// Shifted to the right, or as large_distance has it.
KERNEL_INLINE integers any_distances(integers products, integers shift) {
  const integers right = greater_integers(shift, zeros());
  const integers left = lesser_integers(subtract_integers(right, shift), all_integers(29));
  const integers most = shift_right_each(all_integers(FARTHEST_SEEN), left);
  const integers kept = greater_integers(lesser_integers(products, most), subtract_integers(zeros(), most));
  return shift_right_each(shift_left_each(kept, left), right);
}

// Of COLUMNS keys from the `j`th on.
KERNEL_INLINE void distances_of(const meeting *m, size_t j, integers d[COLUMNS][VECTORS]) {
  const grouped_tile *t = m->t;
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    const integers start = QUERY_OFFSET > 0 ? all_integers(t->key_sums[j + (size_t)k]) : zeros();
    UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = start;
  }
  const int32_t *keys = t->keys + (j / LANES * m->groups) * LANES + j % LANES;
  for (size_t p = 0; p < m->groups; p++) {
    integers q[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) q[v] = load_integers(m->g->codes + p * QUERIES + (size_t)v * LANES);
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      const integers x = all_integers(keys[p * LANES + (size_t)k]);
      UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = add_codes(d[k][v], q[v], x);
    }
  }
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    UNROLLED for (int v = 0; v < VECTORS; v++)
      d[k][v] = m->is_large ? any_distances(d[k][v], m->shift[v]) : shift_right_each(d[k][v], m->shift[v]);
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
      const shorts beyond = pack_integers(d[k][0], d[k][1]);
      store_shorts((int16_t *)scratch + (j + (size_t)k) * QUERIES, beyond);
      least = lesser_shorts(least, beyond);
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
    UNROLLED for (int i = 0; i < 4; i++) {
      const shorts beyond = load_shorts((const int16_t *)scratch + (j + (size_t)i) * QUERIES);
      w[i] = multiply_high(subtract_saturated(beyond, before), fraction);
    }
    weight_each(4, w);
    UNROLLED for (size_t i = 0; i < 4; i += GROUPED) {
      integers groups[VECTORS];
      group_weights(w + i, groups);
      UNROLLED for (int v = 0; v < VECTORS; v++) {
        store_integers((int32_t *)scratch + (j + i) / GROUPED * QUERIES + v * LANES, groups[v]);
        sum[v] = add_weighted(sum[v], groups[v], groups_of_ones());
      }
    }
  }
}

// What the weighted values of a tile are to be scaled by, and what is to be taken off before.
typedef struct {
  floats share[VECTORS];
  integers excess[VECTORS];
} rescaling;

// Makes the tile's weights; returns whether sums so far are to be corrected.
KERNEL_INLINE bool soften_group(const meeting *m, group_scratch scratch, rescaling *by_tile) {
  const query_group *g = m->g;
  const grouped_tile *t = m->t;
  integers before[VECTORS], least[VECTORS], sum[VECTORS];
  UNROLLED for (int v = 0; v < VECTORS; v++) least[v] = before[v] = load_integers(g->nearest + v * LANES);
  // There is something to go beyond of, and most often no key is nearer by so much that sixteen bits do not hold it.
  if (t->first == 0) find_nearest(m, COLUMNS, least);
  shorts nearer = go_beyond(m, least, scratch);
  const bool is_far = any_least(nearer);
  if (is_far) {
    find_nearest(m, t->count, least);
    nearer = go_beyond(m, least, scratch);
  }
  const shorts beyond = nearer;
  nearer = lesser_shorts(beyond, all_shorts(0));
  // As reference_of.
  const shorts reference = lesser_shorts(beyond, add_saturated(nearer, all_shorts(AT_REACH)));
  weigh_tile(t->count, add_saturated(reference, load_shorts(g->half)), load_shorts(g->fraction), scratch, sum);
  const bool moved = t->first == 0 || is_far || any_set(nearer);
  integers by[VECTORS], further[VECTORS];
  unpack_integers(nearer, by);
  unpack_integers(subtract_shorts(nearer, reference), further);
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
    by_tile->share[v] = power[1];
    if (VALUE_OFFSET > 0) by_tile->excess[v] = shift_left_each(sum[v], all_integers(7)); // times 128
  }
  return moved;
}

// Adds the tile's weighted values to COLUMNS channels from the `d`th on; `moved` as soften_group has it.
KERNEL_INLINE void add_values(const meeting *m, const bool moved, const rescaling *by, size_t d, group_scratch weights) {
  const query_group *g = m->g;
  const grouped_tile *t = m->t;
  const int32_t *values = t->values + d / CHANNELS * (TILE / GROUPED * CHANNELS) + d % CHANNELS;
  integers sum[COLUMNS][VECTORS];
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = zeros();
  }
  for (size_t p = 0; p < groups_of(t->count); p++) {
    integers w[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++)
      w[v] = load_integers((const int32_t *)weights + p * QUERIES + (size_t)v * LANES);
    UNROLLED for (int c = 0; c < COLUMNS; c++) {
      const integers x = all_integers(values[p * CHANNELS + (size_t)c]);
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = add_weighted(sum[c][v], w[v], x);
    }
  }
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      float *out = g->sums + (d + (size_t)c) * QUERIES + v * LANES;
      floats before = load_floats(out);
      if (moved) before = mul(before, load_floats(g->correction + v * LANES));
      const integers weighted = VALUE_OFFSET > 0 ? subtract_integers(sum[c][v], by->excess[v]) : sum[c][v];
      store_floats(out, add(before, mul(to_float(weighted), by->share[v])));
    }
  }
}

KERNEL static void attend_tile(const at_attention_int8 *a, const query_group *g, const grouped_tile *t,
                               group_scratch scratch) {
  const meeting m = meeting_of(a, g, t);
  rescaling by;
  if (soften_group(&m, scratch, &by)) {
    for (size_t d = 0; d < a->head_width; d += COLUMNS) add_values(&m, true, &by, d, scratch);
  } else {
    for (size_t d = 0; d < a->head_width; d += COLUMNS) add_values(&m, false, &by, d, scratch);
  }
}

// LANES channels of as many queries at a time, divided by the normaliser.
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
    const grouped_tile t = grouped_tile_at(tile, a->head_width, first, a->keys - first < TILE ? a->keys - first : TILE);
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

KERNEL_INLINE void pack_keys(const bool halves, const some_rows *keys, const grouped_tile *t) {
  const size_t count = groups_of(keys->width);
  float unscaled[LANES];
  store_floats(unscaled, all(1));
  for (size_t j = 0; j < keys->count; j += LANES) {
    some_rows rows = *keys;
    rows.first = j;
    rows.count = keys->count - j < LANES ? keys->count - j : LANES;
    integers sum = zeros();
    for (size_t first = 0; first < count; first += LANES) {
      integers groups[LANES];
      transposed_groups(halves, &rows, first, unscaled, groups);
      for (size_t p = 0; p < LANES && first + p < count; p++) {
        sum = add_codes(sum, query_groups(zeros()), groups[p]);
        store_integers(t->keys + j * count + (first + p) * LANES, groups[p]);
      }
    }
    if (QUERY_OFFSET > 0) store_integers(t->key_sums + j, subtract_integers(zeros(), sum));
  }
}

// GROUPED keys and LANES channels at a time.
KERNEL_INLINE void pack_values(const bool halves, const some_rows *values, const grouped_tile *t) {
  for (size_t j = 0; j < values->count; j += GROUPED) {
    for (size_t d = 0; d < values->width; d += LANES) {
      integers codes[GROUPED];
      UNROLLED for (size_t i = 0; i < GROUPED; i++) codes[i] = row_codes(halves, values, j + i, d, all(1));
      int32_t groups[LANES];
      store_integers(groups, value_groups(group_lanes(codes)));
      for (size_t c = 0; c < LANES && d + c < values->width; c += CHANNELS) {
        int32_t *block = t->values + (d + c) / CHANNELS * (TILE / GROUPED * CHANNELS);
        memcpy(block + j / GROUPED * CHANNELS, groups + c, CHANNELS * sizeof *groups);
      }
    }
  }
}

KERNEL_INLINE void pack(const bool halves, const at_attention_pack *a) {
  const some_rows keys = {a->k, a->key_centre, a->key_factor, a->k_stride, 0, a->count, a->head_width};
  const some_rows values = {a->v, a->value_centre, a->value_factor, a->v_stride, 0, a->count, a->head_width};
  // All that is read of a whole tile is written below.
  if (a->count < TILE) memset(a->tile, 0, at_attention_tile_bytes(a->head_width));
  const grouped_tile t = grouped_tile_at(a->tile, a->head_width, 0, a->count);
  pack_keys(halves, &keys, &t);
  pack_values(halves, &values, &t);
}

KERNEL void KERNEL_NAME(attention_pack)(const at_attention_pack *a) {
  if (a->halves) pack(true, a);
  else pack(false, a);
}
