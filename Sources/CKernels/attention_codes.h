// How queries, keys and values become codes where lanes are queries, and tiles of them. Part of attention_by_query.h,
// which says what comes before.
#pragma once
#include "attention_tiles.h"
#include "lanes.h"
#include <string.h>

enum {
  TILE = AT_CODED_TILE,
  QUERIES = VECTORS * LANES, // taken at once
  CHANNELS = 8,              // at_attention_values rounds up to them
};
// Weights are in two vectors.
_Static_assert(VECTORS == 2 && AT_ATTENTION_QUERIES % QUERIES == 0 && TILE % LANES == 0 && LANES % CHANNELS == 0 &&
                 LANES % COLUMNS == 0 && CHANNELS % COLUMNS == 0 && COLUMNS % WEIGHED == 0 && WEIGHED % GROUPED == 0,
               "blocks of keys, channels and queries must fit into one another");
_Static_assert(WEIGHED <= MOST_WEIGHED, "weight_each must have room");
_Static_assert(TILE * AT_LARGEST_WEIGHT <= INT16_MAX, "the weights of a tile must add up in sixteen bits");

static inline size_t groups_of(size_t codes) { return (codes + GROUPED - 1) / GROUPED; }

#if GROUPED == 4
KERNEL_INLINE integers offset_queries(integers codes) { return flip_bits(codes, all_bytes(QUERY_OFFSET)); }
KERNEL_INLINE integers offset_values(integers codes) { return flip_bits(codes, all_bytes(VALUE_OFFSET)); }
KERNEL_INLINE integers add_score_products(integers sum, integers a, integers x) { return add_fours(sum, a, x); }
KERNEL_INLINE void add_scores(integers sum[VECTORS], const integers q[VECTORS], const int32_t *key) {
  UNROLLED for (int v = 0; v < VECTORS; v++) sum[v] = add_score_products(sum[v], q[v], all_integers(*key));
}
KERNEL_INLINE void add_weighted(integers sum[VECTORS], const integers w[VECTORS], const int32_t *value) {
  UNROLLED for (int v = 0; v < VECTORS; v++) sum[v] = add_unsigned_fours(sum[v], w[v], all_integers(*value));
}
// Of a row's codes, one vector after the other.
KERNEL_INLINE integers group_row(const integers codes[GROUPED]) { return narrow_to_bytes(codes); }
// Lane by lane.
KERNEL_INLINE integers group_lanes(const integers codes[GROUPED]) { return join_bytes(codes); }
// The weights of as many keys, for each query.
KERNEL_INLINE void group_weights(const shorts w[GROUPED], integers v[VECTORS]) {
  unpack_pairs(join_low_bytes(w[0], w[1]), join_low_bytes(w[2], w[3]), v);
}
_Static_assert(VALUE_OFFSET == 0 || VALUE_OFFSET == 128, "excess of values is a multiple of 128");
#else
enum { QUERY_OFFSET = 0, VALUE_OFFSET = 0 };
KERNEL_INLINE integers offset_queries(integers codes) { return codes; }
KERNEL_INLINE integers offset_values(integers codes) { return codes; }
KERNEL_INLINE integers add_score_products(integers sum, integers a, integers x) { return add_products(sum, a, x); }
KERNEL_INLINE void add_scores(integers sum[VECTORS], const integers q[VECTORS], const int32_t *key) {
  add_products_each(VECTORS, sum, q, key);
}
KERNEL_INLINE void add_weighted(integers sum[VECTORS], const integers w[VECTORS], const int32_t *value) {
  add_products_each(VECTORS, sum, w, value);
}
KERNEL_INLINE integers group_row(const integers codes[GROUPED]) { return narrow(codes[0], codes[1]); }
KERNEL_INLINE integers group_lanes(const integers codes[GROUPED]) { return interleave(codes[0], codes[1]); }
KERNEL_INLINE void group_weights(const shorts w[GROUPED], integers v[VECTORS]) { unpack_pairs(w[0], w[1], v); }
#endif

// What a loop goes through lies together. A group of codes takes up four bytes. Keys and channels that only fill up a
// group, or a block of LANES or CHANNELS, have codes of zero; later keys are not read.
typedef struct {
  int32_t *key_sums;   // [TILE], only where there is a QUERY_OFFSET: -QUERY_OFFSET times the sum of a key's codes
  int32_t *keys;       // [TILE / LANES][head_width / GROUPED, rounded up][LANES]
  int32_t *values;     // [head_width / CHANNELS, rounded up][TILE / GROUPED][CHANNELS], as `offset_values` has them
  size_t first, count; // keys
} coded_tile;

