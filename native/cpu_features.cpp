#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace antiphon {

namespace {

#if defined(__x86_64__)
// CPUID's leaf 7, subleaf 1, EAX bit 4: what gcc 12's builtin has no name for.
bool has_avxvnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && eax >= 1 &&
         __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1u);
}
#endif

}  // namespace

// The builtins ask CPUID and XGETBV both: a feature the system does not save registers for counts as absent.
CpuFeatures cpu_features() {
  CpuFeatures features;
#if defined(__x86_64__)
  __builtin_cpu_init();
  features.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  features.avxvnni = features.avx2 && has_avxvnni();
  features.avx512 = features.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512vnni");
#endif
  return features;
}

}  // namespace antiphon
