// The products of Winograd's convolution for AVX-VNNI.
#if defined(__x86_64__)
#include "lanes_avxvnni.h"

#include "winograd.h"
#endif
