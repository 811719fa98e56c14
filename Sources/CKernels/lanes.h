// What the kernels share beyond single instructions: the elementary functions of Sources/Kernels/ReferenceMath.swift,
// operation by operation, and the end of a matrix product. Written in the lanes of the instruction set whose header
// (lanes_*.h) comes before.
#pragma once
#include "kernel.h"

static const float rounding_magic = 12582912.0f; // 1.5 * 2^23

// ReferenceMath.exp of `count` vectors in step: one alone is a chain too long for a processor to look past.
KERNEL_INLINE void exp_each(const int count, f8 *v) {
  f8 shifted[4], f[4], p[4];
#define EACH UNROLLED for (int i = 0; i < count; i++)
  EACH v[i] = lesser(all(88), greater(all(-87), v[i]));
  EACH shifted[i] = add(mul(v[i], all(1.44269504f)), all(rounding_magic));
  EACH p[i] = sub(shifted[i], all(rounding_magic));
  EACH f[i] = sub(v[i], mul(p[i], all(0.693359375f)));
  EACH f[i] = sub(f[i], mul(p[i], all(-2.1219444e-4f)));
  EACH p[i] = add(mul(all(1.98756915e-4f), f[i]), all(1.39819995e-3f));
  EACH p[i] = add(mul(p[i], f[i]), all(8.3334519e-3f));
  EACH p[i] = add(mul(p[i], f[i]), all(4.1665796e-2f));
  EACH p[i] = add(mul(p[i], f[i]), all(1.66666655e-1f));
  EACH p[i] = add(mul(p[i], f[i]), all(5.0000001e-1f));
  EACH p[i] = add(mul(p[i], mul(f[i], f[i])), f[i]);
  EACH p[i] = add(p[i], all(1));
  EACH v[i] = scale_by_power(p[i], shifted[i]);
#undef EACH
}

KERNEL_INLINE f8 exp8(f8 v) {
  exp_each(1, &v);
  return v;
}

// ReferenceMath.powerOfTwo of `count` vectors in step.
KERNEL_INLINE void power_of_two_each(const int count, f8 *v) {
  f8 shifted[4], f[4], p[4];
#define EACH UNROLLED for (int i = 0; i < count; i++)
  EACH v[i] = greater(all(-126), v[i]);
  EACH shifted[i] = add(v[i], all(rounding_magic));
  EACH f[i] = sub(v[i], sub(shifted[i], all(rounding_magic)));
  EACH p[i] = add(mul(all(0.055008933f), f[i]), all(0.24221095f));
  EACH p[i] = add(mul(p[i], f[i]), all(0.6932829f));
  EACH p[i] = add(mul(p[i], f[i]), all(1));
  EACH v[i] = scale_by_power(p[i], shifted[i]);
#undef EACH
}

// ReferenceMath.silu
KERNEL_INLINE f8 silu8(f8 x) { return divide(x, add(all(1), exp8(negative(x)))); }

// ReferenceMath.quickGELU
KERNEL_INLINE f8 quick_gelu8(f8 x) { return divide(x, add(all(1), exp8(mul(all(-1.702f), x)))); }

// ReferenceMath.gelu
KERNEL_INLINE f8 gelu8(f8 x) {
  const f8 z = mul(magnitude(x), all(0.70710678f));
  const f8 t = divide(all(1), add(all(1), mul(all(0.3275911f), z)));
  f8 p = all(1.061405429f);
  p = add(mul(p, t), all(-1.453152027f));
  p = add(mul(p, t), all(1.421413741f));
  p = add(mul(p, t), all(-0.284496736f));
  p = add(mul(p, t), all(0.254829592f));
  const f8 tail = mul(mul(p, t), exp8(negative(mul(z, z))));
  const f8 erf = sub(all(1), tail);
  const f8 half = mul(all(0.5f), x);
  return add(half, mul(magnitude(half), erf));
}

// Up to 8 elements of a map from the `i`th on, f32 or f16; zero in the lanes beyond `count`.
KERNEL_INLINE f8 load_elements(const bool halves, const void *x, size_t i, size_t count) {
  if (!halves) return load_some((const float *)x + i, count);
  if (count >= 8) return load_halves((const uint16_t *)x + i);
  uint16_t lanes[8] = {0};
  for (size_t j = 0; j < count; j++) lanes[j] = ((const uint16_t *)x)[i + j];
  return load_halves(lanes);
}
KERNEL_INLINE void store_elements(const bool halves, void *x, size_t i, size_t count, f8 v) {
  if (!halves) {
    store_some((float *)x + i, count, v);
    return;
  }
  const f8 finite = lesser(greater(v, all(-65504)), all(65504));
  if (count >= 8) {
    store_halves((uint16_t *)x + i, finite);
    return;
  }
  uint16_t lanes[8];
  store_halves(lanes, finite);
  for (size_t j = 0; j < count; j++) ((uint16_t *)x)[i + j] = lanes[j];
}

// What the tiles of a product have in common. Constant where that is worth a copy of the code.
typedef struct {
  bool paired, halves; // as in at_gemm
  bool whole_panels;   // all of their outputs exist
} product_kind;

// The end of a matrix product: what is added to the eight outputs of a panel in some rows, and where they go. The
// second half of the rows of a paired product are those paired with the first.
KERNEL_INLINE void store_rows(const product_kind kind, const int rows, const at_gemm *a, const size_t *index,
                              size_t panel, f8 *y) {
  const size_t first = panel * AT_PANEL, count = kind.whole_panels ? AT_PANEL : a->outputs - first;
  const f8 bias = a->bias ? load8(a->bias + first) : all(0);
  UNROLLED for (int r = 0; r < rows; r++) {
    const bool second = kind.paired && r >= rows / 2;
    const size_t row = second ? index[r] - a->row_count / 2 : index[r];
    const void *residual = second ? a->pair_residual : a->residual;
    void *out = second ? a->pair_out : a->out;
    if (second) y[r] = add(y[r], y[r - rows / 2]);
    else if (a->bias) y[r] = add(y[r], bias);
    f8 sum = y[r];
    if (residual) sum = add(sum, load_elements(kind.halves, residual, row * a->residual_stride + first, count));
    store_elements(kind.halves, out, row * a->out_stride + first, count, sum);
  }
}
