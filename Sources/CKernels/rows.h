// Quantisation and norms: what adds up or compares the elements of rows.
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
  for (; c + 32 <= columns; c += 32) {
    UNROLLED for (size_t j = 0; j < 4; j++) {
      const floats v = load_floats(x + c + 8 * j);
      lows[j] = lesser(v, lows[j]);
      highs[j] = greater(v, highs[j]);
    }
  }
  for (; c < columns; c += 8) {
    const floats v = load_some(x + c, columns - c);
    lows[0] = lesser(v, lows[0]);
    highs[0] = greater(v, highs[0]);
  }
  *low = -greatest_lane(negative(lesser(lesser(lows[0], lows[1]), lesser(lows[2], lows[3]))));
  *high = greatest_lane(greater(greater(highs[0], highs[1]), greater(highs[2], highs[3])));
}

KERNEL_INLINE void quantize_32(const float *x, floats inverse, int32_t zero, uint8_t *q) {
  floats rounded[4];
  UNROLLED for (int j = 0; j < 4; j++) rounded[j] = add(mul(load_floats(x + 8 * j), inverse), all(rounding_magic));
  store_codes(q, rounded, zero);
}

KERNEL_INLINE void quantize_row(const float *x, size_t columns, float inverse, int32_t zero, uint8_t *q) {
  size_t c = 0;
  for (; c + 32 <= columns; c += 32) quantize_32(x + c, all(inverse), zero, q + c);
  if (c < columns) {
    float rest[32] = {0};
    uint8_t codes[32];
    memcpy(rest, x + c, (columns - c) * sizeof *x);
    quantize_32(rest, all(inverse), zero, codes);
    memcpy(q + c, codes, columns - c);
  }
}

KERNEL void KERNEL_NAME(quantize_rows)(const at_quantize *a) {
  for (size_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * a->x_stride;
    uint8_t *q = a->q + r * a->q_stride;
    float low, high;
    range_of_row(x, a->columns, &low, &high);
    const float range = high - low;
    const bool usable = range > 1e-30f;
    const float inverse = usable ? 255 / range : 0;
    a->scale[r] = usable ? range / 255 : 0;
    a->zero[r] = round_to_integer(-low * inverse);
    quantize_row(x, a->columns, inverse, a->zero[r], q);
    for (size_t c = a->columns; c < a->padded; c++) q[c] = 0;
  }
}

KERNEL void KERNEL_NAME(layer_norm)(const at_layer_norm *a) {
  for (size_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * a->columns;
    float *out = a->out + r * a->columns;
    floats sum = all(0), squares = all(0);
    for (size_t c = 0; c < a->columns; c += 8) sum = add(sum, load_some(x + c, a->columns - c));
    const floats mean = all(sum_lanes(sum) / (float)a->columns);
    for (size_t c = 0; c < a->columns; c += 8) {
      const floats d = sub(load_some(x + c, a->columns - c), mean);
      // Lanes past the end would add the mean's square.
      squares = add(squares, c + 8 <= a->columns ? mul(d, d) : keep_lanes(mul(d, d), a->columns - c));
    }
    const float variance = sum_lanes(squares) / (float)a->columns;
    const floats inverse = divide(all(1), square_root(all(variance + a->epsilon)));
    for (size_t c = 0; c < a->columns; c += 8) {
      const size_t count = a->columns - c;
      const floats y = mul(sub(load_some(x + c, count), mean), inverse);
      store_some(out + c, count, add(mul(y, load_some(a->gamma + c, count)), load_some(a->beta + c, count)));
    }
  }
}

KERNEL_INLINE void channel_sums(const bool halves, const int vectors, const at_channel_sums *a, size_t c,
                                size_t count) {
  floats sum[4], square[4];
  UNROLLED for (int j = 0; j < vectors; j++) sum[j] = square[j] = all(0);
  for (size_t r = 0; r < a->rows; r++) {
    const size_t first = r * a->channels + c;
    UNROLLED for (int j = 0; j < vectors; j++) {
      const floats v = load_elements(halves, a->x, first + 8 * (size_t)j, count - 8 * (size_t)j);
      sum[j] = add(sum[j], v);
      square[j] = add(square[j], mul(v, v));
    }
  }
  UNROLLED for (int j = 0; j < vectors; j++) {
    store_some(a->sum + c + 8 * j, count - 8 * (size_t)j, sum[j]);
    store_some(a->square + c + 8 * j, count - 8 * (size_t)j, square[j]);
  }
}

KERNEL_INLINE void all_channel_sums(const bool halves, const at_channel_sums *a) {
  size_t c = 0;
  for (; c + 32 <= a->channels; c += 32) channel_sums(halves, 4, a, c, 32);
  for (; c < a->channels; c += 8) channel_sums(halves, 1, a, c, a->channels - c < 8 ? a->channels - c : 8);
}

KERNEL void KERNEL_NAME(channel_sums)(const at_channel_sums *a) {
  if (a->halves) all_channel_sums(true, a);
  else all_channel_sums(false, a);
}
