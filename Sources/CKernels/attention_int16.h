// Attention for one head in integers: each packed tile of keys and values is read once for a block of queries,
// CODED_QUERIES at a time. In scores, lanes are keys; in weighted values, lanes are the head's channels. Neighbouring
// channels, or keys, are multiplied and added by one instruction.
#pragma once
#include "attention_rows.h"
#include <string.h>

typedef struct {
  int16_t *codes;    // [queries][pairs][2]
  float *scale;      // [queries], with the softmax's own scale in powers of two
  float *maximum;    // [queries]
  float *normaliser; // [queries]
  float *sums;       // [queries][head_width, rounded up to 8]: weighted values, still to be divided by the normaliser
  float *scores;     // [CODED_QUERIES][TILE]
  int16_t *weights;  // [CODED_QUERIES][TILE]: probabilities, still to be divided by the normaliser
} coded_state;

static coded_state state_in(const at_attention_int16 *a) {
  coded_state s = {.codes = a->workspace};
  const size_t codes = a->queries * 2 * at_attention_pairs(a->head_width) * sizeof(int16_t);
  s.scores = (float *)((char *)a->workspace + (codes + 31) / 32 * 32);
  s.weights = (int16_t *)(s.scores + CODED_QUERIES * TILE);
  s.sums = (float *)(s.weights + CODED_QUERIES * TILE);
  s.scale = s.sums + a->queries * at_attention_values(a->head_width);
  s.maximum = s.scale + a->queries;
  s.normaliser = s.maximum + a->queries;
  return s;
}

KERNEL_INLINE float greatest_magnitude(const float *x, size_t count) {
  floats greatest = all(0);
  for (size_t i = 0; i < count; i += 8) greatest = greater(magnitude(load_some(x + i, count - i)), greatest);
  return greatest_lane(greatest);
}

// `count` floats as s16, rounded to the nearest, and zeros up to a multiple of eight.
KERNEL_INLINE void code_row(const float *x, size_t count, float inverse, int16_t *codes) {
  for (size_t i = 0; i < count; i += 8) {
    store_int16(codes + i, add(mul(load_some(x + i, count - i), all(inverse)), all(rounding_magic)));
  }
}

enum { LONGEST = 1024 }; // channels of a head that are coded at a time

KERNEL void KERNEL_NAME(attention_pack)(const at_attention_pack *a) {
  const size_t pairs = at_attention_pairs(a->head_width), width = at_attention_values(a->head_width);
  float *key_scale = a->tile;
  int16_t *keys = (int16_t *)(key_scale + TILE + 16), *values = keys + pairs * TILE * 2;
  memset(a->tile, 0, at_attention_tile_bytes(a->head_width));
  float greatest = 0;
  for (size_t j = 0; j < a->count; j++) {
    const float other = greatest_magnitude(a->v + j * a->v_stride, a->head_width);
    greatest = other > greatest ? other : greatest;
  }
  const coding value = coding_for(greatest, AT_VALUE_LIMIT);
  key_scale[TILE] = value.scale;
  int16_t codes[2][LONGEST + 8];
  for (size_t j = 0; j < a->count; j++) {
    const float *k = a->k + j * a->k_stride;
    const coding key = coding_for(greatest_magnitude(k, a->head_width), (float)at_attention_limit(a->head_width));
    key_scale[j] = key.scale;
    for (size_t begin = 0; begin < a->head_width; begin += LONGEST) {
      const size_t count = a->head_width - begin < LONGEST ? a->head_width - begin : LONGEST;
      code_row(k + begin, count, key.inverse, codes[0]);
      for (size_t d = 0; d < count; d += 2)
        memcpy(keys + ((begin + d) / 2 * TILE + j) * 2, codes[0] + d, 2 * sizeof codes[0][0]);
    }
  }
  for (size_t j = 0; j < a->count; j += 2) {
    for (size_t begin = 0; begin < a->head_width; begin += LONGEST) {
      const size_t count = a->head_width - begin < LONGEST ? a->head_width - begin : LONGEST;
      code_row(a->v + j * a->v_stride + begin, count, value.inverse, codes[0]);
      if (j + 1 < a->count) code_row(a->v + (j + 1) * a->v_stride + begin, count, value.inverse, codes[1]);
      else memset(codes[1], 0, sizeof codes[1]);
      int16_t *both = values + (j / 2 * width + begin) * 2;
      for (size_t d = 0; d < count; d++) {
        both[2 * d] = codes[0][d];
        both[2 * d + 1] = codes[1][d];
      }
    }
  }
}

