// Attention in integers for AVX-VNNI.
#if defined(__x86_64__)
#include "lanes_avxvnni.h"

#include "attention_int8.h"
#endif
