// The lanes of AVX2 with AVX-VNNI: vpdpwssd adds the products of pairs to their sums, vpdpbusd those of fours of bytes.
#pragma once
#define KERNEL_TARGET "avx2,f16c,avxvnni"
#define KERNEL_NAME(name) at_##name##_avxvnni
#define ADD_PRODUCTS(sum, a, x) _mm256_dpwssd_avx_epi32(sum, a, x)
enum { CODED_ROWS = 4 };
#include "lanes_avx2.h"

// Of shorts of 0...255.
KERNEL_INLINE shorts join_low_bytes(shorts low, shorts high) {
  return _mm256_or_si256(low, _mm256_slli_epi16(high, 8));
}
KERNEL_INLINE integers all_bytes(int x) { return _mm256_set1_epi8((char)x); }
KERNEL_INLINE integers flip_bits(integers x, integers bits) { return _mm256_xor_si256(x, bits); }
// Of fours of bytes: those of `a` are unsigned, those of `x` signed.
enum { QUERY_OFFSET = 128, VALUE_OFFSET = 0 };
KERNEL_INLINE integers add_fours(integers sum, integers a, integers x) { return _mm256_dpbusd_avx_epi32(sum, a, x); }
KERNEL_INLINE integers add_unsigned_fours(integers sum, integers a, integers x) { return add_fours(sum, a, x); }

// As s8, saturated, one vector after the other.
KERNEL_INLINE integers narrow_to_bytes(const integers x[4]) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); // undoes the packs' interleaving of halves
  const integers halves = _mm256_packs_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3]));
  return _mm256_permutevar8x32_epi32(halves, order);
}
// As s8, saturated: lane by lane a byte of each.
KERNEL_INLINE integers join_bytes(const integers x[4]) {
  const __m128i by_lane = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const integers halves = _mm256_packs_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3]));
  return _mm256_shuffle_epi8(halves, _mm256_broadcastsi128_si256(by_lane));
}
