// Attention for one head in integers: each packed tile of keys and values is read once for a block of queries,
// CODED_QUERIES at a time. In scores, lanes are keys; in weighted values, lanes are the head's channels. Neighbouring
// channels, or keys, are multiplied and added by one instruction.
#pragma once
#include "attention_rows.h"
#include <string.h>

typedef struct {
  int16_t *codes;     // [queries][pairs][2], of the negative queries: products are distances
  int32_t *exponent;  // [queries], of the codes
  int32_t *nearest;   // [queries]: the least distance so far
  float *normaliser;  // [queries]
  float *sums;        // [queries][head_width, rounded up to 8]: weighted values, still to be divided by the normaliser
  int32_t *distances; // [CODED_QUERIES][TILE]
  int16_t *weights;   // [CODED_QUERIES][TILE]: probabilities, still to be divided by the normaliser
} coded_state;

static coded_state state_in(const at_attention_int16 *a) {
  coded_state s = {.codes = a->workspace};
  const size_t codes = a->queries * 2 * at_attention_pairs(a->head_width) * sizeof(int16_t);
  s.distances = (int32_t *)((char *)a->workspace + (codes + 31) / 32 * 32);
  s.weights = (int16_t *)(s.distances + CODED_QUERIES * TILE);
  s.sums = (float *)(s.weights + CODED_QUERIES * TILE);
  s.normaliser = s.sums + a->queries * at_attention_values(a->head_width);
  s.exponent = (int32_t *)(s.normaliser + a->queries);
  s.nearest = s.exponent + a->queries;
  return s;
}

KERNEL_INLINE float greatest_of_rows(const bool halves, const void *x, size_t stride, size_t rows, size_t count) {
  floats greatest = all(0);
  for (size_t j = 0; j < rows; j++) {
    for (size_t d = 0; d < count; d += 8)
      greatest = greater(magnitude(load_elements(halves, x, j * stride + d, count - d)), greatest);
  }
  return greatest_lane(greatest);
}

// Eight elements from the `first` on times `factor`, to the nearest integers; zeros beyond `count`.
KERNEL_INLINE integers code(const bool halves, const void *x, size_t first, size_t count, floats factor) {
  return integers_of(add(mul(load_elements(halves, x, first, count), factor), all(rounding_magic)));
}

// Eight keys and eight pairs of channels at a time, so that keys lie side by side.
KERNEL_INLINE void pack_keys(const bool halves, const at_attention_pack *a, float factor, int16_t *keys) {
  const size_t pairs = at_attention_pairs(a->head_width);
  for (size_t j = 0; j < a->count; j += 8) {
    for (size_t d = 0; d < a->head_width; d += 16) {
      floats rows[8];
      UNROLLED for (size_t i = 0; i < 8; i++) {
        const size_t first = (j + i) * a->k_stride + d;
        const size_t count = j + i < a->count ? a->head_width - d : 0;
        const integers low = code(halves, a->k, first, count, all(factor));
        const integers high = code(halves, a->k, first + 8, count > 8 ? count - 8 : 0, all(factor));
        rows[i] = as_floats(narrow(low, high));
      }
      transpose(rows);
      UNROLLED for (size_t i = 0; i < 8; i++) {
        if (d / 2 + i < pairs) store_shorts(keys + ((d / 2 + i) * TILE + j) * 2, as_shorts(rows[i]));
      }
    }
  }
}

KERNEL_INLINE void pack_values(const bool halves, const at_attention_pack *a, float factor, int16_t *values) {
  const size_t width = at_attention_values(a->head_width);
  for (size_t j = 0; j < a->count; j += 2) {
    for (size_t d = 0; d < a->head_width; d += 8) {
      const size_t first = j * a->v_stride + d, count = a->head_width - d;
      const integers even = code(halves, a->v, first, count, all(factor));
      const integers odd = code(halves, a->v, first + a->v_stride, j + 1 < a->count ? count : 0, all(factor));
      store_shorts(values + (j / 2 * width + d) * 2, interleave(even, odd));
    }
  }
}

