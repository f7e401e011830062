#include "elementary.h"

namespace antiphon {
namespace {

constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
// pi/2 in parts of 28 bits, of which a multiple below 2^25 is exact, and the rest. Together 137 bits, so that what is
// left of an angle has its full precision however close to a multiple of pi/2 the angle is.
constexpr double kHalfPi1 = 0x1.921fb54p+0, kHalfPi2 = 0x1.10b461p-30, kHalfPi3 = 0x1.a62633p-58,
                 kHalfPi4 = 0x1.45c06e0e68948p-86;
// ln 2 in two parts; a multiple of the first below 2^11 is exact.
constexpr double kLn2High = 0x1.62e42fefa3p-1, kLn2Low = 0x1.3de6af278ece6p-42;
constexpr double kSqrtHalf = 0x1.6a09e667f3bcdp-1;

struct Sum {
  double high, low;
};

// high + low = a + b exactly, in any order of size (D. Knuth, The Art of Computer Programming, volume 2, 4.2.2).
Sum two_sum(double a, double b) {
  const double sum = a + b, b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}

// sin(high + low) for |high| <= pi/4: x - x^3/3! + … to x^17.
double sine_near_zero(double high, double low) {
  const double z = high * high;
  double p = 1.0 / 355687428096000.0;
  p = p * z - 1.0 / 1307674368000.0;
  p = p * z + 1.0 / 6227020800.0;
  p = p * z - 1.0 / 39916800.0;
  p = p * z + 1.0 / 362880.0;
  p = p * z - 1.0 / 5040.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 6.0;
  return high + (z * high * p + low * (1.0 - 0.5 * z));
}

// cos(high + low) for |high| <= pi/4: 1 - x^2/2! + … to x^18. What 1 - x^2/2 loses in rounding is added again.
double cosine_near_zero(double high, double low) {
  const double z = high * high;
  double p = -1.0 / 6402373705728000.0;
  p = p * z + 1.0 / 20922789888000.0;
  p = p * z - 1.0 / 87178291200.0;
  p = p * z + 1.0 / 479001600.0;
  p = p * z - 1.0 / 3628800.0;
  p = p * z + 1.0 / 40320.0;
  p = p * z - 1.0 / 720.0;
  p = p * z + 1.0 / 24.0;
  const double half_square = 0.5 * z, first = 1.0 - half_square;
  return first + (((1.0 - first) - half_square) + (z * z * p - high * low));
}

}  // namespace

SineCosine sine_cosine(double angle) {
  const double turns = (angle * kTwoOverPi + 0x1.8p52) - 0x1.8p52;  // the nearest whole number of right angles
  const Sum second = two_sum(angle - turns * kHalfPi1, -(turns * kHalfPi2));  // exact so far
  const Sum third = two_sum(second.high, -(turns * kHalfPi3));
  const Sum rest = two_sum(third.high, (second.low + third.low) - turns * kHalfPi4);
  const double sine = sine_near_zero(rest.high, rest.low), cosine = cosine_near_zero(rest.high, rest.low);
  switch (static_cast<int64_t>(turns) & 3) {
    case 0: return {sine, cosine};
    case 1: return {cosine, -sine};
    case 2: return {-sine, -cosine};
    default: return {-cosine, sine};
  }
}

double natural_logarithm(double x) {
  const auto bits = std::bit_cast<int64_t>(x);
  int64_t exponent = (bits >> 52) - 1022;  // x = 2^exponent * m, m in [1/2, 1)
  double m = std::bit_cast<double>((bits & 0xFFFFFFFFFFFFF) | (int64_t{1022} << 52));
  if (m < kSqrtHalf) {  // m in [sqrt(1/2), sqrt(2))
    m *= 2.0;
    exponent -= 1;
  }
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 23.0;
  for (int term = 21; term > 1; term -= 2) p = p * z + 1.0 / term;
  const double twice = 2.0 * s, power = static_cast<double>(exponent);
  return power * kLn2High + (twice + (twice * z * p + power * kLn2Low));
}

}  // namespace antiphon
