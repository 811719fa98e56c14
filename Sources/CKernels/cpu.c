#include "CKernels.h"
#include <stdio.h>
#include <unistd.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>

// The compiler of Swift 6.0 cannot ask for these two by name. Both work on registers of AVX, which the system has to
// save: they count only beside AVX2, which is asked for by name.
static int has_f16c(void) {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}
static int has_avx_vnni(void) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
         (a & 1u << 4) != 0;
}
#endif

uint32_t at_cpu_features(void) {
  uint32_t features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.1")) features |= AT_CPU_SSE41;
  if (__builtin_cpu_supports("avx2") && has_f16c()) {
    features |= AT_CPU_AVX2;
    if (__builtin_cpu_is("amdfam17h")) features |= AT_CPU_SINGLE_MULTIPLIER;
    if (has_avx_vnni()) features |= AT_CPU_AVX_VNNI;
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
      features |= AT_CPU_AVX512_VNNI;
  }
#elif defined(__aarch64__)
  unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  features |= AT_CPU_NEON;
  if (first & (1ul << 20)) features |= AT_CPU_DOTPROD;
  if (second & (1ul << 13)) features |= AT_CPU_I8MM;
#endif
  return features;
}

// The processors that share the first one's second cache, from a list of hexadecimal digits such as "00000000,0000000f".
static int sharers_of_second_cache(void) {
  FILE *map = fopen("/sys/devices/system/cpu/cpu0/cache/index2/shared_cpu_map", "re");
  if (!map) return 1;
  int sharers = 0;
  for (int c = fgetc(map); c != EOF && c != '\n'; c = fgetc(map)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 0;
    sharers += __builtin_popcount((unsigned)digit);
  }
  fclose(map);
  return sharers > 0 ? sharers : 1;
}

size_t at_second_cache_bytes(void) {
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? (size_t)bytes / (size_t)sharers_of_second_cache() : 0;
}
