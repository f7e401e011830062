// Attention's products in float32: both of a pool in half precision, and of the queries with K's bias. Included by
// attention-inl.h.

// Where the rows of a tile find V in half precision: as it is stored, converted as it is loaded, or in float32.
struct HalfValues {
  const uint16_t* v;
  F32 at(int64_t i) const { return load_half(v + i); }
};
struct FloatValues {
  const float* v;
  F32 at(int64_t i) const { return load(v + i); }
};

// scores [Rows][32] += queries [Rows][width], `stride` apart, times keys [width][32 tokens].
template <int Rows>
static inline void score_rows(const float* queries, int64_t stride, const float* keys, int64_t width, float* scores) {
  F32 left[Rows], right[Rows];
  for (int r = 0; r < Rows; ++r) {
    left[r] = load(scores + r * kBlockTokens);
    right[r] = load(scores + r * kBlockTokens + 16);
  }
  for (int64_t d = 0; d < width; ++d) {
    const F32 a = load(keys + d * kBlockTokens), b = load(keys + d * kBlockTokens + 16);
    for (int r = 0; r < Rows; ++r) {
      const F32 x = set1(queries[r * stride + d]);
      left[r] = fma(x, a, left[r]);
      right[r] = fma(x, b, right[r]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    store(scores + r * kBlockTokens, left[r]);
    store(scores + r * kBlockTokens + 16, right[r]);
  }
}

static inline void score_all_rows(const AttentionScratch& s, const float* queries, int64_t stride, const float* keys,
                                  int64_t width) {
  int64_t row = 0;
  for (; row + kAttendRows <= s.rows; row += kAttendRows)
    score_rows<kAttendRows>(queries + row * stride, stride, keys, width, s.weights + row * kBlockTokens);
  for (; row + kAttendRest <= s.rows; row += kAttendRest)
    score_rows<kAttendRest>(queries + row * stride, stride, keys, width, s.weights + row * kBlockTokens);
  for (; row < s.rows; ++row)
    score_rows<1>(queries + row * stride, stride, keys, width, s.weights + row * kBlockTokens);
}

// Scores against K in half precision: K is widened once for all rows.
static inline void score_half(const AttentionScratch& s, const BlockView& block, int64_t dim) {
  const HalfValues keys{reinterpret_cast<const uint16_t*>(block.keys)};
  for (int64_t i = 0; i < dim * kBlockTokens; i += 16) store(s.keys + i, keys.at(i));
  for (int64_t i = 0; i < s.rows * kBlockTokens; i += 16) store(s.weights + i, set1(0.0f));
  score_all_rows(s, s.queries, dim, s.keys, dim);
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
                                     int64_t dim, NextBlock& next) {
  const int64_t lines = (next.end - next.at) / 64 / (dim / kPanel);
  for (int64_t d = 0; d < dim; d += kPanel) {
    next.fetch(lines);
    int64_t row = 0;
    for (; row + kAttendRows <= s.rows; row += kAttendRows)
      accumulate_rows<kAttendRows>(s, values, row, d, dim, block.tokens);
    for (; row + kAttendRest <= s.rows; row += kAttendRest)
      accumulate_rows<kAttendRest>(s, values, row, d, dim, block.tokens);
    for (; row < s.rows; ++row) accumulate_rows<1>(s, values, row, d, dim, block.tokens);
  }
}

// With more rows than one tile has, V is widened once for all of them.
static inline void accumulate_half(const AttentionScratch& s, const BlockView& block, int64_t dim, NextBlock& next) {
  const HalfValues values{reinterpret_cast<const uint16_t*>(block.values)};
  if (s.rows <= kAttendRows) return accumulate_values(s, block, values, dim, next);
  for (int64_t i = 0; i < block.tokens * dim; i += 16) store(s.values + i, values.at(i));
  accumulate_values(s, block, FloatValues{s.values}, dim, next);
}
