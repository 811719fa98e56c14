// Attention in integers for AVX-512 VNNI.
#if defined(__x86_64__)
#include "lanes_avx512.h"

#define GROUPED 4
enum { VECTORS = 2, COLUMNS = 8, WEIGHED = 8 };

#include "attention_by_query.h"
#endif
