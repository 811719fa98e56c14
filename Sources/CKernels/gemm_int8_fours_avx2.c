// u8 x s8 with AVX2 alone, for weights of which two neighbouring quads cannot overflow 16 bits: the codes of one sign
// at bytes 0 and 1 of both, and at 2 and 3, add up to 128 at most. Two vpmaddubsw then share one vpmaddwd.
#if defined(__x86_64__)
#include "lanes_avx2.h"

#define GEMM_NAME at_gemm_int8_fours_avx2
#define CEILING_NAME at_ceiling_int8_fours_avx2
#define GEMM_TARGET KERNEL_TARGET
#define TILE_ROWS 4
#define TILE_VECTORS 2
enum { STEP = 2, GROUP = 2, CODE_OFFSET = 0 };

typedef struct {
  __m256i first, second;
} weights;
typedef weights codes;
typedef integers sums;

KERNEL_INLINE weights take_weights(const int8_t *x, int quads) {
  const __m256i *w = (const __m256i *)x;
  return (weights){_mm256_loadu_si256(w), quads == GROUP ? _mm256_loadu_si256(w + 1) : zeros()};
}
KERNEL_INLINE codes take_codes(const uint8_t *x, int quads) {
  int32_t quad[GROUP] = {0};
  __builtin_memcpy(quad, x, (size_t)quads * AT_QUAD);
  return (codes){_mm256_set1_epi32(quad[0]), _mm256_set1_epi32(quad[1])};
}
KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }
KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) {
  const __m256i first = _mm256_maddubs_epi16(x.first, w.first), second = _mm256_maddubs_epi16(x.second, w.second);
  return add_products(sum, _mm256_add_epi16(first, second), ones());
}
#define BOTH_VECTORS_AT_ONCE
KERNEL_INLINE sums begin_second(size_t inputs) { return begin(inputs); }
// Zen 3 is 3 % faster when it takes each step of both vectors together, with the ones in a register: a quarter of the
// weights stay in memory for that. Compilers choose neither.
KERNEL_INLINE void dot_both(sums *first, sums *second, const int8_t *first_weights, const int8_t *second_weights,
                            const uint8_t *x) {
  const weights w = take_weights(first_weights, GROUP);
  __m256i a, b, c, d;
  __asm__("vpbroadcastd %11, %4\n\t"
          "vpbroadcastd %12, %5\n\t"
          "vpmaddubsw %6, %4, %2\n\t"
          "vpmaddubsw %8, %4, %4\n\t"
          "vpmaddubsw %7, %5, %3\n\t"
          "vpmaddubsw %9, %5, %5\n\t"
          "vpaddw %3, %2, %2\n\t"
          "vpaddw %5, %4, %4\n\t"
          "vpmaddwd %10, %2, %2\n\t"
          "vpmaddwd %10, %4, %4\n\t"
          "vpaddd %2, %0, %0\n\t"
          "vpaddd %4, %1, %1"
          : "+x"(*first), "+x"(*second), "=&x"(a), "=&x"(b), "=&x"(c), "=&x"(d)
          : "x"(w.first), "x"(w.second), "x"(take_weights(second_weights, 1).first),
            "m"(*(const char(*)[LANES * AT_QUAD])(second_weights + LANES * AT_QUAD)), "x"(ones()),
            "m"(*(const char(*)[AT_QUAD])x), "m"(*(const char(*)[AT_QUAD])(x + AT_QUAD)));
}
KERNEL_INLINE integers total(sums sum) { return sum; }
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+x"(x->first), "+x"(x->second)); }

#include "gemm_int8.h"
#endif
