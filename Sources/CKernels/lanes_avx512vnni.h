// The lanes of AVX2 where there is AVX-512 VNNI, for int8 products.
#pragma once
#define KERNEL_TARGET "avx2,f16c,avx512vl,avx512vnni"
#define KERNEL_NAME(name) at_##name##_avx512vnni
#define ADD_PRODUCTS(sum, a, x) _mm256_dpwssd_epi32(sum, a, x)
#include "lanes_avx2.h"
