// Rotary positions, the KV pool's format, and attention over it, written once over the vector layer. Included inside an
// instruction set's namespace, after elementwise-inl.h.
//
// A query row's result depends on that row and on the stored K and V alone: blocks are walked in order, each updates a
// running maximum and sum (the online softmax of Milakov and Gimelshein, 2018), and every sum has one order.

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

static void store_key(const float* k, const KvLayer& kv, uint8_t* head, int64_t slot) {
  if (kv.type == KvType::kHalf) {
    uint16_t* codes = reinterpret_cast<uint16_t*>(head);
    for (int64_t d = 0; d < kv.head_dim; ++d) codes[d * kBlockTokens + slot] = float_to_half(k[d]);
    return;
  }
  uint16_t* scales = reinterpret_cast<uint16_t*>(head + kv.vector_bytes()) + slot;
  uint8_t* lines =
      head + slot / 16 * (kGroup * 16) + slot % 16 * 4;  // the token's half of a group, its place in a line
  for (int64_t d = 0; d < kv.head_dim; d += kGroup) {
    const F32 a = load(k + d), b = load(k + d + 16);
    const uint16_t scale = scales[d / kGroup * kBlockTokens] = pool_scale(max_magnitude(a, b));
    uint8_t codes[kGroup];
    round_for_pool(a, b, scale, codes);
    for (int64_t i = 0; i < kGroup; ++i) lines[d * kBlockTokens + i / 4 * 64 + i % 4] = codes[i];
  }
}

static void store_value(const float* v, const KvLayer& kv, uint8_t* head, int64_t slot) {
  uint8_t* values = head + kv.values_at();
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
  const float rotation = shape.rotate_keys ? 1.0f / __builtin_sqrtf(static_cast<float>(dim & -dim)) : 1.0f;
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
    uint8_t* head = kv.head(block, h);
    guard_token(keys + h * dim, values + h * dim, kv);
    store_key(keys + h * dim, kv, head, position % kBlockTokens);
    store_value(values + h * dim, kv, head, position % kBlockTokens);
  }
}

// The working set of one call of `attend`, carved out of the caller's scratch. `parts` of what is quantized, and so of
// the outputs: 1 with a pool in half precision, where nothing is.
struct AttentionScratch {
  int64_t rows, parts;
  float *keys, *values;  // with half precision, one block in float32: [head_dim][32 tokens], [32 tokens][head_dim]
  float* queries;        // [rows][head_dim]
  float* outputs;        // [head_dim / 32][rows * parts][32]
  float* weights;        // [rows][32]: scores, then softmax numerators
  float* sums;           // [rows][16 lanes]
  float *maxima, *corrections;                         // [rows]
  QuantizedRows quantized_queries, quantized_weights;  // with int8; the weights have V's scales in them
  float* products;                                     // of the queries with K: [rows * parts][32]

  AttentionScratch(float* memory, int64_t num_rows, int64_t dim, int64_t num_parts) : rows(num_rows), parts(num_parts) {
    const auto carve = [&memory](int64_t floats) {
      float* start = memory;
      memory += floats;
      return start;
    };
    const auto carve_quantized = [&](int64_t width) {
      const int64_t groups = rows * parts * (width / kGroup);
      return QuantizedRows{reinterpret_cast<int8_t*>(carve(groups * kGroup / 4)),
                           carve(groups),
                           reinterpret_cast<int32_t*>(carve(groups)),
                           rows * parts,
                           parts,
                           parts,
                           1};
    };
    keys = carve(kBlockTokens * dim);
    values = carve(kBlockTokens * dim);
    queries = carve(rows * dim);
    outputs = carve(rows * parts * dim);
    weights = carve(rows * kBlockTokens);
    products = carve(rows * parts * kBlockTokens);
    sums = carve(rows * 16);
    quantized_queries = carve_quantized(dim);
    quantized_weights = carve_quantized(kBlockTokens);
    maxima = carve(rows);
    corrections = carve(rows);
  }
  float* output(int64_t row, int64_t column, int64_t part = 0) const {
    return outputs + (column / kPanel * rows * parts + row * parts + part) * kPanel + column % kPanel;
  }
};

