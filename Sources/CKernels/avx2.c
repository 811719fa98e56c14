// The kernels for AVX2 with F16C.
#if defined(__x86_64__)
#include "lanes_avx2.h"

#include "attention.h"
#include "ceiling_int16.h"
#include "elementwise.h"
#include "gemm_float.h"
#include "layer_norm.h"
#include "rows.h"
#include "winograd.h"
#endif
