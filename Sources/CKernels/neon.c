// The kernels for NEON.
#if defined(__aarch64__)
#include "lanes_neon.h"

#include "attention.h"
#include "attention_int8.h"
#include "ceiling_int16.h"
#include "elementwise.h"
#include "gemm_float.h"
#include "layer_norm.h"
#include "rows.h"
#include "winograd.h"
#endif
