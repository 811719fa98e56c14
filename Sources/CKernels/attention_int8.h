// Attention for one head in integers: each packed tile of keys and values is read once for a block of queries,
// CODED_ROWS at a time. In scores, lanes are keys; in weighted values, lanes are the head's channels. Codes lie in
// sixteen bits, as one instruction multiplies and adds neighbouring channels, or keys.
#pragma once
#include "attention_tiles.h"
#include "lanes.h"
#include <string.h>

typedef struct {
  int16_t *codes;     // [queries][pairs][2], of the negative queries: products are distances
  query_coding *coding; // [queries]
  int32_t *nearest;   // [queries]: the least distance so far
  float *normaliser;  // [queries]
  float *sums;        // [queries][head_width, rounded up to 8]: weighted values, still to be divided by the normaliser
  int32_t *distances; // [CODED_ROWS][AT_CODED_TILE]
  int16_t *weights;   // [CODED_ROWS][AT_CODED_TILE]: probabilities, still to be divided by the normaliser
} coded_state;

static coded_state state_in(const at_attention_int8 *a) {
  coded_state s = {.codes = a->workspace};
  const size_t codes = a->queries * 2 * at_attention_pairs(a->head_width) * sizeof(int16_t);
  s.distances = (int32_t *)((char *)a->workspace + (codes + 31) / 32 * 32);
  s.weights = (int16_t *)(s.distances + CODED_ROWS * AT_CODED_TILE);
  s.sums = (float *)(s.weights + CODED_ROWS * AT_CODED_TILE);
  s.normaliser = s.sums + a->queries * at_attention_values(a->head_width);
  s.nearest = (int32_t *)(s.normaliser + a->queries);
  s.coding = (query_coding *)(s.nearest + a->queries);
  return s;
}

// How channels are coded, [head_width].
typedef struct {
  const float *centre, *factor;
} channel_coding;

// Codes of eight elements of a row from the `d`th channel on; zeros beyond `count`.
KERNEL_INLINE integers code(const bool halves, const void *x, size_t row, size_t d, size_t count, channel_coding c) {
  const floats beyond = sub(load_elements(halves, x, row + d, count), load_some(c.centre + d, count));
  return integers_of(add(mul(beyond, load_some(c.factor + d, count)), all(rounding_magic)));
}

// Eight keys and eight pairs of channels at a time, so that keys lie side by side.
KERNEL_INLINE void pack_keys(const bool halves, const at_attention_pack *a, int16_t *keys) {
  const size_t pairs = at_attention_pairs(a->head_width);
  const channel_coding coding = {a->key_centre, a->key_factor};
  for (size_t j = 0; j < a->count; j += 8) {
    for (size_t d = 0; d < a->head_width; d += 16) {
      floats rows[8];
      UNROLLED for (size_t i = 0; i < 8; i++) {
        const size_t row = (j + i) * a->k_stride, count = j + i < a->count ? a->head_width - d : 0;
        const integers low = code(halves, a->k, row, d, count, coding);
        const integers high = code(halves, a->k, row, d + 8, count > 8 ? count - 8 : 0, coding);
        rows[i] = as_floats(narrow(low, high));
      }
      transpose(rows);
      UNROLLED for (size_t i = 0; i < 8; i++) {
        if (d / 2 + i < pairs) store_shorts(keys + ((d / 2 + i) * AT_CODED_TILE + j) * 2, as_shorts(rows[i]));
      }
    }
  }
}

KERNEL_INLINE void pack_values(const bool halves, const at_attention_pack *a, int16_t *values) {
  const size_t width = at_attention_values(a->head_width);
  const channel_coding coding = {a->value_centre, a->value_factor};
  for (size_t j = 0; j < a->count; j += 2) {
    for (size_t d = 0; d < a->head_width; d += 8) {
      const size_t row = j * a->v_stride, count = a->head_width - d;
      const integers even = code(halves, a->v, row, d, count, coding);
      const integers odd = code(halves, a->v, row + a->v_stride, d, j + 1 < a->count ? count : 0, coding);
      store_shorts(values + (j / 2 * width + d) * 2, interleave(even, odd));
    }
  }
}

KERNEL_INLINE void pack(const bool halves, const at_attention_pack *a) {
  // All of a whole tile is written below.
  if (a->count < AT_CODED_TILE) memset(a->tile, 0, at_attention_tile_bytes(a->head_width));
  int16_t *keys = a->tile;
  pack_keys(halves, a, keys);
  pack_values(halves, a, keys + at_attention_pairs(a->head_width) * AT_CODED_TILE * 2);
}

KERNEL void KERNEL_NAME(attention_pack)(const at_attention_pack *a) {
  if (a->halves) pack(true, a);
  else pack(false, a);
}

KERNEL_INLINE floats scaled_query(const at_attention_int8 *a, size_t first, size_t d) {
  const size_t count = a->head_width - d;
  return mul(load_elements(a->halves, a->q, first + d, count), load_some(a->query_factor + d, count));
}

