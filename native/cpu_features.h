// What this processor and its operating system can do, as far as the kernels care.
#pragma once

namespace antiphon {

struct CpuFeatures {
  bool avx2 = false;     // AVX2, FMA and F16C, with the system saving the wide registers
  bool avxvnni = false;  // AVX2 as above, and AVX-VNNI
  bool avx512 = false;   // AVX-512 F, BW, DQ, VL and VNNI, likewise
  bool gfni = false;     // the instructions for bits within bytes, in whatever width the processor has
};

CpuFeatures cpu_features();

// Whether this process may use AMX's tiles for 8-bit integers. The first call asks the system's leave.
bool may_use_tiles();

}  // namespace antiphon
