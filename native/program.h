// A recorded model: operations over buffers, replayed each step.
//
// The model is written in Python over `Ops`; ops/native.py calls the record functions below once, at load. A step then
// is one call: run() fills the batch and replays every operation, each a parallel loop that begins when the one before
// has ended. Operations before select_rows see one row for each token. Those from it on see one row for each token that
// is drawn, and are replayed where there are more of these than sequences may run. Operations are recorded in
// program_operations.cpp and program_attention.cpp; program.cpp has the buffers and runs a step.
//
// A program owns its buffers and the KV pool. Matrices and tables are shared with whoever packed them.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "lm_head.h"
#include "kernels.h"
#include "memory.h"
#include "packed_matrix.h"
#include "progress.h"
#include "sampler.h"
#include "storage.h"
#include "thread_pool.h"
#include "work_split.h"

namespace antiphon {

// What a step computes of one sequence, and how to draw its next token.
struct SequenceInput {
  std::vector<int32_t> token_ids;
  int64_t first_position = 0;
  std::vector<int32_t> block_table;
  std::vector<SampleRequest> samples;  // how to draw what follows each of the last tokens, in order
};

struct ProgramShape {
  int64_t max_tokens = 0;     // rows of a step
  int64_t max_sequences = 0;  // sequences of a step
  int64_t vocabulary = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t context_length = 0;
  int64_t num_blocks = 0;  // of the KV pool
  KvType kv_type = KvType::kInt8;
  std::vector<double> rope_frequencies;  // [head_dim / 2], radians a position
  double rope_attention_factor = 1.0;  // multiplies the rotated Q and K: some scalings of long contexts sharpen scores
};

// The memory behind HeadNorms; weights are empty in models without such norms.
struct HeadNormWeights {
  std::vector<float> query, key;
  float epsilon = 0.0f;
};

// The memory behind the KeyBias of each KV head; no pairs where a head has none.
struct KeyBiases {
  struct Head {
    std::vector<int32_t> pairs;
    std::vector<float> first, second, turns;
    KeyBias view() const { return {std::ssize(pairs), pairs.data(), first.data(), second.data(), turns.data()}; }
  };
  std::vector<Head> kv_heads;
};

// The kinds of work in a step, for telling where its time goes.
enum class StepPhase { kLinear, kAttention, kLmHead, kSampling, kRest };
constexpr size_t kNumPhases = 5;
using PhaseSeconds = std::array<double, kNumPhases>;

// A parallel loop of a step: what it computes, and in how many tasks.
struct StepLoop {
  StepPhase phase;
  int64_t num_tasks;
};

class Program {
 public:
  // Throws std::invalid_argument for a shape that the kernels cannot hold, std::bad_alloc for one that is too large.
  Program(const ProgramShape& shape, const Kernels& kernels, std::shared_ptr<ThreadPool> pool, Progress progress);

  // Buffers are named by small numbers. `sampled`: one row for each drawn token instead of one for each token; only the
  // head multiplies those. `wide`: products multiply two planes (kernels.h). A sampled buffer that is not wide has low
  // planes too, apart, for the head (lm_head.h).
  int float_buffer(int64_t width, bool sampled);
  int quantized_buffer(int64_t width, bool sampled, bool wide);

  // Recording. Widths are checked: std::invalid_argument.
  void embed(const StoredMatrix& table, int out);
  // Column i of out is column order[i] of in.
  void reorder(int in, std::vector<int32_t> order, int out);
  void rms_norm(int in, std::vector<float> weight, float epsilon, int out);
  // Columns first_column… of out = in · matrixᵀ + bias or, accumulating, += that. An empty bias is none.
  void linear(int in, std::shared_ptr<const PackedMatrix> matrix, std::vector<float> bias, int out, bool accumulate,
              int64_t first_column);
  // out = silu(gate) * up of an interleaved matrix.
  void linear_silu_mul(int in, std::shared_ptr<const PackedMatrix> matrix, int out);
  // The norms of query and key heads hold head_dim weights each, or none. `key_bias`, [num_kv_heads][head_dim] or
  // empty: a bias that the keys in qkv lack and the scores are to have; only with int8 and without norms.
  void attention(int qkv, int64_t layer, int out, const HeadNormWeights& norms, const std::vector<float>& key_bias);
  void select_rows(int in, int out);
  void logits(int in, std::shared_ptr<const PackedMatrix> matrix);

  // One step; an outcome for each sample, in order. Throws std::invalid_argument if the input does not fit.
  std::vector<SampleOutcome> run(std::span<const SequenceInput> sequences);

