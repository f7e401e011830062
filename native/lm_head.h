// The language-model head: logits of the sampled tokens over the whole vocabulary.
//
// A token's activations have two planes here (kernels.h). In a model whose activations all have two, every logit is a
// product of both. Otherwise the high planes are multiplied first, and the low planes only in the panels with the row's
// largest logits, where a token is likely to be drawn: elsewhere they would double the products to correct logits that
// hardly matter (docs/decisions/011-the-head-in-two-passes.md).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "packed_matrix.h"
#include "progress.h"
#include "thread_pool.h"

namespace antiphon {

constexpr int64_t kCorrectedPanels = 64;  // 2,048 logits of a row

// Rows of logits, [max_rows][vocabulary], and a summary of each run of kShard of them.
struct LogitRows {
  Memory values, summaries;
  int64_t vocabulary;

  LogitRows(int64_t max_rows, int64_t vocabulary);
  int64_t num_shards() const { return (vocabulary + kShard - 1) / kShard; }
  float* row(int64_t index) const { return values.as<float>() + index * vocabulary; }
  ShardSummary* shards(int64_t index) const { return summaries.as<ShardSummary>() + index * num_shards(); }
};

// Activations of `count` tokens: in two planes or, if the head is not wide, in one with low planes apart.
struct LmHeadInput {
  QuantizedRows rows;
  int64_t count;
};

// One of the parallel loops of the head; `begin` returns its number of tasks.
struct LmHeadLoop {
  std::function<int64_t()> begin;
  ThreadPool::Task body;
};

class LmHead {
 public:
  // `wide`: every logit is a product of both planes.
  LmHead(std::shared_ptr<const PackedMatrix> matrix, bool wide, int64_t max_rows, const Kernels& kernels,
         ThreadPool& pool, Progress progress);

  // The loops that fill in the first rows of `out`, in order. `input` gives the activations when a loop begins; it,
  // `out` and the head must live as long as the loops.
  std::vector<LmHeadLoop> loops(std::function<LmHeadInput()> input, const LogitRows& out) const;
  void run(const LmHeadInput& in, const LogitRows& out) const;

 private:
  LmHeadLoop for_panels(std::function<int64_t()> count, std::function<void(int64_t)> body) const;
  LmHeadLoop for_tokens(std::function<int64_t()> count, std::function<void(int64_t)> body) const;
  void multiply(const QuantizedRows& in, int64_t rows, int64_t panel, const LogitRows& out) const;
  void choose(int64_t row) const;
  void correct(const QuantizedRows& in, int64_t row, int64_t panel, const LogitRows& out) const;
  void summarize(int64_t row, const LogitRows& out) const;
  ShardSummary& summary(int64_t row, int64_t panel) const {
    return summaries_.as<ShardSummary>()[row * num_panels_ + panel];
  }

  std::shared_ptr<const PackedMatrix> matrix_;
  bool wide_;
  int64_t num_panels_, num_corrected_;
  Memory summaries_;  // of each panel's logits, [max_rows][panels]
  Memory chosen_;     // the panels to correct, [max_rows][num_corrected_]
  const Kernels& kernels_;
  ThreadPool& pool_;
  Progress progress_;
};

}  // namespace antiphon
