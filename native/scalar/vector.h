// The vector layer in plain C++: 16 float lanes as an array. Slow, runs anywhere, and the yardstick for the others.
#pragma once
#include "../elementary.h"
#include "../half.h"

namespace antiphon::scalar {

struct F32 {
  float lane[16];
};
struct I32 {
  int32_t lane[16];
};
struct Mask {
  bool lane[16];
};

#define ANTIPHON_LANES(expression)                              \
  do {                                                          \
    for (int i = 0; i < 16; ++i) result.lane[i] = (expression); \
    return result;                                              \
  } while (0)

static inline F32 load(const float* p) {
  F32 result;
  ANTIPHON_LANES(p[i]);
}
static inline void store(float* p, F32 v) {
  for (int i = 0; i < 16; ++i) p[i] = v.lane[i];
}
static inline F32 set1(float x) {
  F32 result;
  ANTIPHON_LANES(x);
}
static inline F32 add(F32 a, F32 b) {
  F32 result;
  ANTIPHON_LANES(a.lane[i] + b.lane[i]);
}
static inline F32 sub(F32 a, F32 b) {
  F32 result;
  ANTIPHON_LANES(a.lane[i] - b.lane[i]);
}
static inline F32 mul(F32 a, F32 b) {
  F32 result;
  ANTIPHON_LANES(a.lane[i] * b.lane[i]);
}
static inline F32 div(F32 a, F32 b) {
  F32 result;
  ANTIPHON_LANES(a.lane[i] / b.lane[i]);
}
static inline F32 fma(F32 a, F32 b, F32 c) {
  F32 result;
  ANTIPHON_LANES(fused_multiply_add(a.lane[i], b.lane[i], c.lane[i]));
}
// As the processor's: the second operand where either is not a number.
static inline F32 max(F32 a, F32 b) {
  F32 result;
  ANTIPHON_LANES(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]);
}
static inline F32 min(F32 a, F32 b) {
  F32 result;
  ANTIPHON_LANES(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]);
}
static inline F32 at_least_or_zero(F32 a, F32 threshold) {
  F32 result;
  ANTIPHON_LANES(a.lane[i] >= threshold.lane[i] ? a.lane[i] : 0.0f);
}
static inline F32 abs(F32 a) {
  F32 result;
  ANTIPHON_LANES(bits_to_float(float_to_bits(a.lane[i]) & 0x7FFFFFFFu));
}
static inline F32 from_int(I32 a) {
  F32 result;
  ANTIPHON_LANES(static_cast<float>(a.lane[i]));
}
static inline F32 load_half(const uint16_t* p) {
  F32 result;
  ANTIPHON_LANES(half_to_float(p[i]));
}
static inline void store_half(uint16_t* p, F32 v) {
  for (int i = 0; i < 16; ++i) p[i] = float_to_half(v.lane[i]);
}
static inline int32_t round_lane(float x) {  // to nearest even; what does not fit becomes INT32_MIN, as the processor's
  return x >= -2147483648.0f && x < 2147483648.0f ? nearest_integer(x) : INT32_MIN;
}
static inline I32 round_to_int(F32 a) {
  I32 result;
  ANTIPHON_LANES(round_lane(a.lane[i]));
}
// n is added to the exponent, which must not leave the range of normal numbers. Not-a-number times 2^INT32_MIN, what
// `round_to_int` makes of it, stays what it is.
static inline F32 times_power_of_two(F32 a, I32 n) {
  F32 result;
  ANTIPHON_LANES(bits_to_float(float_to_bits(a.lane[i]) + (static_cast<uint32_t>(n.lane[i]) << 23)));
}
static inline void store_int8(int8_t* p, I32 v) {  // saturating
  for (int i = 0; i < 16; ++i) {
    const int32_t x = v.lane[i];
    p[i] = static_cast<int8_t>(x < -128 ? -128 : x > 127 ? 127 : x);
  }
}
static inline Mask first_lanes(int64_t count) {
  Mask result;
  ANTIPHON_LANES(i < count);
}
static inline Mask less(F32 a, F32 b) {
  Mask result;
  ANTIPHON_LANES(a.lane[i] < b.lane[i]);
}
static inline F32 select(Mask m, F32 a, F32 b) {
  F32 result;
  ANTIPHON_LANES(m.lane[i] ? a.lane[i] : b.lane[i]);
}
static inline I32 add_int(I32 a, I32 b) {
  I32 result;
  ANTIPHON_LANES(a.lane[i] + b.lane[i]);
}
static inline I32 sub_int(I32 a, I32 b) {
  I32 result;
  ANTIPHON_LANES(a.lane[i] - b.lane[i]);
}
static inline I32 shift_left_8(I32 a) {
  I32 result;
  ANTIPHON_LANES(a.lane[i] << 8);
}
static inline I32 shift_right_8(I32 a) {  // keeps the sign
  I32 result;
  ANTIPHON_LANES(a.lane[i] >> 8);
}
static inline I32 set1_int(int32_t x) {
  I32 result;
  ANTIPHON_LANES(x);
}

