#include "nucleus.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace antiphon {
namespace {

constexpr int64_t kBins = 4096;
constexpr float kReach = 32.0f;  // what weighs less than e^-32 of the likeliest shares the last bin
constexpr float kLowest = -std::numeric_limits<float>::infinity();

}  // namespace

Nucleus::Nucleus(const Kernels& kernels, const float* logits, int64_t vocabulary, float maximum, float scale)
    : logits_(logits), vocabulary_(vocabulary), maximum_(maximum), scale_(scale), bin_sums_(kBins) {
  weights_.resize(static_cast<size_t>(vocabulary));
  kernels.exponentials(logits, maximum, scale, vocabulary, weights_.data());
  for (int64_t i = 0; i < vocabulary; ++i) {
    if (logits[i] == kLowest) weights_[static_cast<size_t>(i)] = 0.0f;  // masked
    bin_sums_[static_cast<size_t>(bin_of(logits[i]))] += static_cast<double>(weights_[static_cast<size_t>(i)]);
  }
  for (const double sum : bin_sums_) total_ += sum;
}

// Falls with the logit, so a token is never in a later bin than a less likely one.
int64_t Nucleus::bin_of(float logit) const {
  const float depth = (maximum_ - logit) * scale_ * (static_cast<float>(kBins) / kReach);
  return depth < static_cast<float>(kBins - 1) ? static_cast<int64_t>(depth) : kBins - 1;
}

// A bin's members that are not masked, likeliest first, the lower id first among equals.
std::vector<Nucleus::Member> Nucleus::sorted(int64_t bin) const {
  std::vector<Member> members;
  for (int64_t i = 0; i < vocabulary_; ++i)
    if (bin_of(logits_[i]) == bin && logits_[i] != kLowest)
      members.push_back({logits_[i], weights_[static_cast<size_t>(i)], static_cast<int32_t>(i)});
  std::sort(members.begin(), members.end(), [](const Member& a, const Member& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token_id < b.token_id);
  });
  return members;
}

Nucleus::End Nucleus::end_of(float top_p, float min_p) const {
  const double enough = static_cast<double>(top_p) * total_;
  // Bins before this one, less one for rounding, lie whole above min_p's floor.
  const float floor_bin =
      min_p > 0.0f ? -std::log(min_p) * (static_cast<float>(kBins) / kReach) : static_cast<float>(kBins);
  End end;
  for (; end.bin < kBins; ++end.bin) {
    const double sum = bin_sums_[static_cast<size_t>(end.bin)];
    if (sum == 0.0) continue;  // empty
    if (static_cast<float>(end.bin + 2) < floor_bin && end.weight + sum < enough) {
      end.weight += sum;
      continue;
    }
    end.count = 0;
    for (const Member& member : sorted(end.bin)) {
      if (end.weight > 0.0 && (end.weight >= enough || member.weight < min_p)) return end;
      end.weight += static_cast<double>(member.weight);
      ++end.count;
    }
  }
  end.count = 0;
  return end;
}

int32_t Nucleus::draw(double uniform, float top_p, float min_p) const {
  const End end = end_of(top_p, min_p);
  double left = uniform * end.weight;
  int64_t last = 0;  // the last bin that is not empty, where rounding leaves a remainder
  for (int64_t bin = 0; bin < end.bin; ++bin) {
    const double sum = bin_sums_[static_cast<size_t>(bin)];
    if (sum == 0.0) continue;
    if (left < sum) return draw_from(sorted(bin), left);
    left -= sum;
    last = bin;
  }
  if (end.count == 0) return sorted(last).back().token_id;
  std::vector<Member> members = sorted(end.bin);
  members.resize(end.count);
  return draw_from(members, left);
}

int32_t Nucleus::draw_from(const std::vector<Member>& members, double left) {
  for (const Member& member : members) {
    left -= static_cast<double>(member.weight);
    if (left < 0.0) return member.token_id;
  }
  return members.back().token_id;
}

}  // namespace antiphon
