// Drawing from the likeliest tokens of a whole vocabulary, without sorting it.
//
// Tokens are put into bins by how far their logit lies below the largest, so bins are in the order of likelihood. Whole
// bins are kept or passed by their sums; only the bin where the nucleus ends and the bin where the draw falls are
// sorted.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace antiphon {

class Nucleus {
 public:
  // `maximum` is the largest logit; `scale` is 1 / temperature.
  Nucleus(const Kernels& kernels, const float* logits, int64_t vocabulary, float maximum, float scale);

  // The token at `uniform` of the weight of those kept: the likeliest ones that together reach top_p of all, and of
  // these the ones that weigh at least min_p of the likeliest. The likeliest itself is always kept.
  int32_t draw(double uniform, float top_p, float min_p) const;

 private:
  struct Member {
    float logit, weight;
    int32_t token_id;
  };
  struct End {  // the nucleus: all of the bins before `bin`, and the first `count` of it
    int64_t bin = 0;
    size_t count = 0;
    double weight = 0.0;
  };

  int64_t bin_of(float logit) const;
  std::vector<Member> sorted(int64_t bin) const;
  End end_of(float top_p, float min_p) const;
  static int32_t draw_from(const std::vector<Member>& members, double left);

  const float* logits_;
  int64_t vocabulary_;
  float maximum_, scale_;
  std::vector<float> weights_;    // of each token
  std::vector<double> bin_sums_;  // in id order
  double total_ = 0.0;
};

}  // namespace antiphon
