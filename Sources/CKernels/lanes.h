// What the kernels share beyond single instructions: the elementary functions of Sources/Kernels/ReferenceMath.swift,
// operation by operation. Written in the lanes of the instruction set whose header (lanes_*.h) comes before.
#pragma once
#include "results.h"

static const float rounding_magic = 12582912.0f; // 1.5 * 2^23

// Adds the products of pairs of `count` vectors and one pair, which is in memory, to as many sums.
#ifndef ADD_PRODUCTS_IN_STEP
KERNEL_INLINE void add_products_each(const int count, integers *sum, const pairs8 *w, const void *x) {
  const pair both = load_pair(x);
  UNROLLED for (int v = 0; v < count; v++) sum[v] = add_products(sum[v], w[v], both);
}
#endif

enum { MOST_IN_STEP = 4 }; // vectors

// ReferenceMath.exp of `count` vectors in step: one alone is a chain too long for a processor to look past.
KERNEL_INLINE void exp_each(const int count, floats *v) {
  floats shifted[MOST_IN_STEP], f[MOST_IN_STEP], p[MOST_IN_STEP];
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

KERNEL_INLINE floats exp_of(floats v) {
  exp_each(1, &v);
  return v;
}

// ReferenceMath.powerOfTwo of `count` vectors in step.
KERNEL_INLINE void power_of_two_each(const int count, floats *v) {
  floats shifted[4], f[4], p[4];
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

// The end of Oracle.attentionWeight, in step, of `count` vectors of distances in 2^-10 of an exponent, less half of one.
enum { MOST_WEIGHED = 8 }; // vectors
KERNEL_INLINE void weight_each(const int count, shorts *v) {
  shorts whole[MOST_WEIGHED], f[MOST_WEIGHED];
#define EACH UNROLLED for (int i = 0; i < count; i++)
  EACH whole[i] = multiply_high(v[i], all_shorts(32));
  EACH f[i] = shift_left_6(v[i]);
  EACH v[i] = add_shorts(multiply_high(f[i], all_shorts(-157)), all_shorts(1402));
  EACH v[i] = add_shorts(multiply_high(f[i], v[i]), all_shorts(-8014));
  EACH v[i] = add_shorts(multiply_high(f[i], v[i]), all_shorts(23114));
  EACH v[i] = multiply_high(v[i], halved(whole[i]));
#undef EACH
}

#define EACH UNROLLED for (int i = 0; i < count; i++)
// x / (1 + e^z) of `count` vectors in step, as all below.
KERNEL_INLINE void divide_by_exp_each(const int count, floats *x, floats *z) {
  exp_each(count, z);
  EACH x[i] = divide(x[i], add(all(1), z[i]));
}

// ReferenceMath.silu
KERNEL_INLINE void silu_each(const int count, floats *x) {
  floats z[MOST_IN_STEP];
  EACH z[i] = negative(x[i]);
  divide_by_exp_each(count, x, z);
}

// ReferenceMath.quickGELU
KERNEL_INLINE void quick_gelu_each(const int count, floats *x) {
  floats z[MOST_IN_STEP];
  EACH z[i] = mul(all(-1.702f), x[i]);
  divide_by_exp_each(count, x, z);
}

// ReferenceMath.gelu
KERNEL_INLINE void gelu_each(const int count, floats *x) {
  floats a[MOST_IN_STEP], u[MOST_IN_STEP];
  EACH a[i] = magnitude(x[i]);
  EACH u[i] = add(mul(all(2.3977927e-6f), a[i]), all(-1.0464588e-5f));
  EACH u[i] = add(mul(u[i], a[i]), all(6.814575e-5f));
  EACH u[i] = add(mul(u[i], a[i]), all(1.8196677e-4f));
  EACH u[i] = add(mul(u[i], a[i]), all(8.881295e-4f));
  EACH u[i] = add(mul(u[i], a[i]), all(8.656796e-3f));
  EACH u[i] = add(mul(u[i], a[i]), all(4.4766475e-2f));
  EACH u[i] = add(mul(u[i], a[i]), all(9.9735275e-2f));
  EACH u[i] = mul(u[i], a[i]);
  UNROLLED for (int power = 0; power < 3; power++) {
    EACH u[i] = mul(u[i], add(u[i], all(2)));
  }
  EACH x[i] = sub(greater(x[i], all(0)), divide(mul(all(0.5f), a[i]), add(u[i], all(1))));
}
#undef EACH
