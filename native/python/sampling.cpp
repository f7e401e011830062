// How tokens are drawn.
#include "bindings.h"

#include <cstring>
#include <map>
#include <stdexcept>

#include "sampler.h"

namespace antiphon {
namespace {

void put_biases(const std::map<int32_t, float>& logit_bias, std::vector<int32_t>& token_ids,
                std::vector<float>& values) {
  for (const auto& [token_id, bias] : logit_bias) {
    token_ids.push_back(token_id);
    values.push_back(bias);
  }
}

// Draws a token from each row, as a program does from its own logits.
std::vector<SampleOutcome> sample_rows(const Device& device, FloatTable logits,
                                       const std::vector<SampleRequest>& requests) {
  const auto vocabulary = static_cast<int64_t>(logits.shape(1));
  if (logits.shape(0) < requests.size()) throw std::invalid_argument("there are fewer rows of logits than requests");
  for (const SampleRequest& request : requests)
    if (request.sampling == nullptr) throw std::invalid_argument("a token is to be drawn, but not how");
  std::vector<SampleOutcome> outcomes(requests.size());
  nb::gil_scoped_release release;
  device.pool->run(std::ssize(requests), [&](int64_t row, int) {
    float* values = logits.data() + row * vocabulary;
    std::vector<ShardSummary> shards;
    for (int64_t begin = 0; begin < vocabulary; begin += kShard)
      shards.push_back(device.kernels.summarize(values + begin, std::min(kShard, vocabulary - begin)));
    RowSampler sampler(device.kernels, values, shards.data(), vocabulary);
    outcomes[to_size(row)] = sampler.sample(requests[to_size(row)]);
    device.progress().note();
  });
  return outcomes;
}

}  // namespace

void bind_sampling(nb::module_& m) {
  nb::class_<SequenceSampling>(m, "SequenceSampling",
                               "How the tokens of one sequence are drawn; the fields are those of "
                               "request.SamplingParams. Registered once, then told of each token that penalties count.")
      .def(
          "__init__",
          [](SequenceSampling* self, float temperature, int32_t top_k, float top_p, float min_p,
             float repetition_penalty, float presence_penalty, float frequency_penalty, uint64_t seed,
             uint32_t choice_index, int32_t num_logprobs, const std::map<int32_t, float>& logit_bias) {
            new (self) SequenceSampling{temperature,
                                        top_k,
                                        top_p,
                                        min_p,
                                        repetition_penalty,
                                        presence_penalty,
                                        frequency_penalty,
                                        seed,
                                        choice_index,
                                        num_logprobs,
                                        {},
                                        {},
                                        {}};
            put_biases(logit_bias, self->bias_token_ids, self->bias_values);
          },
          nb::kw_only(), "temperature"_a = 1.0f, "top_k"_a = 0, "top_p"_a = 1.0f, "min_p"_a = 0.0f,
          "repetition_penalty"_a = 1.0f, "presence_penalty"_a = 0.0f, "frequency_penalty"_a = 0.0f, "seed"_a = 0,
          "choice_index"_a = 0, "num_logprobs"_a = -1, "logit_bias"_a = std::map<int32_t, float>{})
      .def(
          "count",
          [](SequenceSampling& self, const std::vector<int32_t>& token_ids, bool generated) {
            self.known_tokens.add(token_ids, generated);
          },
          "token_ids"_a, "generated"_a, "Count tokens that the sequence knows from now on.")
      .def_ro("top_k", &SequenceSampling::top_k)
      .def_ro("seed", &SequenceSampling::seed)
      .def_ro("repetition_penalty", &SequenceSampling::repetition_penalty)
      .def_prop_ro(
          "token_counts",
          [](const SequenceSampling& self) {
            std::map<int32_t, int32_t> counts;
            for (const TokenCounts::Count& known : self.known_tokens.counts()) counts[known.token_id] = known.generated;
            return counts;
          },
          "The known tokens, and how often each was generated.");
  nb::class_<SampleRequest>(m, "SampleRequest", "How to draw one token of a sequence.")
      .def(
          "__init__",
          [](SampleRequest* self, std::shared_ptr<SequenceSampling> sampling, uint64_t position,
             std::vector<int32_t> masked_token_ids, const std::map<int32_t, float>& logit_bias,
             const nb::bytes& token_bitmask) {
            if (token_bitmask.size() % sizeof(uint32_t)) throw std::invalid_argument("a token bitmask has whole words");
            new (self) SampleRequest{std::move(sampling), position, std::move(masked_token_ids), {}, {}, {}};
            put_biases(logit_bias, self->bias_token_ids, self->bias_values);
            self->token_bitmask.resize(token_bitmask.size() / sizeof(uint32_t));
            std::memcpy(self->token_bitmask.data(), token_bitmask.data(), token_bitmask.size());
          },
          "sampling"_a, "position"_a, "masked_token_ids"_a = std::vector<int32_t>{},
          "logit_bias"_a = std::map<int32_t, float>{}, "token_bitmask"_a = nb::bytes("", 0),
          "`logit_bias` replaces that of the sequence for the same tokens. `token_bitmask`: bytes with a bit for each "
          "token, the lowest first: whether it may be drawn; empty: every token may.");
  nb::class_<SampleOutcome>(m, "SampleOutcome", "A drawn token, or token_id -1 and why none could be drawn.")
      .def_ro("token_id", &SampleOutcome::token_id)
      .def_prop_ro(
          "error",
          [](const SampleOutcome& self) { return self.error ? std::optional<std::string>(self.error) : std::nullopt; })
      .def_ro("logprob", &SampleOutcome::logprob)
      .def_ro("top_token_ids", &SampleOutcome::top_token_ids)
      .def_ro("top_logprobs", &SampleOutcome::top_logprobs);
  m.def("uniform_draw", &uniform_draw, "seed"_a, "choice_index"_a, "position"_a,
        "The random number of one draw, in [0, 1).");
  m.def("sample_rows", &sample_rows, "device"_a, "logits"_a, "requests"_a,
        "Draw a token from each row of logits, float32 [at least len(requests), vocabulary], which penalties and masks "
        "change. Releases the lock.");
}

}  // namespace antiphon
