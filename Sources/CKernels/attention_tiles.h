// Tiles of keys and values as attention reads them, apart from lanes.
#pragma once
#include "kernel.h"

enum { TILE = AT_ATTENTION_TILE }; // keys between two rescalings

// Keys that a query at `position` sees of a tile of `count` that begins with `first`.
static inline size_t visible_keys(bool causal, size_t position, size_t first, size_t count) {
  if (!causal) return count;
  if (position < first) return 0;
  return position + 1 - first < count ? position + 1 - first : count;
}

static const float log2_e = 1.44269504f;

typedef struct {
  const float *key_scale;
  float value_scale;
  const int16_t *keys;   // [pairs][TILE][2]
  const int16_t *values; // [TILE / 2][width][2]
  size_t first, count;   // keys
} packed_tile;

static inline packed_tile tile_at(const at_attention_int16 *a, size_t first, size_t end) {
  const char *tile = (const char *)a->tiles + first / TILE * at_attention_tile_bytes(a->head_width);
  packed_tile t = {.key_scale = (const float *)tile, .first = first};
  t.value_scale = t.key_scale[TILE];
  t.keys = (const int16_t *)(t.key_scale + TILE + 16);
  t.values = t.keys + at_attention_pairs(a->head_width) * TILE * 2;
  t.count = end - first < TILE ? end - first : TILE;
  return t;
}

// Integers of at most `limit`, and what they are multiples of.
typedef struct {
  float inverse, scale;
} coding;

static inline coding coding_for(float greatest, float limit) {
  const bool usable = greatest > 1e-30f;
  return (coding){usable ? limit / greatest : 0, usable ? greatest / limit : 0};
}
