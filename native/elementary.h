// The elementary functions that decide which token is served, without the C library, whose results differ between
// versions and vendors by a last bit. Everything here is additions, multiplications and divisions of IEEE 754 numbers
// in a fixed order, so the results are the same bits on every x86-64 processor. The exponential of the kernels is in
// generic/elementwise-inl.h; square roots and divisions are the processor's own, which round correctly.
#pragma once
#include <bit>
#include <cfloat>
#include <cstdint>

static_assert(FLT_EVAL_METHOD == 0, "intermediate results must have the precision of their type (no x87)");

namespace antiphon {

// Beyond it sine_cosine has no promise: the angle of the last position of the longest context is below.
constexpr double kLargestAngle = 0x1p25;

struct SineCosine {
  double sine, cosine;
};

// Of an angle in radians, |angle| <= kLargestAngle, each within 1 ulp of a double. Reduced to [-pi/4, pi/4] by
// subtracting a multiple of pi/2 in four parts (W. J. Cody and W. Waite, Software Manual for the Elementary Functions,
// 1980, chapter 8), then Taylor's series, which need no fitted coefficients.
SineCosine sine_cosine(double angle);

// The natural logarithm of a positive, finite, normal number, within 2 ulp of a double: x = 2^n m with m next to 1, and
// ln m = 2 artanh((m - 1) / (m + 1)) by its series.
double natural_logarithm(double x);

// a * b + c, rounded once. The product of two floats is exact in a double. The sum is rounded to odd, which keeps a
// second rounding, to float, from going wrong (S. Boldo and G. Melquiond, Emulation of FMA and Correctly Rounded Sums,
// 2008); its error is Knuth's TwoSum. For code that may not assume the processor's own instruction.
static inline float fused_multiply_add(float a, float b, float c) {
  const double product = static_cast<double>(a) * static_cast<double>(b), addend = static_cast<double>(c);
  const double sum = product + addend, added = sum - product;
  const double error = (product - (sum - added)) + (addend - added);
  const auto bits = std::bit_cast<int64_t>(sum);
  const int64_t away = (error > 0.0) - (error < 0.0);  // 0 where the sum is not finite
  const int64_t step = bits < 0 ? -away : away;        // bits of negative numbers grow downwards
  return static_cast<float>(std::bit_cast<double>(bits + (bits & 1 ? 0 : step)));
}

// To the nearest integer, ties to even; |x| < 2^31. The sum has no room for a fraction.
static inline int32_t nearest_integer(float x) {
  return static_cast<int32_t>((static_cast<double>(x) + 0x1.8p52) - 0x1.8p52);
}

}  // namespace antiphon
