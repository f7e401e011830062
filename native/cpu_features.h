// What this processor and its operating system can do, as far as the kernels care.
#pragma once

namespace antiphon {

struct CpuFeatures {
  bool avx2 = false;     // AVX2, FMA and F16C, with the system saving the wide registers
  bool avxvnni = false;  // AVX2 as above, and AVX-VNNI
  bool avx512 = false;   // AVX-512 F, BW, DQ, VL and VNNI, likewise
};

CpuFeatures cpu_features();

}  // namespace antiphon
