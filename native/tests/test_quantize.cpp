// Weights of any size into 4 and 8 bits: the same bits from every instruction set and any number of threads, never
// worse than plain rounding, and a refusal where a number cannot be stored.
#include <cmath>
#include <stdexcept>
#include <string>

#include "inputs.h"
#include "quantize.h"
#include "tests.h"

namespace antiphon::tests {
namespace {

constexpr StorageType kTargets[] = {StorageType::kQ4_0, StorageType::kQ4_1, StorageType::kQ8_0};

// Mostly one magnitude a matrix; some groups hold one value, one outlier, or nothing but what is next to zero.
std::vector<float> matrix_of(Random& random, int64_t rows, int64_t columns) {
  constexpr float kSizes[] = {0.0f, 1e-42f, 1e-20f, 1e-7f, 1e-3f, 0.05f, 3.0f, 3e3f};
  const float size = kSizes[random.next() % std::size(kSizes)];
  std::vector<float> values = random.reals(static_cast<size_t>(rows * columns), size);
  for (size_t group = 0; group < values.size(); group += 32) {
    const uint64_t kind = random.next() % 8;
    if (kind == 0) std::fill_n(values.begin() + static_cast<int64_t>(group), 32, values[group]);
    if (kind == 1) values[group + random.next() % 32] *= 8.0f;
  }
  return values;
}

std::vector<float> importance_of(Random& random, int64_t columns) {
  if (random.next() % 2) return {};
  std::vector<float> importance(static_cast<size_t>(columns));
  for (float& weight : importance) weight = random.next() % 8 ? std::fabs(random.real(1e6f)) : 0.0f;
  return importance;
}

// The error of Q4_1's plain rounding of a group, as the format stores it.
double plain_error(const float* values) {
  float low = values[0], high = values[0];
  for (int i = 1; i < 32; ++i) {
    low = std::fmin(low, values[i]);
    high = std::fmax(high, values[i]);
  }
  const float scale = half_to_float(float_to_half((high - low) / 15.0f)), least = half_to_float(float_to_half(low));
  double sum = 0.0;
  for (int i = 0; i < 32; ++i) {
    const float code = scale > 0.0f ? std::nearbyintf((values[i] - least) / scale) : 0.0f;
    const double error = static_cast<double>(values[i]) -
                         (static_cast<double>(scale) * static_cast<double>(std::fmin(std::fmax(code, 0.0f), 15.0f)) +
                          static_cast<double>(least));
    sum += error * error;
  }
  return sum;
}

void check_matrix(Random& random) {
  const int64_t rows = random.between(1, 40), columns = 32 * random.between(1, 4);
  const std::vector<float> values = matrix_of(random, rows, columns);
  const std::vector<float> importance = importance_of(random, columns);
  const StoredMatrix stored = stored_matrix(reinterpret_cast<const uint8_t*>(values.data()), values.size() * 4,
                                            StorageType::kF32, rows, columns);
  ThreadPool one(1), two(2);
  for (const StorageType type : kTargets) {
    const QuantizedMatrix expected = quantize_matrix(stored, type, importance, kScalarKernels, one);
    CHECK(std::isfinite(expected.error) && expected.error >= 0.0);
    for (const Kernels* kernels : kernels_to_test()) {
      const QuantizedMatrix found = quantize_matrix(stored, type, importance, *kernels, two);
      CHECK(std::memcmp(found.blocks.as<uint8_t>(), expected.blocks.as<uint8_t>(), expected.blocks.bytes()) == 0);
      CHECK(found.error == expected.error && found.norm == expected.norm);
    }
    double plain = 0.0;
    for (size_t group = 0; group < values.size(); group += 32) plain += plain_error(values.data() + group);
    if (type == StorageType::kQ4_1 && importance.empty()) CHECK(expected.error <= plain * (1.0 + 1e-4) + 1e-30);
  }
}

bool refuses(const std::vector<float>& values, const std::vector<float>& importance, StorageType type) {
  ThreadPool pool(2);
  const StoredMatrix stored = stored_matrix(reinterpret_cast<const uint8_t*>(values.data()), values.size() * 4,
                                            StorageType::kF32, 1, static_cast<int64_t>(values.size()));
  try {
    quantize_matrix(stored, type, importance, kScalarKernels, pool);
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

}  // namespace

void test_quantize() {
  Random random(23);
  for (int i = 0; i < 150; ++i) check_matrix(random);
  const std::vector<float> sound(64, 0.5f);
  for (const StorageType type : kTargets) {
    for (const float wild : {INFINITY, -INFINITY, NAN, 3e38f, 2e7f}) {
      std::vector<float> values = sound;
      values[40] = wild;
      CHECK(refuses(values, {}, type));
    }
    CHECK(refuses(sound, {1.0f}, type) && refuses(sound, std::vector<float>(64, -1.0f), type));
    CHECK(refuses(sound, std::vector<float>(64, NAN), type) && !refuses(sound, std::vector<float>(64, 0.0f), type));
  }
  CHECK(refuses(sound, {}, StorageType::kF16) && refuses(sound, {}, StorageType::kQ5_0));
}

}  // namespace antiphon::tests