static inline coded_tile coded_tile_at(void *tile, size_t head_width, size_t first, size_t count) {
  coded_tile t = {.key_sums = tile, .first = first, .count = count};
  t.keys = t.key_sums + (QUERY_OFFSET > 0 ? TILE : 0);
  t.values = t.keys + groups_of(head_width) * TILE;
  return t;
}

// Queries, keys or values, or what there is of them; zeros for the others.
typedef struct {
  const void *x;
  const float *centre, *factor; // [width]: the one is taken off, if there is one, the other multiplied
  size_t stride, first, count, width;
} row_range;

KERNEL_INLINE floats row_elements(const bool halves, const row_range *rows, size_t i, size_t d) {
  const size_t row = rows->first + (i < rows->count ? i : 0);
  const size_t count = i < rows->count ? rows->width - d : 0;
  const floats x = load_elements(halves, rows->x, row * rows->stride + d, count);
  return mul(rows->centre ? sub(x, load_some(rows->centre + d, count)) : x, load_some(rows->factor + d, count));
}

// Of each of LANES rows.
KERNEL_INLINE floats greatest_magnitudes(const bool halves, const row_range *rows) {
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
  // Rounded to f32 no quotient becomes a whole number that was not one: it is at most 2^10 and at least 1 / 32767 away.
  c.half = truncated(divide(all(1 << (AT_DISTANCE_BITS + 14)), to_float(c.fraction)));
  return c;
}

KERNEL_INLINE integers row_codes(const bool halves, const row_range *rows, size_t i, size_t d, floats factor) {
  return integers_of(add(mul(row_elements(halves, rows, i, d), factor), all(rounding_magic)));
}

// Groups of channels of each of LANES rows, from the `first`th group on: up to LANES groups.
KERNEL_INLINE void transposed_groups(const bool halves, const row_range *rows, size_t first, const float factor[LANES],
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

KERNEL_INLINE void pack_keys(const bool halves, const row_range *keys, const coded_tile *t) {
  const size_t count = groups_of(keys->width);
  float unscaled[LANES];
  store_floats(unscaled, all(1));
  for (size_t j = 0; j < keys->count; j += LANES) {
    row_range rows = *keys;
    rows.first = j;
    rows.count = keys->count - j < LANES ? keys->count - j : LANES;
    integers sum = zeros();
    for (size_t first = 0; first < count; first += LANES) {
      integers groups[LANES];
      transposed_groups(halves, &rows, first, unscaled, groups);
      for (size_t p = 0; p < LANES && first + p < count; p++) {
        sum = add_score_products(sum, offset_queries(zeros()), groups[p]);
        store_integers(t->keys + j * count + (first + p) * LANES, groups[p]);
      }
    }
    if (QUERY_OFFSET > 0) store_integers(t->key_sums + j, subtract_integers(zeros(), sum));
  }
}

// GROUPED keys and LANES channels at a time.
KERNEL_INLINE void pack_values(const bool halves, const row_range *values, const coded_tile *t) {
  for (size_t j = 0; j < values->count; j += GROUPED) {
    for (size_t d = 0; d < values->width; d += LANES) {
      integers codes[GROUPED];
      UNROLLED for (size_t i = 0; i < GROUPED; i++) codes[i] = row_codes(halves, values, j + i, d, all(1));
      int32_t groups[LANES];
      store_integers(groups, offset_values(group_lanes(codes)));
      for (size_t c = 0; c < LANES && d + c < values->width; c += CHANNELS) {
        int32_t *block = t->values + (d + c) / CHANNELS * (TILE / GROUPED * CHANNELS);
        memcpy(block + j / GROUPED * CHANNELS, groups + c, CHANNELS * sizeof *groups);
      }
    }
  }
}

KERNEL_INLINE void pack(const bool halves, const at_attention_pack *a) {
  const row_range keys = {a->k, a->key_centre, a->key_factor, a->k_stride, 0, a->count, a->head_width};
  const row_range values = {a->v, a->value_centre, a->value_factor, a->v_stride, 0, a->count, a->head_width};
  // All that is read of a whole tile is written below.
  if (a->count < TILE) memset(a->tile, 0, at_attention_tile_bytes(a->head_width));
  const coded_tile t = coded_tile_at(a->tile, a->head_width, 0, a->count);
  pack_keys(halves, &keys, &t);
  pack_values(halves, &values, &t);
}

KERNEL void KERNEL_NAME(attention_pack)(const at_attention_pack *a) {
  if (a->halves) pack(true, a);
  else pack(false, a);
}