KERNEL_INLINE void take_queries(const at_attention_int16 *a, const coded_state *s) {
  const size_t stride = 2 * at_attention_pairs(a->head_width);
  for (size_t i = 0; i < a->queries; i++) {
    const float *q = a->q + i * a->q_stride;
    const coding c = coding_for(greatest_magnitude(q, a->head_width), (float)at_attention_limit(a->head_width));
    int16_t codes[8], *row = s->codes + i * stride;
    for (size_t d = 0; d < a->head_width; d += 8) {
      const size_t count = stride - d < 8 ? stride - d : 8;
      code_row(q + d, a->head_width - d < 8 ? a->head_width - d : 8, c.inverse, codes);
      memcpy(row + d, codes, count * sizeof *codes);
    }
    s->scale[i] = c.scale * (a->scale * log2_e);
    s->maximum[i] = -__builtin_inff();
    s->normaliser[i] = 0;
  }
}

// All TILE scores of some queries: those of keys that do not exist are never looked at.
KERNEL_INLINE void score_coded(const int rows, const at_attention_int16 *a, const coded_state *s, const packed_tile *t,
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
      const floats scale = all(s->scale[query + (size_t)r]);
      UNROLLED for (int i = 0; i < VECTORS; i++) {
        const size_t at = j + 8 * (size_t)i;
        store_floats(s->scores + r * TILE + at, mul(mul(to_float(sum[r][i]), load_floats(t->key_scale + at)), scale));
      }
    }
  }
}

static inline size_t coded_keys_seen(const at_attention_int16 *a, const packed_tile *t, size_t query) {
  return visible_keys(a->causal, a->first_query + query, t->first, t->count);
}

// The weights of one query, whole numbers of 2^-14, zero for keys that it does not see; returns their sum.
KERNEL_INLINE float weigh_keys(size_t count, size_t visible, float maximum, const float *p, int16_t *weights) {
  // Apart, because the maximum may be so large that a difference of fourteen is lost in it.
  const floats top = all(maximum), bits = all(AT_PROBABILITY_BITS);
  integers sum = zeros();
  const size_t end = (count + 31) / 32 * 32;
  for (size_t j = 0; j < end; j += 32) {
    floats e[4];
    UNROLLED for (int i = 0; i < 4; i++) e[i] = add(sub(load_floats(p + j + 8 * i), top), bits);
    power_of_two_each(4, e);
    UNROLLED for (int i = 0; i < 4; i += 2) store_pairs(weights + j + 8 * i, narrow(nearest(e[i]), nearest(e[i + 1])));
  }
  for (size_t j = visible; j < end; j++) weights[j] = 0;
  for (size_t j = 0; j < end; j += 16) sum = add_products(sum, load_pairs(weights + j), ones());
  return (float)sum_integers(sum);
}

// correction: what the sums so far are to be scaled by.
KERNEL_INLINE void soften_coded(const int rows, const at_attention_int16 *a, const coded_state *s, const packed_tile *t,
                                size_t query, float correction[8]) {
  float maximum[8] = {0};
  for (int r = 0; r < rows; r++) {
    const size_t i = query + (size_t)r, position = a->first_query + i;
    const float *bias = a->bias ? a->bias + ((ptrdiff_t)t->first - (ptrdiff_t)position) : NULL;
    const float gate = bias ? a->gate[i] * log2_e : 0;
    maximum[r] = bias_and_maximum(s->scores + r * TILE, coded_keys_seen(a, t, i), bias, gate, s->maximum[i]);
    correction[r] = s->maximum[i] - maximum[r];
  }
  floats power = load_floats(correction);
  power_of_two_each(1, &power);
  store_floats(correction, power);
  for (int r = 0; r < rows; r++) {
    const size_t i = query + (size_t)r;
    const size_t seen = coded_keys_seen(a, t, i);
    const float sum = weigh_keys(t->count, seen, maximum[r], s->scores + r * TILE, s->weights + r * TILE);
    s->normaliser[i] = s->normaliser[i] * correction[r] + sum;
    s->maximum[i] = maximum[r];
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
  score_coded(rows, a, s, t, query);
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
    divide_row(s.sums + i * width, s.normaliser[i], a->out + i * a->out_stride, a->head_width);
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
