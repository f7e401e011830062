// Attention over the KV pool, written once over the vector layer. Included inside an instruction set's namespace, after
// kv_pool-inl.h.
//
// A query row's result depends on that row and on the stored K and V alone: blocks are walked in order, each updates a
// running maximum and sum (the online softmax of Milakov and Gimelshein, 2018), which start anew in each segment of
// positions; the segments' states are folded in order, and every sum has one order.

#include "attention_state-inl.h"
#include "attention_half-inl.h"

// Scores against K in int8: a product of the quantized queries with a panel.
static inline void score_int8(const AttentionScratch& s, const BlockView& block, const KvLayer& kv, NextBlock& next) {
  constexpr int64_t kFetchBytes = 512;  // with each group: about a quarter of the next block in all
  const int64_t fetch_bytes = next.at < next.end ? kFetchBytes : 0;
  for (int64_t i = 0; i < s.rows * kBlockTokens; i += 16) store(s.weights + i, set1(0.0f));
  linear_panel(kv.key_panel(block.keys, next.at, fetch_bytes), 0, s.quantized_queries, 0, s.rows, s.weights);
  next.at += kv.head_dim / kGroup * fetch_bytes;
}

// K's bias b, turned to position p, adds q · R(p) b to a row's score. By pairs of dimensions that is
// sum of A cos(p angle) + B sin(p angle), with A = q1 b1 + q2 b2 and B = q2 b1 - q1 b2. Makes A and B for a query as it
// was before its Hadamard transform, which is its own inverse but for a factor.
static inline void start_bias_terms(const AttentionScratch& s, int64_t row, const AttentionShape& shape,
                                    const KeyBias& bias) {
  const int64_t dim = shape.head_dim;
  float* query = s.queries + row * dim;
  hadamard(query, dim);
  scale_by(query, dim, hadamard_scale(dim));
  float* terms = s.bias_terms + row * dim;
  for (int64_t i = 0; i < bias.num_pairs; ++i) {
    const float first = query[bias.pairs[i]], second = query[bias.pairs[i] + dim / 2];
    terms[i] = first * bias.first[i] + second * bias.second[i];
    terms[dim / 2 + i] = second * bias.first[i] - first * bias.second[i];
  }
}

// Adds the bias' share to the scores of a block that begins at position `start`. The angle is the sum of that of
// `start`, which goes into A and B, and that of the token in the block, which is in `turns`.
static inline void add_bias_scores(const AttentionScratch& s, const AttentionShape& shape, const KeyBias& bias,
                                   int64_t start) {
  const int64_t dim = shape.head_dim, half = dim / 2;
  for (int64_t i = 0; i < bias.num_pairs; ++i) {
    s.block_cosines[i] = shape.cosines[start * half + bias.pairs[i]];
    s.block_sines[i] = shape.sines[start * half + bias.pairs[i]];
  }
  for (int64_t row = 0; row < s.rows; ++row) {
    const float* terms = s.bias_terms + row * dim;
    float* turned = s.block_bias_terms + row * dim;
    for (int64_t i = 0; i < bias.num_pairs; i += 16) {  // what lies beyond the last pair is not used
      const F32 a = load(terms + i), b = load(terms + half + i);
      const F32 cosine = load(s.block_cosines + i), sine = load(s.block_sines + i);
      store(turned + i, fma(b, sine, mul(a, cosine)));
      store(turned + half + i, sub(mul(b, cosine), mul(a, sine)));
    }
  }
  score_all_rows(s, s.block_bias_terms, dim, bias.turns, bias.num_pairs);
  score_all_rows(s, s.block_bias_terms + half, dim, bias.turns + bias.num_pairs * kBlockTokens, bias.num_pairs);
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
  const bool whole = visible >= kBlockTokens;
  const Mask left_mask = first_lanes(visible), right_mask = first_lanes(visible > 16 ? visible - 16 : 0);
  F32 left = load(weights), right = load(weights + 16);
  if (!whole) {
    const F32 lowest = set1(-__builtin_inff());
    left = select(left_mask, left, lowest);
    right = select(right_mask, right, lowest);
  }
  const float before = s.maxima[row], block_maximum = reduce_max(max(left, right));
  const float maximum = block_maximum > before ? block_maximum : before;
  const F32 top = set1(maximum);
  left = exponential(sub(left, top));
  right = exponential(sub(right, top));
  if (!whole) {
    left = select(left_mask, left, set1(0.0f));
    right = select(right_mask, right, set1(0.0f));
  }
  alignas(64) float correction[16] = {1.0f};
  if (maximum != before) store(correction, exponential(sub(set1(before), top)));
  float* sums = s.sums + row * 16;
  store(sums, fma(load(sums), set1(correction[0]), add(left, right)));
  store(weights, left);
  store(weights + 16, right);
  s.maxima[row] = maximum;
  s.corrections[row] = correction[0];
}

