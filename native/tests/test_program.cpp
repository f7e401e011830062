// A small recorded program fed with plans, sound and unsound: each is refused or computed, the same on every
// instruction set and number of threads.
#include <stdexcept>

#include "dispatch.h"
#include "inputs.h"
#include "program.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

constexpr int64_t kWidth = 64, kVocabulary = 70, kNumBlocks = 4;

ProgramShape shape_of(KvType kv) {
  ProgramShape shape;
  shape.max_tokens = 50;
  shape.max_sequences = 4;
  shape.vocabulary = kVocabulary;
  shape.num_layers = 1;
  shape.num_heads = 2;
  shape.num_kv_heads = 1;
  shape.head_dim = 32;
  shape.context_length = 100;
  shape.num_blocks = kNumBlocks;
  shape.kv_type = kv;
  for (int i = 0; i < 16; ++i) shape.rope_frequencies.push_back(1.0 / (1 + i));
  return shape;
}

// The weights are the same for every Model: made from one seed.
class Model {
 public:
  Model(const Kernels& kernels, int threads, KvType kv)
      : pool_(std::make_shared<ThreadPool>(threads)), program_(shape_of(kv), kernels, pool_, Progress(&progress_)) {
    const int x = program_.float_buffer(kWidth, false), normed = program_.quantized_buffer(kWidth, false, false);
    const int qkv = program_.float_buffer(4 * 32, false), attended = program_.quantized_buffer(kWidth, false, false);
    const int last = program_.float_buffer(kWidth, true), wide = program_.quantized_buffer(kWidth, true, false);
    const int turned = program_.float_buffer(kWidth, false);
    const std::vector<float> ones(kWidth, 1.0f);
    std::vector<int32_t> backwards(kWidth);
    for (int32_t i = 0; i < kWidth; ++i) backwards[static_cast<size_t>(i)] = kWidth - 1 - i;
    program_.embed(stored("F16", kVocabulary, kWidth), x);
    program_.reorder(x, backwards, turned);
    program_.rms_norm(turned, ones, 1e-6f, normed);
    program_.linear(normed, packed("Q8_0", 128, kWidth), random_.reals(128, 1.0f), qkv, false, 0);
    const std::vector<float> half(32, 0.5f), two(32, 2.0f);
    program_.attention(qkv, 0, attended, {half, two, 1e-6f}, {});
    program_.linear(attended, packed("Q4_1", kWidth, kWidth), {}, x, true, 0);
    program_.rms_norm(x, ones, 1e-6f, normed);
    const int activated = program_.quantized_buffer(96, false, false);
    program_.linear_silu_mul(normed, packed_pair("Q4_0", 96, kWidth), activated);
    program_.linear(activated, packed("Q4_0", kWidth, 96), {}, x, true, 0);
    program_.select_rows(x, last);
    program_.rms_norm(last, ones, 1e-6f, wide);
    program_.logits(wide, packed("Q4_0", kVocabulary, kWidth));
  }

  // The tokens drawn; empty when the plan is refused.
  std::vector<int32_t> run(const std::vector<SequenceInput>& plan) {
    std::vector<int32_t> tokens;
    try {
      for (const SampleOutcome& outcome : program_.run(plan)) tokens.push_back(outcome.token_id);
    } catch (const std::invalid_argument&) {
      tokens.clear();
    }
    return tokens;
  }
  std::vector<float> logits() const { return {program_.last_logits().begin(), program_.last_logits().end()}; }

 private:
  StoredMatrix stored(const char* type, int64_t rows, int64_t columns) {
    bytes_.push_back(weights(random_, type, rows, columns));
    return stored_matrix(bytes_.back().data(), bytes_.back().size(), storage_type(type), rows, columns);
  }
  std::shared_ptr<const PackedMatrix> packed(const char* type, int64_t rows, int64_t columns) {
    return std::make_shared<PackedMatrix>(std::vector{stored(type, rows, columns)}, false, *pool_);
  }

  std::shared_ptr<const PackedMatrix> packed_pair(const char* type, int64_t rows, int64_t columns) {
    const StoredMatrix gate = stored(type, rows, columns);
    return std::make_shared<PackedMatrix>(std::vector{gate, stored(type, rows, columns)}, true, *pool_);
  }

  Random random_{7};
  std::vector<std::vector<uint8_t>> bytes_;
  std::shared_ptr<ThreadPool> pool_;
  uint64_t progress_ = 0;
  Program program_;
};

// Mostly sound; now and then a token, a block, a position or a length that is not. Sequences write blocks of their own.
SequenceInput random_sequence(Random& random, int32_t index) {
  SequenceInput input;
  const bool wild = random.next() % 16 == 0;
  for (int64_t i = random.between(wild ? 0 : 1, wild ? 60 : 12); i > 0; --i)
    input.token_ids.push_back(static_cast<int32_t>(random.between(0, kVocabulary - 1)));
  input.first_position = random.between(0, 20);
  input.block_table = {index};
  const bool sampled = random.next() % 4 != 0;
  const auto sampling = std::make_shared<SequenceSampling>();
  sampling->seed = random.next();
  const int64_t most = wild ? 20 : std::ssize(input.token_ids);
  for (int64_t i = sampled ? random.between(1, std::max<int64_t>(most, 1)) : 0; i > 0; --i)
    input.samples.push_back(SampleRequest{sampling, static_cast<uint64_t>(i), {}, {}, {}, {}});
  if (!wild) return input;
  if (random.next() % 2) input.first_position = static_cast<int64_t>(random.next());
  if (random.next() % 2) input.block_table = {static_cast<int32_t>(random.next())};
  if (random.next() % 2) input.token_ids.push_back(static_cast<int32_t>(random.next()));
  return input;
}

}  // namespace

void test_program() {
  for (const KvType kv : {KvType::kInt8, KvType::kHalf}) {
    std::vector<std::unique_ptr<Model>> models;
    models.push_back(std::make_unique<Model>(kScalarKernels, 1, kv));
    for (const Kernels* kernels : kernels_to_test()) models.push_back(std::make_unique<Model>(*kernels, 3, kv));
    for (const int threads : {2, 8, 64}) models.push_back(std::make_unique<Model>(choose_kernels("auto"), threads, kv));
    Random random(5);
    size_t drawn = 0;
    for (int step = 0; step < 100; ++step) {
      std::vector<SequenceInput> plan;
      for (int32_t i = 0; i < kNumBlocks; ++i)
        if (random.next() % 2) plan.push_back(random_sequence(random, i));
      const std::vector<int32_t> expected = models[0]->run(plan);
      drawn += expected.size();
      for (const auto& model : models) {
        if (model == models[0]) continue;
        CHECK(model->run(plan) == expected);
        CHECK(same_bits(model->logits(), models[0]->logits()));
      }
    }
    CHECK(drawn > 100);
  }
}

}  // namespace antiphon::tests
