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
// A register for them would cost another its place: they stay in memory, where the compiler would not leave them.
static const __m256i ones_in_memory = {0x0001000100010001, 0x0001000100010001, 0x0001000100010001, 0x0001000100010001};
KERNEL_INLINE integers sums_of_pairs(__m256i x) {
  integers sums;
  __asm__("vpmaddwd %2, %1, %0" : "=x"(sums) : "x"(x), "m"(ones_in_memory));
  return sums;
}
KERNEL_INLINE sums begin(size_t inputs) { return zeros(); }
KERNEL_INLINE sums dot(sums sum, weights w, codes x, int quad) {
  const __m256i first = _mm256_maddubs_epi16(x.first, w.first), second = _mm256_maddubs_epi16(x.second, w.second);
  return add_integers(sum, sums_of_pairs(_mm256_add_epi16(first, second)));
}
KERNEL_INLINE integers total(sums sum) { return sum; }
KERNEL_INLINE void hide(codes *x) { __asm__ volatile("" : "+x"(x->first), "+x"(x->second)); }

#include "gemm_int8.h"
#endif
