// The vector layer on AVX-512 (F, BW, DQ, VL, VNNI): 16 float lanes in one register.
#pragma once
#include <immintrin.h>

namespace antiphon::avx512 {

using F32 = __m512;
using I32 = __m512i;
using Mask = __mmask16;

static inline F32 load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, F32 v) { _mm512_storeu_ps(p, v); }
static inline F32 set1(float x) { return _mm512_set1_ps(x); }
static inline F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
static inline F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
static inline F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
static inline F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
static inline F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
static inline F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
static inline F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
static inline F32 at_least_or_zero(F32 a, F32 threshold) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, threshold, _CMP_GE_OQ), a);
}
static inline F32 abs(F32 a) { return _mm512_abs_ps(a); }
static inline F32 from_int(I32 a) { return _mm512_cvtepi32_ps(a); }
static inline F32 load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline void store_half(uint16_t* p, F32 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
static inline I32 round_to_int(F32 a) { return _mm512_cvtps_epi32(a); }
static inline F32 times_power_of_two(F32 a, I32 n) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(n, 23)));
}
static inline void store_int8(int8_t* p, I32 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(v));
}
static inline Mask first_lanes(int64_t count) {
  return count >= 16 ? static_cast<Mask>(0xFFFF) : static_cast<Mask>((1u << count) - 1u);
}
static inline Mask less(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline F32 select(Mask m, F32 a, F32 b) { return _mm512_mask_blend_ps(m, b, a); }
static inline I32 add_int(I32 a, I32 b) { return _mm512_add_epi32(a, b); }
static inline I32 sub_int(I32 a, I32 b) { return _mm512_sub_epi32(a, b); }
static inline I32 shift_left_8(I32 a) { return _mm512_slli_epi32(a, 8); }
static inline I32 shift_right_8(I32 a) { return _mm512_srai_epi32(a, 8); }
static inline I32 set1_int(int32_t x) { return _mm512_set1_epi32(x); }

static inline float reduce_add(F32 v) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
static inline float reduce_max(F32 v) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
static inline float largest_magnitude(F32 a, F32 b) {
  const __m512i bits = _mm512_max_epi32(_mm512_castps_si512(abs(a)), _mm512_castps_si512(abs(b)));
  const __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256(bits), _mm512_extracti64x4_epi64(bits, 1));
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(two, _mm_shuffle_epi32(two, 1))));
}
static inline int32_t reduce_add_int(I32 v) { return _mm512_reduce_add_epi32(v); }

using Codes = __m512i;  // a line of codes

static inline Codes load_codes(const uint8_t* line) { return _mm512_loadu_si512(line); }
static inline void store_codes(uint8_t* line, Codes codes) { _mm512_storeu_si512(line, codes); }
static inline Codes low_nibbles(Codes both) { return _mm512_and_si512(both, _mm512_set1_epi8(0x0F)); }
static inline Codes high_nibbles(Codes both) { return low_nibbles(_mm512_srli_epi16(both, 4)); }

template <WeightFormat>
struct Dot {
  __m512i sum;
  static Dot start(int32_t zero_point, int32_t sum) { return {_mm512_set1_epi32(-zero_point * sum)}; }
  void step(const Codes& codes, const int8_t* activations) {
    int32_t word;
    __builtin_memcpy(&word, activations, sizeof word);
    sum = _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(word));
  }
  I32 finish() const { return sum; }
};

static inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
static inline void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
// Rows that share one pass over a line of weights, and rows that share one over a KV block: what the registers hold.
constexpr int kTileRows = 6;
constexpr int kWideTileRows = 4;  // of two planes; gcc spills sums of 5 or 6 rows
constexpr int kAttendRows = 6;
constexpr int kAttendRest = 3;
// Up to so many rows 4-bit codes are split in registers; for more they are split once, into memory.
constexpr int64_t kUnsplitRows = 2;

}  // namespace antiphon::avx512
