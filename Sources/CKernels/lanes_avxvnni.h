// The lanes of AVX2 with AVX-VNNI: vpdpwssd adds the products of pairs to their sums.
#pragma once
#define KERNEL_TARGET "avx2,f16c,avxvnni"
#define KERNEL_NAME(name) at_##name##_avxvnni
#define CEILING_NAME_OF(name) at_ceiling_##name##_avxvnni
#define ADD_PRODUCTS(sum, a, x) _mm256_dpwssd_avx_epi32(sum, a, x)
enum { CODED_ROWS = 4 };
#include "lanes_avx2.h"
