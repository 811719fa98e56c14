// The kernels for AVX-512 whose bits do not depend on the number of lanes.
#if defined(__x86_64__)
#include "lanes_avx512.h"

#include "elementwise.h"
#include "rows.h"

enum { CODED_ROWS = 8, VECTORS = 2 }; // of a tile of registers

#include "attention_by_query_float.h"
#include "winograd.h"

KERNEL void KERNEL_NAME(attention)(const at_attention *a) {
  if (a->causal || !fills_lanes(a->queries)) at_attention_avx2(a);
  else attend_by_query(a);
}
#endif