KERNEL_INLINE void take_queries(const at_attention_int8 *a, const coded_state *s) {
  const size_t stride = 2 * at_attention_pairs(a->head_width);
  for (size_t i = 0; i < a->queries; i++) {
    const size_t first = i * a->q_stride;
    floats greatest = all(0);
    for (size_t d = 0; d < a->head_width; d += 8)
      greatest = greater(magnitude(scaled_query(a, first, d)), greatest);
    s->coding[i] = query_coding_for(greatest_lane(greatest));
    int16_t codes[8], *row = s->codes + i * stride;
    for (size_t d = 0; d < a->head_width; d += 8) {
      const size_t count = stride - d < 8 ? stride - d : 8;
      store_int16(codes, add(mul(scaled_query(a, first, d), all(-s->coding[i].ratio)), all(rounding_magic)));
      memcpy(row + d, codes, count * sizeof *codes);
    }
    s->nearest[i] = FARTHEST;
    s->normaliser[i] = 0;
  }
}

// The distances of a tile's keys from some queries; those of keys that do not exist mean nothing.
KERNEL_INLINE void distances_coded(const int rows, const at_attention_int8 *a, const coded_state *s, const packed_tile *t,
                               size_t query) {
  const size_t pairs = at_attention_pairs(a->head_width);
  const int16_t *q[CODED_ROWS];
  UNROLLED for (int r = 0; r < rows; r++) q[r] = s->codes + (query + (size_t)r) * pairs * 2;
  for (size_t j = 0; j < t->count; j += 8 * VECTORS) {
    integers sum[CODED_ROWS][VECTORS];
    UNROLLED for (int r = 0; r < rows; r++) {
      UNROLLED for (int i = 0; i < VECTORS; i++) sum[r][i] = zeros();
    }
    for (size_t d = 0; d < pairs; d++) {
      pairs8 k[VECTORS];
      UNROLLED for (int i = 0; i < VECTORS; i++) k[i] = load_pairs(t->keys + (d * AT_CODED_TILE + j + 8 * (size_t)i) * 2);
      UNROLLED for (int r = 0; r < rows; r++) {
        const pair x = load_pair(q[r] + 2 * d);
        UNROLLED for (int i = 0; i < VECTORS; i++) sum[r][i] = add_products(sum[r][i], k[i], x);
      }
    }
    UNROLLED for (int r = 0; r < rows; r++) {
      const int32_t shift = distance_shift(s->coding[query + (size_t)r].exponent);
      int32_t *distances = s->distances + r * AT_CODED_TILE + j;
      UNROLLED for (int i = 0; i < VECTORS; i++)
        store_integers(distances + 8 * i, shift < 0 ? sum[r][i] : shift_right(sum[r][i], shift));
      if (shift < 0) {
        for (int i = 0; i < 8 * VECTORS; i++) distances[i] = large_distance(distances[i], shift);
      }
    }
  }
}

enum { SOFTENED = 32 }; // keys that are weighed at once

// Hides keys that do not exist; returns the least distance.
KERNEL_INLINE int32_t least_distance(size_t count, int32_t *distances) {
  const size_t end = (count + SOFTENED - 1) / SOFTENED * SOFTENED;
  for (size_t j = count; j < end; j++) distances[j] = FARTHEST;
  integers least = all_integers(FARTHEST);
  for (size_t j = 0; j < end; j += 8) least = lesser_integers(least, load_integers(distances + j));
  return least_integer(least);
}

// The weights of one query; returns their sum.
KERNEL_INLINE float weigh_keys(size_t count, int32_t reference, query_coding coding, const int32_t *distances,
                               int16_t *weights) {
  const integers half_beyond = all_integers(reference + coding.half);
  const shorts fraction = all_shorts(coding.fraction);
  integers sum = zeros();
  for (size_t j = 0; j < count; j += SOFTENED) {
    shorts w[SOFTENED / 16];
    UNROLLED for (int i = 0; i < SOFTENED / 16; i++) {
      const integers first = load_integers(distances + j + 16 * i), second = load_integers(distances + j + 16 * i + 8);
      const shorts steps = narrow(subtract_integers(first, half_beyond), subtract_integers(second, half_beyond));
      w[i] = multiply_high(steps, fraction);
    }
    weight_each(SOFTENED / 16, w);
    UNROLLED for (int i = 0; i < SOFTENED / 16; i++) {
      store_shorts(weights + j + 16 * i, w[i]);
      sum = add_products(sum, load_pairs(weights + j + 16 * i), ones());
    }
  }
  return (float)sum_integers(sum);
}

// What a query's sums so far are to be scaled by, and what those of the tile.
typedef struct {
  float correction[8], share[8];
} rescaling;

