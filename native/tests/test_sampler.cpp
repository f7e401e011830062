// The sampler on rows of every kind: a token that may be drawn, the same on every instruction set, whatever is asked.
#include <cmath>
#include <limits>

#include "dispatch.h"
#include "check.h"
#include "sampler.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

std::vector<float> random_row(Random& random, int64_t vocabulary) {
  const float sizes[] = {0.0f, 1e-30f, 1.0f, 10.0f, 1e4f, 3e38f};
  std::vector<float> row = random.reals(static_cast<size_t>(vocabulary), sizes[random.next() % 6]);
  for (int64_t i = random.between(0, 3); i > 0; --i)
    row[static_cast<size_t>(random.between(0, vocabulary - 1))] = random.real(100.0f);
  return row;
}

SampleRequest random_request(Random& random, int64_t vocabulary) {
  const auto token = [&] { return static_cast<int32_t>(random.between(-1, vocabulary)); };  // one too low, one too high
  const float temperatures[] = {0.0f, 1e-6f, 1e-4f, 0.6f, 1.0f, 100.0f};
  const float shares[] = {0.0f, 1e-9f, 0.3f, 0.95f, 1.0f};
  SampleRequest request;
  auto sampling = std::make_shared<SequenceSampling>();
  sampling->temperature = temperatures[random.next() % 6];
  sampling->top_k = static_cast<int32_t>(random.next() % 3 ? 0 : random.between(0, 2 * vocabulary));
  sampling->top_p = shares[random.next() % 5];
  sampling->min_p = shares[random.next() % 5];
  sampling->seed = random.next();
  request.position = random.next();
  sampling->num_logprobs = static_cast<int32_t>(random.between(-1, 20));
  for (int64_t i = random.between(0, 4); i > 0; --i) {
    sampling->bias_token_ids.push_back(token());
    sampling->bias_values.push_back(random.real(100.0f));
    request.bias_token_ids.push_back(random.next() % 2 ? token() : sampling->bias_token_ids.back());
    request.bias_values.push_back(random.real(100.0f));
    request.masked_token_ids.push_back(token());
    sampling->known_tokens.add({token(), token(), token()}, random.next() % 2 != 0);
  }
  if (random.next() % 3 == 0) {  // perhaps shorter than the vocabulary, perhaps with words of no bit or all of them
    const uint32_t words[] = {0, ~uint32_t{0}, 1u << random.next() % 32, static_cast<uint32_t>(random.next())};
    for (int64_t i = random.between(0, vocabulary / 32 + 1); i >= 0; --i)
      request.token_bitmask.push_back(words[random.next() % 4]);
  }
  sampling->repetition_penalty = random.next() % 2 ? 1.0f : 1.0f + std::fabs(random.real(1.0f));
  sampling->presence_penalty = random.real(2.0f);
  sampling->frequency_penalty = random.real(2.0f);
  request.sampling = std::move(sampling);
  return request;
}

SampleOutcome sample(const Kernels& kernels, std::vector<float> row, const SampleRequest& request) {
  const auto vocabulary = static_cast<int64_t>(row.size());
  std::vector<ShardSummary> shards;
  for (int64_t begin = 0; begin < vocabulary; begin += kShard)
    shards.push_back(kernels.summarize(row.data() + begin, std::min(kShard, vocabulary - begin)));
  return RowSampler(kernels, row.data(), shards.data(), vocabulary).sample(request);
}

bool is_allowed(const SampleRequest& request, int32_t token_id) {
  if (request.token_bitmask.empty()) return true;
  const auto word = static_cast<size_t>(token_id / 32);
  return word < request.token_bitmask.size() && (request.token_bitmask[word] >> token_id % 32 & 1);
}

void check_same(const SampleOutcome& a, const SampleOutcome& b) {
  CHECK(a.token_id == b.token_id && !a.error == !b.error);
  CHECK(a.top_token_ids == b.top_token_ids && same_bits(a.top_logprobs, b.top_logprobs));
  CHECK(std::memcmp(&a.logprob, &b.logprob, sizeof a.logprob) == 0);
}

}  // namespace

void test_sampler() {
  Random random(3);
  for (int round = 0; round < 1500; ++round) {
    const int64_t vocabulary = random.between(1, round % 10 ? 100 : 3000);
    std::vector<float> row = random_row(random, vocabulary);
    const SampleRequest request = random_request(random, vocabulary);
    const SampleOutcome expected = sample(kScalarKernels, row, request);
    CHECK(expected.error || (expected.token_id >= 0 && expected.token_id < vocabulary));
    for (const int32_t masked : request.masked_token_ids) CHECK(expected.token_id != masked || expected.error);
    CHECK(expected.error || is_allowed(request, expected.token_id));
    for (const Kernels* kernels : kernels_to_test()) check_same(sample(*kernels, row, request), expected);
    const float bad[] = {std::nanf(""), HUGE_VALF, -HUGE_VALF};
    row[static_cast<size_t>(random.between(0, vocabulary - 1))] = bad[round % 3];
    for (const Kernels* kernels : kernels_to_test()) CHECK(sample(*kernels, row, request).error);
  }
}

}  // namespace antiphon::tests
