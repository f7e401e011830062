// What attention works on: its scratch, and a block of the KV pool. Included by attention-inl.h.

// A softmax and the sum of values weighted by it, not divided yet: of one segment, or of several that were folded.
struct AttentionState {
  float *outputs, *sums, *maxima;  // [rows][head_dim], [rows][16 lanes], [rows]

  AttentionState(float* memory, int64_t rows, int64_t dim)
      : outputs(memory), sums(outputs + rows * dim), maxima(sums + rows * 16) {}
  static int64_t floats(int64_t rows, int64_t dim) { return rows * (dim + 16) + (rows + 15) / 16 * 16; }
};

// The working set of one call of `attend`, carved out of the caller's scratch. With an int8 pool queries and weights
// are quantized, in as many planes as the output.
struct AttentionScratch {
  int64_t rows;
  int64_t lines_softened, lines_quantized;  // of the next block, prefetched with each row's softmax and quantization
  float *keys, *values;  // with half precision, one block in float32: [head_dim][32 tokens], [32 tokens][head_dim]
  float* queries;        // [rows][head_dim]
  float* outputs;        // [head_dim / 32][rows][32]
  float* weights;        // [rows][32]: scores, then softmax numerators
  float* sums;           // [rows][16 lanes]
  float *maxima, *corrections;                         // [rows]
  float *segment_state, *folded_state;                 // AttentionState
  QuantizedRows quantized_queries, quantized_weights;  // with int8; the weights have V's scales in them
  // The factors of the cosines and of the sines in the scores' share of K's bias, [rows][2][head_dim / 2], of which
  // num_pairs are in use: for position 0, and for a block's first position, with the cosines and sines of that.
  float *bias_terms, *block_bias_terms, *block_cosines, *block_sines;

  // `block_lines`: cache lines of a block of a KV head.
  AttentionScratch(float* memory, int64_t num_rows, int64_t dim, int64_t planes, int64_t block_lines)
      : rows(num_rows),
        lines_softened((block_lines / 3 + num_rows - 1) / num_rows),
        lines_quantized((block_lines / 6 + num_rows - 1) / num_rows) {
    const auto carve = [&memory](int64_t floats) {
      float* start = memory;
      memory += floats;
      return start;
    };
    const auto carve_quantized = [&](int64_t width) {
      const int64_t groups = rows * (width / kGroup);
      return QuantizedRows{reinterpret_cast<int8_t*>(carve(planes * groups * kGroup / 4)), carve(groups),
                           reinterpret_cast<int32_t*>(carve(groups)), rows, planes};
    };
    keys = carve(kBlockTokens * dim);
    values = carve(kBlockTokens * dim);
    queries = carve(rows * dim);
    outputs = carve(rows * dim);
    bias_terms = carve(rows * dim);
    block_bias_terms = carve(rows * dim);
    block_cosines = carve(dim / 2);
    block_sines = carve(dim / 2);
    weights = carve(rows * kBlockTokens);
    sums = carve(rows * 16);
    quantized_queries = carve_quantized(dim);
    quantized_weights = carve_quantized(kBlockTokens);
    maxima = carve(rows);
    corrections = carve(rows);
    segment_state = carve(AttentionState::floats(rows, dim));
    folded_state = carve(AttentionState::floats(rows, dim));
  }
  float* output(int64_t row, int64_t column) const {
    return outputs + (column / kPanel * rows + row) * kPanel + column % kPanel;
  }
};

// The KV head's next block, which is prefetched while the one before is computed. Its lines are requested evenly over
// all of that work: the first-level cache can wait for few of them at once, and then has no room for what is computed
// with.
struct NextBlock {
  const uint8_t *at, *end;  // what is not prefetched yet

  void fetch(int64_t lines) {
    for (; lines > 0 && at < end; --lines, at += 64) prefetch_far(at);
  }
};

// One block of one KV head.
struct BlockView {
  const uint8_t *keys, *values;
  int64_t start;   // the position of its first token
  int64_t tokens;  // that it holds
};