KERNEL_INLINE void pack(const bool halves, const at_attention_pack *a) {
  const float greatest_key = greatest_of_rows(halves, a->k, a->k_stride, a->count, a->head_width);
  const float greatest_value = greatest_of_rows(halves, a->v, a->v_stride, a->count, a->head_width);
  const int32_t exponent = exponent_for(greatest_key, (float)at_attention_limit(a->head_width));
  const coding value = coding_for(greatest_value, AT_VALUE_LIMIT);
  // All of a whole tile is written below, but for what its head has to spare.
  const size_t head = TILE_HEADER * sizeof(int16_t);
  memset(a->tile, 0, a->count < TILE ? at_attention_tile_bytes(a->head_width) : head);
  *(float *)a->tile = value.scale;
  ((int32_t *)a->tile)[1] = exponent;
  int16_t *keys = (int16_t *)a->tile + TILE_HEADER;
  pack_keys(halves, a, power_of_two(exponent), keys);
  pack_values(halves, a, value.inverse, keys + at_attention_pairs(a->head_width) * TILE * 2);
}

KERNEL void KERNEL_NAME(attention_pack)(const at_attention_pack *a) {
  if (a->halves) pack(true, a);
  else pack(false, a);
}

KERNEL_INLINE void take_queries(const at_attention_int16 *a, const coded_state *s) {
  const size_t stride = 2 * at_attention_pairs(a->head_width);
  const float scale = a->scale * log2_e;
  for (size_t i = 0; i < a->queries; i++) {
    const size_t first = i * a->q_stride;
    const int32_t exponent = exponent_for(greatest_magnitude(a->halves, a->q, first, a->head_width) * scale,
                                          (float)at_attention_limit(a->head_width));
    const float factor = -(scale * power_of_two(exponent));
    int16_t codes[8], *row = s->codes + i * stride;
    for (size_t d = 0; d < a->head_width; d += 8) {
      const size_t count = stride - d < 8 ? stride - d : 8;
      const floats scaled = mul(load_elements(a->halves, a->q, first + d, a->head_width - d), all(factor));
      store_int16(codes, add(scaled, all(rounding_magic)));
      memcpy(row + d, codes, count * sizeof *codes);
    }
    s->exponent[i] = exponent;
    s->nearest[i] = FARTHEST;
    s->normaliser[i] = 0;
  }
}

// The distances of a tile's keys from some queries, without bias; those of keys that do not exist mean nothing.
KERNEL_INLINE void distances_coded(const int rows, const at_attention_int16 *a, const coded_state *s, const packed_tile *t,
                               size_t query) {
  const size_t pairs = at_attention_pairs(a->head_width);
  const int16_t *q[CODED_QUERIES];
  UNROLLED for (int r = 0; r < rows; r++) q[r] = s->codes + (query + (size_t)r) * pairs * 2;
  for (size_t j = 0; j < t->count; j += 8 * VECTORS) {
    integers sum[CODED_QUERIES][VECTORS];
    UNROLLED for (int r = 0; r < rows; r++) {
      UNROLLED for (int i = 0; i < VECTORS; i++) sum[r][i] = zeros();
    }
    for (size_t d = 0; d < pairs; d++) {
      pairs8 k[VECTORS];
      UNROLLED for (int i = 0; i < VECTORS; i++) k[i] = load_pairs(t->keys + (d * TILE + j + 8 * (size_t)i) * 2);
      UNROLLED for (int r = 0; r < rows; r++) {
        const pair x = load_pair(q[r] + 2 * d);
        UNROLLED for (int i = 0; i < VECTORS; i++) sum[r][i] = add_products(sum[r][i], k[i], x);
      }
    }
    UNROLLED for (int r = 0; r < rows; r++) {
      const int32_t shift = distance_shift(s->exponent[query + (size_t)r], t->key_exponent);
      int32_t *distances = s->distances + r * TILE + j;
      UNROLLED for (int i = 0; i < VECTORS; i++)
        store_integers(distances + 8 * i, shift < LEAST_SHIFT ? sum[r][i] : shift_right(sum[r][i], shift));
      if (shift < LEAST_SHIFT) {
        for (int i = 0; i < 8 * VECTORS; i++) distances[i] = large_distance(distances[i], shift);
      }
    }
  }
}

