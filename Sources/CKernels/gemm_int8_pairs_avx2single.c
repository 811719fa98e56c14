// The product of gemm_int8_pairs_avx2.c for processors that multiply integers in one of their pipes alone. Of a tile's two
// vectors the second adds up the two halves of its sums of pairs without a multiplication, which leaves three in four:
// with 2^15 added to the low half, a lane is high * 2^16 + low, neither of which reaches into the other. Sums of lanes,
// less 2^16 times those of their high halves, are sums of low halves, all modulo 2^32.
#if defined(__x86_64__)
#include "lanes_avx2.h"

#define GEMM_NAME at_gemm_int8_pairs_avx2single
#define CEILING_NAME at_ceiling_int8_pairs_avx2single
#define GEMM_TARGET KERNEL_TARGET
#define TILE_ROWS 4
#define TILE_VECTORS 2
enum { STEP = 1, GROUP = 1, CODE_OFFSET = 0 };

typedef __m256i weights, codes;
typedef struct {
  integers lanes, high; // sums of whole lanes, and of high halves where lanes still have both
} sums;

KERNEL_INLINE weights take_weights(const int8_t *x, int quads) { return _mm256_loadu_si256((const __m256i *)x); }
KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  int32_t quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return _mm256_set1_epi32(quad);
}
KERNEL_INLINE sums begin(size_t inputs) { return (sums){zeros(), zeros()}; }
KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) {
  sum.lanes = add_products(sum.lanes, _mm256_maddubs_epi16(x, w), ones());
  return sum;
}
#define BOTH_VECTORS_AT_ONCE
// Less what is added to the low half of a lane with each quad.
KERNEL_INLINE sums begin_second(size_t inputs) {
  return (sums){all_integers((int32_t)(0u - (uint32_t)(inputs / AT_QUAD << 15))), zeros()};
}
// Zen is a third faster with this than with two products by ones, and with other orders of it by a quarter at most.
KERNEL_INLINE void dot_both(sums *first, sums *second, const int8_t *first_weights, const int8_t *second_weights,
                            const uint8_t *x) {
  __m256i a, b;
  __asm__("vpbroadcastd %9, %3\n\t"
          "vpmaddubsw %6, %3, %4\n\t"
          "vpmaddubsw %5, %3, %3\n\t"
          "vpmaddwd %7, %3, %3\n\t"
          "vpxor %8, %4, %4\n\t"
          "vpaddd %4, %1, %1\n\t"
          "vpsrad $16, %4, %4\n\t"
          "vpaddd %4, %2, %2\n\t"
          "vpaddd %3, %0, %0"
          : "+x"(first->lanes), "+x"(second->lanes), "+x"(second->high), "=&x"(a), "=&x"(b)
          : "m"(*(const char(*)[LANES * AT_QUAD])first_weights),
            "m"(*(const char(*)[LANES * AT_QUAD])second_weights), "x"(ones()), "x"(all_integers(1 << 15)),
            "m"(*(const char(*)[AT_QUAD])x));
}
KERNEL_INLINE integers total(sums sum) {
  return add_integers(subtract_integers(sum.lanes, _mm256_slli_epi32(sum.high, 16)), sum.high);
}
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+x"(*x)); }

#include "gemm_int8.h"
#endif
