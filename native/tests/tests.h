// The tests that main runs.
#pragma once

#include <vector>

#include "cpu_features.h"
#include "dispatch.h"

namespace antiphon {
extern const Kernels kEmulatedAvxVnniKernels;
extern const Kernels kEmulatedAmxKernels;
}  // namespace antiphon

namespace antiphon::tests {

// AMX's kernels lack only the tiles where there is no AMX, and those are emulated.
inline bool can_emulate_amx() {
#if defined(__x86_64__)
  return cpu_features().avx512 && cpu_features().gfni;
#else
  return false;
#endif
}

// All that this machine can run: its own kernels, and those of AVX-VNNI and AMX with their instructions emulated.
inline std::vector<const Kernels*> kernels_to_test() {
  std::vector<const Kernels*> found = available_kernels();
#if defined(__x86_64__)
  if (cpu_features().avx2) found.push_back(&kEmulatedAvxVnniKernels);
  if (can_emulate_amx()) found.push_back(&kEmulatedAmxKernels);
#endif
  return found;
}

void test_attention();
void test_attention_in_segments();
void test_fuzz();
void test_lm_head();
void test_memory();
void test_products();
void test_program();
void test_quantize();
void test_sampler();
void test_threads();
void test_tiles();

}  // namespace antiphon::tests
