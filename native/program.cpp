#include "program.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <string>

#include "elementary.h"
#include "rotary.h"

namespace antiphon {
namespace {

// Rows times planes from one group of a quantized buffer to the next, in a step of `rows` of them. The rows of one
// chunk in successive groups must not map to the same cache sets, as they would a power of two apart: they are
// contiguous or, with more than one chunk, an odd number of chunks apart.
constexpr int64_t group_stride(int64_t rows) {
  const int64_t chunks = (rows + kRowChunk - 1) / kRowChunk;
  return rows <= kRowChunk ? rows : (chunks | 1) * kRowChunk;
}

// Of attention: so many tasks a thread are enough for threads to end at about the same time where sequences are shared
// out whole, and parts of one are so small that the last one ends soon after the others.
constexpr int64_t kTasksPerThread = 4, kPartsPerThread = 16;

// For the states of tiles that several threads share: 63 segments of 12 heads of 128 take 0.4 MiB, and there are fewer
// than kTasksPerThread such tiles a thread.
constexpr int64_t kAttentionStateFloats = int64_t{8} << 20;

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

void require(bool holds, const char* what) {
  if (!holds) refuse(what);
}

}  // namespace

Program::Program(const ProgramShape& shape, const Kernels& kernels, std::shared_ptr<ThreadPool> pool, Progress progress)
    : shape_(shape),
      kernels_(kernels),
      pool_(std::move(pool)),
      progress_(progress),
      logits_(shape.max_sequences, shape.vocabulary) {
  require(shape.max_tokens > 0 && shape.max_sequences > 0 && shape.vocabulary > 0 && shape.num_layers > 0 &&
              shape.num_blocks > 0 && shape.context_length > 0,
          "every size of a program must be above zero");
  require(shape.head_dim > 0 && shape.head_dim % 32 == 0, "head_dim must be a multiple of 32");
  require(shape.num_kv_heads > 0 && shape.num_heads > 0 && shape.num_heads % shape.num_kv_heads == 0,
          "num_attention_heads must be a multiple of num_key_value_heads");
  require(std::ssize(shape.rope_frequencies) == shape.head_dim / 2, "there must be head_dim / 2 rope frequencies");
  for (const double frequency : shape.rope_frequencies)
    require(std::fabs(frequency) * static_cast<double>(shape.context_length) <= kLargestAngle,
            "a rotary frequency must turn at most 2^25 radians within the context");
  require(std::isfinite(shape.rope_attention_factor) && shape.rope_attention_factor > 0,
          "the rotary attention factor must be a finite number above zero");
  kv_ = Memory(to_size(shape.num_blocks * block_bytes()), Pages::kHuge);
  const int64_t floats = std::max(attention_scratch_floats(attention_shape()), 2 * kRowChunk * kPanel);
  if (pool_->size() > 1) attention_states_ = Memory(to_size(kAttentionStateFloats) * sizeof(float));
  parts_left_ = std::make_unique<std::atomic<int64_t>[]>(to_size(shape.max_tokens * shape.num_kv_heads));
  for (int thread = 0; thread < pool_->size(); ++thread) thread_scratch_.emplace_back(to_size(floats) * sizeof(float));
  fill_rope_tables();
}

void Program::fill_rope_tables() {
  const int64_t half = shape_.head_dim / 2;
  const size_t bytes = to_size(shape_.context_length * half) * sizeof(float);
  cosines_ = Memory(bytes);
  sines_ = Memory(bytes);
  constexpr int64_t kRun = 256;
  pool_->run((shape_.context_length + kRun - 1) / kRun, [&](int64_t task, int) {
    const int64_t first = task * kRun, end = std::min(shape_.context_length, first + kRun);
    fill_rotary_tables(shape_.rope_frequencies, shape_.rope_attention_factor, first, end,
                       cosines_.as<float>() + first * half, sines_.as<float>() + first * half);
  });
}

KvLayer Program::kv_layer(int64_t layer) const {
  KvLayer kv{kv_.as<uint8_t>(), shape_.kv_type, shape_.num_kv_heads, shape_.head_dim, 0};
  kv.block_stride = shape_.num_layers * kv.block_bytes();
  kv.base += layer * kv.block_bytes();
  return kv;
}

AttentionShape Program::attention_shape() const {
  return {shape_.num_heads,     shape_.num_kv_heads, shape_.head_dim,
          cosines_.as<float>(), sines_.as<float>(),  shape_.kv_type == KvType::kInt8};
}

int Program::float_buffer(int64_t width, bool sampled) {
  require(width > 0, "a buffer's width must be above zero");
  const int64_t rows = sampled ? shape_.max_sequences : shape_.max_tokens;
  float_buffers_.emplace_back(new FloatBuffer{Memory(to_size(rows * width) * sizeof(float)), width, sampled});
  return static_cast<int>(float_buffers_.size()) - 1;
}

int Program::quantized_buffer(int64_t width, bool sampled, bool wide) {
  require(width > 0 && width % kGroup == 0, "a quantized buffer's width must be a multiple of 32");
  const int64_t rows = sampled ? shape_.max_sequences : shape_.max_tokens, planes = wide ? 2 : 1;
  const size_t groups = to_size(group_stride(rows * planes) / planes * (width / kGroup));
  const size_t stored_planes = sampled || wide ? 2 : 1, sums = sampled && !wide ? 2 : 1;
  quantized_buffers_.emplace_back(new QuantizedBuffer{Memory(stored_planes * groups * to_size(kGroup)),
                                                      Memory(groups * sizeof(float)),
                                                      Memory(sums * groups * sizeof(int32_t)), width, sampled, wide});
  return static_cast<int>(quantized_buffers_.size()) - 1;
}

const Program::FloatBuffer& Program::floats(int id) const { return *float_buffers_.at(static_cast<size_t>(id)); }

const Program::QuantizedBuffer& Program::quantized(int id) const {
  return *quantized_buffers_.at(static_cast<size_t>(id));
}

QuantizedRows Program::step_rows(const QuantizedBuffer& buffer) const {
  const int64_t planes = buffer.planes(), capacity = group_stride(rows_of(buffer.sampled) * planes) / planes;
  const int64_t low_plane = buffer.sampled && !buffer.wide ? capacity * (buffer.width / kGroup) : 0;
  return {buffer.codes.as<int8_t>(), buffer.scales.as<float>(), buffer.sums.as<int32_t>(), capacity, planes, low_plane};
}

// The rows of a thread's share are those of the same sequences in every such loop, and in attention.
void Program::record_rows(StepPhase phase, bool sampled, std::function<void(int64_t row)> body) {
  constexpr int64_t kRows = 4;  // of a task, at most: enough work to be worth handing out
  const auto per_task = [this, sampled] {
    const int64_t rows = rows_of(sampled);
    return rows <= kRows ? kRows : items_per_task(rows, kRows, pool_->size(), 1);
  };
  const auto begin = [this, sampled, per_task] { return num_tasks_of(rows_of(sampled), per_task()); };
  record(phase, begin, [this, sampled, per_task, body = std::move(body)](int64_t task, int) {
    const int64_t count = per_task(), end = std::min(rows_of(sampled), (task + 1) * count);
    for (int64_t row = task * count; row < end; ++row) body(row);
    progress_.note();
  });
}

void Program::embed(const StoredMatrix& table, int out) {
  const FloatBuffer& target = floats(out);
  require(target.width == table.columns && table.rows >= shape_.vocabulary, "the embedding does not fit its buffer");
  record_rows(StepPhase::kRest, false, [this, table, &target](int64_t row) {
    const int64_t token_id = token_ids_[to_size(row)];
    progress_.note();  // the table is in the file: reading a row may wait for the disk
    for (int64_t g = 0; g < table.columns / kGroup; ++g)
      dequantize_group(table.group(token_id, g), target.row(row) + g * kGroup);
  });
}

void Program::reorder(int in, std::vector<int32_t> order, int out) {
  const FloatBuffer& source = floats(in);
  const FloatBuffer& target = floats(out);
  require(in != out && source.width == target.width && std::ssize(order) == source.width &&
              source.sampled == target.sampled,
          "reorder: widths differ");
  for (const int32_t column : order) require(column >= 0 && column < source.width, "reorder: there is no such column");
  record_rows(StepPhase::kRest, source.sampled, [&source, &target, order = std::move(order)](int64_t row) {
    for (size_t i = 0; i < order.size(); ++i) target.row(row)[i] = source.row(row)[order[i]];
  });
}

void Program::rms_norm(int in, std::vector<float> weight, float epsilon, int out) {
  const FloatBuffer& source = floats(in);
  const QuantizedBuffer& target = quantized(out);
  require(source.width == target.width && std::ssize(weight) == source.width && source.sampled == target.sampled,
          "rms_norm: widths differ");
  record_rows(StepPhase::kRest, source.sampled,
              [this, &source, &target, epsilon, weight = std::move(weight)](int64_t row) {
                kernels_.rms_norm(source.row(row), weight.data(), epsilon, source.width, step_rows(target), row);
              });
}

// The task's columns of tile[i][0..32) = bias + the product of token first + i; the bias comes first in the order of
// adding. count * planes is at most kRowChunk.
void Program::multiply(const PackedView& view, const PanelTask& task, const QuantizedRows& in, int64_t first,
                       int64_t count, const float* bias, float* tile) const {
  const int64_t panel = task.panel, channels = std::min(kPanel, view.rows - panel * kPanel);
  std::fill(tile, tile + count * kPanel, 0.0f);
  if (bias)
    for (int64_t i = 0; i < count; ++i)
      std::copy(bias + panel * kPanel, bias + panel * kPanel + channels, tile + i * kPanel);
  if (task.half < 0)
    kernels_.linear_panel(view, panel, in, first, count, tile);
  else
    kernels_.linear_half_panel(view, panel, task.half, in, first, count, tile);
  progress_.note();  // on a slow machine one operation can take many seconds
}

void Program::linear(int in, std::shared_ptr<const PackedMatrix> matrix, std::vector<float> bias, int out,
                     bool accumulate, int64_t first_column) {
  const QuantizedBuffer& source = quantized(in);
  const FloatBuffer& target = floats(out);
  const PackedView view = matrix->view();
  require(view.columns == source.width && !source.sampled && !target.sampled && first_column >= 0 &&
              first_column + view.rows <= target.width,
          "linear: the matrix does not fit its buffers");
  require(bias.empty() || std::ssize(bias) == view.rows, "linear: the bias does not fit the matrix");
  const auto grid = std::make_shared<PanelGrid>();  // of the running step
  const auto begin = [this, grid, &source, panels = matrix->num_panels()] {
    *grid = split_panels(panels, num_tokens_, source.planes(), true, pool_->size());
    return grid->num_tasks();
  };
  record(StepPhase::kLinear, begin,
         [this, grid, &source, &target, view, matrix, accumulate, first_column, bias = std::move(bias)](int64_t index,
                                                                                                        int thread) {
           const PanelTask task = grid->task(index);
           float* tile = thread_scratch_[to_size(thread)].as<float>();
           const int64_t left = task.first_column(), right = std::min(view.rows, left + (task.half < 0 ? kPanel : 16));
           const int64_t step = kRowChunk / source.planes(), in_tile = left % kPanel;
           for (int64_t first = task.first_token; first < task.end_token; first += step) {
             const int64_t count = std::min(step, task.end_token - first);
             multiply(view, task, step_rows(source), first, count, bias.empty() ? nullptr : bias.data(), tile);
             for (int64_t row = 0; row < count; ++row) {
               float* to = target.row(first + row) + first_column + left;
               const float* from = tile + row * kPanel + in_tile;
               for (int64_t c = 0; c < right - left; ++c) to[c] = accumulate ? to[c] + from[c] : from[c];
             }
           }
         });
}

void Program::linear_silu_mul(int in, std::shared_ptr<const PackedMatrix> matrix, int out) {
  const QuantizedBuffer& source = quantized(in);
  const QuantizedBuffer& target = quantized(out);
  const PackedView view = matrix->view();
  require(view.columns == source.width && view.rows == 2 * target.width && !source.sampled && !target.sampled,
          "linear_silu_mul: the matrix does not fit its buffers");
  const auto grid = std::make_shared<PanelGrid>();  // of the running step, in pairs of panels
  const auto begin = [this, grid, &source, pairs = matrix->num_panels() / 2] {
    *grid = split_panels(pairs, num_tokens_, source.planes(), false, pool_->size());  // a group has one scale
    return grid->num_tasks();
  };
  record(StepPhase::kLinear, begin, [this, grid, &source, &target, view, matrix](int64_t index, int thread) {
    const PanelTask pair = grid->task(index);
    float* gate = thread_scratch_[to_size(thread)].as<float>();
    float* up = gate + kRowChunk * kPanel;
    const int64_t step = kRowChunk / source.planes();
    for (int64_t first = pair.first_token; first < pair.end_token; first += step) {
      const int64_t count = std::min(step, pair.end_token - first);
      multiply(view, {2 * pair.panel, -1, 0, 0}, step_rows(source), first, count, nullptr, gate);
      multiply(view, {2 * pair.panel + 1, -1, 0, 0}, step_rows(source), first, count, nullptr, up);
      kernels_.silu_mul(gate, up, count, step_rows(target), first, pair.panel);
    }
  });
}

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

void Program::select_rows(int in, int out) {
  const FloatBuffer& source = floats(in);
  const FloatBuffer& target = floats(out);
  require(source.width == target.width && !source.sampled && target.sampled, "select_rows: buffers do not fit");
  is_drawing_ = true;
  record_rows(StepPhase::kRest, true, [this, &source, &target](int64_t row) {
    const float* from = source.row(drawn_rows_[to_size(row)]);
    std::copy(from, from + source.width, target.row(row));
  });
}

void Program::logits(int in, std::shared_ptr<const PackedMatrix> matrix) {
  const QuantizedBuffer& source = quantized(in);
  const PackedView view = matrix->view();
  require(view.columns == source.width && view.rows == shape_.vocabulary && source.sampled,
          "logits: the head does not fit");
  const auto lm_head =
      std::make_shared<LmHead>(std::move(matrix), source.wide, shape_.max_sequences, kernels_, *pool_, progress_);
  const auto input = [this, &source] { return LmHeadInput{step_rows(source), rows_of(true)}; };
  for (LmHeadLoop& loop : lm_head->loops(input, logits_))
    record(StepPhase::kLmHead, std::move(loop.begin),
           [lm_head, body = std::move(loop.body)](int64_t task, int thread) { body(task, thread); });
}

void Program::check(const SequenceInput& sequence) const {
  const int64_t count = std::ssize(sequence.token_ids), room = shape_.context_length - count;
  require(count > 0 && sequence.first_position >= 0, "a scheduled sequence needs tokens and a position");
  if (sequence.first_position > room)
    refuse("position " + std::to_string(sequence.first_position) + " is too far on for " + std::to_string(count) +
           " tokens: the context ends at " + std::to_string(shape_.context_length));
  require(std::ssize(sequence.samples) <= count, "more tokens are to be drawn than computed");
  for (const SampleRequest& sample : sequence.samples)
    require(sample.sampling != nullptr, "a token is to be drawn, but not how");
  const int64_t end = sequence.first_position + count;
  require(std::ssize(sequence.block_table) * kBlockTokens >= end, "the block table is shorter than the sequence");
  for (const int32_t block : sequence.block_table)
    require(block >= 0 && block < shape_.num_blocks, "the block table names a block that does not exist");
  for (const int32_t token_id : sequence.token_ids)
    require(token_id >= 0 && token_id < shape_.vocabulary, "a token id is outside the vocabulary");
}

void Program::take(std::span<const SequenceInput> sequences) {
  num_tokens_ = 0;
  token_ids_.clear();
  views_.clear();
  row_sequence_.clear();
  sampled_rows_.clear();
  samples_.clear();
  tiles_.clear();
  for (const SequenceInput& sequence : sequences) {
    check(sequence);
    const int64_t count = std::ssize(sequence.token_ids), index = std::ssize(views_);
    views_.push_back({num_tokens_, count, sequence.first_position, sequence.block_table.data()});
    token_ids_.insert(token_ids_.end(), sequence.token_ids.begin(), sequence.token_ids.end());
    row_sequence_.insert(row_sequence_.end(), to_size(count), index);
    for (int64_t begin = 0; begin < count; begin += kAttentionTileTokens)
      tiles_.push_back({index, begin, std::min(count, begin + kAttentionTileTokens)});
    num_tokens_ += count;
    for (const SampleRequest& sample : sequence.samples) {
      sampled_rows_.push_back(num_tokens_ - (std::ssize(sequence.samples) - (&sample - sequence.samples.data())));
      samples_.push_back(&sample);
    }
  }
  require(num_tokens_ <= shape_.max_tokens && std::ssize(sequences) <= shape_.max_sequences,
          "the step is larger than the program was made for");
  share_attention();
}

void Program::record(StepPhase phase, std::function<int64_t()> begin, ThreadPool::Task body) {
  operations_.push_back({phase, std::move(begin), std::move(body)});
  if (!is_drawing_) first_drawing_ = operations_.size();
}

// Computes the operations one after the other, and notes how long each took and in how many tasks.
void Program::replay(std::span<const Operation* const> operations) {
  using Clock = std::chrono::steady_clock;
  size_t done = 0;
  Clock::time_point start = Clock::now();
  pool_->run_loops([&](ThreadPool::Loop& loop) {
    const Clock::time_point now = Clock::now();
    if (done > 0) {
      last_seconds_[static_cast<size_t>(operations[done - 1]->phase)] +=
          std::chrono::duration<double>(now - start).count();
      progress_.note();
    }
    start = now;
    if (done == operations.size()) return false;
    const Operation& operation = *operations[done++];
    loop = {operation.begin(), &operation.body};
    if (loop.num_tasks > 0) last_loops_.push_back({operation.phase, loop.num_tasks});
    return true;
  });
}

// All operations, those from select_rows on once for each set of rows whose logits fit.
std::vector<const Program::Operation*> Program::operations_of_step(const Operation& draw_next,
                                                                   const Operation& sample) const {
  std::vector<const Operation*> all;
  for (size_t i = 0; i < first_drawing_; ++i) all.push_back(&operations_[i]);
  for (int64_t first = 0; first < std::ssize(samples_); first += shape_.max_sequences) {
    all.push_back(&draw_next);
    for (size_t i = first_drawing_; i < operations_.size(); ++i) all.push_back(&operations_[i]);
    all.push_back(&sample);
  }
  return all;
}

std::vector<SampleOutcome> Program::run(std::span<const SequenceInput> sequences) {
  take(sequences);
  last_seconds_.fill(0.0);
  last_loops_.clear();
  last_rows_ = 0;
  drawn_rows_ = {};
  std::vector<SampleOutcome> outcomes(samples_.size());
  size_t first = 0, end = 0;  // of the samples whose rows are computed
  const auto begin_drawing = [&] {
    first = end;
    end = std::min(samples_.size(), first + to_size(shape_.max_sequences));
    drawn_rows_ = std::span(sampled_rows_).subspan(first, end - first);
    last_rows_ = end - first;
    return int64_t{0};
  };
  const auto draw = [&](int64_t row, int) {
    RowSampler sampler(kernels_, logits_.row(row), logits_.shards(row), shape_.vocabulary);
    outcomes[first + to_size(row)] = sampler.sample(*samples_[first + to_size(row)]);
    progress_.note();
  };
  const Operation draw_next{StepPhase::kRest, begin_drawing, nullptr};
  const Operation sample{StepPhase::kSampling, [this] { return rows_of(true); }, draw};
  replay(operations_of_step(draw_next, sample));
  return outcomes;
}

}  // namespace antiphon
