// Quantisation and the sums of channels, in any number of lanes.
#pragma once
#include "lanes.h"
#include <string.h>

// Oracle.roundToInteger
static inline int32_t round_to_integer(float x) {
  const float shifted = x + rounding_magic;
  int32_t bits, magic;
  memcpy(&bits, &shifted, sizeof bits);
  memcpy(&magic, &rounding_magic, sizeof magic);
  return (int32_t)((uint32_t)bits - (uint32_t)magic);
}

// The smallest and the largest element, or zero where that is beyond.
KERNEL_INLINE void range_of_row(const float *x, size_t columns, float *low, float *high) {
  floats lows[4] = {all(0), all(0), all(0), all(0)}, highs[4] = {all(0), all(0), all(0), all(0)};
  size_t c = 0;
  for (; c + 4 * LANES <= columns; c += 4 * LANES) {
    UNROLLED for (size_t j = 0; j < 4; j++) {
      const floats v = load_floats(x + c + LANES * j);
      lows[j] = lesser(v, lows[j]);
      highs[j] = greater(v, highs[j]);
    }
  }
  for (; c < columns; c += LANES) {
    const floats v = load_some(x + c, columns - c);
    lows[0] = lesser(v, lows[0]);
    highs[0] = greater(v, highs[0]);
  }
  *low = -greatest_lane(negative(lesser(lesser(lows[0], lows[1]), lesser(lows[2], lows[3]))));
  *high = greatest_lane(greater(greater(highs[0], highs[1]), greater(highs[2], highs[3])));
}

// Four vectors.
KERNEL_INLINE void quantize_four(const float *x, floats inverse, int32_t zero, uint8_t *q) {
  floats rounded[4];
  UNROLLED for (int j = 0; j < 4; j++) rounded[j] = add(mul(load_floats(x + LANES * j), inverse), all(rounding_magic));
  store_codes(q, rounded, zero);
}

// A row to be quantised, as floats, and its range as above.
KERNEL_INLINE void take_row(const bool halves, const bool differs, const at_quantize *a, size_t first, float *low,
                            float *high) {
  floats lows = all(0), highs = all(0);
  for (size_t c = 0; c < a->columns; c += LANES) {
    const size_t count = a->columns - c;
    floats v = load_elements(halves, a->x, first + c, count);
    if (differs) v = sub(v, load_elements(halves, a->other, first + c, count));
    store_some(a->row + c, count, v);
    lows = lesser(v, lows);
    highs = greater(v, highs);
  }
  *low = -greatest_lane(negative(lows));
  *high = greatest_lane(highs);
}

KERNEL_INLINE void quantize_row(const float *x, size_t columns, float inverse, int32_t zero, uint8_t *q) {
  size_t c = 0;
  for (; c + 4 * LANES <= columns; c += 4 * LANES) quantize_four(x + c, all(inverse), zero, q + c);
  if (c < columns) {
    float rest[4 * LANES] = {0};
    uint8_t codes[4 * LANES];
    memcpy(rest, x + c, (columns - c) * sizeof *x);
    quantize_four(rest, all(inverse), zero, codes);
    memcpy(q + c, codes, columns - c);
  }
}

// Rows whose lines are asked for before their codes are written: another thread may have had them.
enum { CODED_AHEAD = 8 };

KERNEL void KERNEL_NAME(quantize_rows)(const at_quantize *a) {
  for (size_t r = 0; r < a->rows; r++) {
    const size_t first = r * a->x_stride;
    const float *x = a->row;
    uint8_t *q = a->q + r * a->q_stride;
    float low, high;
    if (a->halves && a->other) {
      take_row(true, true, a, first, &low, &high);
    } else if (a->halves) {
      take_row(true, false, a, first, &low, &high);
    } else if (a->other) {
      take_row(false, true, a, first, &low, &high);
    } else {
      x = (const float *)a->x + first;
      range_of_row(x, a->columns, &low, &high);
    }
    for (size_t c = 0; c < a->columns; c += LINE) __builtin_prefetch(q + CODED_AHEAD * a->q_stride + c, 1, 3);
    const float range = high - low;
    const bool usable = range > 1e-30f;
    const float inverse = usable ? 255 / range : 0;
    a->scale[r] = usable ? range / 255 : 0;
    a->zero[r] = round_to_integer(-low * inverse);
    quantize_row(x, a->columns, inverse, a->zero[r], q);
    for (size_t c = a->columns; c < a->padded; c++) q[c] = 0;
  }
}

KERNEL_INLINE void channel_sums(const bool halves, const int vectors, const at_channel_sums *a, size_t c,
                                size_t count) {
  floats sum[4], square[4];
  UNROLLED for (int j = 0; j < vectors; j++) sum[j] = square[j] = all(0);
  for (size_t r = 0; r < a->rows; r++) {
    const size_t first = r * a->channels + c;
    UNROLLED for (int j = 0; j < vectors; j++) {
      const floats v = load_elements(halves, a->x, first + LANES * (size_t)j, count - LANES * (size_t)j);
      sum[j] = add(sum[j], v);
      square[j] = add(square[j], mul(v, v));
    }
  }
  UNROLLED for (int j = 0; j < vectors; j++) {
    store_some(a->sum + c + LANES * j, count - LANES * (size_t)j, sum[j]);
    store_some(a->square + c + LANES * j, count - LANES * (size_t)j, square[j]);
  }
}

KERNEL_INLINE void all_channel_sums(const bool halves, const at_channel_sums *a) {
  size_t c = 0;
  for (; c + 4 * LANES <= a->channels; c += 4 * LANES) channel_sums(halves, 4, a, c, 4 * LANES);
  for (; c < a->channels; c += LANES)
    channel_sums(halves, 1, a, c, a->channels - c < LANES ? a->channels - c : LANES);
}

KERNEL void KERNEL_NAME(channel_sums)(const at_channel_sums *a) {
  if (a->halves) all_channel_sums(true, a);
  else all_channel_sums(false, a);
}

KERNEL_INLINE void channel_ranges(const bool halves, const at_channel_ranges *a) {
  for (size_t c = 0; c < a->channels; c += LANES) {
    floats least = all(__builtin_inff()), greatest = all(-__builtin_inff());
    for (size_t r = 0; r < a->rows; r++) {
      const floats v = load_elements(halves, a->x, r * a->channels + c, a->channels - c);
      least = lesser(v, least);
      greatest = greater(v, greatest);
    }
    store_some(a->least + c, a->channels - c, least);
    store_some(a->greatest + c, a->channels - c, greatest);
  }
}

KERNEL void KERNEL_NAME(channel_ranges)(const at_channel_ranges *a) {
  if (a->halves) channel_ranges(true, a);
  else channel_ranges(false, a);
}
