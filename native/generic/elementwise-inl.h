// Exponentials, norms, activations and their quantization, written once over the vector layer. Included inside an
// instruction set's namespace.

// e^x for x in [-87.3, 88.3] (clamped; not-a-number stays), within 2 ulp: x = n ln 2 + r, a degree-6 polynomial in r,
// 2^n by the exponent bits.
static inline F32 exponential(F32 x) {
  x = min(set1(88.3f), max(set1(-87.3f), x));
  const I32 n = round_to_int(mul(x, set1(1.44269504f)));
  const F32 n_float = from_int(n);
  F32 r = fma(n_float, set1(-0.693145752f), x);
  r = fma(n_float, set1(-1.42860677e-6f), r);
  F32 p = set1(1.0f / 720.0f);
  p = fma(p, r, set1(1.0f / 120.0f));
  p = fma(p, r, set1(1.0f / 24.0f));
  p = fma(p, r, set1(1.0f / 6.0f));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  return times_power_of_two(p, n);
}

// 16 values as codes from -127 * units to 127 * units; what is not a number becomes some code.
static inline I32 to_codes(F32 x, float inverse, float units) {
  const F32 within_127 = min(max(mul(x, set1(inverse)), set1(-127.0f)), set1(127.0f));
  return round_to_int(mul(within_127, set1(units)));
}

// Codes of 32 values in two halves, and the scale of an 8-bit code: that of a 16-bit code times 256. A value that is
// not finite makes the scale not-a-number, so that it is carried on instead of being rounded into something plausible.
// Below 1e-36, where an inverse would overflow, all is zero.
struct GroupCodes {
  I32 left, right;
  float scale;

  GroupCodes(F32 a, F32 b, float units) {
    const float largest = largest_magnitude(a, b);
    const float inverse = largest > 1e-36f ? 127.0f / largest : 0.0f;
    left = to_codes(a, inverse, units);
    right = to_codes(b, inverse, units);
    scale = largest * (1.0f / 127.0f) + largest * 0.0f;
  }
};

static inline int32_t store_plane(int8_t* codes, I32 left, I32 right) {  // returns the sum
  store_int8(codes, left);
  store_int8(codes + 16, right);
  return reduce_add_int(add_int(left, right));
}

// The high part of a code 256 * high + low with both in int8.
static inline I32 high_part(I32 codes) { return shift_right_8(add_int(codes, set1_int(128))); }

// Writes a group of a row, in the planes that `out` has (kernels.h).
static inline void quantize_into(F32 a, F32 b, const QuantizedRows& out, int64_t row, int64_t group) {
  const int64_t at = group * out.capacity + row;
  if (out.planes == 1 && out.low_plane == 0) {
    const GroupCodes codes(a, b, 1.0f);
    out.sums[at] = store_plane(out.codes + at * kGroup, codes.left, codes.right);
    out.scales[at] = codes.scale;
    return;
  }
  const GroupCodes codes(a, b, 256.0f);
  const I32 left = high_part(codes.left), right = high_part(codes.right);
  const I32 low_left = sub_int(codes.left, shift_left_8(left)), low_right = sub_int(codes.right, shift_left_8(right));
  const int64_t high_at = at * out.planes, low_at = high_at + (out.planes == 2 ? 1 : out.low_plane);
  const int32_t high_sum = store_plane(out.codes + high_at * kGroup, left, right);
  const int32_t low_sum = store_plane(out.codes + low_at * kGroup, low_left, low_right);
  if (out.planes == 2) {
    out.sums[at] = 256 * high_sum + low_sum;
    out.scales[at] = codes.scale * (1.0f / 256.0f);
  } else {
    out.sums[at] = high_sum;
    out.sums[low_at] = low_sum;
    out.scales[at] = codes.scale;
  }
}

static inline float inverse_rms(const float* x, float epsilon, int64_t width) {
  F32 squares = set1(0.0f);
  for (int64_t i = 0; i < width; i += 16) squares = fma(load(x + i), load(x + i), squares);
  return 1.0f / __builtin_sqrtf(reduce_add(squares) / static_cast<float>(width) + epsilon);
}

static void rms_norm(const float* x, const float* weight, float epsilon, int64_t width, const QuantizedRows& out,
                     int64_t row) {
  const F32 scale = set1(inverse_rms(x, epsilon, width));
  for (int64_t i = 0; i < width; i += kGroup) {
    const F32 a = mul(mul(load(x + i), scale), load(weight + i));
    const F32 b = mul(mul(load(x + i + 16), scale), load(weight + i + 16));
    quantize_into(a, b, out, row, i / kGroup);
  }
}

static inline F32 silu(F32 x) {
  const F32 one = set1(1.0f);
  return div(x, add(one, exponential(sub(set1(0.0f), x))));
}

static void silu_mul(const float* gate, const float* up, int64_t num_rows, const QuantizedRows& out, int64_t first_row,
                     int64_t group) {
  for (int64_t r = 0; r < num_rows; ++r) {
    const float* g = gate + r * kPanel;
    const float* u = up + r * kPanel;
    quantize_into(mul(silu(load(g)), load(u)), mul(silu(load(g + 16)), load(u + 16)), out, first_row + r, group);
  }
}

static ShardSummary summarize(const float* logits, int64_t count) {
  F32 largest = set1(-__builtin_inff()), taint = set1(0.0f);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const F32 x = load(logits + i);
    largest = max(x, largest);
    taint = fma(x, set1(0.0f), taint);
  }
  ShardSummary summary{reduce_max(largest), reduce_add(taint)};
  for (; i < count; ++i) {
    if (logits[i] > summary.maximum) summary.maximum = logits[i];
    summary.not_finite += logits[i] * 0.0f;
  }
  return summary;
}

static float exponentials(const float* x, float maximum, float scale, int64_t count, float* out) {
  const F32 top = set1(maximum), factor = set1(scale);
  F32 sum = set1(0.0f);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const F32 e = exponential(mul(sub(load(x + i), top), factor));
    store(out + i, e);
    sum = add(sum, e);
  }
  if (i < count) {
    alignas(64) float tail[16] = {};
    for (int64_t j = i; j < count; ++j) tail[j - i] = x[j];
    const F32 e = select(first_lanes(count - i), exponential(mul(sub(load(tail), top), factor)), set1(0.0f));
    store(tail, e);
    for (int64_t j = i; j < count; ++j) out[j] = tail[j - i];
    sum = add(sum, e);
  }
  return reduce_add(sum);
}

static void sums_at_least(const float* weights, int64_t count, const float* thresholds, float* sums) {
  F32 partial[kPivots], bounds[kPivots];
  for (int64_t p = 0; p < kPivots; ++p) {
    partial[p] = set1(0.0f);
    bounds[p] = set1(thresholds[p]);
  }
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const F32 x = load(weights + i);
    for (int64_t p = 0; p < kPivots; ++p) partial[p] = add(partial[p], at_least_or_zero(x, bounds[p]));
  }
  if (i < count) {
    alignas(64) float tail[16] = {};
    for (int64_t j = i; j < count; ++j) tail[j - i] = weights[j];
    for (int64_t p = 0; p < kPivots; ++p) partial[p] = add(partial[p], at_least_or_zero(load(tail), bounds[p]));
  }
  for (int64_t p = 0; p < kPivots; ++p) sums[p] = reduce_add(partial[p]);
}
