// Attention for one head as attention.h has it, to the same bits, but lanes are queries, which see all keys: no lane is
// left over where keys or channels are no multiples of LANES, and maxima and sums of a query stay in its lane. Written
// in the lanes of the instruction set whose header comes before, with
//   floats mul_by(floats, const float *)  by one number in memory
//   floats load_reversed(const float *last, size_t count)  last[0], last[-1] and so on; touches no more than `count`
//   VECTORS                               of queries
#pragma once
#include "lanes.h"

enum {
  TILE = AT_ATTENTION_TILE,
  QUERIES = VECTORS * LANES, // taken at once
  COLUMNS = 8,               // keys, or channels of the head, whose sums are in registers at once
  SUMS = 8,                  // of weights: key j is in sum j % SUMS, and sums are added up as sum_lanes does it
  EXPONENTS = 4,             // taken in step
};
_Static_assert(AT_ATTENTION_QUERIES % QUERIES == 0 && 16 % LANES == 0, "at_attention_workspace must have room");
_Static_assert(TILE % LANES == 0 && LANES % COLUMNS == 0, "blocks of keys and channels must fit into one another");
_Static_assert(COLUMNS % SUMS == 0 && SUMS % EXPONENTS == 0, "scores of as many keys as are looked at must be there");

// Keys and their values. Those that only fill up LANES keys or channels are zero; later keys are not read.
typedef struct {
  float *keys;   // [head_width][TILE], transposed
  float *values; // [head_width / LANES, rounded up][TILE][LANES]
  size_t first, count;
} float_tile;

// Of QUERIES queries; those that do not exist are zero.
typedef struct {
  float *q;          // [head_width, rounded up to LANES][QUERIES]
  float *sums;       // the same, of weighted values; channels that only fill up may hold anything
  float *maximum;    // [QUERIES]
  float *normaliser; // [QUERIES]
  size_t first, count;
} float_block;

static inline size_t padded_width(size_t head_width) { return (head_width + LANES - 1) / LANES * LANES; }

static float_block float_block_at(const at_attention *a, float *memory, size_t first) {
  const size_t rows = padded_width(a->head_width) * QUERIES;
  float_block b = {.q = memory + first / QUERIES * (2 * rows + 2 * QUERIES), .first = first};
  b.sums = b.q + rows;
  b.maximum = b.sums + rows;
  b.normaliser = b.maximum + QUERIES;
  b.count = a->queries - first < QUERIES ? a->queries - first : QUERIES;
  return b;
}

// LANES columns of up to as many rows, transposed; what does not exist is zero.
KERNEL_INLINE void load_columns(const float *x, size_t stride, size_t rows, size_t width, floats v[LANES]) {
  if (rows >= LANES) {
    UNROLLED for (size_t i = 0; i < LANES; i++) v[i] = load_some(x + i * stride, width);
  } else {
    for (size_t i = 0; i < LANES; i++) v[i] = i < rows ? load_some(x + i * stride, width) : all(0);
  }
  transpose(v);
}

KERNEL static void pack_float_tile(const at_attention *a, const float_tile *t) {
  for (size_t d = 0; d < a->head_width; d += LANES) {
    for (size_t j = 0; j < t->count; j += LANES) {
      floats v[LANES];
      load_columns(a->k + (t->first + j) * a->k_stride + d, a->k_stride, t->count - j, a->head_width - d, v);
      UNROLLED for (size_t i = 0; i < LANES; i++) {
        if (d + i < a->head_width) store_floats(t->keys + (d + i) * TILE + j, v[i]);
      }
    }
  }
  for (size_t d = 0; d < a->head_width; d += LANES) {
    const float *v = a->v + t->first * a->v_stride + d;
    for (size_t j = 0; j < t->count; j++)
      store_floats(t->values + d * TILE + j * LANES, load_some(v + j * a->v_stride, a->head_width - d));
  }
}

KERNEL static void take_float_queries(const at_attention *a, const float_block *b) {
  for (size_t i = 0; i < QUERIES; i += LANES) {
    const size_t rows = b->count > i ? b->count - i : 0;
    for (size_t d = 0; d < a->head_width; d += LANES) {
      floats v[LANES];
      load_columns(a->q + (b->first + i) * a->q_stride + d, a->q_stride, rows, a->head_width - d, v);
      UNROLLED for (size_t c = 0; c < LANES; c++) store_floats(b->q + (d + c) * QUERIES + i, v[c]);
    }
    store_floats(b->maximum + i, all(-__builtin_inff()));
    store_floats(b->normaliser + i, all(0));
  }
}

// Adds the gated bias to the scores of a key, the `j`th of the tile.
KERNEL_INLINE void add_bias(const at_attention *a, const float_block *b, const float_tile *t, size_t j, float *scores) {
  UNROLLED for (size_t i = 0; i < QUERIES; i += LANES) {
    if (i >= b->count) break;
    const ptrdiff_t distance = (ptrdiff_t)(t->first + j) - (ptrdiff_t)(a->first_query + b->first + i);
    const floats bias = load_reversed(a->bias + distance, b->count - i);
    const floats gated = mul(load_some(a->gate + b->first + i, b->count - i), bias);
    store_floats(scores + i, add(load_floats(scores + i), gated));
  }
}

