// The attention of a program: how it is recorded, and how a step's is shared out between threads.
#include "elementary.h"
#include "program.h"
#include "require.h"

namespace antiphon {
namespace {

// So many tasks a thread are enough for threads to end at about the same time where sequences are shared out whole, and
// parts of one are so small that the last one ends soon after the others.
constexpr int64_t kTasksPerThread = 4, kPartsPerThread = 16;

}  // namespace

// Only pairs of which a value is not zero cost anything.
KeyBiases Program::key_biases(const std::vector<float>& key_bias) const {
  const int64_t dim = shape_.head_dim, half = dim / 2;
  KeyBiases biases{std::vector<KeyBiases::Head>(to_size(shape_.num_kv_heads))};
  for (int64_t h = 0; h < shape_.num_kv_heads && !key_bias.empty(); ++h) {
    KeyBiases::Head& head = biases.kv_heads[to_size(h)];
    for (int64_t pair = 0; pair < half; ++pair) {
      const float first = key_bias[to_size(h * dim + pair)], second = key_bias[to_size(h * dim + half + pair)];
      if (first == 0.0f && second == 0.0f) continue;
      head.pairs.push_back(static_cast<int32_t>(pair));
      head.first.push_back(first);
      head.second.push_back(second);
    }
    const size_t num_cosines = head.pairs.size() * to_size(kBlockTokens);
    head.turns.resize(2 * num_cosines);
    for (size_t i = 0; i < num_cosines; ++i) {
      const double token = static_cast<double>(i % to_size(kBlockTokens));
      const int32_t pair = head.pairs[i / to_size(kBlockTokens)];
      const SineCosine turn = sine_cosine(token * shape_.rope_frequencies[to_size(pair)]);
      head.turns[i] = static_cast<float>(turn.cosine);
      head.turns[num_cosines + i] = static_cast<float>(turn.sine);
    }
  }
  return biases;
}

void Program::attention(int qkv, int64_t layer, int out, const HeadNormWeights& norms,
                        const std::vector<float>& key_bias) {
  const FloatBuffer& source = floats(qkv);
  require(source.width == attention_shape().qkv_width() && quantized(out).width == shape_.num_heads * shape_.head_dim,
          "attention: widths differ");
  require(layer >= 0 && layer < shape_.num_layers, "attention: there is no such layer in the KV pool");
  require(norms.query.size() == norms.key.size() && (norms.query.empty() || std::ssize(norms.query) == shape_.head_dim),
          "attention: the norms of query and key heads must hold head_dim weights each, or none");
  require(key_bias.empty() || std::ssize(key_bias) == shape_.num_kv_heads * shape_.head_dim,
          "attention: the key bias must hold num_kv_heads * head_dim values, or none");
  require(key_bias.empty() || (shape_.kv_type == KvType::kInt8 && norms.key.empty()),
          "attention: a key bias needs an int8 KV cache and keys without a norm");
  const KvLayer kv = kv_layer(layer);
  record_rows(StepPhase::kAttention, false, [this, &source, kv, norms](int64_t row) {
    const HeadNorms views{norms.query.data(), norms.key.data(), norms.epsilon};
    const SequenceView& sequence = views_[to_size(row_sequence_[to_size(row)])];
    const int64_t position = sequence.first_position + row - sequence.first_row;
    kernels_.rope_and_store(source.row(row), position, attention_shape(), norms.query.empty() ? HeadNorms{} : views, kv,
                            sequence.block_table[position / kBlockTokens]);
  });
  record_attention(source, kv, quantized(out), key_biases(key_bias));
}

void Program::record_attention(const FloatBuffer& qkv, const KvLayer& kv, const QuantizedBuffer& out,
                               KeyBiases key_biases) {
  const auto begin = [this] {
    const int64_t heads = shape_.num_kv_heads;
    for (int64_t i = 0; i < std::ssize(tiles_) * heads; ++i)
      parts_left_[to_size(i)].store(tiles_[to_size(i / heads)].parts, std::memory_order_relaxed);
    return std::ssize(attention_tasks_);
  };
  record(StepPhase::kAttention, begin,
         [this, &qkv, kv, &out, biases = std::move(key_biases)](int64_t index, int thread) {
           const AttentionTask& task = attention_tasks_[to_size(index)];
           attend_part(task, qkv.row(0), kv, biases.kv_heads[to_size(task.kv_head)].view(), step_rows(out),
                       thread_scratch_[to_size(thread)].as<float>());
           progress_.note();
         });
}

AttentionTile Program::tile_of(const TokenTile& tile, int64_t kv_head, const float* qkv) const {
  return {qkv, views_[to_size(tile.sequence)], tile.begin, tile.end, kv_head};
}

// Some segments of a tile. Whoever finishes the last part of a tile folds all of them, so no barrier is needed.
void Program::attend_part(const AttentionTask& task, const float* qkv, const KvLayer& kv, const KeyBias& bias,
                          const QuantizedRows& out, float* scratch) {
  const AttentionShape shape = attention_shape();
  const TokenTile& shared = tiles_[to_size(task.tile)];
  const AttentionTile tile = tile_of(shared, task.kv_head, qkv);
  if (shared.parts == 1) return kernels_.attend(tile, tile.all_segments(), shape, kv, bias, nullptr, out, scratch);
  const int64_t count = tile.num_segments(), state = attention_state_floats(shape, tile.tokens());
  const SegmentRange range{count * task.part / shared.parts, count * (task.part + 1) / shared.parts};
  float* states = attention_states_.as<float>() + shared.first_state + task.kv_head * count * state;
  kernels_.attend(tile, range, shape, kv, bias, states + range.first * state, out, scratch);
  if (parts_left_[to_size(task.tile * shape.num_kv_heads + task.kv_head)].fetch_sub(1, std::memory_order_acq_rel) == 1)
    kernels_.fold_attention(tile, shape, states, out);
}

// Distributes the step's attention. Tiles are cut into parts only where there are too few of them to keep every thread
// busy, and while their states fit.
void Program::share_attention() {
  const AttentionShape shape = attention_shape();
  const int64_t heads = shape.num_kv_heads, wanted = kTasksPerThread * pool_->size();
  int64_t segments = 0;
  for (const TokenTile& tile : tiles_) segments += heads * tile_of(tile, 0, nullptr).num_segments();
  const bool few = pool_->size() > 1 && std::ssize(tiles_) * heads < wanted;
  const int64_t parts = kPartsPerThread * pool_->size(), part = few ? (segments + parts - 1) / parts : segments;
  int64_t used = 0;
  attention_tasks_.clear();
  for (int64_t i = 0; i < std::ssize(tiles_); ++i) {
    TokenTile& shared = tiles_[to_size(i)];
    const AttentionTile tile = tile_of(shared, 0, nullptr);
    const int64_t count = tile.num_segments(), floats = heads * count * attention_state_floats(shape, tile.tokens());
    if (count > part && used + floats <= kAttentionStateFloats) {
      shared.parts = (count + part - 1) / part;
      shared.first_state = used;
      used += floats;
    }
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t p = 0; p < shared.parts; ++p) attention_tasks_.push_back({i, head, p});
  }
}

}  // namespace antiphon
