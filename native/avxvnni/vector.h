// The vector layer on AVX2 with AVX-VNNI, as processors have it that dropped AVX-512: AVX2's, but for the dot products.
//
// ANTIPHON_EMULATE_DPBUSD builds the same kernels for a machine without the instruction; the tests do that, so that
// what only some machines can run is checked on all.
#pragma once
#include "../avx2/vector.h"

namespace antiphon::avxvnni {
using namespace avx2;

// sum + four products of unsigned codes and signed activations, in each of 8 lanes.
static inline __m256i add_products(__m256i sum, __m256i codes, __m256i a) {
#ifdef ANTIPHON_EMULATE_DPBUSD
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(0xFF)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), _mm256_srai_epi16(a, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
#else
  return _mm256_dpbusd_avx_epi32(sum, codes, a);
#endif
}

template <WeightFormat>
struct Dot {
  I32 sum;
  static Dot start(int32_t zero_point, int32_t sum) { return {set1_int(-zero_point * sum)}; }
  void step(const Codes& codes, const int8_t* activations) {
    const __m256i a = broadcast4(activations);
    sum = {add_products(sum.low, codes.low, a), add_products(sum.high, codes.high, a)};
    keep(sum.low, sum.high);
  }
  I32 finish() const { return sum; }
};

}  // namespace antiphon::avxvnni
