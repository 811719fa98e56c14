// What is done to each element by itself, in any number of lanes.
#pragma once
#include "lanes.h"

KERNEL void KERNEL_NAME(widen)(const at_widen *a) {
  for (size_t i = 0; i < a->count; i += LANES)
    store_some(a->out + i, a->count - i, load_elements(true, a->x, i, a->count - i));
}

enum { ACTIVATED = MOST_IN_STEP }; // vectors

KERNEL_INLINE void activate_each(const at_activation activation, const int count, floats *x) {
  switch (activation) {
    case AT_SILU: silu_each(count, x); break;
    case AT_GELU: gelu_each(count, x); break;
    case AT_QUICK_GELU: quick_gelu_each(count, x); break;
    case AT_RELU:
      UNROLLED for (int i = 0; i < count; i++) x[i] = positive_part(x[i]);
      break;
    default: break;
  }
}

// Of some vectors of a row from the `c`th channel on.
KERNEL_INLINE void affine_vectors(const bool halves, const at_activation activation, const int vectors, const at_affine *a,
                                  size_t row, size_t c) {
  floats y[ACTIVATED];
  UNROLLED for (int i = 0; i < vectors; i++) {
    const size_t at = c + (size_t)i * LANES, count = a->channels - at;
    const floats x = load_elements(halves, a->x, row + at, count);
    y[i] = add(mul(x, load_some(a->factor + at, count)), load_some(a->offset + at, count));
  }
  activate_each(activation, vectors, y);
  UNROLLED for (int i = 0; i < vectors; i++) {
    const size_t at = c + (size_t)i * LANES;
    store_some(a->out + row + at, a->channels - at, y[i]);
  }
}

KERNEL_INLINE void affine_rows(const bool halves, const at_activation activation, const at_affine *a) {
  const size_t step = ACTIVATED * LANES;
  for (size_t r = 0; r < a->rows; r++) {
    const size_t row = r * a->channels;
    size_t c = 0;
    for (; c + step <= a->channels; c += step) affine_vectors(halves, activation, ACTIVATED, a, row, c);
    for (; c < a->channels; c += LANES) affine_vectors(halves, activation, 1, a, row, c);
  }
}

KERNEL_INLINE void affine(const at_activation activation, const at_affine *a) {
  if (a->halves) affine_rows(true, activation, a);
  else affine_rows(false, activation, a);
}

KERNEL void KERNEL_NAME(affine)(const at_affine *a) {
  switch (a->activation) {
    case AT_SILU: affine(AT_SILU, a); break;
    case AT_GELU: affine(AT_GELU, a); break;
    case AT_QUICK_GELU: affine(AT_QUICK_GELU, a); break;
    case AT_RELU: affine(AT_RELU, a); break;
    default: affine(AT_IDENTITY, a); break;
  }
}

KERNEL_INLINE void map_vectors(const at_activation activation, const int vectors, const at_map *a, size_t first) {
  floats y[ACTIVATED];
  UNROLLED for (int i = 0; i < vectors; i++) {
    const size_t at = first + (size_t)i * LANES;
    y[i] = load_some(a->x + at, a->count - at);
  }
  activate_each(activation, vectors, y);
  UNROLLED for (int i = 0; i < vectors; i++) {
    const size_t at = first + (size_t)i * LANES;
    store_some(a->out + at, a->count - at, y[i]);
  }
}

KERNEL_INLINE void map(const at_activation activation, const at_map *a) {
  const size_t step = ACTIVATED * LANES;
  size_t i = 0;
  for (; i + step <= a->count; i += step) map_vectors(activation, ACTIVATED, a, i);
  for (; i < a->count; i += LANES) map_vectors(activation, 1, a, i);
}

KERNEL void KERNEL_NAME(map)(const at_map *a) {
  switch (a->activation) {
    case AT_SILU: map(AT_SILU, a); break;
    case AT_GELU: map(AT_GELU, a); break;
    case AT_QUICK_GELU: map(AT_QUICK_GELU, a); break;
    case AT_RELU: map(AT_RELU, a); break;
    default: map(AT_IDENTITY, a); break;
  }
}

KERNEL void KERNEL_NAME(add)(const at_add *a) {
  const floats alpha = all(a->alpha);
  for (size_t i = 0; i < a->count; i += LANES) {
    const size_t count = a->count - i;
    store_some(a->out + i, count, add(mul(load_some(a->a + i, count), alpha), load_some(a->b + i, count)));
  }
}

KERNEL_INLINE void gate_vectors(const int vectors, const float *x, const float *gate, size_t count, float *out) {
  floats y[ACTIVATED];
  UNROLLED for (int i = 0; i < vectors; i++) y[i] = load_some(gate + i * LANES, count - (size_t)i * LANES);
  gelu_each(vectors, y);
  UNROLLED for (int i = 0; i < vectors; i++) {
    const size_t left = count - (size_t)i * LANES;
    store_some(out + i * LANES, left, mul(load_some(x + i * LANES, left), y[i]));
  }
}

KERNEL void KERNEL_NAME(gated_gelu)(const at_gated_gelu *a) {
  const size_t step = ACTIVATED * LANES;
  for (size_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * 2 * a->columns, *gate = x + a->columns;
    float *out = a->out + r * a->out_stride;
    size_t c = 0;
    for (; c + step <= a->columns; c += step) gate_vectors(ACTIVATED, x + c, gate + c, step, out + c);
    for (; c < a->columns; c += LANES) gate_vectors(1, x + c, gate + c, a->columns - c, out + c);
  }
}
