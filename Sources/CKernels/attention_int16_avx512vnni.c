// Attention in integers for AVX-512 VNNI.
#if defined(__x86_64__)
#include "lanes_avx512vnni.h"

#include "attention_int16.h"
#endif
