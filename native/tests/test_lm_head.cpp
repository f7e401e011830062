// The head: every row gets the same logits beside any others, on every instruction set and number of threads. Both
// planes of the activations are in all of them or, unless the head is wide, in the likeliest panels alone.
#include "lm_head.h"

#include <algorithm>
#include <numeric>

#include "inputs.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

constexpr int64_t kColumns = 96, kRows = 70, kVocabulary = 150 * kPanel + 5;
constexpr size_t kRow = kVocabulary;

std::shared_ptr<const PackedMatrix> random_matrix(Random& random, ThreadPool& pool) {
  const auto data = weights(random, "Q8_0", kVocabulary, kColumns);
  const StoredMatrix stored = stored_matrix(data.data(), data.size(), storage_type("Q8_0"), kVocabulary, kColumns);
  return std::make_shared<PackedMatrix>(std::vector{stored}, false, pool);
}

// `count` tokens from `first` on.
Activations tokens_of(const Activations& all, int64_t first, int64_t count) {
  Activations some(kColumns, count, all.planes);
  for (int64_t group = 0; group < kColumns / kGroup; ++group)
    for (int64_t i = 0; i < count; ++i) {
      const auto from = static_cast<size_t>(group * all.capacity + first + i);
      const auto to = static_cast<size_t>(group * count + i);
      for (size_t k = 0; k < 32; ++k) some.set_code(to, k, all.code(from, k));
      some.scales[to] = all.scales[from];
    }
  return some;
}

std::vector<float> logits_of(const Kernels& kernels, std::shared_ptr<const PackedMatrix> matrix, bool wide,
                             Activations in, int num_threads) {
  ThreadPool pool(num_threads);
  const int64_t rows = in.capacity;
  const LogitRows out(rows, kVocabulary);
  LmHead(std::move(matrix), wide, rows, kernels, pool, Progress()).run({in.view(), rows}, out);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t shard = 0; shard < out.num_shards(); ++shard) {
      const float* begin = out.row(row) + shard * kShard;
      const int64_t size = std::min(kShard, kVocabulary - shard * kShard);
      CHECK(out.shards(row)[shard].maximum == *std::max_element(begin, begin + size));
    }
  return {out.row(0), out.row(rows)};
}

std::vector<float> product(const PackedMatrix& matrix, const QuantizedRows& in, int64_t row) {
  std::vector<float> out(static_cast<size_t>(matrix.num_panels() * kPanel));
  for (int64_t panel = 0; panel < matrix.num_panels(); ++panel)
    kScalarKernels.linear_panel(matrix.view(), panel, in, row, 1, out.data() + panel * kPanel);
  out.resize(kRow);
  return out;
}

void check_row(const PackedMatrix& matrix, bool wide, Activations& in, int64_t row, const float* logits) {
  const std::vector<float> first = product(matrix, in.view(), row);
  const std::vector<float> second = wide ? first : product(matrix, in.view().low(), row);
  const auto maximum = [&](int64_t panel) {
    const auto begin = first.begin() + panel * kPanel;
    return *std::max_element(begin, begin + std::min(kPanel, kVocabulary - panel * kPanel));
  };
  std::vector<float> maxima;
  for (int64_t panel = 0; panel < matrix.num_panels(); ++panel) maxima.push_back(maximum(panel));
  std::vector<float> sorted = maxima;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  for (size_t token = 0; token < kRow; ++token) {
    const bool is_corrected = !wide && maxima[token / kPanel] >= sorted[kCorrectedPanels - 1];
    CHECK(logits[token] == (is_corrected ? first[token] + second[token] / 256.0f : first[token]));
  }
}

void check_head(const std::shared_ptr<const PackedMatrix>& matrix, bool wide, const Activations& all) {
  Activations scaled = tokens_of(all, 0, kRows);
  const std::vector<float> expected = logits_of(kScalarKernels, matrix, wide, scaled, 1);
  for (int64_t row = 0; row < kRows; ++row) check_row(*matrix, wide, scaled, row, expected.data() + row * kVocabulary);
  for (const Kernels* kernels : kernels_to_test()) {
    CHECK(same_bits(logits_of(*kernels, matrix, wide, scaled, 3), expected));
    for (const int64_t row : {int64_t{0}, int64_t{33}, kRows - 1}) {
      const auto alone = logits_of(*kernels, matrix, wide, tokens_of(all, row, 1), 2);
      const auto begin = expected.begin() + row * kVocabulary;
      CHECK(same_bits(alone, std::vector<float>(begin, begin + kVocabulary)));
    }
  }
}

}  // namespace

void test_lm_head() {
  Random random(3);
  ThreadPool pool(2);
  const auto matrix = random_matrix(random, pool);
  for (const bool wide : {false, true}) {
    Activations all(kColumns, kRows, wide ? Planes::kTwo : Planes::kApart);
    all.fill(random);
    check_head(matrix, wide, all);
  }
}

}  // namespace antiphon::tests
