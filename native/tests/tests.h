// The tests that main runs.
#pragma once

#include <vector>

#include "cpu_features.h"
#include "dispatch.h"

namespace antiphon {
extern const Kernels kEmulatedAvxVnniKernels;
}

namespace antiphon::tests {

// All that this machine can run: its own kernels, and those of AVX-VNNI with the instruction emulated.
inline std::vector<const Kernels*> kernels_to_test() {
  std::vector<const Kernels*> found = available_kernels();
#if defined(__x86_64__)
  if (cpu_features().avx2) found.push_back(&kEmulatedAvxVnniKernels);
#endif
  return found;
}

void test_attention();
void test_fuzz();
void test_products();
void test_program();
void test_quantize();
void test_sampler();
void test_threads();

}  // namespace antiphon::tests
