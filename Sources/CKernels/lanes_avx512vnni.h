// The lanes of AVX2 with AVX-512 VNNI: vpdpwssd adds the products of pairs to their sums, and
// there are 32 registers for twice as many of them.
#pragma once
#define KERNEL_TARGET "avx2,f16c,avx512vl,avx512vnni"
#define KERNEL_NAME(name) at_##name##_avx512vnni
#define CEILING_NAME_OF(name) at_ceiling_##name##_avx512vnni
#define ADD_PRODUCTS(sum, a, x) _mm256_dpwssd_epi32(sum, a, x)
enum { CODED_QUERIES = 8 };
#include "lanes_avx2.h"