static inline size_t coded_keys_seen(const at_attention_int16 *a, const packed_tile *t, size_t query) {
  return visible_keys(a->causal, a->first_query + query, t->first, t->count);
}

enum { SOFTENED = 32 }; // keys that are weighed at once

// Adds one query's bias, where there is one, and hides the keys that it does not see; returns the least distance.
KERNEL_INLINE int32_t least_distance(size_t count, size_t visible, const float *bias, float gate, int32_t *distances) {
  if (bias) {
    for (size_t j = 0; j < visible; j += 8) {
      const floats added = mul(all(gate), load_some(bias + j, visible - j));
      const integers steps = nearest(lesser(greater(added, all(-farthest_bias)), all(farthest_bias)));
      store_integers(distances + j, add_integers(load_integers(distances + j), steps));
    }
  }
  const size_t end = (count + SOFTENED - 1) / SOFTENED * SOFTENED;
  for (size_t j = visible; j < end; j++) distances[j] = FARTHEST;
  integers least = all_integers(FARTHEST);
  for (size_t j = 0; j < end; j += 8) least = lesser_integers(least, load_integers(distances + j));
  return least_integer(least);
}

// The weights of one query; returns their sum.
KERNEL_INLINE float weigh_keys(size_t count, int32_t nearest, const int32_t *distances, int16_t *weights) {
  const integers half_beyond = all_integers(nearest + HALF);
  integers sum = zeros();
  for (size_t j = 0; j < count; j += SOFTENED) {
    shorts w[SOFTENED / 16];
    UNROLLED for (int i = 0; i < SOFTENED / 16; i++) {
      const integers first = load_integers(distances + j + 16 * i), second = load_integers(distances + j + 16 * i + 8);
      w[i] = narrow(subtract_integers(first, half_beyond), subtract_integers(second, half_beyond));
    }
    weight_each(SOFTENED / 16, w);
    UNROLLED for (int i = 0; i < SOFTENED / 16; i++) {
      store_shorts(weights + j + 16 * i, w[i]);
      sum = add_products(sum, load_pairs(weights + j + 16 * i), ones());
    }
  }
  return (float)sum_integers(sum);
}

// correction: what the sums so far are to be scaled by.
KERNEL_INLINE void soften_coded(const int rows, const at_attention_int16 *a, const coded_state *s, const packed_tile *t,
                                size_t query, float correction[8]) {
  int32_t nearest[CODED_QUERIES];
  for (int r = 0; r < rows; r++) {
    const size_t i = query + (size_t)r, position = a->first_query + i;
    const float *bias = a->bias ? a->bias + ((ptrdiff_t)t->first - (ptrdiff_t)position) : NULL;
    const float gate = bias ? a->gate[i] * gate_steps : 0;
    const int32_t least =
      least_distance(t->count, coded_keys_seen(a, t, i), bias, gate, s->distances + r * TILE);
    nearest[r] = least < s->nearest[i] ? least : s->nearest[i];
    correction[r] = (float)(nearest[r] - s->nearest[i]) * (1 / steps_of_distance);
  }
  floats power = load_floats(correction);
  power_of_two_each(1, &power);
  store_floats(correction, power);
  for (int r = 0; r < rows; r++) {
    const size_t i = query + (size_t)r;
    const float sum = weigh_keys(t->count, nearest[r], s->distances + r * TILE, s->weights + r * TILE);
    s->normaliser[i] = s->normaliser[i] * correction[r] + sum;
    s->nearest[i] = nearest[r];
  }
}