KERNEL_INLINE void soften_coded(const int rows, const coded_state *s, const packed_tile *t, size_t query,
                                rescaling *by) {
  int32_t nearest[CODED_ROWS], reference[CODED_ROWS];
  for (int r = 0; r < rows; r++) {
    const size_t i = query + (size_t)r;
    const int32_t least = least_distance(t->count, s->distances + r * AT_CODED_TILE);
    nearest[r] = least < s->nearest[i] ? least : s->nearest[i];
    reference[r] = reference_of(least, nearest[r]);
    const float step = exponents_of_step(s->coding[i].fraction);
    by->correction[r] = (float)(nearest[r] - s->nearest[i]) * step;
    by->share[r] = (float)(nearest[r] - reference[r]) * step;
  }
  floats power[2] = {load_floats(by->correction), load_floats(by->share)};
  power_of_two_each(2, power);
  store_floats(by->correction, power[0]);
  store_floats(by->share, power[1]);
  for (int r = 0; r < rows; r++) {
    const size_t i = query + (size_t)r;
    const float sum = weigh_keys(t->count, reference[r], s->coding[i], s->distances + r * AT_CODED_TILE,
                                 s->weights + r * AT_CODED_TILE);
    s->normaliser[i] = s->normaliser[i] * by->correction[r] + sum * by->share[r];
    s->nearest[i] = nearest[r];
  }
}

// Adds the tile's weighted values to channels d..<d + 8 * vectors.
KERNEL_INLINE void add_values(const int rows, const int vectors, const at_attention_int8 *a, const coded_state *s,
                              const packed_tile *t, size_t query, size_t d, const rescaling *by) {
  const size_t width = at_attention_values(a->head_width);
  integers sum[CODED_ROWS][VECTORS];
  UNROLLED for (int r = 0; r < rows; r++) {
    UNROLLED for (int i = 0; i < vectors; i++) sum[r][i] = zeros();
  }
  for (size_t j = 0; j < t->count; j += 2) {
    pairs8 v[VECTORS];
    UNROLLED for (int i = 0; i < vectors; i++) v[i] = load_pairs(t->values + (j / 2 * width + d + 8 * (size_t)i) * 2);
    UNROLLED for (int r = 0; r < rows; r++) {
      const pair x = load_pair(s->weights + (size_t)r * AT_CODED_TILE + j);
      UNROLLED for (int i = 0; i < vectors; i++) sum[r][i] = add_products(sum[r][i], v[i], x);
    }
  }
  UNROLLED for (int r = 0; r < rows; r++) {
    float *out = s->sums + (query + (size_t)r) * width + d;
    const floats correction = all(by->correction[r]), share = all(by->share[r]);
    UNROLLED for (int i = 0; i < vectors; i++) {
      const floats before = t->first == 0 ? all(0) : load_floats(out + 8 * i);
      store_floats(out + 8 * i, add(mul(before, correction), mul(to_float(sum[r][i]), share)));
    }
  }
}

KERNEL_INLINE void attend_coded(const int rows, const at_attention_int8 *a, const coded_state *s, const packed_tile *t,
                                size_t query) {
  rescaling by = {{0}, {0}};
  distances_coded(rows, a, s, t, query);
  soften_coded(rows, s, t, query, &by);
  for (size_t d = 0; d < a->head_width; d += 8 * VECTORS) {
    if (a->head_width - d > 8) add_values(rows, VECTORS, a, s, t, query, d, &by);
    else add_values(rows, 1, a, s, t, query, d, &by);
  }
}

KERNEL static void attend_coded_rows(const at_attention_int8 *a, const coded_state *s, const packed_tile *t,
                                     size_t query) {
  attend_coded(CODED_ROWS, a, s, t, query);
}
KERNEL static void attend_coded_row(const at_attention_int8 *a, const coded_state *s, const packed_tile *t,
                                    size_t query) {
  attend_coded(1, a, s, t, query);
}

KERNEL_INLINE void give_result(const at_attention_int8 *a, const coded_state *s, size_t query) {
  const float *sums = s->sums + query * at_attention_values(a->head_width);
  const floats inverse = all(1 / s->normaliser[query]);
  for (size_t d = 0; d < a->head_width; d += 8) {
    const size_t count = a->head_width - d;
    const floats mean = mul(mul(load_some(sums + d, count), inverse), load_some(a->value_step + d, count));
    const floats value = add(mean, load_some(a->value_centre + d, count));
    store_elements(a->halves, a->out, query * a->out_stride + d, count, value);
  }
}

KERNEL void KERNEL_NAME(attention_int8)(const at_attention_int8 *a) {
  const coded_state s = state_in(a);
  take_queries(a, &s);
  for (size_t first = 0; first < a->keys; first += AT_CODED_TILE) {
    const packed_tile t = tile_at(a, first);
    size_t query = 0;
    for (; query + CODED_ROWS <= a->queries; query += CODED_ROWS) attend_coded_rows(a, &s, &t, query);
    for (; query < a->queries; query++) attend_coded_row(a, &s, &t, query);
  }
  for (size_t i = 0; i < a->queries; i++) give_result(a, &s, i);
}
