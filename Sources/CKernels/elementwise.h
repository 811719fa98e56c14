// What is done to each element by itself, in any number of lanes.
#pragma once
#include "lanes.h"

KERNEL void KERNEL_NAME(widen)(const at_widen *a) {
  for (size_t i = 0; i < a->count; i += LANES)
    store_some(a->out + i, a->count - i, load_elements(true, a->x, i, a->count - i));
}

KERNEL_INLINE floats activate(const at_activation activation, floats x) {
  switch (activation) {
    case AT_SILU: return silu(x);
    case AT_GELU: return gelu(x);
    case AT_QUICK_GELU: return quick_gelu(x);
    case AT_RELU: return positive_part(x);
    default: return x;
  }
}

KERNEL_INLINE void affine_rows(const bool halves, const at_activation activation, const at_affine *a) {
  for (size_t r = 0; r < a->rows; r++) {
    const size_t row = r * a->channels;
    for (size_t c = 0; c < a->channels; c += LANES) {
      const size_t count = a->channels - c;
      const floats x = load_elements(halves, a->x, row + c, count);
      const floats y = add(mul(x, load_some(a->factor + c, count)), load_some(a->offset + c, count));
      store_some(a->out + row + c, count, activate(activation, y));
    }
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

KERNEL_INLINE void map(const at_activation activation, const at_map *a) {
  for (size_t i = 0; i < a->count; i += LANES)
    store_some(a->out + i, a->count - i, activate(activation, load_some(a->x + i, a->count - i)));
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

KERNEL void KERNEL_NAME(gated_gelu)(const at_gated_gelu *a) {
  for (size_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * 2 * a->columns, *gate = x + a->columns;
    for (size_t c = 0; c < a->columns; c += LANES) {
      const size_t count = a->columns - c;
      store_some(a->out + r * a->out_stride + c, count, mul(load_some(x + c, count), gelu(load_some(gate + c, count))));
    }
  }
}
