// The ceiling of products of sixteen bits, as at_ceiling_* have it. Written in the lanes of the instruction set whose
// header comes before.
#pragma once
#include "lanes.h"

KERNEL uint32_t CEILING_NAME_OF(int16)(size_t iterations) {
  _Alignas(64) const int16_t some[16] = {1, 2, 3};
  const int16_t *halves = some;
  __asm__ volatile("" : "+r"(halves) : : "memory");
  enum { CHAINS = CODED_ROWS * VECTORS };
  pairs8 w[VECTORS];
  UNROLLED for (int v = 0; v < VECTORS; v++) w[v] = load_pairs(halves);
  integers sum[CHAINS];
  UNROLLED for (int i = 0; i < CHAINS; i++) sum[i] = zeros();
  for (size_t n = 0; n < iterations * AT_CEILING_PRODUCTS / (16 * CHAINS); n++) {
    UNROLLED for (int i = 0; i < CHAINS; i += VECTORS) {
      UNROLLED for (int v = 0; v < VECTORS; v++) hide_pairs(w + v);
      add_products_each(VECTORS, sum + i, w, halves);
    }
  }
  integers all_chains = sum[0];
  UNROLLED for (int i = 1; i < CHAINS; i++) all_chains = add_integers(all_chains, sum[i]);
  return (uint32_t)sum_integers(all_chains);
}