// Halves are folded onto each other: 16 → 8 → 4 → 2 → 1. Every instruction set adds in this order.
static inline float reduce_add(F32 v) {
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; ++i) v.lane[i] = v.lane[i] + v.lane[i + width];
  return v.lane[0];
}
static inline float reduce_max(F32 v) {
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; ++i) v.lane[i] = v.lane[i] > v.lane[i + width] ? v.lane[i] : v.lane[i + width];
  return v.lane[0];
}
// Of 32 values; infinite or not-a-number if one of them is, since magnitudes are in the order of their bits.
static inline float largest_magnitude(F32 a, F32 b) {
  uint32_t largest = 0;
  for (int i = 0; i < 32; ++i) {
    const uint32_t bits = float_to_bits(i < 16 ? a.lane[i] : b.lane[i - 16]) & 0x7FFFFFFFu;
    largest = bits > largest ? bits : largest;
  }
  return bits_to_float(largest);
}
static inline int32_t reduce_add_int(I32 v) {
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += v.lane[i];
  return sum;
}

struct Codes {  // a line of codes
  uint8_t byte[64];
};
static inline Codes load_codes(const uint8_t* line) {
  Codes codes;
  for (int i = 0; i < 64; ++i) codes.byte[i] = line[i];
  return codes;
}
static inline void store_codes(uint8_t* line, const Codes& codes) {
  for (int i = 0; i < 64; ++i) line[i] = codes.byte[i];
}
static inline Codes low_nibbles(Codes both) {
  for (int i = 0; i < 64; ++i) both.byte[i] &= 0x0F;
  return both;
}
static inline Codes high_nibbles(Codes both) {
  for (int i = 0; i < 64; ++i) both.byte[i] >>= 4;
  return both;
}

// 16 channels' sums of unsigned weight codes times signed activation codes over a group, 4 values of k a step.
template <WeightFormat>
struct Dot {
  I32 sum;
  static Dot start(int32_t zero_point, int32_t sum) { return {set1_int(-zero_point * sum)}; }
  void step(const Codes& codes, const int8_t* activations) {
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < 4; ++k) sum.lane[i] += static_cast<int32_t>(codes.byte[4 * i + k]) * activations[k];
  }
  I32 finish() const { return sum; }
};

static inline void prefetch(const void*) {}
static inline void prefetch_far(const void*) {}
// Rows that share one pass over a line of weights, and rows that share one over a KV block: what the registers hold.
constexpr int kTileRows = 1;
constexpr int kWideTileRows = 1;  // of two planes
constexpr int kAttendRows = 1;
constexpr int kAttendRest = 1;
// Up to so many rows 4-bit codes are split in registers; for more they are split once, into memory.
constexpr int64_t kUnsplitRows = 1;

#undef ANTIPHON_LANES
}  // namespace antiphon::scalar
