// What attention in floats and in integers share: one query's scores, and the end of its row.
#pragma once
#include "attention_tiles.h"
#include "lanes.h"

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

// A query's weighted values divided by the sum of its weights, to the elements of `out` from the `first` on.
KERNEL_INLINE void divide_row(const float *sums, float normaliser, const bool halves, void *out, size_t first,
                              size_t width) {
  const floats inverse = all(1 / normaliser);
  for (size_t d = 0; d < width; d += 8)
    store_elements(halves, out, first + d, width - d, mul(load_some(sums + d, width - d), inverse));
}
