// Drawing from the likeliest tokens of a whole vocabulary, without sorting it.
//
// Which tokens are kept is one number, a floor under their weights: the largest weight for which all tokens of at least
// that weight together reach top_p. It is found by walking over the weights with several thresholds at once; each walk
// narrows it down. Runs of the vocabulary whose largest weight is below all thresholds are passed over, so a model that
// is sure of itself costs little. Tokens as likely as the last one kept are kept with it.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace antiphon {

class Nucleus {
 public:
  // `shards` summarize `logits` in runs of kShard; `maximum` is the largest logit; `scale` is 1 / temperature.
  Nucleus(const Kernels& kernels, const float* logits, const ShardSummary* shards, int64_t vocabulary, float maximum,
          float scale);

  // The token at `uniform` of the weight of those kept, in id order: the likeliest ones that together reach top_p of
  // all, and of these the ones that weigh at least min_p of the likeliest. The likeliest itself is always kept.
  int32_t draw(double uniform, float top_p, float min_p) const;

 private:
  using Thresholds = std::array<float, kPivots>;  // ascending
  using Sums = std::array<double, kPivots>;       // of the weights at or above each threshold

  struct KeptShard {
    int64_t first, size;  // tokens
    double weight;        // of those that are kept; at least one is
  };

  int64_t shard_size(int64_t shard) const { return std::min(kShard, vocabulary_ - shard * kShard); }
  float floor_of(float top_p) const;
  Sums sums_at_least(const Thresholds& thresholds) const;
  std::vector<KeptShard> kept_shards(float floor) const;

  const Kernels& kernels_;
  int64_t vocabulary_;
  std::vector<float> weights_;  // of each token; the likeliest has 1
  std::vector<float> largest_;  // weight of each shard
  double total_ = 0.0;
};

}  // namespace antiphon
