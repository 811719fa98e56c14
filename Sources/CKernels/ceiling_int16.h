// The ceiling of products of sixteen bits, as at_ceiling_* have it. Written in the lanes of the instruction set whose
// header comes before.
#pragma once
#include "kernel.h"

KERNEL uint32_t CEILING_NAME_OF(int16)(size_t iterations) {
  const int16_t halves[16] = {1, 2, 3};
  pairs8 v = load_pairs(halves);
  const pair x = load_pair(halves);
  enum { CHAINS = CODED_ROWS * VECTORS };
  integers sum[CHAINS];
  UNROLLED for (int i = 0; i < CHAINS; i++) sum[i] = zeros();
  for (size_t n = 0; n < iterations * AT_CEILING_PRODUCTS / (16 * CHAINS); n++) {
    UNROLLED for (int i = 0; i < CHAINS; i++) {
      hide_pairs(&v);
      sum[i] = add_products(sum[i], v, x);
    }
  }
  int32_t total = 0;
  UNROLLED for (int i = 0; i < CHAINS; i++) total ^= sum_integers(sum[i]);
  return (uint32_t)total;
}
