#include "nucleus.h"

#include <bit>
#include <cstddef>

namespace antiphon {
namespace {

constexpr float kLightest = 1e-37f;  // above what a masked token's weight comes out as

}  // namespace

Nucleus::Nucleus(const Kernels& kernels, const float* logits, const ShardSummary* shards, int64_t vocabulary,
                 float maximum, float scale)
    : kernels_(kernels), vocabulary_(vocabulary), weights_(static_cast<size_t>(vocabulary)) {
  for (int64_t begin = 0; begin < vocabulary; begin += kShard) {
    total_ += static_cast<double>(
        kernels.exponentials(logits + begin, maximum, scale, shard_size(begin / kShard), weights_.data() + begin));
    largest_.push_back(shards[begin / kShard].maximum);
  }
  kernels.exponentials(largest_.data(), maximum, scale, std::ssize(largest_), largest_.data());
}

Nucleus::Sums Nucleus::sums_at_least(const Thresholds& thresholds) const {
  Sums sums{};
  Thresholds shard_sums;
  for (size_t s = 0; s < largest_.size(); ++s) {
    if (largest_[s] < thresholds[0]) continue;
    const auto shard = static_cast<int64_t>(s);
    kernels_.sums_at_least(weights_.data() + shard * kShard, shard_size(shard), thresholds.data(), shard_sums.data());
    for (size_t i = 0; i < kPivots; ++i) sums[i] += static_cast<double>(shard_sums[i]);
  }
  return sums;
}

float Nucleus::floor_of(float top_p) const {
  const double enough = static_cast<double>(top_p) * total_;
  // Lighter tokens would not weigh as much as may be left out, if there were nothing else; half of it, for rounding.
  const double spare = 0.5 * (total_ - enough) / static_cast<double>(vocabulary_);
  // The floor is at least `low` and below `high`. Positive floats are ordered as their bits are.
  uint32_t low = std::bit_cast<uint32_t>(std::clamp(static_cast<float>(spare), kLightest, 1.0f));
  uint32_t high = std::bit_cast<uint32_t>(1.0f) + 1;
  while (high - low > 1) {
    std::array<uint32_t, kPivots> pivots;
    Thresholds thresholds;
    for (uint32_t i = 0; i < kPivots; ++i) {
      pivots[i] = low + static_cast<uint32_t>(uint64_t{high - low} * (i + 1) / (kPivots + 1));
      thresholds[i] = std::bit_cast<float>(pivots[i]);
    }
    const Sums sums = sums_at_least(thresholds);
    const auto reached = std::count_if(sums.begin(), sums.end(), [=](double sum) { return sum >= enough; });
    if (reached < kPivots) high = pivots[static_cast<size_t>(reached)];
    if (reached > 0) low = pivots[static_cast<size_t>(reached - 1)];
  }
  return std::bit_cast<float>(low);
}

std::vector<Nucleus::KeptShard> Nucleus::kept_shards(float floor) const {
  std::vector<KeptShard> kept;
  Thresholds thresholds, sums;
  thresholds.fill(floor);
  for (size_t s = 0; s < largest_.size(); ++s) {
    if (largest_[s] < floor) continue;
    const auto shard = static_cast<int64_t>(s);
    kernels_.sums_at_least(weights_.data() + shard * kShard, shard_size(shard), thresholds.data(), sums.data());
    kept.push_back({shard * kShard, shard_size(shard), static_cast<double>(sums[0])});
  }
  return kept;
}

int32_t Nucleus::draw(double uniform, float top_p, float min_p) const {
  const float floor = std::max(top_p < 1.0f ? floor_of(top_p) : kLightest, min_p);
  const std::vector<KeptShard> shards = kept_shards(floor);
  double left = 0.0;
  for (const KeptShard& shard : shards) left += uniform * shard.weight;
  size_t s = 0;
  while (s + 1 < shards.size() && left >= shards[s].weight) left -= shards[s++].weight;
  int64_t drawn = 0;  // the last one kept so far, where rounding leaves a remainder
  for (int64_t i = shards[s].first; i < shards[s].first + shards[s].size; ++i) {
    const float weight = weights_[static_cast<size_t>(i)];
    if (weight < floor) continue;
    drawn = i;
    left -= static_cast<double>(weight);
    if (left < 0.0) break;
  }
  return static_cast<int32_t>(drawn);
}

}  // namespace antiphon