  // The logits of the last step's last sampled rows, [rows][vocabulary], before penalties unless a request changed
  // them.
  std::span<const float> last_logits() const {
    return {logits_.row(0), last_rows_ * static_cast<size_t>(shape_.vocabulary)};
  }
  // What each part of the last step took, in seconds.
  const PhaseSeconds& last_seconds() const { return last_seconds_; }
  // The parallel loops of the last step, in order.
  const std::vector<StepLoop>& last_loops() const { return last_loops_; }
  const ProgramShape& shape() const { return shape_; }
  int64_t block_bytes() const { return kv_layer(0).block_stride; }  // of the KV pool, all layers

 private:
  struct FloatBuffer {
    Memory memory;
    int64_t width;
    bool sampled;
    float* row(int64_t index) const { return memory.as<float>() + index * width; }
  };
  struct QuantizedBuffer {
    Memory codes, scales, sums;
    int64_t width;
    bool sampled, wide;
    int64_t planes() const { return wide ? 2 : 1; }
  };
  // A tile of a step, before it is known which KV head; `parts`: tasks that share its segments.
  struct TokenTile {
    int64_t sequence, begin, end;
    int64_t parts = 1;
    int64_t first_state = 0;  // of its KV heads' segments, in floats, where there are several parts
  };
  // A tile's share of the segments, for one KV head.
  struct AttentionTask {
    int64_t tile, kv_head, part;
  };

  // For the states of tiles that several threads share: 63 segments of 12 heads of 128 take 0.4 MiB, and there are
  // fewer than four such tiles a thread.
  static constexpr int64_t kAttentionStateFloats = int64_t{8} << 20;

  // `begin` prepares the operation for this step and returns its number of tasks.
  struct Operation {
    StepPhase phase;
    std::function<int64_t()> begin;
    ThreadPool::Task body;
  };

  const FloatBuffer& floats(int id) const;
  const QuantizedBuffer& quantized(int id) const;
  QuantizedRows step_rows(const QuantizedBuffer& buffer) const;
  int64_t rows_of(bool sampled) const { return sampled ? std::ssize(drawn_rows_) : num_tokens_; }
  KvLayer kv_layer(int64_t layer) const;
  AttentionShape attention_shape() const;
  void fill_rope_tables();
  void multiply(const PackedView& view, const PanelTask& task, const QuantizedRows& in, int64_t first, int64_t count,
                const float* bias, float* tile) const;
  void record(StepPhase phase, std::function<int64_t()> begin, ThreadPool::Task body);
  void record_rows(StepPhase phase, bool sampled, std::function<void(int64_t row)> body);
  void replay(std::span<const Operation* const> operations);
  std::vector<const Operation*> operations_of_step(const Operation& draw_next, const Operation& sample) const;
  void take(std::span<const SequenceInput> sequences);
  void check(const SequenceInput& sequence) const;
  KeyBiases key_biases(const std::vector<float>& key_bias) const;
  void record_attention(const FloatBuffer& qkv, const KvLayer& kv, const QuantizedBuffer& out, KeyBiases key_biases);
  AttentionTile tile_of(const TokenTile& tile, int64_t kv_head, const float* qkv) const;
  void attend_part(const AttentionTask& task, const float* qkv, const KvLayer& kv, const KeyBias& bias,
                   const QuantizedRows& out, float* scratch);
  void share_attention();

  ProgramShape shape_;
  const Kernels& kernels_;
  std::shared_ptr<ThreadPool> pool_;
  Progress progress_;
  std::vector<std::unique_ptr<FloatBuffer>> float_buffers_;
  std::vector<std::unique_ptr<QuantizedBuffer>> quantized_buffers_;
  std::vector<Operation> operations_;
  size_t first_drawing_ = 0;  // of the operations, the one that sees rows of drawn tokens
  bool is_drawing_ = false;   // whether select_rows was recorded
  Memory kv_, cosines_, sines_;
  Memory attention_states_;  // of tiles that several threads share
  LogitRows logits_;
  std::vector<Memory> thread_scratch_;

  // The batch of the running step.
  int64_t num_tokens_ = 0;
  size_t last_rows_ = 0;
  PhaseSeconds last_seconds_{};
  std::vector<StepLoop> last_loops_;
  std::vector<int32_t> token_ids_;
  std::vector<SequenceView> views_;
  std::vector<int64_t> row_sequence_;          // the sequence of each row
  std::vector<int64_t> sampled_rows_;          // after which a token is drawn
  std::vector<const SampleRequest*> samples_;  // how, for each of them
  std::span<const int64_t> drawn_rows_;        // the sampled rows that are drawn from now, as many as logits fit
  std::vector<TokenTile> tiles_;
  std::vector<AttentionTask> attention_tasks_;
  std::unique_ptr<std::atomic<int64_t>[]> parts_left_;  // [tiles][KV heads]: of the running attention
};

}  // namespace antiphon
