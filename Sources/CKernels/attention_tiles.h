// Tiles of keys and values as attention reads them, apart from lanes.
#pragma once
#include "kernel.h"

enum { TILE = AT_ATTENTION_TILE, TILE_HEADER = 32 }; // keys between two rescalings; what comes first, in s16

// Keys that a query at `position` sees of a tile of `count` that begins with `first`.
static inline size_t visible_keys(bool causal, size_t position, size_t first, size_t count) {
  if (!causal) return count;
  if (position < first) return 0;
  return position + 1 - first < count ? position + 1 - first : count;
}

static const float log2_e = 1.44269504f;

typedef struct {
  float value_scale;
  int32_t key_exponent;
  const int16_t *keys;   // [pairs][TILE][2]
  const int16_t *values; // [TILE / 2][width][2]
  size_t first, count;   // keys
} packed_tile;

static inline packed_tile tile_at(const at_attention_int16 *a, size_t first, size_t end) {
  const char *tile = (const char *)a->tiles + first / TILE * at_attention_tile_bytes(a->head_width);
  packed_tile t = {.value_scale = *(const float *)tile, .key_exponent = ((const int32_t *)tile)[1], .first = first};
  t.keys = (const int16_t *)tile + TILE_HEADER;
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

// The largest n with which greatest * 2^n is at most `limit`, but for a rounding.
static inline int32_t exponent_for(float greatest, float limit) {
  if (!(greatest > 1e-30f)) return 0;
  const float ratio = limit / greatest;
  uint32_t bits;
  __builtin_memcpy(&bits, &ratio, sizeof bits);
  const int32_t exponent = (int32_t)(bits >> 23) - 127;
  return exponent < -126 ? -126 : exponent;
}
static inline float power_of_two(int32_t exponent) {
  const uint32_t bits = (uint32_t)(exponent + 127) << 23;
  float power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return power;
}

// Products of codes with these exponents, shifted right by so much, are distances, of at most 2^29: with a bias of at
// most 2^28 there is room for their differences in 32 bits. Where factors are so large that the shift is below LEAST_SHIFT,
// a distance may be beyond, and is then the largest.
enum { LEAST_SHIFT = 2, MOST_SHIFT = 31, FARTHEST_SEEN = 1 << 29 };
static inline int32_t distance_shift(int32_t query_exponent, int32_t key_exponent) {
  const int32_t shift = query_exponent + key_exponent - AT_DISTANCE_BITS;
  return shift > MOST_SHIFT ? MOST_SHIFT : shift;
}
// For a shift below LEAST_SHIFT; where it is negative, to the left.
static inline int32_t large_distance(int32_t product, int32_t shift) {
  const int32_t left = shift > 0 ? 0 : shift < -29 ? 29 : -shift, right = shift > 0 ? shift : 0;
  const int32_t most = (FARTHEST_SEEN >> left) << right;
  const int32_t kept = product > most ? most : product < -most ? -most : product;
  return (kept >> right) * (1 << left);
}

enum { FARTHEST = 1 << 30 }; // beyond all distances: that of a key that is not seen
enum { HALF = 1 << (AT_DISTANCE_BITS - 1) }; // weight_each counts distances from here on
static const float steps_of_distance = 1 << AT_DISTANCE_BITS, farthest_bias = 1 << 28;
static const float gate_steps = -1.44269504f * (1 << AT_DISTANCE_BITS); // a gate times this makes distances of biases