// The rows' weights times the scales of V's tokens, in int8. Slots without a token hold anything.
static inline void quantize_weights(const AttentionScratch& s, const BlockView& block, const uint16_t* scales,
                                    NextBlock& next) {
  const F32 zero = set1(0.0f);
  const F32 left = select(first_lanes(block.tokens), load_half(scales), zero);
  const F32 right = select(first_lanes(block.tokens > 16 ? block.tokens - 16 : 0), load_half(scales + 16), zero);
  for (int64_t row = 0; row < s.rows; ++row) {
    const float* weights = s.weights + row * kBlockTokens;
    next.fetch(s.lines_quantized);
    quantize_into(mul(load(weights), left), mul(load(weights + 16), right), s.quantized_weights, row, 0);
  }
}

static inline void correct_outputs(const AttentionScratch& s, int64_t dim) {
  for (int64_t row = 0; row < s.rows; ++row) {
    if (s.corrections[row] == 1.0f) continue;  // as most are, once the largest score was seen
    for (int64_t d = 0; d < dim; d += kPanel) scale_by(s.output(row, d), kPanel, s.corrections[row]);
  }
}

// The outputs with V in int8: products of the weights with V's panels.
static inline void accumulate_int8(const AttentionScratch& s, const BlockView& block, const KvLayer& kv,
                                   NextBlock& next) {
  quantize_weights(s, block, kv.value_scales_of(block.values), next);
  correct_outputs(s, kv.head_dim);
  const int64_t panels = kv.head_dim / kPanel, lines = (next.end - next.at) / 64;
  for (int64_t panel = 0; panel < panels; ++panel) {
    const uint8_t* codes = block.values + panel * kPanel * kBlockTokens;
    next.fetch(panel + 1 < panels ? lines / panels : lines);
    multiply_values(codes, s.quantized_weights, s.rows, s.output(0, panel * kPanel));
  }
}

// All rows against a block; rows are (token, head) pairs, heads fastest. The first token sees `first_visible` of it.
static inline void attend_block(const AttentionScratch& s, const BlockView& block, NextBlock next, const KvLayer& kv,
                                const AttentionShape& shape, const KeyBias& bias, int64_t first_visible) {
  const bool half = kv.type == KvType::kHalf;
  half ? score_half(s, block, kv.head_dim) : score_int8(s, block, kv, next);
  if (bias.num_pairs) add_bias_scores(s, shape, bias, block.start);
  for (int64_t row = 0; row < s.rows; ++row) {
    next.fetch(s.lines_softened);
    soften_row(s, row, first_visible + row / shape.query_heads_per_kv());
  }
  half ? accumulate_half(s, block, kv.head_dim, next) : accumulate_int8(s, block, kv, next);
}

// The block that begins at position `start`, of a sequence that is looked at up to `last`.
static inline BlockView block_at(const SequenceView& sequence, const KvLayer& kv, int64_t kv_head, int64_t start,
                                 int64_t last) {
  const uint8_t* keys = kv.kv_head_data(sequence.block_table[start / kBlockTokens], kv_head);
  const int64_t present = last - start + 1;
  return {keys, keys + kv.values_at(), start, present > kBlockTokens ? kBlockTokens : present};
}

// The block after it.
static inline NextBlock block_after(const SequenceView& sequence, const KvLayer& kv, int64_t kv_head, int64_t start,
                                    int64_t last) {
  const int64_t next = start + kBlockTokens;
  if (next > last) return {nullptr, nullptr};
  const uint8_t* keys = kv.kv_head_data(sequence.block_table[next / kBlockTokens], kv_head);
  return {keys, keys + kv.kv_head_bytes()};
}

// The tile's queries, quantized for an int8 pool.
static inline void take_queries(const AttentionScratch& s, const AttentionTile& tile, const AttentionShape& shape,
                                const KvLayer& kv, const KeyBias& bias) {
  const int64_t query_heads = shape.query_heads_per_kv(), dim = shape.head_dim;
  for (int64_t row = 0; row < s.rows; ++row) {
    const float* source = tile.qkv + (tile.sequence.first_row + tile.begin + row / query_heads) * shape.qkv_width() +
                          (tile.kv_head * query_heads + row % query_heads) * dim;
    for (int64_t d = 0; d < dim; d += 16) store(s.queries + row * dim + d, load(source + d));
    if (bias.num_pairs) start_bias_terms(s, row, shape, bias);
    if (kv.type == KvType::kInt8)
      for (int64_t d = 0; d < dim; d += kGroup)
        quantize_into(load(source + d), load(source + d + 16), s.quantized_queries, row, d / kGroup);
  }
}