// scores: [TILE][QUERIES]
KERNEL static void score_by_query(const at_attention *a, const float_block *b, const float_tile *t, float *scores) {
  const floats scale = all(a->scale);
  for (size_t j = 0; j < t->count; j += COLUMNS) {
    floats sum[COLUMNS][VECTORS];
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[k][v] = all(0);
    }
    for (size_t d = 0; d < a->head_width; d++) {
      floats q[VECTORS];
      UNROLLED for (int v = 0; v < VECTORS; v++) q[v] = load_floats(b->q + d * QUERIES + (size_t)v * LANES);
      UNROLLED for (int k = 0; k < COLUMNS; k++) {
        const float *key = t->keys + d * TILE + j + (size_t)k;
        UNROLLED for (int v = 0; v < VECTORS; v++) sum[k][v] = add(sum[k][v], mul_by(q[v], key));
      }
    }
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      UNROLLED for (int v = 0; v < VECTORS; v++)
        store_floats(scores + (j + (size_t)k) * QUERIES + v * LANES, mul(sum[k][v], scale));
    }
  }
  for (size_t j = 0; a->bias && j < t->count; j++) add_bias(a, b, t, j, scores + j * QUERIES);
}

// Turns a vector's scores into weights, still to be divided by their sum; returns what the sums so far are to be scaled
// by.
KERNEL_INLINE floats soften_by_query(const float_block *b, const float_tile *t, size_t lane, float *scores) {
  const floats before = load_floats(b->maximum + lane);
  floats top = before;
  for (size_t j = 0; j < t->count; j++) top = greater(load_floats(scores + j * QUERIES + lane), top);
  const floats correction = exp_of(sub(before, top));
  floats sum[SUMS];
  UNROLLED for (int i = 0; i < SUMS; i++) sum[i] = all(0);
  for (size_t j = 0; j < t->count; j += SUMS) {
    float *rows = scores + j * QUERIES + lane;
    UNROLLED for (size_t part = 0; part < SUMS; part += EXPONENTS) {
      floats e[EXPONENTS];
      UNROLLED for (size_t i = 0; i < EXPONENTS; i++) e[i] = sub(load_floats(rows + (part + i) * QUERIES), top);
      exp_each(EXPONENTS, e);
      UNROLLED for (size_t i = 0; i < EXPONENTS; i++) {
        if (j + part + i >= t->count) continue;
        store_floats(rows + (part + i) * QUERIES, e[i]);
        sum[part + i] = add(sum[part + i], e[i]);
      }
    }
  }
  UNROLLED for (int left = SUMS / 2; left > 0; left /= 2) {
    UNROLLED for (int i = 0; i < left; i++) sum[i] = add(sum[i], sum[i + left]);
  }
  store_floats(b->maximum + lane, top);
  store_floats(b->normaliser + lane, add(mul(load_floats(b->normaliser + lane), correction), sum[0]));
  return correction;
}

// Adds the tile's values, of COLUMNS channels from the `d`th on.
KERNEL_INLINE void weigh_by_query(const float_block *b, const float_tile *t, size_t d, const floats correction[VECTORS],
                                  const float *weights) {
  floats sum[COLUMNS][VECTORS];
  float *sums = b->sums + d * QUERIES;
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++)
      sum[c][v] = t->first == 0 ? all(0) : mul(load_floats(sums + c * QUERIES + v * LANES), correction[v]);
  }
  const float *values = t->values + d / LANES * LANES * TILE + d % LANES;
  for (size_t j = 0; j < t->count; j++) {
    floats p[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) p[v] = load_floats(weights + j * QUERIES + (size_t)v * LANES);
    UNROLLED for (int c = 0; c < COLUMNS; c++) {
      const float *value = values + j * LANES + (size_t)c;
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = add(sum[c][v], mul_by(p[v], value));
    }
  }
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) store_floats(sums + c * QUERIES + v * LANES, sum[c][v]);
  }
}

KERNEL static void give_float_results(const at_attention *a, const float_block *b) {
  for (size_t i = 0; i < b->count; i += LANES) {
    const floats inverse = divide(all(1), load_floats(b->normaliser + i));
    for (size_t d = 0; d < a->head_width; d += LANES) {
      floats rows[LANES];
      UNROLLED for (size_t c = 0; c < LANES; c++) rows[c] = mul(load_floats(b->sums + (d + c) * QUERIES + i), inverse);
      transpose(rows);
      UNROLLED for (size_t q = 0; q < LANES; q++) {
        if (i + q >= b->count) break;
        store_some(a->out + (b->first + i + q) * a->out_stride + d, a->head_width - d, rows[q]);
      }
    }
  }
}

// Whether three of four lanes have a query.
static inline bool fills_lanes(size_t queries) {
  const size_t taken = (queries + QUERIES - 1) / QUERIES * QUERIES;
  return 4 * queries >= 3 * taken;
}

KERNEL static void attend_by_query(const at_attention *a) {
  float_tile t = {.keys = a->workspace};
  t.values = t.keys + TILE * padded_width(a->head_width);
  float *scores = t.values + TILE * padded_width(a->head_width), *blocks = scores + TILE * QUERIES;
  for (size_t first = 0; first < a->queries; first += QUERIES) {
    const float_block b = float_block_at(a, blocks, first);
    take_float_queries(a, &b);
  }
  for (; t.first < a->keys; t.first += TILE) {
    t.count = a->keys - t.first < TILE ? a->keys - t.first : TILE;
    pack_float_tile(a, &t);
    for (size_t first = 0; first < a->queries; first += QUERIES) {
      const float_block b = float_block_at(a, blocks, first);
      floats correction[VECTORS];
      score_by_query(a, &b, &t, scores);
      UNROLLED for (size_t v = 0; v < VECTORS; v++) correction[v] = soften_by_query(&b, &t, v * LANES, scores);
      for (size_t d = 0; d < a->head_width; d += COLUMNS) weigh_by_query(&b, &t, d, correction, scores);
    }
  }
  for (size_t first = 0; first < a->queries; first += QUERIES) {
    const float_block b = float_block_at(a, blocks, first);
    give_float_results(a, &b);
  }
}
