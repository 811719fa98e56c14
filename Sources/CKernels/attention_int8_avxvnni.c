// Attention in integers for AVX-VNNI.
#if defined(__x86_64__)
#include "lanes_avxvnni.h"

#define GROUPED 4
enum { COLUMNS = 4, WEIGHED = 4 };

#include "attention_by_query.h"
#endif
