// Attention for one head in integers, as attention_int8.h has it, but lanes are queries: what belongs to a key is then
// the same in all lanes, maxima and sums of a query stay in its lane, and no lane is left over where a head has no
// multiple of LANES channels. Written in the lanes of the instruction set whose header comes before, and
//   GROUPED  neighbouring channels, or keys, whose products an instruction adds up: 2 codes of sixteen bits, 4 of eight
//   COLUMNS  keys, or channels, whose sums are in registers at once
//   VECTORS  of queries
//   WEIGHED  keys whose weights are made in step, a divisor of COLUMNS
// and for bytes
//   QUERY_OFFSET, VALUE_OFFSET  0, or 128, which is added to the codes that an instruction takes as unsigned ones
#pragma once
#include "attention_codes.h"

// Of QUERIES queries; lanes of those that do not exist hold zeros or numbers that nobody looks at.
typedef struct {
  int32_t *codes;     // [groups][QUERIES], of the negative queries: products are distances
  int32_t *exponent;  // [QUERIES], as in query_coding
  int16_t *fraction;  // [QUERIES], as in query_coding, in the order of `pack_integers`
  int16_t *half;      // the same
  int32_t *nearest;   // [QUERIES]: the least distance so far
  float *normaliser;  // [QUERIES]
  float *correction;  // [QUERIES]: what the sums so far are to be scaled by
  float *step;        // [QUERIES], in exponents
  float *sums;        // [head_width, rounded up to 16][QUERIES]: weighted values, still to be divided by the normaliser
  size_t first, count; // queries
} query_block;

// For one block of queries after the other: how far a tile's keys are beyond the nearest ones, int16_t [TILE][QUERIES],
// in the order of `pack_integers`; in their place then groups of their weights, still to be divided by the normaliser,
// int32_t [TILE / GROUPED][QUERIES].
typedef void *block_scratch;

// at_attention_int8_workspace has room for as much.
static size_t block_bytes(size_t head_width) {
  const size_t rows = groups_of(head_width) + (head_width + 15) / 16 * 16 + 6;
  return rows * QUERIES * sizeof(float);
}

static query_block block_at(const at_attention_int8 *a, block_scratch scratch, size_t first) {
  char *memory = (char *)scratch + TILE * QUERIES * sizeof(int16_t) + first / QUERIES * block_bytes(a->head_width);
  query_block b = {.codes = (int32_t *)memory, .first = first};
  b.count = a->queries - first < QUERIES ? a->queries - first : QUERIES;
  b.exponent = b.codes + groups_of(a->head_width) * QUERIES;
  b.nearest = b.exponent + QUERIES;
  b.normaliser = (float *)(b.nearest + QUERIES);
  b.correction = b.normaliser + QUERIES;
  b.step = b.correction + QUERIES;
  b.fraction = (int16_t *)(b.step + QUERIES);
  b.half = b.fraction + QUERIES;
  b.sums = (float *)(b.half + QUERIES);
  return b;
}

// Returns how the vector's queries are coded.
KERNEL_INLINE query_codings code_queries(const bool halves, const row_range *rows, const query_block *b, size_t lane) {
  const size_t count = groups_of(rows->width);
  const query_codings coding = query_codings_for(greatest_magnitudes(halves, rows));
  float factor[LANES];
  store_floats(factor, negative(coding.ratio));
  for (size_t first = 0; first < count; first += LANES) {
    integers groups[LANES];
    transposed_groups(halves, rows, first, factor, groups);
    for (size_t p = 0; p < LANES && first + p < count; p++)
      store_integers(b->codes + (first + p) * QUERIES + lane, offset_queries(groups[p]));
  }
  return coding;
}

KERNEL static void take_queries(const at_attention_int8 *a, const query_block *b) {
  query_codings coding[VECTORS];
  UNROLLED for (size_t v = 0; v < VECTORS; v++) {
    const size_t lane = v * LANES, count = b->count < lane ? 0 : b->count - lane;
    const row_range rows = {
      .x = a->q,
      .factor = a->query_factor,
      .stride = a->q_stride,
      .first = b->first + (count > 0 ? lane : 0),
      .count = count < LANES ? count : LANES,
      .width = a->head_width,
    };
    coding[v] = a->halves ? code_queries(true, &rows, b, lane) : code_queries(false, &rows, b, lane);
    store_integers(b->exponent + lane, coding[v].exponent);
    const floats step = all(1.0f / (1 << (15 + AT_DISTANCE_BITS)));
    store_floats(b->step + lane, mul(to_float(coding[v].fraction), step));
  }
  store_shorts(b->fraction, pack_integers(coding[0].fraction, coding[1].fraction));
  store_shorts(b->half, pack_integers(coding[0].half, coding[1].half));
  for (size_t i = 0; i < QUERIES; i++) {
    b->nearest[i] = FARTHEST;
    b->normaliser[i] = 0;
  }
  const size_t width = at_attention_values(a->head_width);
  for (size_t d = 0; d < width; d++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) store_floats(b->sums + d * QUERIES + v * LANES, all(0));
  }
}

