// The vector layer on AVX2, FMA and F16C: 16 float lanes as two registers of 8.
#pragma once
#include <immintrin.h>

#define ANTIPHON_LINEAR_HEADER "avx2/linear-inl.h"

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
static inline I32 sub_int(I32 a, I32 b) { return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)}; }
static inline I32 shift_left_8(I32 a) { return {_mm256_slli_epi32(a.low, 8), _mm256_slli_epi32(a.high, 8)}; }
static inline I32 shift_right_8(I32 a) { return {_mm256_srai_epi32(a.low, 8), _mm256_srai_epi32(a.high, 8)}; }
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

static inline __m256i load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline void store_bytes(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
static inline __m256i broadcast4(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}

// The empty asm keeps a sum in its register: left to itself, gcc adds all products of a group in a tree and spills
// them.
static inline void keep(__m256i& sum) { asm("" : "+x"(sum)); }
// Likewise: gcc would read it again for each use.
static inline __m256i broadcast_once(const int32_t* value) {
  __m256i all = broadcast4(value);
  keep(all);
  return all;
}

// Sums are converted to float by addition: the bits of 1.5 * 2^23 plus an integer of less than 2^22 are those of the
// float 1.5 * 2^23 + integer. The instruction that converts would occupy the units that multiply.
constexpr float kFloatOfZero = 12582912.0f;
constexpr int32_t kBitsOfZero = 0x4B400000;

// How the products of 8 channels with a row are added up; linear-inl.h has the loops. `finish` adds what `start` has
// not begun from. Sums of two planes start from RowStart; `join` makes the float of 256 times the high plane's plus the
// low one's, rounded once.
struct RowStart {
  int32_t high, low;
};
template <WeightFormat>
struct DotProduct;

// 4-bit codes: a pair of products is at most 2 * 15 * 128, and a group has 8 pairs, so int16 holds the whole group.
template <>
struct DotProduct<WeightFormat::kW4> {
  using Sum = __m256i;
  static constexpr int kSumRegisters = 1;
  static constexpr int kOperandBytes = 32;  // of a row
  static inline Sum start(const int32_t*) { return _mm256_setzero_si256(); }
  static inline __m256i operand(const int8_t* activations) { return broadcast4(activations); }
  static inline void add(Sum& sum, __m256i codes, __m256i a) {
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, a));
    keep(sum);
  }
  static inline __m256i rest(const int32_t* from) { return broadcast_once(from); }
  static inline __m256i finish(Sum sum, __m256i rest) {
    return _mm256_add_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), rest);
  }
  static inline RowStart split_start(int32_t start) { return {0, start}; }
  static inline __m256 join(Sum high, Sum low, __m256i rest) {
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(256)), finish(low, rest)));
  }
};

// 8-bit codes would overflow int16. An activation is split instead, into 16 * high + low with high in [-8, 8] and
// low in [-8, 7]: 8 pairs of products with either are at most 8 * 2 * 255 * 8, which int16 holds.
template <>
struct DotProduct<WeightFormat::kW8> {
  struct Sum {
    __m256i high, low;
  };
  struct Operand {
    __m256i high, low;
  };
  static constexpr int kSumRegisters = 2;
  static constexpr int kOperandBytes = 64;  // 32 high parts, 32 low ones
  static inline void split(const int8_t* activations, int8_t* operands) {
    const __m256i a = load_bytes(activations), unsigned_a = _mm256_xor_si256(a, _mm256_set1_epi8(-128));
    const __m256i half = _mm256_avg_epu8(unsigned_a, _mm256_set1_epi8(7));  // (a + 128 + 8) / 2, which cannot overflow
    const __m256i sixteenth = _mm256_and_si256(_mm256_srli_epi16(half, 3), _mm256_set1_epi8(0x1F));
    const __m256i high = _mm256_sub_epi8(sixteenth, _mm256_set1_epi8(8));
    const __m256i high_part = _mm256_and_si256(_mm256_slli_epi16(high, 4), _mm256_set1_epi8(-16));
    store_bytes(operands, high);
    store_bytes(operands + 32, _mm256_sub_epi8(a, high_part));
  }
  static inline Sum start(const int32_t*) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static inline Operand operand(const int8_t* operands) { return {broadcast4(operands), broadcast4(operands + 32)}; }
  static inline void add(Sum& sum, __m256i codes, const Operand& a) {
    sum.high = _mm256_add_epi16(sum.high, _mm256_maddubs_epi16(codes, a.high));
    keep(sum.high);
    sum.low = _mm256_add_epi16(sum.low, _mm256_maddubs_epi16(codes, a.low));
    keep(sum.low);
  }
  static inline __m256i rest(const int32_t* from) { return broadcast_once(from); }
  static inline __m256i finish(const Sum& sum, __m256i rest) {
    const __m256i high = _mm256_madd_epi16(sum.high, _mm256_set1_epi16(16));
    const __m256i low = _mm256_madd_epi16(sum.low, _mm256_set1_epi16(1));
    return _mm256_add_epi32(_mm256_add_epi32(high, low), rest);
  }
  static inline RowStart split_start(int32_t start) { return {0, start}; }
  static inline __m256 join(const Sum& high, const Sum& low, __m256i rest) {
    const __m256i high_sum = _mm256_add_epi32(_mm256_madd_epi16(high.high, _mm256_set1_epi16(16 * 256)),
                                              _mm256_madd_epi16(high.low, _mm256_set1_epi16(256)));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(high_sum, finish(low, rest)));
  }
};

static inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
static inline void prefetch_far(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
// Rows that share one pass over a KV block in half precision: what the registers hold.
constexpr int kAttendRows = 2;
constexpr int kAttendRest = 1;

}  // namespace antiphon::avx2
