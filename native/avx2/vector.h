// The vector layer on AVX2, FMA and F16C: 16 float lanes as two registers of 8.
#pragma once
#include <immintrin.h>

namespace antiphon::avx2 {

struct F32 {
  __m256 low, high;
};
struct I32 {
  __m256i low, high;
};
struct Mask {
  __m256 low, high;
};

static inline F32 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float* p, F32 v) {
  _mm256_storeu_ps(p, v.low);
  _mm256_storeu_ps(p + 8, v.high);
}
static inline F32 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline F32 add(F32 a, F32 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
static inline F32 sub(F32 a, F32 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
static inline F32 mul(F32 a, F32 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
static inline F32 div(F32 a, F32 b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
static inline F32 fma(F32 a, F32 b, F32 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
static inline F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
static inline F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
static inline F32 at_least_or_zero(F32 a, F32 threshold) {
  return {_mm256_and_ps(_mm256_cmp_ps(a.low, threshold.low, _CMP_GE_OQ), a.low),
          _mm256_and_ps(_mm256_cmp_ps(a.high, threshold.high, _CMP_GE_OQ), a.high)};
}
static inline F32 abs(F32 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
static inline F32 from_int(I32 a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
static inline F32 load_int8(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return from_int({_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))});
}
static inline F32 load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
static inline void store_half(uint16_t* p, F32 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.high, _MM_FROUND_TO_NEAREST_INT));
}
static inline I32 round_to_int(F32 a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
static inline F32 times_power_of_two(F32 a, I32 n) {
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.low), _mm256_slli_epi32(n.low, 23))),
          _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.high), _mm256_slli_epi32(n.high, 23)))};
}
static inline void store_int8(int8_t* p, I32 v) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.low, v.high), 0xD8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
static inline Mask first_lanes(int64_t count) {
  const int32_t clamped = count > 16 ? 16 : static_cast<int32_t>(count);
  const __m256i limit = _mm256_set1_epi32(clamped);
  const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, low)), _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, high))};
}
static inline Mask less(F32 a, F32 b) {
  return {_mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ)};
}
static inline F32 select(Mask m, F32 a, F32 b) {
  return {_mm256_blendv_ps(b.low, a.low, m.low), _mm256_blendv_ps(b.high, a.high, m.high)};
}
static inline I32 add_int(I32 a, I32 b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
static inline I32 set1_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }

static inline float reduce_add(F32 v) {
  const __m256 eight = _mm256_add_ps(v.low, v.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
static inline float reduce_max(F32 v) {
  const __m256 eight = _mm256_max_ps(v.low, v.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
static inline float largest_magnitude(F32 a, F32 b) {
  const F32 x = abs(a), y = abs(b);
  const __m256i left = _mm256_max_epi32(_mm256_castps_si256(x.low), _mm256_castps_si256(x.high));
  const __m256i right = _mm256_max_epi32(_mm256_castps_si256(y.low), _mm256_castps_si256(y.high));
  const __m256i eight = _mm256_max_epi32(left, right);
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(two, _mm_shuffle_epi32(two, 1))));
}
static inline int32_t reduce_add_int(I32 v) {
  const __m256i eight = _mm256_add_epi32(v.low, v.high);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

static inline __m256i broadcast4(const int8_t* activations) {
  int32_t word;
  __builtin_memcpy(&word, activations, sizeof word);
  return _mm256_set1_epi32(word);
}

struct Codes {  // a line of codes
  __m256i low, high;
};

static inline Codes load_codes(const uint8_t* line) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(line)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + 32))};
}
static inline void store_codes(uint8_t* line, Codes codes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(line), codes.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(line + 32), codes.high);
}
static inline Codes low_nibbles(Codes both) {
  const __m256i nibble = _mm256_set1_epi8(0x0F);
  return {_mm256_and_si256(both.low, nibble), _mm256_and_si256(both.high, nibble)};
}
static inline Codes high_nibbles(Codes both) {
  return low_nibbles({_mm256_srli_epi16(both.low, 4), _mm256_srli_epi16(both.high, 4)});
}

template <WeightFormat>
struct Dot;

// The empty asm keeps sums in their registers: left to itself, gcc adds all products of a group in a tree and spills
// them.
static inline void keep(__m256i& low, __m256i& high) { asm("" : "+x"(low), "+x"(high)); }

// 4-bit codes: a pair of products is at most 2 * 15 * 128, and a group has 8 pairs, so int16 holds the whole group.
template <>
struct Dot<WeightFormat::kW4> {
  __m256i low, high;
  int32_t initial;
  static Dot start(int32_t zero_point, int32_t sum) {
    return {_mm256_setzero_si256(), _mm256_setzero_si256(), -zero_point * sum};
  }
  void step(const Codes& codes, const int8_t* activations) {
    const __m256i a = broadcast4(activations);
    low = _mm256_add_epi16(low, _mm256_maddubs_epi16(codes.low, a));
    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(codes.high, a));
    keep(low, high);
  }
  I32 finish() const {
    const __m256i ones = _mm256_set1_epi16(1);
    return add_int({_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones)}, set1_int(initial));
  }
};

// 8-bit codes would saturate maddubs. Less 128 they are signed, and |w| times a with w's sign stays within int16: a
// pair is at most 2 * 128 * 127.
template <>
struct Dot<WeightFormat::kW8> {
  I32 sum;
  static Dot start(int32_t zero_point, int32_t sum) { return {set1_int((128 - zero_point) * sum)}; }
  static __m256i products(__m256i codes, __m256i a) {
    const __m256i w = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  void step(const Codes& codes, const int8_t* activations) {
    const __m256i a = broadcast4(activations);
    sum = add_int(sum, {products(codes.low, a), products(codes.high, a)});
    keep(sum.low, sum.high);
  }
  I32 finish() const { return sum; }
};

static inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
static inline void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
// Rows that share one pass over a line of weights, and rows that share one over a KV block: what the registers hold.
constexpr int kTileRows = 2;
constexpr int kAttendRows = 2;
constexpr int kAttendRest = 1;
// Up to so many rows 4-bit codes are split in registers; for more they are split once, into memory.
constexpr int64_t kUnsplitRows = 4;

}  // namespace antiphon::avx2
