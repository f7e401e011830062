// What every instruction set provides: plain structs, and one table of functions.
//
// All instruction sets compute bit-identical results. Dot products accumulate integers exactly inside a group of 32
// values of k; groups are added in float32 in the order of k, each with one fused multiply-add; everything else works
// on 16 float lanes in a fixed order, whatever the width of the registers underneath.
#pragma once
#include <cstddef>
#include <cstdint>

namespace antiphon {

constexpr int64_t kGroup = 32;        // values of k that share a scale, in weights and in activations
constexpr int64_t kPanel = 32;        // output channels that are computed together and stored together
constexpr int64_t kBlockTokens = 32;  // tokens in one KV block
constexpr int64_t kShard = 1024;      // logits whose maximum is kept while they are still in the cache
constexpr int64_t kRowChunk = 64;     // rows times planes that are multiplied together: they fit the first-level cache
constexpr int64_t kPivots = 4;        // thresholds that share one walk over a shard: what AVX2's registers hold

static inline size_t to_size(int64_t value) { return static_cast<size_t>(value); }

// Quantized activations, one row for each token: codes with one scale for each row and group, and the sum of the
// group's codes. Group-major, so that one group of many rows is contiguous: scales and sums are [groups][capacity].
//
// With one plane the codes are int8, from -127 to 127: [groups][capacity][32].
//
// With two planes they have 16 bits: 256 * high + low, from -32,512 to 32,512, high and low in int8. A row's two planes
// are neighbours: [groups][capacity][2][32], the high one first. Scales and sums are those of the whole codes. A
// product of 32 of them with 8-bit weights is below 2^28, so it is exact in int32, and rounded once when it becomes a
// float (docs/decisions/031-one-scale-for-both-planes.md).
//
// With one plane and low planes apart, 16-bit codes are stored, but products multiply the high plane alone, with 256
// times the scale. The low planes and the sums of their codes follow all high ones, `low_plane` rows later
// (lm_head.h).
struct QuantizedRows {
  int8_t* codes;
  float* scales;
  int32_t* sums;
  int64_t capacity;       // rows from one group to the next
  int64_t planes;         // that products multiply: 1 or 2
  int64_t low_plane = 0;  // rows from a high plane to its low plane, where they are apart

  // The low planes alone, with the scale of the high ones.
  QuantizedRows low() const { return {codes + low_plane * kGroup, scales, sums + low_plane, capacity, 1}; }
};

enum class WeightFormat : int32_t { kW4, kW8 };

// A packed weight matrix of `rows` output channels and `columns` values of k, in panels of 32 channels. In a panel, for
// each group: two halves of 16 channels; in a half, 64-byte lines that hold 4 successive k of 16 channels
// (byte = channel * 4 + k % 4), the operand layout of VNNI and of AMX's second tile. Codes are unsigned. W8 has 8 lines
// a half; W4 has 4, and line i holds k 4i.. in its low nibbles and k 4i+16.. in its high ones. scales, and mins where
// the format has them: half precision, [panels][groups][32]. A weight is scale * (code - zero_point) + min.
struct PackedView {
  WeightFormat format;
  int64_t rows;
  int64_t columns;
  int32_t zero_point;  // 128 or 8; 0 where mins take its place
  const uint8_t* codes;
  const uint16_t* scales;
  const uint16_t* mins;  // or null
  // What is prefetched while the panel is multiplied: `fetch_bytes` from `fetch` on with each group, a multiple of 64;
  // kNextGroups: the panel's own next groups and those of the panel after it.
  static constexpr int64_t kNextGroups = -1;
  const uint8_t* fetch = nullptr;
  int64_t fetch_bytes = kNextGroups;
};

static inline int64_t group_code_bytes(WeightFormat format) {  // of one group of one panel
  return format == WeightFormat::kW4 ? kPanel * kGroup / 2 : kPanel * kGroup;
}

enum class KvType : int32_t { kInt8, kHalf };

// One layer of the KV pool. The pool holds a block's layers next to each other, so that memory is touched block by
// block: a layer's blocks are `block_stride` bytes apart. In a layer a block holds, for each KV head, K, K's scales, V,
// V's scales; scales in half precision, only with int8. In int8 both are panels of W8, so that attention's products are
// products like any other: K one panel whose channels are the block's tokens, with scales [head_dim / 32][32 tokens]; V
// a panel for each 32 columns, whose values of k are the tokens, with one scale a token. In half precision K is
// [head_dim][32 tokens], V [32 tokens][head_dim].
struct KvLayer {
  uint8_t* base;  // of block 0
  KvType type;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t block_stride;