// One block of queries and one tile.
typedef struct {
  const at_attention_int8 *a;
  const query_block *b;
  const coded_tile *t;
  size_t groups;
  integers shift[VECTORS];
  bool is_large; // whether a shift is to the left
} block_and_tile;

KERNEL_INLINE block_and_tile block_and_tile_of(const at_attention_int8 *a, const query_block *b, const coded_tile *t) {
  block_and_tile m = {.a = a, .b = b, .t = t, .groups = groups_of(a->head_width)};
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    // As distance_shift.
    const integers shift = subtract_integers(load_integers(b->exponent + v * LANES), all_integers(AT_DISTANCE_BITS));
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
KERNEL_INLINE void distances_of(const block_and_tile *m, size_t j, integers d[COLUMNS][VECTORS]) {
  const coded_tile *t = m->t;
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    const integers start = QUERY_OFFSET > 0 ? all_integers(t->key_sums[j + (size_t)k]) : zeros();
    UNROLLED for (int v = 0; v < VECTORS; v++) d[k][v] = start;
  }
  const int32_t *keys = t->keys + (j / LANES * m->groups) * LANES + j % LANES;
  for (size_t p = 0; p < m->groups; p++) {
    integers q[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) q[v] = load_integers(m->b->codes + p * QUERIES + (size_t)v * LANES);
    UNROLLED for (int k = 0; k < COLUMNS; k++) add_scores(d[k], q, keys + p * LANES + k);
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

// Lowers `least` to the distances of the first `keys` keys of the tile.
KERNEL static void find_nearest(const block_and_tile *m, size_t keys, integers least[VECTORS]) {
  for (size_t j = 0; j < keys; j += COLUMNS) {
    integers d[COLUMNS][VECTORS];
    distances_of(m, j, d);
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      UNROLLED for (int v = 0; v < VECTORS; v++) least[v] = lesser_integers(least[v], d[k][v]);
    }
  }
}

// How far the tile's keys are beyond `nearest`, at most 2^15 - 1; returns the least.
KERNEL static shorts store_distances(const block_and_tile *m, const integers nearest[VECTORS], block_scratch scratch) {
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

// Turns distances, of which `before` is taken off, into weights, which never lie beyond the rows that were just read;
// returns their sums, in the order of `pack_integers`.
KERNEL_INLINE shorts weigh_tile(size_t count, shorts before, shorts fraction, block_scratch scratch) {
  shorts sum = all_shorts(0);
  for (size_t j = 0; j < count; j += WEIGHED) {
    shorts w[WEIGHED];
    UNROLLED for (int i = 0; i < WEIGHED; i++) {
      const shorts beyond = load_shorts((const int16_t *)scratch + (j + (size_t)i) * QUERIES);
      w[i] = multiply_high(subtract_saturated(beyond, before), fraction);
    }
    weight_each(WEIGHED, w);
    UNROLLED for (int i = 0; i < WEIGHED; i++) sum = add_shorts(sum, w[i]);
    UNROLLED for (size_t i = 0; i < WEIGHED; i += GROUPED) {
      integers groups[VECTORS];
      group_weights(w + i, groups);
      UNROLLED for (int v = 0; v < VECTORS; v++)
        store_integers((int32_t *)scratch + (j + i) / GROUPED * QUERIES + v * LANES, groups[v]);
    }
  }
  return sum;
}

// What the weighted values of a tile are to be scaled by, and what is to be taken off before.
typedef struct {
  floats share[VECTORS];
  integers excess[VECTORS];
} tile_scaling;

// Makes the tile's weights; returns whether sums so far are to be corrected.
KERNEL_INLINE bool update_softmax(const block_and_tile *m, block_scratch scratch, tile_scaling *scaling) {
  const query_block *b = m->b;
  const coded_tile *t = m->t;
  integers before[VECTORS], least[VECTORS], sum[VECTORS];
  UNROLLED for (int v = 0; v < VECTORS; v++) least[v] = before[v] = load_integers(b->nearest + v * LANES);
  // The first keys give an estimate of the nearest. Later ones are rarely nearer by 2^15 steps: then all is done again.
  if (t->first == 0) find_nearest(m, COLUMNS, least);
  shorts beyond = store_distances(m, least, scratch);
  const bool is_far = any_least(beyond);
  if (is_far) {
    find_nearest(m, t->count, least);
    beyond = store_distances(m, least, scratch);
  }
  const shorts nearer = lesser_shorts(beyond, all_shorts(0));
  // As reference_of.
  const shorts reference = lesser_shorts(beyond, add_saturated(nearer, all_shorts(AT_REACH)));
  const shorts half = load_shorts(b->half), fraction = load_shorts(b->fraction);
  unpack_integers(weigh_tile(t->count, add_saturated(reference, half), fraction, scratch), sum);
  const bool moved = t->first == 0 || is_far || any_set(nearer);
  integers by[VECTORS], further[VECTORS];
  unpack_integers(nearer, by);
  unpack_integers(subtract_shorts(nearer, reference), further);
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    least[v] = add_integers(least[v], by[v]);
    const integers steps[2] = {subtract_integers(least[v], before[v]), further[v]};
    floats power[2];
    UNROLLED for (int i = 0; i < 2; i++) power[i] = mul(to_float(steps[i]), load_floats(b->step + v * LANES));
    power_of_two_each(2, power);
    const floats normaliser = mul(load_floats(b->normaliser + v * LANES), power[0]);
    store_floats(b->normaliser + v * LANES, add(normaliser, mul(to_float(sum[v]), power[1])));
    store_floats(b->correction + v * LANES, power[0]);
    store_integers(b->nearest + v * LANES, least[v]);
    scaling->share[v] = power[1];
    if (VALUE_OFFSET > 0) scaling->excess[v] = shift_left_each(sum[v], all_integers(7)); // times 128
  }
  return moved;
}

// Adds the tile's weighted values to COLUMNS channels from the `d`th on; `moved` as update_softmax has it.
KERNEL_INLINE void add_values(const block_and_tile *m, const bool moved, const tile_scaling *by, size_t d,
                              block_scratch weights) {
  const query_block *b = m->b;
  const coded_tile *t = m->t;
  const int32_t *values = t->values + d / CHANNELS * (TILE / GROUPED * CHANNELS) + d % CHANNELS;
  integers sum[COLUMNS][VECTORS];
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = zeros();
  }
  for (size_t p = 0; p < groups_of(t->count); p++) {
    integers w[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++)
      w[v] = load_integers((const int32_t *)weights + p * QUERIES + (size_t)v * LANES);
    UNROLLED for (int c = 0; c < COLUMNS; c++) add_weighted(sum[c], w, values + p * CHANNELS + c);
  }
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      float *out = b->sums + (d + (size_t)c) * QUERIES + v * LANES;
      floats before = load_floats(out);
      if (moved) before = mul(before, load_floats(b->correction + v * LANES));
      const integers weighted = VALUE_OFFSET > 0 ? subtract_integers(sum[c][v], by->excess[v]) : sum[c][v];
      store_floats(out, add(before, mul(to_float(weighted), by->share[v])));
    }
  }
}

