// From one row of logits to one token. Everything is a function of the row and the request alone: sums run in a fixed
// order and random numbers come from a counter, so load cannot shift a draw.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels.h"

namespace antiphon {

// Which tokens a sequence knows, and how often it generated each: what penalties look at. It is told of each token
// once, so that a step costs no more than there are different tokens.
class TokenCounts {
 public:
  struct Count {
    int32_t token_id;
    int32_t generated;  // 0: it is in the prompt alone
  };
  void add(const std::vector<int32_t>& token_ids, bool generated);
  // In the order in which the tokens first came.
  const std::vector<Count>& counts() const { return counts_; }

 private:
  std::vector<Count> counts_;
  std::unordered_map<int32_t, size_t> places_;  // of each token in counts_
};

// How the tokens of one sequence are drawn: registered once and kept while the sequence runs.
struct SequenceSampling {
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  uint32_t choice_index = 0;
  int32_t num_logprobs = -1;  // below zero: none
  std::vector<int32_t> bias_token_ids;
  std::vector<float> bias_values;
  TokenCounts known_tokens;  // empty unless penalties need them
};

// What a step adds to it, to draw one token.
struct SampleRequest {
  std::shared_ptr<const SequenceSampling> sampling;
  uint64_t position = 0;
  std::vector<int32_t> masked_token_ids;
  std::vector<int32_t> bias_token_ids;  // biases that replace the sequence's own for the same tokens
  std::vector<float> bias_values;
  // A bit for each token, the lowest first, set where a grammar allows it; tokens beyond the last are not allowed.
  std::vector<uint32_t> token_bitmask;  // empty: all are
};

struct SampleOutcome {
  int32_t token_id = -1;  // -1: no token could be drawn; `error` says why
  const char* error = nullptr;
  float logprob = 0.0f;
  std::vector<int32_t> top_token_ids;
  std::vector<float> top_logprobs;
};

// A double in [0, 1) from the Philox4x32-10 generator (Salmon et al., SC 2011), keyed by seed, counted by choice and
// position.
double uniform_draw(uint64_t seed, uint32_t choice_index, uint64_t position);

class RowSampler {
 public:
  // `shards` summarize `logits` in runs of kShard; both are changed by penalties and masks.
  RowSampler(const Kernels& kernels, float* logits, ShardSummary* shards, int64_t vocabulary);
  // request.sampling must not be null.
  SampleOutcome sample(const SampleRequest& request);

 private:
  struct Candidate {
    float logit;
    int32_t token_id;
    bool operator<(const Candidate& other) const {  // likelier first, then the lower id
      return logit > other.logit || (logit == other.logit && token_id < other.token_id);
    }
  };
  using Candidates = std::vector<Candidate>;

  int64_t num_shards() const { return (vocabulary_ + kShard - 1) / kShard; }
  int64_t shard_size(int64_t shard) const;
  float maximum() const;
  float log_sum() const;
  Candidates at_least(float threshold) const;
  Candidates likeliest(int64_t count) const;
  void note_logprobs(int32_t num_logprobs, float log_sum, SampleOutcome& outcome) const;
  void apply_bitmask(const std::vector<uint32_t>& allowed);
  void change(int32_t token_id, float logit);
  void apply_penalties(const SequenceSampling& sampling);
  void apply_biases(const SampleRequest& request);
  bool changes_are_numbers() const;
  void summarize_changed();
  int32_t greedy() const;
  int32_t draw(const SequenceSampling& sampling, uint64_t position) const;
  int32_t draw_from_all(double uniform, float maximum, float scale) const;
  int32_t draw_from_likeliest(const SequenceSampling& sampling, double uniform, float maximum, float scale) const;
  double sum_of_exponentials(float maximum, float scale, std::vector<double>* by_shard) const;
  std::vector<float> weights_of(const Candidates& candidates, float maximum, float scale) const;
  float original(int32_t token_id) const;

  const Kernels& kernels_;
  float* logits_;
  ShardSummary* shards_;
  int64_t vocabulary_;
  std::vector<std::pair<int32_t, float>> changed_;  // tokens and the logits they had
};

}  // namespace antiphon