// One block of one KV head.
struct BlockView {
  const uint8_t *keys, *values;
  int64_t tokens;       // that it holds
  const uint8_t* next;  // K of the block after it, or null
  int64_t next_bytes;   // to be fetched from there for each 32 columns of this one's V

  int64_t ahead() const { return next ? next - keys : 0; }
  void fetch_next(int64_t panel) const {
    if (next)
      for (int64_t i = 0; i < next_bytes; i += 64) prefetch_far(next + panel * next_bytes + i);
  }
};

// Where the rows of a tile find V in half precision: as it is stored, converted as it is loaded, or in float32.
struct HalfValues {
  const uint16_t* v;
  F32 at(int64_t i) const { return load_half(v + i); }
};
struct FloatValues {
  const float* v;
  F32 at(int64_t i) const { return load(v + i); }
};

template <int Rows>
static inline void score_rows(const AttentionScratch& s, int64_t row, int64_t dim) {
  F32 left[Rows], right[Rows];
  for (int r = 0; r < Rows; ++r) left[r] = right[r] = set1(0.0f);
  const float* q = s.queries + row * dim;
  for (int64_t d = 0; d < dim; ++d) {
    const F32 a = load(s.keys + d * kBlockTokens), b = load(s.keys + d * kBlockTokens + 16);
    for (int r = 0; r < Rows; ++r) {
      const F32 x = set1(q[r * dim + d]);
      left[r] = fma(x, a, left[r]);
      right[r] = fma(x, b, right[r]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    store(s.weights + (row + r) * kBlockTokens, left[r]);
    store(s.weights + (row + r) * kBlockTokens + 16, right[r]);
  }
}

// Scores against K in half precision: K is widened once for all rows.
static inline void score_half(const AttentionScratch& s, const BlockView& block, int64_t dim) {
  const HalfValues keys{reinterpret_cast<const uint16_t*>(block.keys)};
  for (int64_t i = 0; i < dim * kBlockTokens; i += 16) store(s.keys + i, keys.at(i));
  int64_t row = 0;
  for (; row + kAttendRows <= s.rows; row += kAttendRows) score_rows<kAttendRows>(s, row, dim);
  for (; row + kAttendRest <= s.rows; row += kAttendRest) score_rows<kAttendRest>(s, row, dim);
  for (; row < s.rows; ++row) score_rows<1>(s, row, dim);
}

// Scores against K in int8: a product of the quantized queries with a panel, a query's parts added.
static inline void score_int8(const AttentionScratch& s, const BlockView& block, const KvLayer& kv) {
  for (int64_t i = 0; i < s.rows * s.parts * kBlockTokens; i += 16) store(s.products + i, set1(0.0f));
  linear_panel(kv.key_panel(block.keys, block.ahead()), 0, s.quantized_queries, 0, s.rows * s.parts, s.products);
  for (int64_t row = 0; row < s.rows; ++row)
    for (int64_t lane = 0; lane < kBlockTokens; lane += 16) {
      const float* product = s.products + row * s.parts * kBlockTokens + lane;
      const F32 score = s.parts == 1 ? load(product) : add(load(product), load(product + kBlockTokens));
      store(s.weights + row * kBlockTokens + lane, score);
    }
}

// Turns a row's scores into softmax numerators; `visible` of the block's tokens are at or before the row's position.
static inline void soften_row(const AttentionScratch& s, int64_t row, int64_t visible) {
  float* weights = s.weights + row * kBlockTokens;
  if (visible <= 0) {
    store(weights, set1(0.0f));
    store(weights + 16, set1(0.0f));
    s.corrections[row] = 1.0f;
    return;
  }
  const Mask left_mask = first_lanes(visible), right_mask = first_lanes(visible > 16 ? visible - 16 : 0);
  const F32 lowest = set1(-__builtin_inff());
  const F32 left = select(left_mask, load(weights), lowest), right = select(right_mask, load(weights + 16), lowest);
  const float block_maximum = reduce_max(max(left, right));
  const float maximum = block_maximum > s.maxima[row] ? block_maximum : s.maxima[row];
  const F32 top = set1(maximum), zero = set1(0.0f);
  const F32 left_weight = select(left_mask, exponential(sub(left, top)), zero);
  const F32 right_weight = select(right_mask, exponential(sub(right, top)), zero);
  alignas(64) float correction[16];
  store(correction, exponential(sub(set1(s.maxima[row]), top)));
  float* sums = s.sums + row * 16;
  store(sums, fma(load(sums), set1(correction[0]), add(left_weight, right_weight)));
  store(weights, left_weight);
  store(weights + 16, right_weight);
  s.maxima[row] = maximum;
  s.corrections[row] = correction[0];
}

// 32 columns of the outputs of some rows, from column d on, by a block's V in half precision.
template <int Rows, class Values>
static inline void accumulate_rows(const AttentionScratch& s, const Values& values, int64_t row, int64_t d, int64_t dim,
                                   int64_t tokens) {
  F32 left[Rows], right[Rows];
  for (int r = 0; r < Rows; ++r) {
    const F32 correction = set1(s.corrections[row + r]);
    left[r] = mul(load(s.output(row + r, d)), correction);
    right[r] = mul(load(s.output(row + r, d + 16)), correction);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const F32 a = values.at(t * dim + d), b = values.at(t * dim + d + 16);
    for (int r = 0; r < Rows; ++r) {
      const F32 w = set1(s.weights[(row + r) * kBlockTokens + t]);
      left[r] = fma(w, a, left[r]);
      right[r] = fma(w, b, right[r]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    store(s.output(row + r, d), left[r]);
    store(s.output(row + r, d + 16), right[r]);
  }
}

template <class Values>
static inline void accumulate_values(const AttentionScratch& s, const BlockView& block, const Values& values,
                                     int64_t dim) {
  for (int64_t d = 0; d < dim; d += kPanel) {
    block.fetch_next(d / kPanel);
    int64_t row = 0;
    for (; row + kAttendRows <= s.rows; row += kAttendRows)
      accumulate_rows<kAttendRows>(s, values, row, d, dim, block.tokens);
    for (; row + kAttendRest <= s.rows; row += kAttendRest)
      accumulate_rows<kAttendRest>(s, values, row, d, dim, block.tokens);
    for (; row < s.rows; ++row) accumulate_rows<1>(s, values, row, d, dim, block.tokens);
  }
}

// With more rows than one tile has, V is widened once for all of them.
static inline void accumulate_half(const AttentionScratch& s, const BlockView& block, int64_t dim) {
  const HalfValues values{reinterpret_cast<const uint16_t*>(block.values)};
  if (s.rows <= kAttendRows) return accumulate_values(s, block, values, dim);
  for (int64_t i = 0; i < block.tokens * dim; i += 16) store(s.values + i, values.at(i));
  accumulate_values(s, block, FloatValues{s.values}, dim);
}

// The rows' weights times the scales of V's tokens, in int8. Slots without a token hold anything.
static inline void quantize_weights(const AttentionScratch& s, const BlockView& block, const uint16_t* scales) {
  const F32 zero = set1(0.0f);
  const F32 left = select(first_lanes(block.tokens), load_half(scales), zero);
  const F32 right = select(first_lanes(block.tokens > 16 ? block.tokens - 16 : 0), load_half(scales + 16), zero);
  for (int64_t row = 0; row < s.rows; ++row) {
    const float* weights = s.weights + row * kBlockTokens;
    quantize_into(mul(load(weights), left), mul(load(weights + 16), right), s.quantized_weights, row, 0);
  }
}

static inline void correct_outputs(const AttentionScratch& s, int64_t dim) {
  for (int64_t row = 0; row < s.rows; ++row) {
    if (s.corrections[row] == 1.0f) continue;  // as most are, once the largest score was seen
    for (int64_t d = 0; d < dim; d += kPanel) scale_by(s.output(row, d), s.parts * kPanel, s.corrections[row]);
  }
}

// The outputs with V in int8: products of the weights with V's panels.
static inline void accumulate_int8(const AttentionScratch& s, const BlockView& block, const KvLayer& kv) {
  quantize_weights(s, block, kv.value_scales_of(block.values));
  if (block.next) {
    for (int64_t i = 0; i < 2 * kv.key_scales(); i += 64) prefetch_far(block.next + kv.vector_bytes() + i);
    prefetch_far(block.next + kv.values_at() + kv.vector_bytes());
  }
  correct_outputs(s, kv.head_dim);
  for (int64_t panel = 0; panel < kv.head_dim / kPanel; ++panel) {
    linear_panel(kv.value_panel(block.values, panel, block.ahead()), 0, s.quantized_weights, 0, s.rows * s.parts,
                 s.output(0, panel * kPanel));
  }
}

// All rows against a block; rows are (token, head) pairs, heads fastest. The first token sees `first_visible` of it.
static inline void attend_block(const AttentionScratch& s, const BlockView& block, const KvLayer& kv, int64_t heads,
                                int64_t first_visible) {
  const bool half = kv.type == KvType::kHalf;
  half ? score_half(s, block, kv.head_dim) : score_int8(s, block, kv);
  for (int64_t row = 0; row < s.rows; ++row) soften_row(s, row, first_visible + row / heads);
  half ? accumulate_half(s, block, kv.head_dim) : accumulate_int8(s, block, kv);
}

// The block that begins at position `start`, of a sequence that is looked at up to `last`.
static inline BlockView block_at(const SequenceView& sequence, const KvLayer& kv, int64_t kv_head, int64_t start,
                                 int64_t last) {
  const int32_t* number = sequence.block_table + start / kBlockTokens;
  const uint8_t* keys = kv.head(*number, kv_head);
  const int64_t present = last - start + 1;
  const bool more = present > kBlockTokens;
  const uint8_t* next = more ? kv.head(number[1], kv_head) : nullptr;
  const int64_t next_bytes = kv.vector_bytes() / (kv.head_dim / kPanel);
  return {keys, keys + kv.values_at(), more ? kBlockTokens : present, next, next_bytes};
}

// 16 columns of a row's output, its parts added.
static inline F32 output_of(const AttentionScratch& s, int64_t row, int64_t column) {
  const F32 first = load(s.output(row, column));
  return s.parts == 1 ? first : add(first, load(s.output(row, column, 1)));
}

static void attend(const float* qkv, const SequenceView& sequence, int64_t begin, int64_t end, int64_t kv_head,
                   const AttentionShape& shape, const KvLayer& kv, const QuantizedRows& out, float* scratch) {
  const int64_t heads = shape.group(), dim = shape.head_dim, rows = (end - begin) * heads;
  const AttentionScratch s(scratch, rows, dim, kv.type == KvType::kInt8 ? out.parts : 1);
  const int64_t first_head = kv_head * heads;
  for (int64_t row = 0; row < rows; ++row) {
    const float* source =
        qkv + (sequence.first_row + begin + row / heads) * shape.qkv_width() + (first_head + row % heads) * dim;
    for (int64_t d = 0; d < dim; d += 16) store(s.queries + row * dim + d, load(source + d));
    if (kv.type == KvType::kInt8)
      for (int64_t d = 0; d < dim; d += kGroup)
        quantize_into(load(source + d), load(source + d + 16), s.quantized_queries, row, d / kGroup);
    store(s.sums + row * 16, set1(0.0f));
    s.maxima[row] = -__builtin_inff();
  }
  for (int64_t i = 0; i < rows * s.parts * dim; i += 16) store(s.outputs + i, set1(0.0f));
  const int64_t first_position = sequence.first_position + begin;
  const int64_t last_position = sequence.first_position + end - 1;
  for (int64_t start = 0; start <= last_position; start += kBlockTokens) {
    const BlockView block = block_at(sequence, kv, kv_head, start, last_position);
    attend_block(s, block, kv, heads, first_position - start + 1);
  }
  for (int64_t row = 0; row < rows; ++row) {
    const F32 inverse = set1(1.0f / reduce_add(load(s.sums + row * 16)));
    const int64_t target = sequence.first_row + begin + row / heads;
    for (int64_t d = 0; d < dim; d += kGroup)
      quantize_into(mul(output_of(s, row, d), inverse), mul(output_of(s, row, d + 16), inverse), out, target,
                    ((first_head + row % heads) * dim + d) / kGroup);
  }
}
