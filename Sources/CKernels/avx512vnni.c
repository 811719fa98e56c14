// The kernels that add up no lanes, for AVX-512.
#if defined(__x86_64__)
#include "lanes_avx512.h"

#include "elementwise.h"
#include "rows.h"
#include "winograd.h"
#endif
