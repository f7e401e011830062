#include "dispatch.h"

#include <stdexcept>

#include "cpu_features.h"

namespace antiphon {

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  const CpuFeatures features = cpu_features();
#ifdef ANTIPHON_HAS_AMX
  if (features.avx512 && features.gfni && may_use_tiles()) found.push_back(&kAmxKernels);
#endif
  if (features.avx512) found.push_back(&kAvx512Kernels);
  if (features.avxvnni) found.push_back(&kAvxVnniKernels);
  if (features.avx2) found.push_back(&kAvx2Kernels);
#endif
  found.push_back(&kScalarKernels);
  return found;
}

const Kernels& choose_kernels(const std::string& name) {
  const auto found = available_kernels();
  if (name == "auto") return *found.front();
  std::string names;
  for (const Kernels* kernels : found) {
    if (name == kernels->name) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw std::invalid_argument("instruction set '" + name + "' is not available on this machine; it has " + names);
}

}  // namespace antiphon
