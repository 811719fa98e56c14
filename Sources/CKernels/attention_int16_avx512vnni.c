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
  int16_t *codes; // [pairs][QUERIES][2]
  float *sums;    // [head_width, rounded up to 16][QUERIES]: weighted values, still to be divided by the normaliser
  float *scale;   // [QUERIES], with the softmax's own scale in powers of two
  float *maximum, *normaliser, *correction; // [QUERIES]
  float *gate;    // [QUERIES], in powers of two
  size_t first, count; // queries
} query_group;

// What is there for one group after the other.
typedef struct {
  float *scores;    // [TILE][QUERIES]
  int16_t *weights; // [TILE / 2][QUERIES][2]: probabilities, still to be divided by the normaliser
} group_scratch;

static size_t group_bytes(size_t head_width) {
  const size_t rows = at_attention_pairs(head_width) + (head_width + 15) / 16 * 16 + 5;
  return rows * QUERIES * sizeof(float);
}

static group_scratch scratch_in(const at_attention_int16 *a) {
  group_scratch s = {.scores = (float *)(((uintptr_t)a->workspace + LINE - 1) / LINE * LINE)};
  s.weights = (int16_t *)(s.scores + TILE * QUERIES);
  return s;
}

static query_group group_at(const at_attention_int16 *a, group_scratch s, size_t first) {
  char *memory = (char *)(s.weights + TILE * QUERIES) + first / QUERIES * group_bytes(a->head_width);
  query_group g = {.codes = (int16_t *)memory, .first = first};
  g.count = a->queries - first < QUERIES ? a->queries - first : QUERIES;
  g.scale = (float *)memory + at_attention_pairs(a->head_width) * QUERIES;
  g.maximum = g.scale + QUERIES;
  g.normaliser = g.maximum + QUERIES;
  g.correction = g.normaliser + QUERIES;
  g.gate = g.correction + QUERIES;
  g.sums = g.gate + QUERIES;
  return g;
}

KERNEL_INLINE float greatest_magnitude(const float *x, size_t count) {
  floats greatest = all(0);
  for (size_t i = 0; i < count; i += LANES) greatest = greater(magnitude(load_some(x + i, count - i)), greatest);
  return greatest_lane(greatest);
}

KERNEL static void take_queries(const at_attention_int16 *a, const query_group *g) {
  const size_t pairs = at_attention_pairs(a->head_width);
  for (size_t i = 0; i < QUERIES; i++) {
    const float *q = a->q + (g->first + i) * a->q_stride;
    const bool exists = i < g->count;
    const float greatest = exists ? greatest_magnitude(q, a->head_width) : 0;
    const coding c = coding_for(greatest, (float)at_attention_limit(a->head_width));
    for (size_t d = 0; d < 2 * pairs; d += LANES) {
      const size_t count = exists ? (a->head_width > d ? a->head_width - d : 0) : 0;
      const floats rounded = add(mul(load_some(q + d, count), all(c.inverse)), all(rounding_magic));
      int32_t codes[LANES / 2];
      _mm256_storeu_si256((__m256i *)codes, narrow_rounded(rounded));
      for (size_t p = 0; p < LANES / 2 && d / 2 + p < pairs; p++)
        __builtin_memcpy(g->codes + ((d / 2 + p) * QUERIES + i) * 2, &codes[p], sizeof codes[p]);
    }
    g->scale[i] = c.scale * (a->scale * log2_e);
    g->gate[i] = a->bias && exists ? a->gate[g->first + i] * log2_e : 0;
    g->maximum[i] = -__builtin_inff();
    g->normaliser[i] = 0;
  }
}

// Scores of COLUMNS keys from the `j`th on; keys that do not exist have codes and scales of zero.
KERNEL_INLINE void score_keys(const query_group *g, const packed_tile *t, size_t pairs, size_t j, float *scores) {
  integers sum[COLUMNS][VECTORS];
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[k][v] = zeros();
  }
  for (size_t d = 0; d < pairs; d++) {
    integers q[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) q[v] = load_pairs(g->codes + (d * QUERIES + (size_t)v * LANES) * 2);
    UNROLLED for (int k = 0; k < COLUMNS; k++) {
      const integers x = load_pair(t->keys + (d * TILE + j + (size_t)k) * 2);
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[k][v] = add_products(sum[k][v], q[v], x);
    }
  }
  UNROLLED for (int k = 0; k < COLUMNS; k++) {
    const floats key_scale = all(t->key_scale[j + (size_t)k]);
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      const floats scale = load_floats(g->scale + v * LANES);
      store_floats(scores + (j + (size_t)k) * QUERIES + v * LANES, mul(mul(to_float(sum[k][v]), key_scale), scale));
    }
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

KERNEL_INLINE void add_biases(const at_attention_int16 *a, const query_group *g, const packed_tile *t, sight s, int v,
                              float *scores) {
  const floats gate = load_floats(g->gate + v * LANES);
  const ptrdiff_t position = (ptrdiff_t)(a->first_query + g->first + (size_t)v * LANES);
  for (size_t j = 0; j < t->count; j++) {
    float *score = scores + j * QUERIES + (size_t)v * LANES;
    const floats bias = distance_biases(a->bias + ((ptrdiff_t)(t->first + j) - position), s.exists_backwards);
    store_floats(score, add(load_floats(score), mul(gate, bias)));
  }
}

