// Layer norms add up lanes, which are eight in every variant.
#pragma once
#include "lanes.h"

KERNEL void KERNEL_NAME(layer_norm)(const at_layer_norm *a) {
  for (size_t r = 0; r < a->rows; r++) {
    float *out = a->out + r * a->columns;
    const float *x = a->halves ? out : (const float *)a->x + r * a->columns;
    floats sum = all(0), squares = all(0);
    if (a->halves) {
      for (size_t c = 0; c < a->columns; c += 8) {
        const floats v = load_elements(true, a->x, r * a->columns + c, a->columns - c);
        store_some(out + c, a->columns - c, v);
        sum = add(sum, v);
      }
    } else {
      for (size_t c = 0; c < a->columns; c += 8) sum = add(sum, load_some(x + c, a->columns - c));
    }
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