// Adds the tile's weighted values to channels d..<d + 8 * vectors.
KERNEL_INLINE void add_values(const int rows, const int vectors, const at_attention_int16 *a, const coded_state *s,
                              const packed_tile *t, size_t query, size_t d, const float *correction) {
  const size_t width = at_attention_values(a->head_width);
  integers sum[CODED_QUERIES][VECTORS];
  UNROLLED for (int r = 0; r < rows; r++) {
    UNROLLED for (int i = 0; i < vectors; i++) sum[r][i] = zeros();
  }
  for (size_t j = 0; j < t->count; j += 2) {
    pairs8 v[VECTORS];
    UNROLLED for (int i = 0; i < vectors; i++) v[i] = load_pairs(t->values + (j / 2 * width + d + 8 * (size_t)i) * 2);
    UNROLLED for (int r = 0; r < rows; r++) {
      const pair x = load_pair(s->weights + (size_t)r * TILE + j);
      UNROLLED for (int i = 0; i < vectors; i++) sum[r][i] = add_products(sum[r][i], v[i], x);
    }
  }
  UNROLLED for (int r = 0; r < rows; r++) {
    float *out = s->sums + (query + (size_t)r) * width + d;
    UNROLLED for (int i = 0; i < vectors; i++) {
      const floats before = t->first == 0 ? all(0) : load_floats(out + 8 * i);
      store_floats(out + 8 * i, add(mul(before, all(correction[r])), mul(to_float(sum[r][i]), all(t->value_scale))));
    }
  }
}

KERNEL_INLINE void attend_coded(const int rows, const at_attention_int16 *a, const coded_state *s, const packed_tile *t,
                                size_t query) {
  if (coded_keys_seen(a, t, query + (size_t)rows - 1) == 0) return;
  float correction[8] = {0};
  distances_coded(rows, a, s, t, query);
  soften_coded(rows, a, s, t, query, correction);
  for (size_t d = 0; d < a->head_width; d += 8 * VECTORS) {
    if (a->head_width - d > 8) add_values(rows, VECTORS, a, s, t, query, d, correction);
    else add_values(rows, 1, a, s, t, query, d, correction);
  }
}

KERNEL static void attend_coded_rows(const at_attention_int16 *a, const coded_state *s, const packed_tile *t,
                                     size_t query) {
  attend_coded(CODED_QUERIES, a, s, t, query);
}
KERNEL static void attend_coded_row(const at_attention_int16 *a, const coded_state *s, const packed_tile *t,
                                    size_t query) {
  attend_coded(1, a, s, t, query);
}

KERNEL void KERNEL_NAME(attention_int16)(const at_attention_int16 *a) {
  const coded_state s = state_in(a);
  take_queries(a, &s);
  const size_t last = a->first_query + a->queries;
  const size_t end = a->causal && last < a->keys ? last : a->keys;
  for (size_t first = 0; first < end; first += TILE) {
    const packed_tile t = tile_at(a, first, end);
    size_t query = 0;
    for (; query + CODED_QUERIES <= a->queries; query += CODED_QUERIES) attend_coded_rows(a, &s, &t, query);
    for (; query < a->queries; query++) attend_coded_row(a, &s, &t, query);
  }
  const size_t width = at_attention_values(a->head_width);
  for (size_t i = 0; i < a->queries; i++)
    divide_row(s.sums + i * width, s.normaliser[i], a->halves, a->out, i * a->out_stride, a->head_width);
}

KERNEL uint32_t CEILING_NAME_OF(int16)(size_t iterations) {
  const int16_t halves[16] = {1, 2, 3};
  pairs8 v = load_pairs(halves);
  const pair x = load_pair(halves);
  enum { CHAINS = CODED_QUERIES * VECTORS };
  integers sum[CHAINS];
  UNROLLED for (int i = 0; i < CHAINS; i++) sum[i] = zeros();
  for (size_t n = 0; n < iterations * AT_CEILING_PRODUCTS / (16 * CHAINS); n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) {
      hide_pairs(&v);
      sum[i] = add_products(sum[i], v, x);
    }
  }
  int32_t total = 0;
  UNROLLED for (int i = 0; i < CHAINS; i++) total ^= sum_integers(sum[i]);
  return (uint32_t)total;
}
