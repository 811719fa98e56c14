// Attention in integers for the dot products of ARMv8.2.
#if defined(__aarch64__)
#include "lanes_dotprod.h"

#define GROUPED 4
enum { COLUMNS = 4, WEIGHED = 4 };

#include "attention_by_query.h"
#endif
