// What attention in integers is made of, apart from lanes: its tiles, and how distances are counted.
#pragma once
#include "kernel.h"

typedef struct {
  const int16_t *keys;   // [pairs][AT_CODED_TILE][2]
  const int16_t *values; // [AT_CODED_TILE / 2][width][2]
  size_t first, count;   // keys
} packed_tile;

static inline packed_tile tile_at(const at_attention_int8 *a, size_t first) {
  packed_tile t = {.first = first, .count = a->keys - first < AT_CODED_TILE ? a->keys - first : AT_CODED_TILE};
  t.keys = (const int16_t *)((const char *)a->tiles + first / AT_CODED_TILE * at_attention_tile_bytes(a->head_width));
  t.values = t.keys + at_attention_pairs(a->head_width) * AT_CODED_TILE * 2;
  return t;
}

// For queries of zeros, whose distances are zero: no shift.
enum { SMALL_RATIO = 1 << AT_DISTANCE_BITS };

// How a query is coded, and what a step of its distances is.
typedef struct {
  float ratio;      // of codes to what they are of
  int32_t exponent; // of ratio
  int16_t fraction; // a step is fraction / 2^15 of 2^-AT_DISTANCE_BITS of an exponent: it is that of 2^exponent / ratio
  int32_t half;     // steps that are half of an exponent, or a little less
} query_coding;

static inline query_coding query_coding_for(float greatest) {
  query_coding c = {.ratio = greatest > 1e-30f ? AT_CODE_LIMIT / greatest : SMALL_RATIO};
  uint32_t bits;
  __builtin_memcpy(&bits, &c.ratio, sizeof bits);
  c.exponent = (int32_t)(bits >> 23) - 127;
  const uint32_t mantissa = (bits & 0x7fffff) | 0x3f800000;
  float times;
  __builtin_memcpy(&times, &mantissa, sizeof times);
  const int32_t fraction = (int32_t)(32768 / times);
  c.fraction = (int16_t)(fraction < INT16_MAX ? fraction : INT16_MAX);
  c.half = (1 << (AT_DISTANCE_BITS + 14)) / c.fraction;
  return c;
}

// Products of codes of keys and of a query with this exponent, shifted right by so much, are distances, in steps, of at
// most 2^29: there is room for their differences in 32 bits. Where factors are so large that the shift is to the left, a
// distance may be beyond, and is then the largest.
enum { MOST_SHIFT = 31, FARTHEST_SEEN = 1 << 29 };
static inline int32_t distance_shift(int32_t query_exponent) {
  const int32_t shift = query_exponent - AT_DISTANCE_BITS;
  return shift > MOST_SHIFT ? MOST_SHIFT : shift;
}
// For a shift to the left, which is a negative one.
static inline int32_t large_distance(int32_t product, int32_t shift) {
  const int32_t left = shift < -29 ? 29 : -shift, most = FARTHEST_SEEN >> left;
  return (product > most ? most : product < -most ? -most : product) * (1 << left);
}

enum { FARTHEST = 1 << 30 }; // beyond all distances: that of a key that does not exist

// What a tile's distances are counted from, when `nearest` is the least of all so far.
static inline int32_t reference_of(int32_t least, int32_t nearest) {
  return least < nearest + AT_REACH ? least : nearest + AT_REACH;
}

// What a query's steps are in exponents.
static inline float exponents_of_step(int16_t fraction) {
  return (float)fraction * (1.0f / (1 << (15 + AT_DISTANCE_BITS)));
}