  int64_t code_bytes() const { return type == KvType::kInt8 ? 1 : 2; }
  int64_t vector_bytes() const { return kBlockTokens * head_dim * code_bytes(); }  // of a block's K or V
  int64_t key_scales() const { return type == KvType::kInt8 ? kBlockTokens * (head_dim / kGroup) : 0; }
  int64_t value_scales() const { return type == KvType::kInt8 ? kBlockTokens : 0; }
  int64_t values_at() const { return vector_bytes() + 2 * key_scales(); }
  int64_t kv_head_bytes() const { return values_at() + vector_bytes() + 2 * value_scales(); }
  int64_t block_bytes() const { return num_kv_heads * kv_head_bytes(); }  // in this layer
  uint8_t* kv_head_data(int64_t block, int64_t kv_head) const {
    return base + block * block_stride + kv_head * kv_head_bytes();
  }
  // `fetch` and `fetch_bytes`: PackedView.
  PackedView key_panel(const uint8_t* keys, const uint8_t* fetch, int64_t fetch_bytes) const {
    const auto* scales = reinterpret_cast<const uint16_t*>(keys + vector_bytes());
    return {WeightFormat::kW8, kBlockTokens, head_dim, 128, keys, scales, nullptr, fetch, fetch_bytes};
  }
  // V's scales belong to its tokens, the values of k.
  const uint16_t* value_scales_of(const uint8_t* values) const {  // [32 tokens]
    return reinterpret_cast<const uint16_t*>(values + vector_bytes());
  }
};

// One sequence of a step: rows [first_row, first_row + num_tokens) of the batch stand at positions first_position + i.
struct SequenceView {
  int64_t first_row;
  int64_t num_tokens;
  int64_t first_position;
  const int32_t* block_table;
};

struct AttentionShape {
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  const float* cosines;  // [positions][head_dim / 2], times the model's attention factor
  const float* sines;
  bool rotate_keys;  // Hadamard-rotate Q and K, which leaves their products alone and flattens K's outliers

  int64_t query_heads_per_kv() const { return num_heads / num_kv_heads; }
  int64_t qkv_width() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
};

// Weights [head_dim] of the norms that some models apply to every query head and every key head before they are turned
// by position; both null in the others.
struct HeadNorms {
  const float* query = nullptr;
  const float* key = nullptr;
  float epsilon = 0.0f;
};

// The part of K's bias that is not in the pool, of one KV head: that of `num_pairs` pairs of dimensions (pair, pair +
// head_dim / 2), which rotary positions turn together. `attend` adds its share of the scores
// (docs/decisions/014-key-biases.md).
struct KeyBias {
  int64_t num_pairs = 0;
  const int32_t* pairs = nullptr;  // [num_pairs]
  const float* first = nullptr;    // [num_pairs], of dimension `pair`
  const float* second = nullptr;   // [num_pairs], of dimension `pair + head_dim / 2`
  const float* turns =
      nullptr;  // [2 * num_pairs][32 tokens]: cosines of the pairs' angles after 0 to 31 positions; sines
};

constexpr int64_t kAttentionTileTokens = 8;  // query tokens that share one walk over the KV blocks

// The online softmax starts anew at each multiple of this position, and the states of the segments are folded in order,
// so that several threads can share one long sequence and the bits do not depend on how they do
// (docs/decisions/020-attention-in-segments.md).
constexpr int64_t kSegmentTokens = 256;
static_assert(kSegmentTokens % kBlockTokens == 0);

// Consecutive segments of the positions.
struct SegmentRange {
  int64_t first, end;
};

// Query tokens [begin, end) of a sequence, at most kAttentionTileTokens, for the query heads of one KV head.
struct AttentionTile {
  const float* qkv;  // rows of the step
  SequenceView sequence;
  int64_t begin, end;
  int64_t kv_head;

