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
struct DotProduct {
  using Sum = __m256i;
  static constexpr int kSumRegisters = 1;
  static constexpr int kOperandBytes = 32;
  static inline Sum start(const int32_t* from) { return broadcast4(from); }
  static inline __m256i operand(const int8_t* activations) { return broadcast4(activations); }
  static inline void add(Sum& sum, __m256i codes, __m256i a) {
    sum = add_products(sum, codes, a);
    keep(sum);
  }
  static inline __m256i rest(const int32_t*) { return _mm256_setzero_si256(); }
  static inline __m256i finish(Sum sum, __m256i) { return sum; }
  // Both planes' sums are below 2^22 from here, as those of one plane are: at most 32 * 255 * 128 + 2^19.
  static inline RowStart split_start(int32_t start) {
    const int32_t high = (start + 128) >> 8;
    return {kBitsOfZero + high, kBitsOfZero + start - 256 * high};
  }
  static inline __m256 to_float(Sum sum) {
    return _mm256_sub_ps(_mm256_castsi256_ps(sum), _mm256_set1_ps(kFloatOfZero));
  }
  static inline __m256 join(Sum high, Sum low, __m256i) {
    return _mm256_fmadd_ps(to_float(high), _mm256_set1_ps(256.0f), to_float(low));
  }
};

}  // namespace antiphon::avxvnni
