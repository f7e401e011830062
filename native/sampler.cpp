#include "sampler.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "elementary.h"
#include "nucleus.h"

namespace antiphon {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kColdest = 1e-5f;  // below it a draw is the largest logit, and its arithmetic would overflow

void philox_round(uint32_t (&counter)[4], const uint32_t (&key)[2]) {
  const uint64_t a = uint64_t{0xD2511F53u} * counter[0], b = uint64_t{0xCD9E8D57u} * counter[2];
  const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
                            static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
  std::copy(next, next + 4, counter);
}

}  // namespace

double uniform_draw(uint64_t seed, uint32_t choice_index, uint64_t position) {
  uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), choice_index, 0};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    if (round) {
      key[0] += 0x9E3779B9u;
      key[1] += 0xBB67AE85u;
    }
    philox_round(counter, key);
  }
  const uint64_t bits = (uint64_t{counter[0]} << 32 | counter[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

void TokenCounts::add(const std::vector<int32_t>& token_ids, bool generated) {
  for (const int32_t token_id : token_ids) {
    const auto [place, is_new] = places_.try_emplace(token_id, counts_.size());
    if (is_new) counts_.push_back({token_id, 0});
    if (generated) ++counts_[place->second].generated;
  }
}

RowSampler::RowSampler(const Kernels& kernels, float* logits, ShardSummary* shards, int64_t vocabulary)
    : kernels_(kernels), logits_(logits), shards_(shards), vocabulary_(vocabulary) {}

int64_t RowSampler::shard_size(int64_t shard) const { return std::min(kShard, vocabulary_ - shard * kShard); }

float RowSampler::maximum() const {
  float largest = kLowest;
  for (int64_t s = 0; s < num_shards(); ++s) largest = std::max(largest, shards_[s].maximum);
  return largest;
}

double RowSampler::sum_of_exponentials(float maximum, float scale, std::vector<double>* by_shard) const {
  float scratch[kShard];
  double total = 0.0;
  for (int64_t s = 0; s < num_shards(); ++s) {
    const bool is_masked = shards_[s].maximum == kLowest;
    const double sum =
        is_masked ? 0.0 : kernels_.exponentials(logits_ + s * kShard, maximum, scale, shard_size(s), scratch);
    if (by_shard) by_shard->push_back(sum);
    total += sum;
  }
  return total;
}

float RowSampler::log_sum() const {
  const float largest = maximum();
  return largest + static_cast<float>(natural_logarithm(sum_of_exponentials(largest, 1.0f, nullptr)));
}

// Tokens that may be drawn and whose logit is at or above the threshold, in id order.
RowSampler::Candidates RowSampler::at_least(float threshold) const {
  Candidates found;
  for (int64_t s = 0; s < num_shards(); ++s) {
    if (!(shards_[s].maximum >= threshold) || shards_[s].maximum == kLowest) continue;
    for (int64_t i = s * kShard; i < s * kShard + shard_size(s); ++i)
      if (logits_[i] >= threshold && logits_[i] != kLowest) found.push_back({logits_[i], static_cast<int32_t>(i)});
  }
  return found;
}

// The `count` likeliest tokens, likeliest first. As many shards hold a maximum at or above the count-th largest shard
// maximum, so that is a floor under the count-th largest logit.
RowSampler::Candidates RowSampler::likeliest(int64_t count) const {
  count = std::min(count, vocabulary_);
  float floor = kLowest;
  if (count <= num_shards()) {
    std::vector<float> maxima;
    for (int64_t s = 0; s < num_shards(); ++s) maxima.push_back(shards_[s].maximum);
    std::nth_element(maxima.begin(), maxima.begin() + (count - 1), maxima.end(), std::greater<float>());
    floor = maxima[static_cast<size_t>(count - 1)];
  }
  Candidates found = at_least(floor);
  if (count < std::ssize(found)) {
    std::nth_element(found.begin(), found.begin() + count, found.end());
    found.erase(found.begin() + count, found.end());
  }
  std::sort(found.begin(), found.end());
  return found;
}

void RowSampler::note_logprobs(int32_t num_logprobs, float log_sum, SampleOutcome& outcome) const {
  if (num_logprobs <= 0) return;
  for (const Candidate& candidate : likeliest(num_logprobs)) {
    outcome.top_token_ids.push_back(candidate.token_id);
    outcome.top_logprobs.push_back(candidate.logit - log_sum);
  }
}

// Before all other changes, and not noted among them: what is not allowed is never drawn, so nobody asks what it was.
void RowSampler::apply_bitmask(const std::vector<uint32_t>& allowed) {
  constexpr int64_t kWord = 32;
  for (int64_t s = 0; s < num_shards(); ++s) {
    bool is_changed = false;
    for (int64_t begin = s * kShard; begin < s * kShard + shard_size(s); begin += kWord) {
      const auto word = static_cast<size_t>(begin / kWord);
      const uint32_t bits = word < allowed.size() ? allowed[word] : 0;
      if (bits == ~uint32_t{0}) continue;
      is_changed = true;
      const int64_t count = std::min(kWord, vocabulary_ - begin);
      for (int64_t i = 0; i < count; ++i)
        if (!(bits >> i & 1)) logits_[begin + i] = kLowest;
    }
    if (is_changed) shards_[s] = kernels_.summarize(logits_ + s * kShard, shard_size(s));
  }
}

void RowSampler::change(int32_t token_id, float logit) {
  if (token_id < 0 || token_id >= vocabulary_) return;
  changed_.emplace_back(token_id, logits_[token_id]);
  logits_[token_id] = logit;
}

void RowSampler::apply_penalties(const SequenceSampling& sampling) {
  for (const TokenCounts::Count& known : sampling.known_tokens.counts()) {
    if (known.token_id < 0 || known.token_id >= vocabulary_) continue;
    float logit = logits_[known.token_id];
    logit = logit > 0.0f ? logit / sampling.repetition_penalty : logit * sampling.repetition_penalty;
    if (known.generated > 0)
      logit -= sampling.presence_penalty + static_cast<float>(known.generated) * sampling.frequency_penalty;
    change(known.token_id, logit);
  }
}

void RowSampler::apply_biases(const SampleRequest& request) {
  const auto apply = [this](int32_t token_id, float bias) {
    if (token_id >= 0 && token_id < vocabulary_) change(token_id, logits_[token_id] + bias);
  };
  const std::vector<int32_t>& replaced = request.bias_token_ids;
  for (size_t i = 0; i < request.sampling->bias_token_ids.size(); ++i) {
    const int32_t token_id = request.sampling->bias_token_ids[i];
    if (std::find(replaced.begin(), replaced.end(), token_id) == replaced.end())
      apply(token_id, request.sampling->bias_values[i]);
  }
  for (size_t i = 0; i < replaced.size(); ++i) apply(replaced[i], request.bias_values[i]);
  for (const int32_t token_id : request.masked_token_ids) change(token_id, kLowest);
}

void RowSampler::summarize_changed() {
  std::vector<bool> touched(to_size(num_shards()));
  for (const auto& [token_id, logit] : changed_) touched[to_size(token_id / kShard)] = true;
  for (int64_t s = 0; s < num_shards(); ++s)
    if (touched[to_size(s)]) shards_[s] = kernels_.summarize(logits_ + s * kShard, shard_size(s));
}

// Penalties and biases of extreme size can overflow; minus infinity alone is meant.
bool RowSampler::changes_are_numbers() const {
  return std::all_of(changed_.begin(), changed_.end(),
                     [this](const auto& change) { return logits_[change.first] <= std::numeric_limits<float>::max(); });
}

float RowSampler::original(int32_t token_id) const {
  for (const auto& [changed_id, logit] : changed_)
    if (changed_id == token_id) return logit;  // the first entry is the oldest
  return logits_[token_id];
}

int32_t RowSampler::greedy() const {
  const float largest = maximum();
  for (int64_t s = 0; s < num_shards(); ++s) {
    if (shards_[s].maximum != largest) continue;
    const float* shard = logits_ + s * kShard;
    return static_cast<int32_t>(std::find(shard, shard + shard_size(s), largest) - logits_);
  }
  return -1;
}

std::vector<float> RowSampler::weights_of(const Candidates& candidates, float maximum, float scale) const {
  std::vector<float> logits, weights(candidates.size());
  for (const Candidate& candidate : candidates) logits.push_back(candidate.logit);
  kernels_.exponentials(logits.data(), maximum, scale, std::ssize(logits), weights.data());
  return weights;
}

int32_t RowSampler::draw_from_all(double uniform, float maximum, float scale) const {
  std::vector<double> sums;
  double left = uniform * sum_of_exponentials(maximum, scale, &sums);
  int64_t shard = -1;  // of those that weigh anything; the last of them where rounding leaves a remainder
  for (int64_t s = 0; s < num_shards(); ++s) {
    if (sums[static_cast<size_t>(s)] == 0.0) continue;
    if (shard >= 0 && left < sums[static_cast<size_t>(shard)]) break;
    if (shard >= 0) left -= sums[static_cast<size_t>(shard)];
    shard = s;
  }
  float weights[kShard];
  kernels_.exponentials(logits_ + shard * kShard, maximum, scale, shard_size(shard), weights);
  int64_t likely = 0;  // where rounding leaves a remainder
  for (int64_t i = 0; i < shard_size(shard); ++i) {
    if (logits_[shard * kShard + i] == kLowest) continue;
    likely = i;
    left -= weights[i];
    if (left < 0.0) break;
  }
  return static_cast<int32_t>(shard * kShard + likely);
}

// top_k: the likeliest few are sorted and cut by top_p and min_p; one of those that are left is drawn, in id order.
int32_t RowSampler::draw_from_likeliest(const SequenceSampling& sampling, double uniform, float maximum,
                                        float scale) const {
  Candidates pool = likeliest(sampling.top_k);
  std::vector<float> weights = weights_of(pool, maximum, scale);
  double total = 0.0, kept = 0.0;
  for (const float weight : weights) total += weight;
  size_t count = 0;
  while (count < pool.size() && pool[count].logit != kLowest) {
    const bool is_equal = count && weights[count] == weights[count - 1];
    if (count && !is_equal && (kept >= sampling.top_p * total || weights[count] < sampling.min_p * weights[0])) break;
    kept += weights[count++];
  }
  pool.resize(count);
  std::sort(pool.begin(), pool.end(), [](const Candidate& a, const Candidate& b) { return a.token_id < b.token_id; });
  weights = weights_of(pool, maximum, scale);
  double left = uniform * kept;
  for (size_t i = 0; i + 1 < count; ++i) {
    left -= weights[i];
    if (left < 0.0) return pool[i].token_id;
  }
  return pool[count - 1].token_id;
}

int32_t RowSampler::draw(const SequenceSampling& sampling, uint64_t position) const {
  const double uniform = uniform_draw(sampling.seed, sampling.choice_index, position);
  const float largest = maximum(), scale = 1.0f / sampling.temperature;
  if (sampling.top_k > 0 && sampling.top_k < vocabulary_) return draw_from_likeliest(sampling, uniform, largest, scale);
  if (sampling.top_p < 1.0f || sampling.min_p > 0.0f) {
    Nucleus nucleus(kernels_, logits_, shards_, vocabulary_, largest, scale);
    return nucleus.draw(uniform, sampling.top_p, sampling.min_p);
  }
  return draw_from_all(uniform, largest, scale);
}

SampleOutcome RowSampler::sample(const SampleRequest& request) {
  const SequenceSampling& sampling = *request.sampling;
  SampleOutcome outcome;
  for (int64_t s = 0; s < num_shards(); ++s)
    if (shards_[s].not_finite != 0.0f) {  // true of not-a-number
      outcome.error = "the model's logits are not finite numbers";
      return outcome;
    }
  const float raw_log_sum = sampling.num_logprobs >= 0 ? log_sum() : 0.0f;
  note_logprobs(sampling.num_logprobs, raw_log_sum, outcome);
  if (!request.token_bitmask.empty()) apply_bitmask(request.token_bitmask);
  apply_penalties(sampling);
  apply_biases(request);
  if (!changes_are_numbers()) {
    outcome.error = "the penalties and logit_bias of this request leave logits that are not finite numbers";
    return outcome;
  }
  summarize_changed();
  if (maximum() == kLowest) {
    outcome.error = "the grammar, logit_bias and min_tokens of this request leave no token to choose";
    return outcome;
  }
  outcome.token_id = sampling.temperature >= kColdest ? draw(sampling, request.position) : greedy();
  if (sampling.num_logprobs >= 0) outcome.logprob = original(outcome.token_id) - raw_log_sum;
  return outcome;
}

}  // namespace antiphon
