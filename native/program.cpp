#include "program.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

#include "elementary.h"
#include "require.h"
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
