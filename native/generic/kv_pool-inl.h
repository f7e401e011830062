// What a token leaves in the KV pool: its K, normed and rotated by its position, and its V, in the pool's format.
// Included inside an instruction set's namespace, after elementwise-inl.h; see kernels.h for the layout.

static inline void norm_head(float* head, const float* weight, float epsilon, int64_t dim) {
  const F32 scale = set1(inverse_rms(head, epsilon, dim));
  for (int64_t i = 0; i < dim; i += 16) store(head + i, mul(mul(load(head + i), scale), load(weight + i)));
}

static inline void rotate_by_position(float* head, const float* cosines, const float* sines, int64_t half) {
  for (int64_t i = 0; i < half; i += 16) {
    const F32 a = load(head + i), b = load(head + half + i), c = load(cosines + i), s = load(sines + i);
    store(head + i, sub(mul(a, c), mul(b, s)));
    store(head + half + i, add(mul(b, c), mul(a, s)));
  }
}

// Walsh–Hadamard butterflies, unnormalised, over runs of the largest power of two that divides n.
static inline void hadamard(float* x, int64_t n) {
  const int64_t run = n & -n;
  for (int64_t width = 1; width < run; width *= 2)
    for (int64_t start = 0; start < n; start += 2 * width)
      for (int64_t i = start; i < start + width; ++i) {
        const float a = x[i], b = x[i + width];
        x[i] = a + b;
        x[i + width] = a - b;
      }
}

// What makes the transform orthogonal.
static inline float hadamard_scale(int64_t n) { return 1.0f / __builtin_sqrtf(static_cast<float>(n & -n)); }

static inline void scale_by(float* x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; i += 16) store(x + i, mul(load(x + i), set1(factor)));
}

static inline F32 max_magnitude(F32 a, F32 b) { return max(abs(a), abs(b)); }

// The smallest half-precision number with which codes within 127 reach the largest magnitude. (Numbers that are none
// are so all together: guard_token.)
static inline uint16_t pool_scale(F32 magnitudes) {
  const float scale = reduce_max(magnitudes) * (1.0f / 127.0f);
  uint16_t bits = float_to_half(scale);
  if (half_to_float(bits) < scale) ++bits;
  return bits;
}

static inline F32 pool_inverse(uint16_t scale) {
  const float value = half_to_float(scale);
  return set1(value > 0.0f ? 1.0f / value : 0.0f);
}

static inline void round_for_pool(F32 a, F32 b, uint16_t scale, uint8_t* codes) {
  const F32 inverse = pool_inverse(scale);
  alignas(64) int8_t rounded[kGroup];
  store_int8(rounded, round_to_int(mul(a, inverse)));
  store_int8(rounded + 16, round_to_int(mul(b, inverse)));
  for (int64_t i = 0; i < kGroup; ++i) codes[i] = static_cast<uint8_t>(rounded[i] + 128);
}

static void store_key(const float* k, const KvLayer& kv, uint8_t* keys, int64_t slot) {
  if (kv.type == KvType::kHalf) {
    uint16_t* codes = reinterpret_cast<uint16_t*>(keys);
    for (int64_t d = 0; d < kv.head_dim; ++d) codes[d * kBlockTokens + slot] = float_to_half(k[d]);
    return;
  }
  uint16_t* scales = reinterpret_cast<uint16_t*>(keys + kv.vector_bytes()) + slot;
  uint8_t* lines =
      keys + slot / 16 * (kGroup * 16) + slot % 16 * 4;  // the token's half of a group, its place in a line
  for (int64_t d = 0; d < kv.head_dim; d += kGroup) {
    const F32 a = load(k + d), b = load(k + d + 16);
    const uint16_t scale = scales[d / kGroup * kBlockTokens] = pool_scale(max_magnitude(a, b));
    uint8_t codes[kGroup];
    round_for_pool(a, b, scale, codes);
    for (int64_t i = 0; i < kGroup; ++i) lines[d * kBlockTokens + i / 4 * 64 + i % 4] = codes[i];
  }
}

static void store_value(const float* v, const KvLayer& kv, uint8_t* values, int64_t slot) {
  if (kv.type == KvType::kHalf) {
    uint16_t* codes = reinterpret_cast<uint16_t*>(values) + slot * kv.head_dim;
    for (int64_t d = 0; d < kv.head_dim; d += 16) store_half(codes + d, load(v + d));
    return;
  }
  F32 largest = set1(0.0f);
  for (int64_t d = 0; d < kv.head_dim; d += kGroup)
    largest = max(largest, max_magnitude(load(v + d), load(v + d + 16)));
  const uint16_t scale = pool_scale(largest);
  reinterpret_cast<uint16_t*>(values + kv.vector_bytes())[slot] = scale;
  for (int64_t d = 0; d < kv.head_dim; d += kGroup) {
    uint8_t codes[kGroup];
    round_for_pool(load(v + d), load(v + d + 16), scale, codes);
    uint8_t* line = values + d * kBlockTokens + slot / 4 * 64 + slot % 4;  // in the first half of the panel
    for (int64_t i = 0; i < kGroup; ++i) line[i / 16 * (kGroup * 16) + i % 16 * 4] = codes[i];
  }
}

static inline bool fits_pool(const float* x, const KvLayer& kv) {
  F32 largest = set1(0.0f), taint = set1(0.0f);
  for (int64_t i = 0; i < kv.head_dim; i += 16) {
    largest = max(abs(load(x + i)), largest);
    taint = fma(load(x + i), set1(0.0f), taint);
  }
  return reduce_max(largest) <= (kv.type == KvType::kHalf ? 65504.0f : 8e6f) && reduce_add(taint) == 0.0f;
}

// What the pool cannot hold, not being finite or being too large, becomes K not-a-number and V zero. Who attends to
// that token gets not-a-number; the weight of who does not see it is zero, and zero times zero leaves no trace.
static inline void guard_token(float* k, float* v, const KvLayer& kv) {
  if (fits_pool(k, kv) && fits_pool(v, kv)) return;
  for (int64_t i = 0; i < kv.head_dim; ++i) {
    k[i] = __builtin_nanf("");
    v[i] = 0.0f;
  }
}

static void rope_and_store(float* qkv, int64_t position, const AttentionShape& shape, const HeadNorms& norms,
                           const KvLayer& kv, int64_t block) {
  const int64_t dim = shape.head_dim, half = dim / 2;
  const float* cosines = shape.cosines + position * half;
  const float* sines = shape.sines + position * half;
  const float rotation = shape.rotate_keys ? hadamard_scale(dim) : 1.0f;
  const float softmax_scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim));
  for (int64_t h = 0; h < shape.num_heads + shape.num_kv_heads; ++h) {
    float* head = qkv + h * dim;
    const float* weight = h < shape.num_heads ? norms.query : norms.key;
    if (weight) norm_head(head, weight, norms.epsilon, dim);
    rotate_by_position(head, cosines, sines, half);
    if (shape.rotate_keys) hadamard(head, dim);
    scale_by(head, dim, h < shape.num_heads ? rotation * softmax_scale : rotation);
  }
  float* keys = qkv + shape.num_heads * dim;
  float* values = keys + shape.num_kv_heads * dim;
  for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
    uint8_t* data = kv.kv_head_data(block, h);
    guard_token(keys + h * dim, values + h * dim, kv);
    store_key(keys + h * dim, kv, data, position % kBlockTokens);
    store_value(values + h * dim, kv, data + kv.values_at(), position % kBlockTokens);
  }
}
