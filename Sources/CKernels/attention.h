// Attention for one head: each tile of keys and values is packed once and all queries pass by, QUERIES at a time.
// In scores, lanes are keys; in weighted values, lanes are the head's channels.
#pragma once
#include "lanes.h"

// Keys that a query at `position` sees of a tile of `count` that begins with `first`.
static inline size_t visible_keys(bool causal, size_t position, size_t first, size_t count) {
  if (!causal) return count;
  if (position < first) return 0;
  return position + 1 - first < count ? position + 1 - first : count;
}

enum {
  TILE = AT_ATTENTION_TILE,
  QUERIES = 6,         // of a tile of registers
  BLOCK = 8 * VECTORS, // keys, or channels of the head, of a tile of registers
  STEP = 4,            // vectors that are exponentiated in step
};

typedef struct {
  float *keys;       // [head_width][TILE], transposed
  float *values;     // [head_width / BLOCK, rounded up][TILE][BLOCK]
  float *scores;     // [QUERIES][TILE]
  float *maximum;    // [queries]
  float *normaliser; // [queries]
  size_t first;      // key of the tile
  size_t count;      // keys in the tile
} attention_state;

// Adds the gated bias, where there is one, to the scores and finds their maximum, which is at least `least`.
KERNEL_INLINE float bias_and_maximum(float *scores, size_t visible, const float *bias, float gate, float least) {
  if (bias) {
    for (size_t j = 0; j < visible; j += 8)
      store_floats(scores + j, add(load_floats(scores + j), mul(all(gate), load_some(bias + j, visible - j))));
  }
  floats maximum = all(least);
  size_t j = 0;
  for (; j + 8 <= visible; j += 8) maximum = greater(load_floats(scores + j), maximum);
  float greatest = greatest_lane(maximum);
  for (; j < visible; j++) greatest = scores[j] > greatest ? scores[j] : greatest;
  return greatest;
}

// A query's weighted values divided by the sum of its weights.
KERNEL_INLINE void divide_row(const float *sums, float normaliser, float *out, size_t width) {
  const floats inverse = all(1 / normaliser);
  for (size_t d = 0; d < width; d += 8) store_some(out + d, width - d, mul(load_some(sums + d, width - d), inverse));
}

// Eight channels of eight keys; what does not exist is zero.
KERNEL_INLINE void load_keys(const at_attention *a, const attention_state *s, size_t d, size_t j, floats v[8]) {
  const float *k = a->k + (s->first + j) * a->k_stride + d;
  const size_t width = a->head_width - d;
  if (width >= 8 && j + 8 <= s->count) {
    UNROLLED for (size_t i = 0; i < 8; i++) v[i] = load_floats(k + i * a->k_stride);
  } else {
    UNROLLED for (size_t i = 0; i < 8; i++) v[i] = j + i < s->count ? load_some(k + i * a->k_stride, width) : all(0);
  }
}

// Channels that do not exist are zero among the values, up to whole vectors.
KERNEL static void pack_tile(const at_attention *a, const attention_state *s) {
  for (size_t d = 0; d < a->head_width; d += 8) {
    const size_t width = a->head_width - d;
    for (size_t j = 0; j < s->count; j += 8) {
      floats v[8];
      load_keys(a, s, d, j, v);
      transpose(v);
      UNROLLED for (size_t i = 0; i < 8; i++) {
        if (i < width) store_floats(s->keys + (d + i) * TILE + j, v[i]);
      }
    }
    const float *v = a->v + s->first * a->v_stride + d;
    float *packed = s->values + d / BLOCK * BLOCK * TILE + d % BLOCK;
    for (size_t j = 0; j < s->count; j++) store_floats(packed + j * BLOCK, load_some(v + j * a->v_stride, width));
  }
}

// The next tile's rows are far apart, where no processor looks ahead by itself.
static inline void prefetch_tile(const at_attention *a, size_t first) {
  for (size_t j = first; j < first + TILE && j < a->keys; j++) {
    for (size_t d = 0; d < a->head_width; d += 16) {
      __builtin_prefetch(a->k + j * a->k_stride + d, 0, 2);
      __builtin_prefetch(a->v + j * a->v_stride + d, 0, 2);
    }
  }
}

// Up to BLOCK - 1 keys beyond the tile's count are taken along: whatever the workspace holds there is never looked at.
KERNEL_INLINE void score(const int rows, const at_attention *a, const attention_state *s, size_t query) {
  const float *q[QUERIES];
  UNROLLED for (int r = 0; r < rows; r++) q[r] = a->q + (query + (size_t)r) * a->q_stride;
  const floats scale = all(a->scale);
  for (size_t j = 0; j < s->count; j += BLOCK) {
    floats sum[QUERIES][VECTORS];
    UNROLLED for (int r = 0; r < rows; r++) {
      UNROLLED for (int i = 0; i < VECTORS; i++) sum[r][i] = all(0);
    }
    for (size_t d = 0; d < a->head_width; d++) {
      floats k[VECTORS];
      UNROLLED for (int i = 0; i < VECTORS; i++) k[i] = load_floats(s->keys + d * TILE + j + 8 * (size_t)i);
      UNROLLED for (int r = 0; r < rows; r++) {
        const floats x = all(q[r][d]);
        UNROLLED for (int i = 0; i < VECTORS; i++) sum[r][i] = add(sum[r][i], mul(x, k[i]));
      }
    }
    UNROLLED for (int r = 0; r < rows; r++) {
      UNROLLED for (int i = 0; i < VECTORS; i++) store_floats(s->scores + r * TILE + j + 8 * i, mul(sum[r][i], scale));
    }
  }
}

