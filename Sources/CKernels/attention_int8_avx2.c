// Attention in integers for AVX2.
#if defined(__x86_64__)
#include "lanes_avx2.h"

#define GROUPED 2
enum { COLUMNS = 4, WEIGHED = 4 };

#include "attention_by_query.h"
#endif