  int64_t tokens() const { return end - begin; }
  int64_t first_position() const { return sequence.first_position + begin; }
  int64_t last_position() const { return sequence.first_position + end - 1; }
  int64_t num_segments() const { return last_position() / kSegmentTokens + 1; }
  SegmentRange all_segments() const { return {0, num_segments()}; }
};

struct ShardSummary {
  float maximum;
  float not_finite;  // zero, or not-a-number if any logit is +-infinity or not a number
};

// 16 groups rounded to 4 bits, a lane each: value k of lane i is about scales[i] * codes[k][i] + mins[i].
struct FourBitGroups {
  float scales[16];  // scales and mins are exact in half precision
  float mins[16];
  float errors[16];  // the sum of importance * error²; infinite where no levels in half precision can hold the values
  int8_t codes[kGroup][16];
};

struct Kernels {
  const char* name;
  // out[row][0..32) += panel `panel` of the matrix times activation rows [first_row, first_row + num_rows).
  void (*linear_panel)(const PackedView& matrix, int64_t panel, const QuantizedRows& in, int64_t first_row,
                       int64_t num_rows, float* out);
  // The same for half a panel: adds to columns [16 * half, 16 * half + 16) of each row of out, `half` 0 or 1.
  void (*linear_half_panel)(const PackedView& matrix, int64_t panel, int64_t half, const QuantizedRows& in,
                            int64_t first_row, int64_t num_rows, float* out);
  // x normalised and scaled by weight, as token `row` of out.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int64_t width, const QuantizedRows& out,
                   int64_t row);
  // silu(gate) * up, quantized: tiles [num_rows][32] give group `group` of tokens first_row….
  void (*silu_mul)(const float* gate, const float* up, int64_t num_rows, const QuantizedRows& out, int64_t first_row,
                   int64_t group);
  // One row of the qkv buffer: norm and rotate Q and K by position (Q in place, scaled for the softmax), write K and V
  // to the pool.
  void (*rope_and_store)(float* qkv, int64_t position, const AttentionShape& shape, const HeadNorms& norms,
                         const KvLayer& kv, int64_t block);
  // Attention of a tile over some of its segments, for one KV head. With `states`, each segment's state is written
  // there, attention_state_floats(shape, tile.tokens()) apart, for `fold_attention`; without, the segments must be all
  // of the tile's, and the output is written. `key_bias`: of that KV head; empty with a pool in half precision.
  // scratch: attention_scratch_floats(shape).
  void (*attend)(const AttentionTile& tile, const SegmentRange& segments, const AttentionShape& shape,
                 const KvLayer& kv, const KeyBias& key_bias, float* states, const QuantizedRows& out, float* scratch);
  // The tile's output from the states of all its segments; changes the first state.
  void (*fold_attention)(const AttentionTile& tile, const AttentionShape& shape, float* states,
                         const QuantizedRows& out);
  ShardSummary (*summarize)(const float* logits, int64_t count);
  // out[i] = exp((x[i] - maximum) * scale); returns the sum in a fixed order.
  float (*exponentials)(const float* x, float maximum, float scale, int64_t count, float* out);
  // sums[i] = the sum, in a fixed order, of the weights that are at least thresholds[i]; kPivots of them.
  void (*sums_at_least)(const float* weights, int64_t count, const float* thresholds, float* sums);
  // values [32][16]: one group in each lane. importance [32] >= 0, not all zero. Without `has_min`
  // code 0 stands for -8 scales.
  void (*round_to_4_bits)(const float* values, const float* importance, bool has_min, FourBitGroups* out);
};

// Of one segment of a tile: for each row its output, 16 lanes of the sum, and the maximum.
static inline int64_t attention_state_floats(const AttentionShape& shape, int64_t tokens) {
  const int64_t rows = tokens * shape.query_heads_per_kv();
  return rows * (shape.head_dim + 16) + (rows + 15) / 16 * 16;
}

static inline int64_t attention_scratch_floats(const AttentionShape& shape) {
  const int64_t rows = kAttentionTileTokens * shape.query_heads_per_kv(), dim = shape.head_dim;
  const int64_t quantized = rows * (dim + kBlockTokens) / kGroup * (2 * kGroup / 4 + 2);  // queries and weights
  return dim * (2 * kBlockTokens + 1) + rows * (4 * dim + kBlockTokens + 16 + 2) + quantized +
         2 * attention_state_floats(shape, kAttentionTileTokens);
}

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAmxKernels;  // where the assembler knows AMX
#endif

}  // namespace antiphon