static inline size_t keys_seen(const at_attention *a, const attention_state *s, size_t query) {
  return visible_keys(a->causal, a->first_query + query, s->first, s->count);
}

// Probabilities of one query, still to be divided by their sum, which is returned; zero for keys that it does not see.
KERNEL_INLINE float exponentiate(const attention_state *s, size_t visible, float maximum, float *p) {
  const floats top = all(maximum);
  floats sum = all(0);
  size_t j = 0;
  for (; j + 8 * STEP <= visible; j += 8 * STEP) {
    floats e[STEP];
    UNROLLED for (int i = 0; i < STEP; i++) e[i] = sub(load_floats(p + j + 8 * i), top);
    exp_each(STEP, e);
    UNROLLED for (int i = 0; i < STEP; i++) {
      store_floats(p + j + 8 * i, e[i]);
      sum = add(sum, e[i]);
    }
  }
  for (; j < s->count; j += 8) {
    floats e = exp_of(sub(load_floats(p + j), top));
    if (j + 8 > visible) e = keep_lanes(e, visible > j ? visible - j : 0);
    store_floats(p + j, e);
    sum = add(sum, e);
  }
  return sum_lanes(sum);
}

// correction: what the sums so far are to be scaled by.
KERNEL static void soften(int rows, const at_attention *a, const attention_state *s, size_t query,
                          float correction[8]) {
  float maximum[8] = {0};
  for (int r = 0; r < rows; r++) {
    const size_t i = query + (size_t)r, position = a->first_query + i;
    const float *bias = a->bias ? a->bias + ((ptrdiff_t)s->first - (ptrdiff_t)position) : NULL;
    maximum[r] = bias_and_maximum(s->scores + r * TILE, keys_seen(a, s, i), bias, bias ? a->gate[i] : 0, s->maximum[i]);
    correction[r] = s->maximum[i] - maximum[r];
  }
  store_floats(correction, exp_of(load_floats(correction)));
  for (int r = 0; r < rows; r++) {
    const size_t i = query + (size_t)r;
    const float sum = exponentiate(s, keys_seen(a, s, i), maximum[r], s->scores + r * TILE);
    s->normaliser[i] = s->normaliser[i] * correction[r] + sum;
    s->maximum[i] = maximum[r];
  }
}

// Adds the tile's values, for up to BLOCK channels of the head from d on.
KERNEL_INLINE void weigh(const int rows, const int vectors, const at_attention *a, const attention_state *s,
                         size_t query, size_t d, const float *correction) {
  const size_t width = a->head_width - d;
  floats sum[QUERIES][VECTORS];
  UNROLLED for (int r = 0; r < rows; r++) {
    const float *out = a->out + (query + (size_t)r) * a->out_stride + d;
    UNROLLED for (int i = 0; i < vectors; i++)
      sum[r][i] = s->first == 0 ? all(0) : mul(load_some(out + 8 * i, width - 8 * (size_t)i), all(correction[r]));
  }
  const float *values = s->values + d * TILE;
  for (size_t j = 0; j < s->count; j++) {
    floats v[VECTORS];
    UNROLLED for (int i = 0; i < vectors; i++) v[i] = load_floats(values + j * BLOCK + 8 * (size_t)i);
    UNROLLED for (int r = 0; r < rows; r++) {
      const floats p = all(s->scores[r * TILE + (int)j]);
      UNROLLED for (int i = 0; i < vectors; i++) sum[r][i] = add(sum[r][i], mul(p, v[i]));
    }
  }
  UNROLLED for (int r = 0; r < rows; r++) {
    float *out = a->out + (query + (size_t)r) * a->out_stride + d;
    UNROLLED for (int i = 0; i < vectors; i++) store_some(out + 8 * i, width - 8 * (size_t)i, sum[r][i]);
  }
}

KERNEL_INLINE void attend(const int rows, const at_attention *a, const attention_state *s, size_t query) {
  if (keys_seen(a, s, query + (size_t)rows - 1) == 0) return;
  float correction[8] = {0};
  score(rows, a, s, query);
  soften(rows, a, s, query, correction);
  for (size_t d = 0; d < a->head_width; d += BLOCK) {
    if (a->head_width - d > 8) weigh(rows, VECTORS, a, s, query, d, correction);
    else weigh(rows, 1, a, s, query, d, correction);
  }
}

KERNEL static void attend_6(const at_attention *a, const attention_state *s, size_t query) { attend(6, a, s, query); }
KERNEL static void attend_1(const at_attention *a, const attention_state *s, size_t query) { attend(1, a, s, query); }

KERNEL void KERNEL_NAME(attention)(const at_attention *a) {
  attention_state s = {.keys = a->workspace};
  s.values = s.keys + TILE * a->head_width;
  s.scores = s.values + TILE * (a->head_width + BLOCK);
  s.maximum = s.scores + TILE * QUERIES;
  s.normaliser = s.maximum + a->queries;
  for (size_t i = 0; i < a->queries; i++) {
    s.maximum[i] = -__builtin_inff();
    s.normaliser[i] = 0;
  }
  const size_t last = a->first_query + a->queries;
  const size_t end = a->causal && last < a->keys ? last : a->keys;
  for (; s.first < end; s.first += TILE) {
    s.count = end - s.first < TILE ? end - s.first : TILE;
    pack_tile(a, &s);
    prefetch_tile(a, s.first + TILE);
    size_t query = 0;
    for (; query + QUERIES <= a->queries; query += QUERIES) attend_6(a, &s, query);
    for (; query < a->queries; query++) attend_1(a, &s, query);
  }
  for (size_t i = 0; i < a->queries; i++) {
    float *out = a->out + i * a->out_stride;
    divide_row(out, s.normaliser[i], out, a->head_width);
  }
}
