// The kernels for SSE4.1.
#if defined(__x86_64__)
#include "lanes_sse41.h"

#include "attention.h"
#include "attention_int8.h"
#include "ceiling_int16.h"
#include "elementwise.h"
#include "gemm_float.h"
#include "layer_norm.h"
#include "rows.h"
#include "winograd.h"
#endif
