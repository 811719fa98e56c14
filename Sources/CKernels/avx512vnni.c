// What is done to each element by itself, for AVX-512.
#if defined(__x86_64__)
#include "lanes_avx512.h"

#include "elementwise.h"
#endif
