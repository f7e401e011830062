#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
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

// CPUID's leaf 7, EDX bits 24 and 25: AMX-TILE and AMX-INT8.
bool has_amx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx >> 24 & 3u) == 3u;
}

// XGETBV: the system saves tiles' configuration and data when it switches threads.
bool system_saves_tiles() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx >> 27 & 1u)) return false;  // OSXSAVE: may XGETBV be asked?
  asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return (eax >> 17 & 3u) == 3u;
}

// Tiles are so large that Linux gives a process room for them only on demand; threads to come inherit the leave.
bool ask_for_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
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
  features.gfni = __builtin_cpu_supports("gfni");
#endif
  return features;
}

bool may_use_tiles() {
#if defined(__x86_64__)
  static const bool granted = has_amx() && system_saves_tiles() && ask_for_tiles();
  return granted;
#else
  return false;
#endif
}

}  // namespace antiphon