// power_of_two_each to the same bits where results are normal numbers, and to zero or next to it below.
KERNEL_INLINE void weight_each(const int count, floats *v) {
  floats f[2 * VECTORS], p[2 * VECTORS];
#define EACH UNROLLED for (int i = 0; i < count; i++)
  EACH f[i] = _mm512_reduce_ps(v[i], _MM_FROUND_TO_NEAREST_INT);
  EACH v[i] = sub(v[i], f[i]);
  EACH p[i] = add(mul(all(0.055008933f), f[i]), all(0.24221095f));
  EACH p[i] = add(mul(p[i], f[i]), all(0.6932829f));
  EACH p[i] = add(mul(p[i], f[i]), all(1));
  EACH v[i] = _mm512_scalef_ps(p[i], v[i]);
#undef EACH
}

// Weights of two keys from the `j`th on for all queries, whole numbers of 2^-14, zero where a key is not seen.
KERNEL_INLINE void weigh_pair(const packed_tile *t, const sight *s, const floats *maximum, size_t j,
                              group_scratch scratch, integers *sum) {
  const floats bits = all(AT_PROBABILITY_BITS);
  floats e[2 * VECTORS];
  UNROLLED for (int k = 0; k < 2; k++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      const floats score = load_floats(scratch.scores + (j + (size_t)k) * QUERIES + v * LANES);
      // Apart, because the maximum may be so large that a difference of fourteen is lost in it.
      e[k * VECTORS + v] = add(sub(score, maximum[v]), bits);
    }
  }
  weight_each(2 * VECTORS, e);
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    integers first = nearest(e[v]), second = nearest(e[VECTORS + v]);
    if (s[v].causal) {
      first = _mm512_maskz_mov_epi32(seeing(s[v], j), first);
      second = _mm512_maskz_mov_epi32(seeing(s[v], j + 1), second);
    }
    if (j + 1 == t->count) second = zeros();
    const integers both = _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
    store_pairs(scratch.weights + (j * QUERIES / 2 + (size_t)v * LANES) * 2, both);
    sum[v] = add_products(sum[v], both, ones());
  }
}

KERNEL_INLINE void soften_group(const at_attention_int16 *a, const query_group *g, const packed_tile *t,
                                group_scratch scratch) {
  sight s[VECTORS];
  floats maximum[VECTORS], correction[VECTORS];
  integers sum[VECTORS];
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    s[v] = sight_of(a, g, t, v);
    if (a->bias) add_biases(a, g, t, s[v], v, scratch.scores);
    const floats before = load_floats(g->maximum + v * LANES);
    maximum[v] = before;
    for (size_t j = 0; j < t->count; j++) {
      const floats score = load_floats(scratch.scores + j * QUERIES + (size_t)v * LANES);
      const floats seen = a->causal ? _mm512_mask_mov_ps(maximum[v], seeing(s[v], j), score) : score;
      maximum[v] = greater(seen, maximum[v]);
    }
    store_floats(g->maximum + v * LANES, maximum[v]);
    correction[v] = sub(before, maximum[v]);
    sum[v] = zeros();
  }
  power_of_two_each(VECTORS, correction);
  for (size_t j = 0; j < t->count; j += 2) weigh_pair(t, s, maximum, j, scratch, sum);
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    const floats before = load_floats(g->normaliser + v * LANES);
    store_floats(g->normaliser + v * LANES, add(mul(before, correction[v]), to_float(sum[v])));
    store_floats(g->correction + v * LANES, correction[v]);
  }
}

// Adds the tile's weighted values to COLUMNS channels from the `d`th on.
KERNEL_INLINE void add_values(const query_group *g, const packed_tile *t, size_t width, size_t d,
                              const int16_t *weights) {
  integers sum[COLUMNS][VECTORS];
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = zeros();
  }
  for (size_t j = 0; j < t->count; j += 2) {
    integers w[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) w[v] = load_pairs(weights + (j * QUERIES / 2 + (size_t)v * LANES) * 2);
    UNROLLED for (int c = 0; c < COLUMNS; c++) {
      const integers x = load_pair(t->values + (j / 2 * width + d + (size_t)c) * 2);
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[c][v] = add_products(sum[c][v], w[v], x);
    }
  }
  UNROLLED for (int c = 0; c < COLUMNS; c++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      float *out = g->sums + (d + (size_t)c) * QUERIES + v * LANES;
      const floats before = t->first == 0 ? all(0) : load_floats(out);
      const floats correction = load_floats(g->correction + v * LANES);
      store_floats(out, add(mul(before, correction), mul(to_float(sum[c][v]), all(t->value_scale))));
    }
  }
}

KERNEL static void attend_tile(const at_attention_int16 *a, const query_group *g, const packed_tile *t,
                               group_scratch scratch) {
  if (visible_keys(a->causal, a->first_query + g->first + g->count - 1, t->first, t->count) == 0) return;
  const size_t pairs = at_attention_pairs(a->head_width), width = at_attention_values(a->head_width);
  for (size_t j = 0; j < t->count; j += COLUMNS) score_keys(g, t, pairs, j, scratch.scores);
  soften_group(a, g, t, scratch);
  for (size_t d = 0; d < width; d += COLUMNS) add_values(g, t, width, d, scratch.weights);
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
        store_some(a->out + (g->first + i + (size_t)q) * a->out_stride + d, a->head_width - d, rows[q]);
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