// All blocks of a segment, from a fresh softmax.
static inline void attend_segment(const AttentionScratch& s, const AttentionTile& tile, int64_t segment,
                                  const AttentionShape& shape, const KvLayer& kv, const KeyBias& bias) {
  for (int64_t row = 0; row < s.rows; ++row) {
    store(s.sums + row * 16, set1(0.0f));
    s.maxima[row] = -__builtin_inff();
  }
  for (int64_t i = 0; i < s.rows * shape.head_dim; i += 16) store(s.outputs + i, set1(0.0f));
  const int64_t last = tile.last_position(), end = (segment + 1) * kSegmentTokens;
  for (int64_t start = segment * kSegmentTokens; start <= last && start < end; start += kBlockTokens) {
    const BlockView block = block_at(tile.sequence, kv, tile.kv_head, start, last);
    const NextBlock next = block_after(tile.sequence, kv, tile.kv_head, start, last);
    attend_block(s, block, next, kv, shape, bias, tile.first_position() - start + 1);
  }
}

static inline void save_state(const AttentionScratch& s, const AttentionState& state, int64_t dim) {
  for (int64_t row = 0; row < s.rows; ++row) {
    for (int64_t d = 0; d < dim; d += 16) store(state.outputs + row * dim + d, load(s.output(row, d)));
    store(state.sums + row * 16, load(s.sums + row * 16));
    state.maxima[row] = s.maxima[row];
  }
}

// Folds the state of a later segment into that of those before it. Rows that stand before the segment see none of it.
static inline void fold(const AttentionState& folded, const AttentionState& later, int64_t segment,
                        const AttentionTile& tile, const AttentionShape& shape) {
  const int64_t query_heads = shape.query_heads_per_kv(), dim = shape.head_dim;
  for (int64_t row = 0; row < tile.tokens() * query_heads; ++row) {
    if (tile.first_position() + row / query_heads < segment * kSegmentTokens) continue;
    const float before = folded.maxima[row], after = later.maxima[row], maximum = after > before ? after : before;
    alignas(64) float factors[2][16];
    store(factors[0], exponential(set1(before - maximum)));
    store(factors[1], exponential(set1(after - maximum)));
    const F32 keep = set1(factors[0][0]), take = set1(factors[1][0]);
    float *output = folded.outputs + row * dim, *sums = folded.sums + row * 16;
    const float* added = later.outputs + row * dim;
    for (int64_t d = 0; d < dim; d += 16) store(output + d, fma(load(added + d), take, mul(load(output + d), keep)));
    store(sums, fma(load(later.sums + row * 16), take, mul(load(sums), keep)));
    folded.maxima[row] = maximum;
  }
}

static inline void quantize_outputs(const AttentionState& state, const AttentionTile& tile, const AttentionShape& shape,
                                    const QuantizedRows& out) {
  const int64_t query_heads = shape.query_heads_per_kv(), dim = shape.head_dim;
  const int64_t first_head = tile.kv_head * query_heads;
  for (int64_t row = 0; row < tile.tokens() * query_heads; ++row) {
    const F32 inverse = set1(1.0f / reduce_add(load(state.sums + row * 16)));
    const int64_t target = tile.sequence.first_row + tile.begin + row / query_heads;
    const float* output = state.outputs + row * dim;
    for (int64_t d = 0; d < dim; d += kGroup)
      quantize_into(mul(load(output + d), inverse), mul(load(output + d + 16), inverse), out, target,
                    ((first_head + row % query_heads) * dim + d) / kGroup);
  }
}

static void attend(const AttentionTile& tile, const SegmentRange& segments, const AttentionShape& shape,
                   const KvLayer& kv, const KeyBias& bias, float* states, const QuantizedRows& out, float* scratch) {
  const int64_t rows = tile.tokens() * shape.query_heads_per_kv(), dim = shape.head_dim;
  const AttentionScratch s(scratch, rows, dim, out.planes, kv.kv_head_bytes() / 64);
  take_queries(s, tile, shape, kv, bias);
  const AttentionState folded(s.folded_state, rows, dim), later(s.segment_state, rows, dim);
  for (int64_t segment = segments.first; segment < segments.end; ++segment) {
    attend_segment(s, tile, segment, shape, kv, bias);
    if (states) {
      float* memory = states + (segment - segments.first) * AttentionState::floats(rows, dim);
      save_state(s, AttentionState(memory, rows, dim), dim);
    } else if (segment == 0) {
      save_state(s, folded, dim);
    } else {
      save_state(s, later, dim);
      fold(folded, later, segment, tile, shape);
    }
  }
  if (!states) quantize_outputs(folded, tile, shape, out);
}

static void fold_attention(const AttentionTile& tile, const AttentionShape& shape, float* states,
                           const QuantizedRows& out) {
  const int64_t rows = tile.tokens() * shape.query_heads_per_kv(), dim = shape.head_dim;
  const AttentionState folded(states, rows, dim);
  for (int64_t segment = 1; segment < tile.num_segments(); ++segment)
    fold(folded, AttentionState(states + segment * AttentionState::floats(rows, dim), rows, dim), segment, tile, shape);
  quantize_outputs(folded, tile, shape, out);
}