KERNEL static void attend_tile(const at_attention_int8 *a, const query_block *b, const coded_tile *t,
                               block_scratch scratch) {
  const block_and_tile m = block_and_tile_of(a, b, t);
  tile_scaling by;
  if (update_softmax(&m, scratch, &by)) {
    for (size_t d = 0; d < a->head_width; d += COLUMNS) add_values(&m, true, &by, d, scratch);
  } else {
    for (size_t d = 0; d < a->head_width; d += COLUMNS) add_values(&m, false, &by, d, scratch);
  }
}

// LANES channels of as many queries at a time, divided by the normaliser.
KERNEL static void give_results(const at_attention_int8 *a, const query_block *b) {
  for (size_t i = 0; i < b->count; i += LANES) {
    const floats inverse = divide(all(1), load_floats(b->normaliser + i));
    for (size_t d = 0; d < a->head_width; d += LANES) {
      floats rows[LANES];
      UNROLLED for (int c = 0; c < LANES; c++)
        rows[c] = mul(load_floats(b->sums + (d + (size_t)c) * QUERIES + i), inverse);
      transpose(rows);
      const floats centre = load_some(a->value_centre + d, a->head_width - d);
      const floats step = load_some(a->value_step + d, a->head_width - d);
      UNROLLED for (int q = 0; q < LANES; q++) {
        if (i + (size_t)q >= b->count) break;
        const size_t first = (b->first + i + (size_t)q) * a->out_stride;
        store_elements(a->halves, a->out, first + d, a->head_width - d, add(mul(rows[q], step), centre));
      }
    }
  }
}

KERNEL void KERNEL_NAME(attention_int8)(const at_attention_int8 *a) {
  const block_scratch scratch = a->workspace;
  for (size_t first = 0; first < a->queries; first += QUERIES) {
    const query_block b = block_at(a, scratch, first);
    take_queries(a, &b);
  }
  for (size_t first = 0; first < a->keys; first += TILE) {
    char *tile = (char *)a->tiles + first / TILE * at_attention_tile_bytes(a->head_width);
    const coded_tile t = coded_tile_at(tile, a->head_width, first, a->keys - first < TILE ? a->keys - first : TILE);
    for (size_t query = 0; query < a->queries; query += QUERIES) {
      const query_block b = block_at(a, scratch, query);
      attend_tile(a, &b, &t, scratch);
    }
  }
  for (size_t first = 0; first < a->queries; first += QUERIES) {
    const query_block b = block_at(a, scratch, first);
    give_results(a, &b);
  }
}
